"""How long a small message takes."""

from __future__ import annotations

from fastecho.check.pings import ping, spread
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "time of a small message"
GROUP, QUICK, PHASE, NEEDS = "flow", True, "alone", ()
PASSED = "For information: no time is wrong by itself."
FAILED = "A small message did not come back as it was sent."


def run(path: Path) -> Finding:
    """Send one after the other."""
    with path.open() as stream:
        times = []
        for number in range(10 if path.quick else 100):
            took = ping(path, stream, number)
            if isinstance(took, str):
                return failed(f"message {number + 1}: {took}", messages=number)
            times.append(took)
    words, values = spread(times)
    return passed(f"{len(times)} messages of 64 bytes, {words}", messages=len(times), **values)
