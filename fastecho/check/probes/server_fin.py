"""Whether the server's close arrives in order, behind its last byte."""

from __future__ import annotations

from fastecho.check.orders import order
from fastecho.check.pattern import Pattern, Ruler
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "the server's close comes behind its last byte"
GROUP, QUICK, PHASE, NEEDS = "server", True, "beside", ("probes",)
PASSED = "A server that closes in order is seen to close in order, with all it said."
FAILED = (
    "An orderly close of the server is cut short or arrives as a reset: a proxy drops what it "
    "still held, or resets where it should close."
)
SIZES = (0, 1, 10_000, 200_000)


def run(path: Path) -> Finding:
    """Let the server send some bytes and close, several times."""
    for size in SIZES:
        with order(path, f"close {size}") as stream:
            talk = Talk(stream, Pattern(path.seed, 152, 0), want=Ruler(size), eof=True)
            converse(path, [talk])
        if not talk.is_whole:
            words = f"{size:,} bytes and FIN were due: {talk.story()}"
            return failed(words, size_bytes=size, ending=talk.ending)
    return passed(f"{len(SIZES)} times up to {SIZES[-1]:,} bytes, then FIN", closes=len(SIZES))
