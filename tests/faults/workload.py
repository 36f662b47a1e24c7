"""Peers that all talk at once, and what each of them may find.

Lives here: a conversation (what is sent, what is due, how it ends), the loop that holds many at a
time, and the judgement of one. Does not live here: which conversations there are (rounds.py), the
faults.

Whatever happens to a server, these hold for every connection: the bytes that came back are a start
of those that were due, and a FIN comes only after all of them. Who was not hit gets them all.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from enum import Enum

HIT_HOST = "127.0.0.1"
SPARED_HOST = "127.0.0.2"
"""As campaign.c knows it: calls for connections from there never fail for good."""
DEADLINE = 20.0
"""Seconds until a conversation counts as hanging."""
RESETS = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
"""What the calls on a socket say when RST has come: recv, send, shutdown."""
STUCK = 0.1
"""Seconds without an event on any connection after which nobody is being served."""
READ = 1 << 18


class Manner(Enum):
    """How a peer behaves."""

    STREAM = "sends all, reads meanwhile, ends by FIN"
    TURNS = "sends the next segment when the last one is answered, ends by FIN"
    LATE = "does not read until nobody else talks any more"
    TOGETHER = "does not end before everybody else is answered"
    RESET = "resets when half of the answer is there"


class End(Enum):
    """How a conversation has ended."""

    FIN = "FIN"
    RESET = "RST"
    OURS = "reset by the peer itself"
    HANGS = "no end within the deadline"


class Conversation:
    """One connection and what it is for.

    Args:
        segments: pairs of bytes to send and bytes that are due for them.
        manner: how the peer behaves.
        spared: it comes from the address that is never hit for good.
        tail: bytes due at our FIN.
        host: the address that it comes from; None: as `spared` says.
        refused: why it must be reset without a byte; "": it must be served.
        ends: it sends FIN when all is sent; otherwise it waits for the server's end.
    """

    def __init__(
        self,
        segments: Sequence[tuple[bytes, bytes]],
        manner: Manner = Manner.STREAM,
        *,
        spared: bool = False,
        tail: bytes = b"",
        host: str | None = None,
        refused: str = "",
        ends: bool = True,
    ) -> None:
        self.manner = manner
        self.spared = spared
        self.host = host or (SPARED_HOST if spared else HIT_HOST)
        self.own_address = ""
        self.refused = refused
        self.header = b""
        self.greeting: Callable[[Conversation, bytes], str] | None = None
        """Judges the line that has to come before what is due; None: none has to."""
        self.data = b"".join(sent for sent, _ in segments)
        self.due = b"".join(due for _, due in segments) + tail
        self.received = bytearray()
        self.sent = 0
        self.end: End | None = None
        # For turns: bytes sent and received at the end of each.
        self._turns: list[tuple[int, int]] = []
        for sent, due in segments:
            before = self._turns[-1] if self._turns else (0, 0)
            self._turns.append((before[0] + len(sent), before[1] + len(due)))
        self.is_half_closed = False
        self._reads = manner is not Manner.LATE
        self._may_end = ends and manner not in (Manner.TOGETHER, Manner.RESET)
        self._waits_for_end = not ends
        self._cuts: list[int] = []
        self._socket: socket.socket | None = None

    def __repr__(self) -> str:
        return (
            f"<{'spared ' if self.spared else ''}{self.manner.name}: {self.sent} of"
            f" {len(self.data)} sent, {len(self.received)} of {len(self.due)} received,"
            f" {self.end.value if self.end else 'talking'}>"
        )

    def introduce(self, header: bytes, cuts: Sequence[int]) -> None:
        """Send a header before all else, for which nothing is due; no send goes beyond a cut."""
        self.header = header
        self.data = header + self.data
        self._turns = [(sent + len(header), received) for sent, received in self._turns]
        self._cuts = list(cuts)

    @property
    def is_hurt(self) -> bool:
        """The server has not served it to the end."""
        return self.end in (End.RESET, End.HANGS) and not self.refused

    @property
    def came(self) -> int:
        """Bytes that came, but for the line that comes before what is due."""
        if self.greeting is None:
            return len(self.received)
        return len(self.received) - (self.received.find(b"\n") + 1 or len(self.received))

    @property
    def has_all(self) -> bool:
        """All that is due has come."""
        is_greeted = self.greeting is None or b"\n" in self.received
        return is_greeted and self.came == len(self.due)

    def connect(self, address: str) -> socket.socket | None:
        """Connect to "host:port"; the socket, or None if it was reset at once.

        A header goes out at once: a server waits for it no longer than its proxy_timeout.
        """
        host, _, port = address.rpartition(":")
        sock = socket.socket()
        self._socket = sock
        try:
            sock.bind((self.host, 0))
            sock.settimeout(DEADLINE)
            sock.connect((host, int(port)))
            self.own_address = "{}:{}".format(*sock.getsockname())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        except ConnectionError:
            self._finish(End.RESET)
            return None
        except BaseException:
            sock.close()
            raise
        if self.header or self.refused:
            self.go_on(select.EPOLLOUT)
        return sock if self.end is None else None

    def interest(self) -> int:
        """Return the events of epoll that it waits for now."""
        wanted = select.EPOLLIN if self._reads else 0
        return wanted | (select.EPOLLOUT if self._allowed() > self.sent else 0)

    @property
    def waits(self) -> bool:
        """It does nothing more before everybody else has come as far."""
        if self.manner is Manner.TOGETHER:
            return not self.is_half_closed and self.has_all
        return self.manner is Manner.LATE or self._waits_for_end

    def wait_no_more(self) -> None:
        """Go on with what it has put off."""
        self._reads = True
        if self.manner is Manner.TOGETHER:
            self._may_end = True
            self.go_on(0)

    def go_on(self, events: int) -> None:
        """Do what the events allow."""
        assert self._socket is not None
        try:
            if events & select.EPOLLOUT and self._allowed() > self.sent:
                most = [cut for cut in self._cuts if cut > self.sent] + [self.sent + READ]
                self.sent += self._socket.send(
                    memoryview(self.data)[self.sent : min(self._allowed(), most[0])]
                )
            if events & (select.EPOLLERR | select.EPOLLHUP):
                self._reads = True  # it is over, and epoll would say so for ever
            if events & ~select.EPOLLOUT and self._reads:
                self._read(self._socket)
            if self.end is None:
                self._end_sending(self._socket)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in RESETS:
                raise
            self._finish(End.RESET)

    def _allowed(self) -> int:
        """Return up to which byte it may send now."""
        if self.manner is not Manner.TURNS:
            return len(self.data)
        for sent, received in self._turns:
            if self.came < received:
                return sent
        return len(self.data)

    def _read(self, sock: socket.socket) -> None:
        got = sock.recv(READ)
        if not got:
            self._finish(End.FIN)
            return
        self.received += got
        if self.manner is Manner.RESET and self.came * 2 >= len(self.due):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._finish(End.OURS)

    def _end_sending(self, sock: socket.socket) -> None:
        if self.is_half_closed or self.sent < len(self.data) or not self._may_end:
            return
        if self.manner is Manner.TURNS and self._allowed() < len(self.data):
            return
        sock.shutdown(socket.SHUT_WR)
        self.is_half_closed = True

    def _finish(self, end: End) -> None:
        self.end = end
        if self._socket is not None:
            self._socket.close()

    def give_up(self) -> None:
        """Close what has not ended by its deadline."""
        if self.end is None:
            self._finish(End.HANGS)

    def complaint(self) -> str:
        """Say what the server has done wrong, whatever it suffered; '' for nothing."""
        if self.end is None or self.end is End.HANGS:
            return f"hangs: {self!r}"
        if self.refused:
            return "" if self.end is End.RESET and not self.received else f"served: {self!r}"
        said = bytes(self.received[: len(self.received) - self.came])
        if self.greeting is not None and said.endswith(b"\n"):
            wrong = self.greeting(self, said)
            if wrong:
                return f"{wrong}: {self!r}"
        if bytes(self.received[len(said) :]) != self.due[: self.came]:
            return f"received what was not due: {self!r}"
        everything = self.sent == len(self.data) and self.has_all
        if self.end is End.FIN and not (self.is_half_closed and everything):
            return f"FIN after a loss: {self!r}"
        return ""


def converse(
    address: str,
    conversations: Sequence[Conversation],
    when_stuck: Callable[[], object] | None = None,
) -> None:
    """Hold all conversations at a time, to the end of each or to the deadline.

    when_stuck: called once, when nobody has heard anything for STUCK seconds.
    """
    until = time.monotonic() + DEADLINE
    talking: dict[int, Conversation] = {}
    asked: dict[int, int] = {}
    with select.epoll() as waiting:

        def ask(fd: int, one: Conversation) -> None:
            if one.end is not None:
                del talking[fd], asked[fd]  # its close() has taken it out
            elif asked[fd] != one.interest():
                asked[fd] = one.interest()
                waiting.modify(fd, asked[fd])

        try:
            for one in conversations:
                sock = one.connect(address)
                if sock is not None:
                    talking[sock.fileno()], asked[sock.fileno()] = one, one.interest()
                    waiting.register(sock.fileno(), one.interest())
            for fd, one in list(talking.items()):  # who has nothing to say has its FIN to send
                one.go_on(0)
                ask(fd, one)
            while talking and time.monotonic() < until:
                if all(one.waits for one in talking.values()):
                    for fd, one in list(talking.items()):
                        one.wait_no_more()
                        ask(fd, one)
                patience = DEADLINE if when_stuck is None else STUCK
                heard = waiting.poll(max(min(until - time.monotonic(), patience), 0))
                if not heard and when_stuck is not None:
                    when_stuck()
                    when_stuck = None
                for fd, events in heard:
                    one = talking[fd]
                    one.go_on(events)
                    ask(fd, one)
        finally:
            for one in conversations:
                one.give_up()
