"""Print what looking at queues takes, and what metrics cost: `python -m benchmarks.queues`.

README.md beside this file tells the method.
"""

from __future__ import annotations

import sys

from benchmarks import _command
from benchmarks.figures import queues

ABOUT = "Measure looks at accept queues, scrapes, and a server that is scraped each second."

if __name__ == "__main__":
    sys.exit(_command.run("benchmarks.queues", ABOUT, queues.FIGURES, c_peers=False))
