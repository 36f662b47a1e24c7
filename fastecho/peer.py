"""Peer: the remote end of a connection, as callbacks see it.

Lives here: what is told about a peer, and reading it from the kernel's socket address. Does not
live here: deciding about it (the accept callback, run by server.py).
"""

from __future__ import annotations

import socket

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .listener import Listener

__all__ = ["Peer", "read_peer"]


class Peer:
    """The remote end of a connection that waits to be accepted, as `on_accept` sees it.

    Attributes:
        host: its address, str; an IPv4 address that came through an IPv6 listener is written as
            IPv4. None on a Unix socket.
        port: int; None on a Unix socket.
        family: socket.AF_INET, AF_INET6 or AF_UNIX: of the socket.
        listener: where it came in, as in Server.addresses.
        queue_wait: seconds that it waited in the kernel's accept queue, float, in steps of the
            kernel's tick (some ms); None where the kernel does not tell.
    """

    __slots__ = ("family", "host", "listener", "port", "queue_wait")

    def __init__(
        self,
        host: str | None,
        port: int | None,
        family: int,
        listener: str,
        queue_wait: float | None,
    ) -> None:
        self.host = host
        self.port = port
        self.family = family
        self.listener = listener
        self.queue_wait = queue_wait

    def __repr__(self) -> str:
        return f"<Peer {self.host}:{self.port} at {self.listener}>"


def read_peer(address: bytes, listener: Listener, queue_wait_ms: int) -> Peer:
    """Build a Peer from a raw sockaddr."""
    host: str | None = None
    port: int | None = None
    if listener.family == socket.AF_INET:
        host = socket.inet_ntop(socket.AF_INET, address[4:8])
    elif listener.family == socket.AF_INET6:
        packed = address[8:24]
        if packed.startswith(bytes(10) + b"\xff\xff"):
            host = socket.inet_ntop(socket.AF_INET, packed[12:])
        else:
            host = socket.inet_ntop(socket.AF_INET6, packed)
    if host is not None:
        port = int.from_bytes(address[2:4], "big")
    known = host is not None and queue_wait_ms >= 0
    queue_wait = queue_wait_ms / 1000 if known else None
    return Peer(host, port, listener.family, str(listener.address), queue_wait)
