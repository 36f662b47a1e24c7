"""Whether the path pushes back when we do not read, or buffers without bound."""

from __future__ import annotations

from time import monotonic

from fastecho.check.pattern import Pattern
from fastecho.check.pressure import fill
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import SPOILED, NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "it pushes back when we do not read"
GROUP, QUICK, PHASE, NEEDS = "flow", True, "bulk", ()
PASSED = "Who reads slowly slows the sender down; memory on the way is bounded."
FAILED = (
    "Something on the way, or the server itself, buffers without bound: one peer that reads "
    "slowly takes its memory, and what was acknowledged may never arrive. But the kernels of four "
    "proxies in a row may hold as much as the quick profile sends."
)
QUICK_BYTES, FULL_BYTES = 128 << 20, 256 << 20
"""Kernels' buffers hold less: 20 to 30 MB at each proxy of a chain, both ways."""
QUICK_SECONDS, FULL_SECONDS = 4.0, 60.0
RECEIVE_BUFFER = 1 << 16


def run(path: Path) -> Finding:
    """Send without reading until nothing more is taken; then read, and compare every byte."""
    most = QUICK_BYTES if path.quick else FULL_BYTES
    until = monotonic() + (QUICK_SECONDS if path.quick else FULL_SECONDS)
    last = None if path.end is None else path.end - 0.2
    if last is not None:
        until = min(until, last)
    source = Pattern(path.seed, 80, most)
    with path.open(receive_buffer=RECEIVE_BUFFER) as stream:
        filled = fill(path, stream, source, until)
        source.size = filled.sent
        # Its first bytes are on their way already: only reading is left.
        talk = Talk(stream, Pattern(path.seed, 80, 0), want=source)
        converse(path, [talk], until=last)
    values = {"taken_bytes": filled.taken, "stalled_ms": round(filled.stalled_s * 1e3)}
    took = f"{filled.taken:,} bytes were taken while we did not read"
    found = talk.difference()
    if found is not None or (talk.ending and talk.ending != "time"):
        spoiled = "" if talk.difference() is None else SPOILED
        return failed(f"{took}; then {talk.story()}", spoiled, **values)
    if filled.taken >= most:
        return failed(f"{took}, all that were sent: nothing pushed back", **values)
    if filled.ran_out:
        raise NotTestable(f"in the time that was left {took}, and more would have been")
    if talk.ending == "time":
        raise NotTestable(
            f"{took}, then it pushed back; {talk.received:,} of {filled.sent:,} bytes had come "
            "back right when the time was over"
        )
    return passed(f"{took}, then it pushed back; all {filled.sent:,} sent came back", **values)
