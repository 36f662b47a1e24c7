"""Whether datagrams come back in the order in which they were sent."""

from __future__ import annotations

from fastecho.check.train import trains
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "order"
GROUP, ORDER, QUICK, PHASE, NEEDS = "path", 14, True, "alone", ()
PASSED = "What is sent first comes back first, at this rate."
FAILED = (
    "Datagrams overtake each other (RFC 4737): several links or queues for one flow, or a relay "
    "with several threads. UDP allows it: who uses it has to expect it."
)


def run(path: Path) -> Finding:
    """Count what came after a later one."""
    found = trains(path)
    arrived = sum(one.arrived for one in found.both)
    behind = [number for one in found.both for number in one.reordered]
    values = {
        "datagrams": arrived,
        "reordered": len(behind),
        "reordered_percent": round(100 * len(behind) / max(arrived, 1), 3),
    }
    if not behind:
        return passed(f"{arrived} datagrams came back in order", **values)
    words = f"{len(behind)} of {arrived} datagrams came after later ones"
    return failed(f"{words}, the first is number {behind[0]}", **values)
