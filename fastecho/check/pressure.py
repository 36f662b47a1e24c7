"""How much a path takes from us while nobody reads at its end, and whether it then pushes back.

Lives here: filling. Does not live here: what is too much (probes/).
"""

from __future__ import annotations

import select
from time import monotonic

from fastecho.check.tcp import unsent
from fastecho.check.verdict import Failed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path, Stream
    from fastecho.check.pattern import Source

__all__ = ["Filled", "fill"]

STALL_SECONDS = 1.0
STALL_ROUND_TRIPS = 20
MOVED_BYTES = 4096
"""Less is no progress: a full receiver takes some bytes of the probes that ask it for room."""
LOOK_SECONDS = 0.05
CHUNK = 1 << 16
CUT = (
    "Whether something pushes back was not seen, because the connection was ended before: a server "
    "or proxy that ends who does not read, or a limit on the bytes or the time of a connection."
)


class Filled:
    """What came of it.

    Attributes:
        sent: bytes that our kernel took.
        taken: of these, those that the path took: they are acknowledged.
        pushed_back: whether it stopped taking any.
        stalled_s: for how long it took none, at the end.
        ran_out: whether the time was over first.
    """

    __slots__ = ("pushed_back", "ran_out", "sent", "stalled_s", "taken")

    def __init__(self, sent: int, taken: int, stalled_s: float, stall: float, late: bool) -> None:
        self.sent = sent
        self.taken = taken
        self.stalled_s = stalled_s
        self.pushed_back = stalled_s >= stall
        self.ran_out = late and not self.pushed_back


def stall_seconds(path: Path) -> float:
    """Return for how long nothing must move before it counts as pushed back."""
    return max(STALL_SECONDS, STALL_ROUND_TRIPS * path.rtt)


def fill(path: Path, stream: Stream, source: Source, until: float) -> Filled:
    """Send until the path takes no more, the source is at its end, or the time is over.

    Nothing is read.

    Raises:
        Failed: the connection ended, which is not what the probes of this look for.
    """
    stall, sock = stall_seconds(path), stream.sock
    poller = path.poller()
    poller.register(sock, select.POLLOUT)
    sent = taken = mark = 0
    last = monotonic()
    while True:
        events = path.wait(poller, min(until, monotonic() + LOOK_SECONDS))
        if events and sent < source.size:
            try:
                sent += sock.send(source.take(sent, CHUNK))
            except BlockingIOError:
                pass
            except ConnectionError:
                words = f"the connection was ended when {sent:,} bytes had been sent, none read"
                raise Failed(words, CUT) from None
        elif events:  # all is sent, and it would be told for ever
            path.sleep(LOOK_SECONDS / 10)
        now, took = monotonic(), sent - unsent(sock)
        taken = max(took, taken)
        if taken - mark >= MOVED_BYTES:
            mark, last = taken, now
        if taken >= source.size or now - last >= stall or now >= until:
            return Filled(sent, taken, now - last, stall, now >= until)
