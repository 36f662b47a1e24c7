"""Whether data passes that the server sends before we say anything more."""

from __future__ import annotations

from time import perf_counter

from fastecho.check.orders import order
from fastecho.check.pattern import Pattern, Ruler
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "data that the server sends unasked arrives"
GROUP, QUICK, PHASE, NEEDS = "server", True, "beside", ("probes",)
PASSED = "The server may speak when it likes."
FAILED = (
    "What a server sends unasked is held back or lost: a proxy that passes answers only, or waits "
    "for the client's next request."
)
SIZE, PAUSE_MS = 20_000, 300


def run(path: Path) -> Finding:
    """Wait for bytes that come after a pause."""
    began = perf_counter()
    with order(path, f"first {PAUSE_MS} {SIZE}") as stream:
        talk = Talk(stream, Pattern(path.seed, 154, 0), want=Ruler(SIZE))
        converse(path, [talk], PAUSE_MS / 1e3 + path.patience)
        # From the order on: its answer may have come, or been read, late.
        took = (talk.ended - began - stream.connect_s) * 1e3
    if not talk.is_whole:
        return failed(f"{SIZE:,} bytes after {PAUSE_MS} ms were due: {talk.story()}")
    words = f"{SIZE:,} bytes came, {took:.0f} ms after they were ordered for {PAUSE_MS} ms"
    return passed(words, took_ms=took)
