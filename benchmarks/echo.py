"""Print the figures of the echo server: `python -m benchmarks.echo`.

Every figure is a ratio of two programs that took short turns in this run; README.md beside this
file tells the method. Which figures there are is in benchmarks/figures, one kind a file.
"""

from __future__ import annotations

import sys

from benchmarks import _command
from benchmarks.figures import (
    buffers,
    bulk,
    busy,
    generator,
    histograms,
    idle,
    lines,
    ping,
    reconnect,
    slow_peers,
    small,
    spin,
    workers,
)

ABOUT = "Measure fastecho beside its peers and print every figure as a ratio, with its noise."

MAKERS: dict[str, _command.FigureMaker] = {
    **small.FIGURES,
    **lines.FIGURES,
    **busy.FIGURES,
    **bulk.FIGURES,
    **spin.FIGURES,
    **idle.FIGURES,
    **reconnect.FIGURES,
    **buffers.FIGURES,
    **slow_peers.FIGURES,
    **workers.FIGURES,
    **generator.FIGURES,
    **ping.FIGURES,
    **histograms.FIGURES,
}

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.echo", ABOUT, MAKERS, c_peers=True))
