"""Datagrams: one UDP socket that talks with one address, for everything that sends datagrams.

Lives here: opening it, sending, receiving, the errors that ICMP brings. Does not live here: what
is sent when, what is waited for (cli/_connect_udp.py, measure/datagram_pinger.py, check/).

The socket is not connected: a connected one drops in the kernel whatever comes from another address
or port than the one that was asked, which is a defect of servers with several addresses and looks
like loss. Linux tells such a socket of ICMP errors all the same (IP_RECVERR, ip(7)): they wait in a
queue of their own, each with the datagram that caused it as far as the message quotes it, and poll
says POLLERR. Besides, one call on the socket fails with the error; a send that fails so has sent
nothing, so it is tried again. Systems without that queue have a connected socket: there errors are
seen, and answers from elsewhere are not.

A port that nothing listens on is known by an ICMP message only, which comes when something was
sent. So the first address of a name that this machine has a way to is taken, and move_on() goes to
the next one when that has refused.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections import deque

from .dial import text_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

__all__ = ["LARGEST", "NO_LISTENER", "Datagrams"]

LARGEST = 65507
"""Bytes of the largest datagram: 65,535 of an IPv4 packet less the headers of IP and UDP."""

NO_LISTENER = "refused: nothing listens on that port (ICMP port unreachable)"

RECEIVE_BUFFER = 1 << 20
"""Asked for: what comes while we are busy is not lost here. The kernel may cut it."""

SEND_TRIES = 4
"""A send fails once for each error that has come meanwhile; as many are looked at."""

READS = 256
"""Datagrams that are read before somebody looks at the clock."""

IP_RECVERR, IPV6_RECVERR = 11, 25
"""Linux; the socket module has no names for them."""

MSG_ERRQUEUE: int = getattr(socket, "MSG_ERRQUEUE", 0)

HAS_QUEUE = sys.platform == "linux" and MSG_ERRQUEUE != 0
NOT_NOW = (errno.EAGAIN, errno.ENOBUFS)


class Datagrams:
    """A UDP socket, not blocking, for one peer.

    Args:
        targets: family and socket address of all that the peer's name stands for, at least one.
        prepare: called with each new socket: options, and bind() to an address of our own.
    Attributes:
        sock: the socket; another one after move_on().
        peer, local: both ends as text, HOST:PORT.
    Raises:
        OSError: there is no way to any of the targets; the errno of the last one.
    Thread: one sends while another one receives; the rest is for the one that receives.
    """

    def __init__(
        self,
        targets: Sequence[tuple[int, object]],
        prepare: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._targets = deque(targets)
        self._prepare = prepare
        # Errors of a connected socket, where there is no queue of them.
        self._noted: deque[tuple[int, bytes]] = deque()
        self.sock, self._place = self._next()
        self._name()

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        self.sock.close()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.sock.fileno()

    @property
    def place(self) -> tuple[object, ...]:
        """The socket address of the peer, as it stands in what receive() returns."""
        return self._place

    def _name(self) -> None:
        self.peer = text_of(self.sock.family, self._place)
        self.local = text_of(self.sock.family, self.sock.getsockname())

    def _next(self) -> tuple[socket.socket, tuple[object, ...]]:
        """Open a socket for the next target that there is a way to."""
        while True:
            family, place = self._targets.popleft()
            try:
                return self._open(family, place)
            except OSError:
                if not self._targets:
                    raise

    def _open(self, family: int, place: object) -> tuple[socket.socket, tuple[object, ...]]:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if self._prepare is not None:
                self._prepare(sock)
            if not HAS_QUEUE:
                sock.connect(place)  # type: ignore[arg-type]
                return sock, sock.getpeername()
            ours, reached = _route(family, place)
            if sock.getsockname()[1] == 0:
                sock.bind((ours[0], 0, *ours[2:]))
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            # Also for IPv6, whose addresses ::ffff:0:0/96 are reached over IPv4.
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        except BaseException:
            sock.close()
            raise
        return sock, reached

    def move_on(self) -> bool:
        """Talk with the next address from now on; False if there is none that can be reached."""
        if not self._targets:
            return False
        try:
            sock, place = self._next()
        except OSError:
            return False
        before, self.sock, self._place = self.sock, sock, place
        before.close()
        self._name()
        return True

    def send(self, data: bytes) -> None:
        """Send one datagram.

        Raises:
            BlockingIOError: our own buffer is full; nothing was sent.
            OSError: errno kept (EMSGSIZE: too large for a datagram); nothing was sent.
        """
        for left in reversed(range(SEND_TRIES)):
            try:
                if HAS_QUEUE:
                    self.sock.sendto(data, self._place)
                else:
                    self.sock.send(data)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise BlockingIOError(error.errno, error.strerror) from None
                if error.errno in NOT_NOW or not left:
                    raise
                self._note(error)
            else:
                return

    def receive(self) -> tuple[bytes, tuple[object, ...]] | None:
        """Return the next datagram and where it came from; None if there is none now."""
        for _ in range(SEND_TRIES):
            try:
                data, place = self.sock.recvfrom(65536)
            except BlockingIOError:
                return None
            except OSError as error:
                self._note(error)
            else:
                return data, place if HAS_QUEUE else self._place
        return None

    def _pending(self) -> int:
        """Return the errno of a connected socket's error, and clear it."""
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _note(self, error: OSError) -> None:
        if not HAS_QUEUE:
            self._noted.append((error.errno or 0, b""))

    def some(self) -> Iterator[tuple[bytes, tuple[object, ...]]]:
        """Yield what is here, as receive() returns it, and no more than READS: a flood ends too."""
        for _ in range(READS):
            if (came := self.receive()) is None:
                return
            yield came

    def errors(self) -> Iterator[tuple[int, bytes]]:
        """Yield what error() returns, and no more than READS."""
        for _ in range(READS):
            if (failure := self.error()) is None:
                return
            yield failure

    def error(self) -> tuple[int, bytes] | None:
        """Return the next error that ICMP brought: its errno, and the datagram that caused it.

        Of the datagram there is what the message quotes, which may be nothing. None: no error.
        """
        if not HAS_QUEUE:
            if not self._noted and (number := self._pending()):
                self._noted.append((number, b""))
            return self._noted.popleft() if self._noted else None
        try:
            quoted, ancillary, _, _ = self.sock.recvmsg(65536, 512, MSG_ERRQUEUE)
        except OSError:  # usually BlockingIOError: there is none
            return None
        for _, _, data in ancillary:
            if len(data) >= 16:  # struct sock_extended_err, of which the errno is the first field
                return int.from_bytes(data[:4], sys.byteorder), quoted
        return 0, quoted


def _route(family: int, place: object) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return our own address on the way to another, and that one as it is reached.

    Connecting sends nothing: it looks the route up. 0.0.0.0 and [::] reach this machine.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as scout:
        scout.connect(place)  # type: ignore[arg-type]
        return scout.getsockname(), scout.getpeername()
