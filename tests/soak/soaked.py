"""A server in a process of its own whose malloc does not learn to keep more.

Lives here: both ends, as far as they differ from served.py. Does not live here: when memory is
looked at (life.py).

The C library of GNU raises, each time a larger piece is freed, how much free memory a thread keeps
for the next request: up to 1 MB for each worker here, and what of it is there is chance. That is
no leak, but one could hide behind it. So malloc is told to go on as it begins, with 128 KiB.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

from served import Program, Served

M_TRIM_THRESHOLD = -1
"""Of <malloc.h>."""
KEPT = 128 * 1024
"""Bytes that are free and that a thread keeps, at the most: the C library's own first value."""


class Soaked(Served):
    """A server in another process."""

    program = str(Path(__file__).resolve())


def keep_little() -> None:
    """Tell malloc. A C library that has no such order keeps nothing back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(M_TRIM_THRESHOLD, KEPT) != 1:
        raise RuntimeError("malloc refuses the order")


if __name__ == "__main__":
    keep_little()
    Program(json.loads(sys.argv[1])).run()
