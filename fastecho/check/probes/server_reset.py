"""Whether the server's reset arrives as one."""

from __future__ import annotations

from fastecho.check.orders import order
from fastecho.check.pattern import Pattern, Plain, Ruler
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "the server's reset arrives as a reset"
GROUP, QUICK, PHASE, NEEDS = "server", True, "beside", ("tcp", "probes")
PASSED = "A server that gives a connection up is seen to give it up, at once."
FAILED = (
    "A reset is hidden: it arrives as an orderly end, so that what was cut off looks complete, or "
    "not at all, so that the client waits; proxies that end TCP themselves often do that."
)
SIZE = 10_000


def run(path: Path) -> Finding:
    """Read some bytes, send the one that the server waits for, and look how it ends."""
    with order(path, f"reset {SIZE}") as stream:
        talk = Talk(stream, Pattern(path.seed, 153, 0), want=Ruler(SIZE))
        converse(path, [talk])
        if not talk.is_whole:
            return failed(f"{SIZE:,} bytes were due first: {talk.story()}")
        end = Talk(stream, Plain(b"!"), want=Plain(b""), eof=True)
        converse(path, [end])
    if end.ending == "reset":
        return passed(f"{SIZE:,} bytes, then RST", ending="reset")
    if end.ending == "silence":
        return failed(
            f"no end came for {path.patience:.1f} s after the server's RST", ending="silence"
        )
    if end.difference() is not None:
        return failed(f"in place of the server's RST something came: {end.story()}")
    return failed("the server's RST arrived as FIN", ending=end.ending)
