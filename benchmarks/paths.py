"""Print what a PROXY header before each connection costs: `python -m benchmarks.paths`.

README.md beside this file tells the method.
"""

from __future__ import annotations

import sys

from benchmarks import _command
from benchmarks.figures import paths

ABOUT = "Measure connections that begin by a PROXY header beside those that do not."

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.paths", ABOUT, paths.FIGURES, c_peers=False))
