"""Print what a restart does to those who connect meanwhile: `python -m benchmarks.restart`.

README.md beside this file tells the method.
"""

from __future__ import annotations

import sys

from benchmarks import _command
from benchmarks.figures import handovers, socket_units

ABOUT = "Replace a server in a storm of connections, and count those that were harmed."

MAKERS: dict[str, _command.FigureMaker] = {**handovers.FIGURES, **socket_units.FIGURES}

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.restart", ABOUT, MAKERS, c_peers=False, choice="--by"))
