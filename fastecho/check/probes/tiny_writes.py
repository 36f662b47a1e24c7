"""Whether single bytes come back, each sent alone."""

from __future__ import annotations

from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "bytes sent one by one come back"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "beside", ()
PASSED = "Small segments are not lost, joined wrongly or held back."
FAILED = (
    "Small writes are handled worse than large ones: a box that waits for more, drops what it "
    "takes for an attack, or loses its place."
)


def run(path: Path) -> Finding:
    """Give single bytes to the kernel, which sends each at once (TCP_NODELAY)."""
    size = 300 if path.quick else 3000
    with path.open() as stream:
        talk = Talk(stream, Pattern(path.seed, 40, size), chunk=1)
        converse(path, [talk])
    if not talk.is_whole:
        return failed(f"{size:,} bytes, one by one: {talk.story()}", sent_bytes=talk.sent)
    return passed(f"{size:,} bytes, one by one, came back", sent_bytes=size)
