"""Print how exact faults are, and what they cost: `python -m benchmarks.faults`.

README.md beside this file tells the method.
"""

from __future__ import annotations

import sys

from benchmarks import _command
from benchmarks.figures import faults

ABOUT = "Measure the timing of faults, and a server that could have faults beside C peers."

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.faults", ABOUT, faults.FIGURES, c_peers=True))
