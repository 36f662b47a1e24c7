"""A storm of short connections on a schedule: what a restart does to those who come meanwhile.

An open loop: a connection is begun when it is due, whatever became of the earlier ones. Each sends
one message of its own, reads the exact echo, and closes. What happens to it is counted; nothing is
tried again. Lives here: the generator. Does not live here: what is restarted (restart.py).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections import Counter
from types import TracebackType

from fastecho.address import parse_target

RATE = 1000.0
"""Connections a second."""
LATE = 0.9
"""Seconds from when it was due; a SYN that was dropped is sent again after one second."""
LOST = 10.0
"""Seconds after which a connection that has not ended is given up."""
SIZE = 64
"""Bytes of a message."""

OUTCOMES = ("echoed", "refused", "reset", "lost", "late")
"""What is counted. Lost: no echo in time, a wrong one, or FIN instead. Late: echoed, but late."""

_REFUSED = {errno.ECONNREFUSED, errno.ENOENT, errno.EAGAIN}
_RESET = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}


class _Visit:
    """One connection."""

    __slots__ = ("due", "message", "received", "sent", "sock")

    def __init__(self, sock: socket.socket, due: float, message: bytes) -> None:
        self.sock = sock
        # monotonic seconds
        self.due = due
        self.message = message
        self.sent = False
        self.received = b""


class Storm:
    """Connections to `address` at a steady rate for as long as it is entered, in a thread.

    Args:
        address: HOST:PORT, [IPV6]:PORT or unix:PATH; may be changed on the way.
        rate: connections a second.
    Attributes:
        begun: connections begun so far.
        seen: how many had each of OUTCOMES; whole after the block.
        worst: seconds from due to the last byte of the echo, of the slowest.
    """

    def __init__(self, address: str, rate: float = RATE) -> None:
        self.address = address
        self.rate = rate
        self.begun = 0
        self.seen: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.worst = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storm", daemon=True)
        self._epoll = select.epoll()
        # Open ones by descriptor, oldest first.
        self._open: dict[int, _Visit] = {}

    @property
    def harmed(self) -> int:
        """Connections that were refused, reset or lost."""
        return self.seen["refused"] + self.seen["reset"] + self.seen["lost"]

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Begin no more, and wait until all have ended; a second call does nothing."""
        self._over.set()
        self._thread.join()
        self._epoll.close()

    def _run(self) -> None:
        start = time.monotonic()
        while not self._over.is_set():
            due = start + self.begun / self.rate
            now = time.monotonic()
            if now < due:
                self._collect(due - now)
                continue
            self._begin(due)
            if self.begun % 32 == 0:  # behind its schedule it still reads
                self._collect(0)
        while self._open:
            self._collect(0.05)

    def _begin(self, due: float) -> None:
        self.begun += 1
        message = self.begun.to_bytes(8, "big") + os.urandom(SIZE - 8)
        target = parse_target(self.address)
        where: str | tuple[str, int] = target.path or ""
        family = socket.AF_UNIX
        if target.host is not None and target.port is not None:
            where = (target.host, target.port)
            family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        visit = self._open[sock.fileno()] = _Visit(sock, due, message)
        number = sock.connect_ex(where)
        if number not in (0, errno.EINPROGRESS):
            self._end(visit, _kind(number))
            return
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)

    def _collect(self, timeout: float) -> None:
        for descriptor, _ in self._epoll.poll(timeout):
            visit = self._open[descriptor]
            try:
                self._serve(visit)
            except BlockingIOError:
                pass
            except OSError as error:
                self._end(visit, _kind(error.errno or 0))
        now = time.monotonic()
        while self._open:
            oldest = next(iter(self._open.values()))
            if now - oldest.due < LOST:
                break
            self._end(oldest, "lost")

    def _serve(self, visit: _Visit) -> None:
        """It is connected, or has something to read, or has failed."""
        if not visit.sent:
            number = visit.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number))
            visit.sent = True
            self._epoll.modify(visit.sock, select.EPOLLIN)
            visit.sock.sendall(visit.message)  # it fits any buffer
        data = visit.sock.recv(4 * SIZE)
        visit.received += data
        if data and len(visit.received) < SIZE:
            return
        self._end(visit, "echoed" if visit.received == visit.message else "lost")

    def _end(self, visit: _Visit, kind: str) -> None:
        self.seen[kind] += 1
        if kind == "echoed":
            taken = time.monotonic() - visit.due
            self.seen["late"] += taken > LATE
            self.worst = max(self.worst, taken)
        del self._open[visit.sock.fileno()]
        visit.sock.close()  # and out of the epoll


def _kind(number: int) -> str:
    """Return the outcome that an errno stands for."""
    if number in _REFUSED:
        return "refused"
    return "reset" if number in _RESET else "lost"
