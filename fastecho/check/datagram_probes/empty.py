"""Whether a datagram without a byte comes back."""

from __future__ import annotations

from fastecho.check.asking import ask, tries_for
from fastecho.check.train import trains
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "an empty datagram comes back"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "alone", ()
PASSED = "A datagram of 0 bytes is one like any other."
FAILED = (
    "Empty datagrams are not echoed: a server or relay takes 0 bytes for the end of a stream, or "
    "for nothing to send (asyncio before Python 3.13)."
)


def run(path: Path) -> Finding:
    """Send nothing, in a datagram."""
    trains(path)
    (asked,) = ask(path, [b""], tries=tries_for(path) or 3)
    if asked.is_exact:
        return passed("0 bytes came back")
    return failed(f"0 bytes: {asked.story()}", sent=asked.sent)
