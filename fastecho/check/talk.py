"""Talk: what is sent on one connection and what comes back, many of them at a time.

Lives here: sending and reading at once, comparing every byte, half-closing, noticing the end and
silence. Does not live here: connecting (path.py), what anything means (probes/).
"""

from __future__ import annotations

import errno
import os
import select
import socket
from time import monotonic, perf_counter

from fastecho.check.pattern import compare, first_difference

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastecho.check.path import Path, Stream
    from fastecho.check.pattern import Difference, Source

__all__ = ["Talk", "converse"]

READ_BYTES = 1 << 18
MOST_TIMES = 4
"""Times of what should come: no difference of an echo needs more to be named."""
READS, WRITES = 4, 4
"""In a row, of one connection."""
BURST_SECONDS = 0.001
"""Of a pause between bursts."""
TAIL_BYTES = 1 << 17
"""So many bytes from the first wrong one on are enough to name the difference."""
TAIL_SECONDS = 0.3
"""For so long they are waited for."""


class Talk:
    """One connection: bytes out, bytes in, and how it went.

    Args:
        stream: an open connection.
        out: what to send.
        want: what has to come back; None: what is sent.
        fin: half-close behind the last byte.
        eof: it is not over before the other side has ended as well.
        chunk: at most so many bytes are given to one send.
        burst: pause for a moment after so many sends; 0: never.
        lazy: read only while nothing can be sent.
        keep: keep all that comes, as `data`.
        check: compare what comes; without it, nothing is ever wrong.
        deaf: read nothing: the other side has ended already, and all is said when all is sent.
    Attributes:
        sent, received: bytes that the kernel took, that came.
        ending: how it ended: "" (not, or all is well), "eof", "reset", "silence", or "time" if
            whoever waits had to leave.
        errno: of a reset or another error; 0 without one.
        began, ended: by perf_counter().
        data: all that came, if kept.
    """

    def __init__(
        self,
        stream: Stream,
        out: Source,
        *,
        want: Source | None = None,
        fin: bool = False,
        eof: bool = False,
        chunk: int = READ_BYTES,
        burst: int = 0,
        lazy: bool = False,
        keep: bool = False,
        check: bool = True,
        deaf: bool = False,
    ) -> None:
        self.stream = stream
        self.sock = stream.sock
        self.out = out
        self.want = out if want is None else want
        self.fin = fin
        self.eof = eof
        self.chunk = chunk
        self.burst = burst
        self.lazy = lazy
        self.keep = keep
        self.check = check
        self.deaf = deaf
        self.sent = self.received = 0
        self.ending = ""
        self.errno = 0
        self.data = bytearray()
        self.began = self.ended = perf_counter()
        # When a byte went either way last, by monotonic().
        self.last = monotonic()
        # For how long none did, at an end by silence.
        self.silent_s = 0.0
        self.is_shut = False
        # When the pause between bursts is over, by monotonic(); 0: there is none.
        self.rests_until = 0.0
        self._sends = 0
        # The first wrong byte, and those from there on.
        self._wrong_at: int | None = None
        self._wrong = bytearray()
        self._wrong_since = 0.0
        self._broken = False

    # How it stands

    @property
    def is_sending(self) -> bool:
        """Whether anything is left to do for us."""
        return not self._broken and (self.sent < self.out.size or (self.fin and not self.is_shut))

    @property
    def is_whole(self) -> bool:
        """Whether all came back, every byte right, and the end as well if that was asked for."""
        if self.deaf:
            return not self.is_sending and not self._broken
        return (
            self._wrong_at is None
            and (self.received == self.want.size or self._has_more)
            and not self.is_sending
            and (self.ending == "eof" or not self.eof)
        )

    @property
    def _has_more(self) -> bool:
        return not self.check and self.received > self.want.size

    @property
    def is_flooded(self) -> bool:
        """Whether so much came that it is no use to look at it; it might never end."""
        return self.received > MOST_TIMES * self.want.size + READ_BYTES

    @property
    def is_over(self) -> bool:
        """Whether nothing more is waited for."""
        if self._wrong_at is not None:
            enough = len(self._wrong) >= TAIL_BYTES or self.received >= self.want.size + TAIL_BYTES
            late = monotonic() - self._wrong_since >= TAIL_SECONDS
            return enough or late or bool(self.ending)
        return bool(self.ending) or self.is_whole or self.is_flooded

    def deadline(self, patience: float) -> float:
        """Return when it will have waited long enough, by monotonic()."""
        if self._wrong_at is not None:
            return min(self._wrong_since + TAIL_SECONDS, self.last + patience)
        return self.last + patience

    @property
    def is_echo(self) -> bool:
        """Whether what came is an echo, if not an exact one: that is another probe's matter."""
        found = self.difference()
        if found is None:
            return self.is_whole
        return found.kind != "foreign" and not self.ending

    def difference(self) -> Difference | None:
        """Return how what came differs from what should have come; None if it does not."""
        if self._wrong_at is None:
            return None
        return compare(self.want, self._wrong_at, bytes(self._wrong))

    def story(self) -> str:
        """Return what went wrong in words, for a sentence; "" if nothing."""
        if (found := self.difference()) is not None:
            return found.text
        if self.is_whole:
            return ""
        came = f"{self.received:,} of {self.want.size:,} bytes had come back"
        if not self.want.size:
            came = "nothing more was due"
        elif self.received == self.want.size and self.eof:
            came = f"all {self.received:,} bytes had come back"
        if self.ending == "eof":
            return f"the connection was closed (FIN) when {came}"
        if self.ending == "reset":
            how = "reset (RST)" if self.errno in (errno.ECONNRESET, errno.EPIPE) else "lost"
            why = "" if how != "lost" else f": {os.strerror(self.errno)}"
            return f"the connection was {how} when {came}{why}"
        if self.ending == "time":
            return f"the time was over when {came}"
        what = "no end (FIN)" if self.received == self.want.size and self.eof else "nothing more"
        return f"{what} came for {self.silent_s:.1f} s when {came}"

    # Moving bytes

    def write(self) -> bool:
        """Send what can be sent; tell whether the kernel would take more."""
        self.rests_until = 0.0
        for _ in range(WRITES):
            if self._broken:
                return False
            if self.sent < self.out.size:
                data = self.out.take(self.sent, self.chunk)
                try:
                    taken = self.sock.send(data)
                except BlockingIOError:
                    return False
                except OSError as error:
                    self._broken = True  # what had come already can still be read
                    self.errno = error.errno or 0
                    return False
                self.sent += taken
                self.last = monotonic()
                self._sends += 1
                if self.burst and self._sends % self.burst == 0:
                    self.rests_until = self.last + BURST_SECONDS
                    return False
                if taken < len(data):
                    return False
            if self.sent >= self.out.size:
                if self.fin and not self.is_shut:
                    self._shut()
                return False
        return True

    def _shut(self) -> None:
        self.is_shut = True
        self.last = monotonic()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._broken = True
            self.errno = error.errno or 0

    def mind(self, event: int) -> int:
        """Notice the end without reading; return what to wait for."""
        if self._broken or event & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            self.errno = self.errno or self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._end("reset")
        return select.POLLOUT

    def read(self) -> None:
        """Take what has come."""
        for _ in range(READS):
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self.errno = error.errno or 0
                self._end("reset")
                return
            if not data:
                self._end("reset" if self._broken else "eof")
                return
            self.last = monotonic()
            self._take(data)
            if len(data) < READ_BYTES:
                return

    def _end(self, how: str) -> None:
        self.ending = how
        self.ended = perf_counter()

    def _take(self, data: bytes) -> None:
        if self.keep:
            self.data += data
        at, self.received = self.received, self.received + len(data)
        if self.received >= self.want.size:
            self.ended = perf_counter()
        if not self.check:
            return
        if self._wrong_at is not None:
            self._wrong += data
            return
        while data:
            want = self.want.take(at, len(data))
            if data[: len(want)] == want and want:
                at, data = at + len(want), data[len(want) :]
                continue
            first = first_difference(data, want)
            self._wrong_at, self._wrong = at + first, bytearray(data[first:])
            self._wrong_since = monotonic()
            return


def converse(
    path: Path, talks: Sequence[Talk], patience: float | None = None, until: float | None = None
) -> None:
    """Send and read on all of these at once, until each is over.

    One on which no byte goes either way for `patience` seconds (None: the path's) ends by silence;
    at the moment `until`, all end by time.
    """
    wait = path.patience if patience is None else patience
    poller = path.poller()
    running: dict[int, Talk] = {}
    for talk in talks:
        talk.began, talk.last = perf_counter(), monotonic()
        running[talk.sock.fileno()] = talk
        poller.register(talk.sock, 0)
    masks = dict.fromkeys(running, 0)
    ready = dict.fromkeys(running, select.POLLOUT)
    while running:
        for fd, event in ready.items():
            if fd in running:
                mask = _serve(running[fd], event)
                if mask != masks[fd]:
                    masks[fd] = mask
                    poller.modify(fd, mask)
        now = monotonic()
        for fd, talk in list(running.items()):
            if not talk.is_over and now >= talk.deadline(wait):
                talk.ending, talk.silent_s = "silence", now - talk.last
            elif not talk.is_over and until is not None and now >= until:
                talk.ending = "time"
            if talk.is_over:
                poller.unregister(fd)
                del running[fd]
        if running:
            end = min(talk.rests_until or talk.deadline(wait) for talk in running.values())
            ready = dict(path.wait(poller, end if until is None else min(end, until)))
            now = monotonic()
            for fd, talk in running.items():
                if 0 < talk.rests_until <= now:
                    ready[fd] = ready.get(fd, 0) | select.POLLOUT


def _serve(talk: Talk, event: int) -> int:
    """Do what a connection is ready for; return what to wait for next."""
    more = False
    if event & ~select.POLLIN and (not talk.rests_until or monotonic() >= talk.rests_until):
        more = talk.is_sending and talk.write()
    if talk.deaf:
        return talk.mind(event)
    if event & ~select.POLLOUT and not (talk.lazy and more):
        talk.read()
    mask = select.POLLOUT if talk.is_sending and not talk.rests_until else 0
    return mask if talk.lazy and more else mask | select.POLLIN
