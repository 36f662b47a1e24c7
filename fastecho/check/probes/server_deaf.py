"""Whether a server that does not read pushes back, all the way to us."""

from __future__ import annotations

from time import monotonic

from fastecho.check.orders import order
from fastecho.check.pattern import Pattern
from fastecho.check.pressure import fill, stall_seconds
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import SPOILED, NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "a server that does not read pushes back"
GROUP, QUICK, PHASE, NEEDS = "server", True, "bulk", ("probes",)
PASSED = "A server that has enough to do slows its clients down; memory on the way is bounded."
FAILED = (
    "Something on the way buffers without bound: a client believes delivered what the server has "
    "not read, and the memory of what buffers is at its mercy."
)
QUICK_BYTES, FULL_BYTES = 64 << 20, 128 << 20
FILL_SECONDS = 1.0
"""For filling, until the buffers of an honest path are full."""


def run(path: Path) -> Finding:
    """Let the server stop reading, send until nothing more is taken, then get it all back."""
    most = QUICK_BYTES if path.quick else FULL_BYTES
    deaf = FILL_SECONDS + stall_seconds(path) * 1.2 + (0 if path.quick else 2)
    if deaf > path.left() - 0.3:
        raise NotTestable("too little of the time is left for it")
    source = Pattern(path.seed, 155, most)
    with order(path, f"deaf {deaf * 1e3:.0f}") as stream:
        until = monotonic() + deaf * 0.98
        filled = fill(path, stream, source, until)
        source.size = filled.sent
        talk = Talk(stream, Pattern(path.seed, 155, 0), want=source)
        end = None if path.end is None else path.end - 0.2
        converse(path, [talk], deaf + path.patience, until=end)
    values = {"taken_bytes": filled.taken, "deaf_ms": round(deaf * 1e3)}
    took = f"{filled.taken:,} bytes were taken while the server did not read"
    if talk.difference() is not None or (talk.ending and talk.ending != "time"):
        spoiled = "" if talk.difference() is None else SPOILED
        return failed(f"{took}; then {talk.story()}", spoiled, **values)
    if filled.taken >= most:
        return failed(f"{took}, all that were sent: nothing pushed back", **values)
    if filled.ran_out or talk.ending == "time":
        raise NotTestable(f"in {deaf:.1f} s {took}, which does not tell: the path is too slow")
    return passed(f"{took}, then it pushed back; all {filled.sent:,} sent came back", **values)
