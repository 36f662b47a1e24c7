"""Whether datagrams come back more than once."""

from __future__ import annotations

from fastecho.check.train import trains
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "nothing comes twice"
GROUP, ORDER, QUICK, PHASE, NEEDS = "path", 13, True, "alone", ()
PASSED = "Each datagram comes back once."
FAILED = (
    "Datagrams are doubled: a loop of bridges, a mirror port, two relays in parallel, a bond that "
    "sends over all its links, or a server that answers twice."
)


def run(path: Path) -> Finding:
    """Count what the trains brought back more than once."""
    found = trains(path)
    arrived = sum(one.arrived for one in found.both)
    again = sum(one.duplicates for one in found.both)
    values = {"datagrams": arrived, "duplicates": again}
    if not again:
        return passed(f"each of {arrived} datagrams came once", **values)
    what = "1 duplicate" if again == 1 else f"{again} duplicates"
    return failed(f"{what} came beside the answers to {arrived} datagrams", **values)
