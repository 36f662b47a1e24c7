"""One connection from connect to its end: the kinds of ends, and what must have come back by then.

Lives here: the kinds, the choices that a seed makes for them, what a peer does, the bytes due to
it. Does not live here: holding many at a time (cycling.py), the server and its books (life.py).

Whatever a peer does, what it has read is a start of what was due. A peer that ends in order has
read all of that, and then FIN. What a peer does is a generator: it yields what it waits for,
events of epoll or REST, and is gone on with when that has come.
"""

from __future__ import annotations

import random
import select
import socket
import struct
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

Script = Generator[int, None, None]

REST = 0
"""Yielded to wait for nothing but a little time."""
READ = 1 << 18
SMALL = 1 << 16
"""SO_RCVBUF of a peer that fills everything between it and the server."""
SEGMENT = 1400
"""Its TCP_MAXSEG: as on a network, where the server's kernel does not start with 2.5 MB of room."""
LOTS = 3 << 20
"""Bytes that it sends: more than all buffers hold, so that sends and flushes fall short."""
NOISE = 1 << 23
"""Bytes that all messages are cut from; each 256th or so ends a line."""
SOURCES = [f"127.1.{high}.{low}" for high in range(1, 33) for low in range(1, 33)]
"""Addresses to connect from, so many that their ports outlast TIME_WAIT."""
IP_BIND_ADDRESS_NO_PORT = 24
"""Of <linux/in.h>: the port is chosen by connect, when it is known what must differ."""


class Wire(NamedTuple):
    """How the server cuts and answers the bytes of a connection."""

    frame: str = "raw"
    prefix: bytes = b""

    def due(self, data: bytes) -> bytes:
        """Return what comes back for everything, once FIN was sent."""
        if self.frame == "raw" or not data:
            return data
        answered = self.prefix + data.replace(b"\n", b"\n" + self.prefix)
        return answered[: -len(self.prefix)] if data.endswith(b"\n") else answered

    def due_before_fin(self, data: bytes, sent: int) -> int:
        """Return how many bytes come back for the first `sent` bytes, before FIN is sent."""
        if self.frame == "raw":
            return sent
        whole = data.rfind(b"\n", 0, sent) + 1
        return whole + data.count(b"\n", 0, whole) * len(self.prefix)


class Cycle:
    """A peer, from connect to the end.

    Args:
        number: counted over the whole soak; decides the source address.
        kind: what it does.
        data: everything that it may send.
        ends: where each message ends in data.
        wire: what the server is to answer.
    """

    __slots__ = ("data", "due", "ends", "kind", "number", "received", "sent", "sock", "wire")

    sock: socket.socket

    def __init__(self, number: int, kind: Kind, data: bytes, ends: list[int], wire: Wire) -> None:
        self.number = number
        self.kind = kind
        self.data = data
        self.ends = ends
        self.wire = wire
        self.due = wire.due(data)
        self.sent = 0
        self.received = 0

    def __repr__(self) -> str:
        return (
            f"<cycle {self.number}, {self.kind.name}: {self.sent} of {len(self.data)} bytes sent,"
            f" {self.received} of {len(self.due)} received>"
        )

    def connect(self, host: str, port: int, timeout: float) -> None:
        """Connect from the address whose turn it is."""
        self.sock = socket.socket()
        try:
            self.sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            self.sock.bind((SOURCES[self.number % len(SOURCES)], 0))
            if self.kind.is_slow:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
            self.sock.settimeout(timeout)
            self.sock.connect((host, port))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setblocking(False)
        except BaseException:
            self.sock.close()
            raise

    def due_for_sent(self) -> int:
        """Return how many bytes come back at most for what was sent."""
        return len(
            self.due if self.sent == len(self.data) else self.wire.due(self.data[: self.sent])
        )

    def script(self) -> Script:
        """Return what it does, to be gone through; the socket is closed at the end of it."""
        return self.kind.play(self)

    # What the scripts are made of

    def send(self, upto: int) -> Script:
        """Send until so many bytes of the data are sent, and do not read meanwhile."""
        while self.sent < upto:
            try:
                self.sent += self.sock.send(memoryview(self.data)[self.sent : upto])
            except BlockingIOError:
                yield select.EPOLLOUT

    def read(self) -> bool:
        """Read once, and compare; False at the server's FIN."""
        got = self.sock.recv(READ)
        if not self.due.startswith(got, self.received):
            raise AssertionError(f"what came back is not what was due: {self!r}")
        self.received += len(got)
        return bool(got)

    def read_until(self, upto: int) -> Script:
        """Read until so many bytes have come back."""
        while self.received < upto:
            yield select.EPOLLIN
            if not self.read():
                raise AssertionError(f"FIN after a loss: {self!r}")

    def read_to_end(self) -> Script:
        """Read until FIN, by which time everything must have come, and close."""
        yield select.EPOLLIN
        while self.read():
            yield select.EPOLLIN
        if self.received < len(self.due):
            raise AssertionError(f"FIN after a loss: {self!r}")
        self.sock.close()

    def stream(self) -> Script:
        """Send what is left of the data while reading, then end in order."""
        while self.sent < len(self.data):
            try:
                self.sent += self.sock.send(memoryview(self.data)[self.sent : self.sent + READ])
            except BlockingIOError:
                yield select.EPOLLIN | select.EPOLLOUT
            try:
                if not self.read():
                    raise AssertionError(f"FIN that nobody asked for: {self!r}")
            except BlockingIOError:
                pass
        self.sock.shutdown(socket.SHUT_WR)
        yield from self.read_to_end()

    def fill(self) -> Script:
        """Send without reading until nothing more is taken during a rest."""
        before = -1
        while before < self.sent < len(self.data):
            before = self.sent
            try:
                while self.sent < len(self.data):
                    self.sent += self.sock.send(memoryview(self.data)[self.sent : self.sent + READ])
            except BlockingIOError:
                pass
            yield REST

    def reset(self) -> None:
        """Close by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


# What each kind does


def in_turns(cycle: Cycle) -> Script:
    """Each message is sent when the last one is answered."""
    for end in cycle.ends:
        yield from cycle.send(end)
        yield from cycle.read_until(cycle.wire.due_before_fin(cycle.data, end))
    cycle.sock.shutdown(socket.SHUT_WR)
    yield from cycle.read_to_end()


def half_close(cycle: Cycle) -> Script:
    """Everything is sent and FIN behind it before anything is read."""
    for end in cycle.ends:
        yield from cycle.send(end)
    cycle.sock.shutdown(socket.SHUT_WR)
    yield from cycle.read_to_end()


def read_late(cycle: Cycle) -> Script:
    """All buffers are full before anything is read."""
    yield from cycle.fill()
    yield from cycle.stream()


def reset_in_message(cycle: Cycle) -> Script:
    """The first message of several is answered; of the rest only a half is sent."""
    if len(cycle.ends) > 1:
        yield from cycle.send(cycle.ends[0])
        yield from cycle.read_until(cycle.wire.due_before_fin(cycle.data, cycle.sent))
    yield from cycle.send((cycle.sent + cycle.ends[-1] + 1) // 2)
    cycle.reset()


def reset_at_once(cycle: Cycle) -> Script:
    """Not a byte is sent."""
    cycle.reset()
    yield from ()


def leave_unread(cycle: Cycle) -> Script:
    """The replies are there, and the kernel resets because nobody has read them."""
    for end in cycle.ends:
        yield from cycle.send(end)
    if cycle.wire.due_before_fin(cycle.data, cycle.sent):
        yield select.EPOLLIN
    cycle.sock.close()


def leave(cycle: Cycle) -> Script:
    """FIN comes behind half a message, and RST for every reply."""
    yield from cycle.send(cycle.ends[-1] - cycle.ends[-1] // 3)
    cycle.sock.close()


def stall(cycle: Cycle) -> Script:
    """All buffers are full, nothing is ever read."""
    yield from cycle.fill()
    cycle.reset()


class Kind(NamedTuple):
    """A kind of cycle: how it ends."""

    name: str
    play: Callable[[Cycle], Script]
    is_clean: bool
    """It ends in order: every byte must come back."""
    per_mille: int
    """Of all cycles."""
    messages: int = 8
    """At the most."""
    size_bits: float = 13
    """A message has at most 2 to that many bytes; half of them have less than the root of it."""
    is_slow: bool = False
    """It receives into little room and sends more than fits in between."""


KINDS = [
    Kind("FIN when all is answered", in_turns, True, 200),
    Kind("half-close, then read", half_close, True, 200),
    Kind("FIN with bytes under way both ways", Cycle.stream, True, 100, 3, 18),
    Kind("reads only when all buffers are full", read_late, True, 5, is_slow=True),
    Kind("RST in a message", reset_in_message, False, 200),
    Kind("RST without a byte", reset_at_once, False, 90),
    Kind("close with replies unread", leave_unread, False, 100),
    Kind("close in a message", leave, False, 100),
    Kind("RST when all buffers are full", stall, False, 5, is_slow=True),
]


def noise(seed: int) -> bytes:
    """Return the bytes that the messages of a soak are cut from."""
    return random.Random(seed).randbytes(NOISE)


def choose(dice: random.Random, count: int, first: int, text: bytes, wire: Wire) -> Iterator[Cycle]:
    """Yield `count` cycles, numbered from `first` on; the dice alone decide what they are."""
    weights = [kind.per_mille for kind in KINDS]
    for number, kind in enumerate(dice.choices(KINDS, weights, k=count), first):
        if kind.is_slow:
            sizes = [LOTS]
        else:
            messages = range(dice.randint(1, kind.messages))
            sizes = [int(2 ** (dice.random() * kind.size_bits)) for _ in messages]
        start = dice.randrange(len(text) - sum(sizes))
        ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
        yield Cycle(number, kind, text[start : start + ends[-1]], ends, wire)
