"""Print what a datagram costs, and what a flood does: `python -m benchmarks.udp`.

README.md beside this file tells the method.
"""

from __future__ import annotations

import sys

from benchmarks import _command
from benchmarks.figures import udp

ABOUT = "Measure the UDP echo beside its peers, and a flood beside a guest."

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.udp", ABOUT, udp.FIGURES, c_peers=False))
