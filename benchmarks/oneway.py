"""Print what a GiB costs to discard, and from chargen: `python -m benchmarks.oneway`.

README.md beside this file tells the method.
"""

from __future__ import annotations

import sys

from benchmarks import _command
from benchmarks.figures import oneway

ABOUT = (
    "Measure discard and chargen beside plain C: bytes a second, and the server's CPU for a GiB."
)

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.oneway", ABOUT, oneway.FIGURES, c_peers=False))
