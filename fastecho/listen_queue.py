"""ListenQueue: how full a listener's accept queue is, as the kernel tells.

Lives here: two calls of getsockopt and what they mean. Does not live here: listeners of other
processes (fastecho.diagnose).
"""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from .listener import Listener

__all__ = ["ListenQueue", "NotListeningError", "read_drops", "read_queues"]

SO_MEMINFO = 55
"""Of linux/socket.h; Python has no name for it."""
TCP_INFO_SIZE = 32
TCP_LISTEN = 10
"""The state that tcp_info begins with."""
TCPI_UNACKED = struct.Struct("=II")
TCPI_UNACKED_AT = 24
"""Where tcp_info has tcpi_unacked and tcpi_sacked: of a listener, depth and limit."""
MEMINFO_SIZE = 36
DROPS = struct.Struct("=I")
DROPS_AT = 32
"""Where the nine words of SO_MEMINFO have the drops."""


class ListenQueue:
    """The accept queues of a server at one moment; of one listener, or of all together.

    Attributes:
        depth: connections whose handshake is over and that were not accepted yet.
        limit: min(backlog, somaxconn); a queue holds one more.
        drops: packets that the kernel dropped since the listener opened, nearly all of them SYNs
            that found the queue full; None where all are Unix sockets, which have no such count.
        highest: deepest queue that the server found when it came to accept, or that is now; of
            several listeners, of any one of them. Of a Unix socket the deepest that was told.
        listeners: a ListenQueue for each, in the order of Server.listeners, None for one of which
            the kernel tells nothing (a Unix socket where netlink is forbidden, or where no
            descriptor is left for it); empty in those.
    """

    __slots__ = ("depth", "drops", "highest", "limit", "listeners")

    depth: int
    limit: int
    drops: int | None
    highest: int
    listeners: tuple[ListenQueue | None, ...]

    def __init__(
        self,
        depth: int,
        limit: int,
        drops: int | None,
        highest: int,
        listeners: tuple[ListenQueue | None, ...] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "depth", depth)
        put(self, "limit", limit)
        put(self, "drops", drops)
        put(self, "highest", highest)
        put(self, "listeners", listeners)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a ListenQueue is a snapshot: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a ListenQueue is a snapshot: {name} cannot be deleted")

    def __repr__(self) -> str:
        return (
            f"<ListenQueue {self.depth} of {self.limit} + 1, highest {self.highest}, "
            f"drops {self.drops}>"
        )

    @classmethod
    def of_all(cls, queues: Sequence[ListenQueue | None]) -> ListenQueue:
        """Return what several are together, as far as they are known."""
        known = [one for one in queues if one is not None]
        drops = [one.drops for one in known if one.drops is not None]
        return cls(
            sum(one.depth for one in known),
            sum(one.limit for one in known),
            sum(drops) if drops else None,
            max((one.highest for one in known), default=0),
            tuple(queues),
        )


class NotListeningError(Exception):
    """A socket is no listener any more, or for a time."""


def read_queues(listeners: Sequence[Listener], highest: Sequence[int]) -> ListenQueue:
    """Ask the kernel for the queues of listeners; `highest`: what is known of each.

    Raises:
        NotListeningError: one is no listener any more, or for a time.
        OSError: the kernel tells of none of them.
    Cost: two system calls a listener, some 2 microseconds; of a Unix socket some tens.
    Source: tcp(7); measured against `ss -ltnm` in tests/test_listen_queue.py.
    """
    if len(listeners) == 1:  # the usual case, made cheap
        one = _read(listeners[0], highest[0])
        return ListenQueue(one.depth, one.limit, one.drops, one.highest, (one,))
    queues: list[ListenQueue | None] = []
    failure: OSError | None = None
    for each in zip(listeners, highest, strict=True):
        try:
            queues.append(_read(*each))
        except OSError as error:
            queues.append(None)
            failure = error
    if failure is not None and not any(queues):
        raise failure
    return ListenQueue.of_all(queues)


def read_drops(sock: socket.socket) -> int:
    """Return how many packets the kernel has dropped at a socket, or raise OSError."""
    memory = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO_SIZE)
    drops: int = DROPS.unpack_from(memory, DROPS_AT)[0]
    return drops


def _read(listener: Listener, highest: int) -> ListenQueue:
    sock = listener.socket
    if listener.family == socket.AF_UNIX:
        return _read_unix(listener)
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        drops = read_drops(sock)
    except OSError as error:  # it is closed
        raise NotListeningError from error
    if info[0] != TCP_LISTEN:
        raise NotListeningError
    depth, limit = TCPI_UNACKED.unpack_from(info, TCPI_UNACKED_AT)
    return ListenQueue(depth, limit, drops, highest if highest > depth else depth)


def _read_unix(listener: Listener) -> ListenQueue:
    from .diagnose.sock_diag import unix_listener

    descriptor = listener.socket.fileno()
    if descriptor < 0:
        raise NotListeningError
    one = unix_listener(os.fstat(descriptor).st_ino)
    if one is None or one.limit is None:
        raise NotListeningError
    # Workers do not look; so it is the deepest that anybody was told of.
    listener.deepest = max(listener.deepest, one.depth)
    return ListenQueue(one.depth, one.limit, None, listener.deepest)
