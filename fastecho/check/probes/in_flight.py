"""Whether what is under way survives our FIN, both ways, when it is much."""

from __future__ import annotations

from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import SPOILED, NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "much data in flight at our FIN arrives"
GROUP, QUICK, PHASE, NEEDS = "close", True, "bulk", ()
PASSED = "A close waits for the bytes before it, in both directions."
FAILED = (
    "Data is cut off when one side has finished: a proxy or server that closes with unread or "
    "unsent data (which resets), or a limit on how long a half-closed connection may go on."
)
SLOW_ROUND_TRIP = 0.01
"""Seconds: from here on little fits into the quick profile."""


def run(path: Path) -> Finding:
    """Send all without reading, as far as that goes; then FIN, and read to the end."""
    size = 8 << 20
    if path.quick:
        size = 1 << 20 if path.rtt < SLOW_ROUND_TRIP else 1 << 17
    until = None if path.end is None else path.end - 0.2
    with path.open() as stream:
        talk = Talk(stream, Pattern(path.seed, 60, size), fin=True, eof=True, lazy=True)
        converse(path, [talk], until=until)
    if talk.ending == "time" and talk.difference() is None:
        raise NotTestable(
            f"in the time that was left {talk.received:,} of {size:,} bytes came back"
        )
    if not talk.is_whole:
        return failed(
            f"{size:,} bytes and our FIN: {talk.story()}",
            "" if talk.difference() is None else SPOILED,
            size_bytes=size,
            received_bytes=talk.received,
            ending=talk.ending,
        )
    return passed(f"{size:,} bytes and FIN: all came back, then FIN", size_bytes=size)
