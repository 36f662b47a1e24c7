"""Print what callbacks cost: `python -m benchmarks.callbacks`.

Every figure is a ratio of two programs that took short turns in this run; README.md beside this
file tells the method.
"""

from __future__ import annotations

import sys

from benchmarks import _command
from benchmarks.figures import callbacks

ABOUT = "Measure message and accept callbacks beside a uvloop Protocol and the core alone."

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.callbacks", ABOUT, callbacks.FIGURES, c_peers=False))
