"""Peer: the remote end of a connection, as callbacks see it.

Lives here: what is told about a peer, and reading it from the kernel's socket address. Does not
live here: deciding about it (the accept callback, run by server.py).
"""

from __future__ import annotations

import os
import socket
import sys

from .address import Address, format_host_port

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .listener import Listener

__all__ = ["Peer", "read_name", "read_peer"]


class Peer:
    """The remote end of a connection that waits to be accepted, as `on_accept` sees it.

    Attributes:
        host: its address, str; an IPv4 address that came through an IPv6 listener is written as
            IPv4. None on a Unix socket.
        port: int; None on a Unix socket.
        family: socket.AF_INET, AF_INET6 or AF_UNIX: of the socket.
        proxy: the proxy whose PROXY header tells host and port, as HOST:PORT or unix:PATH; None:
            they are the socket's own.
        listener: where it came in, as in Server.addresses.
        queue_wait: seconds that it waited in the kernel's accept queue, float, in steps of the
            kernel's tick (some ms); None where the kernel does not tell.
    """

    __slots__ = ("family", "host", "listener", "port", "proxy", "queue_wait")

    def __init__(
        self,
        host: str | None,
        port: int | None,
        family: int,
        listener: str,
        queue_wait: float | None,
        proxy: str | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.family = family
        self.listener = listener
        self.queue_wait = queue_wait
        self.proxy = proxy

    def __repr__(self) -> str:
        through = "" if self.proxy is None else f" through {self.proxy}"
        return f"<Peer {self.host}:{self.port}{through} at {self.listener}>"


def read_peer(address: bytes, listener: Listener, queue_wait_ms: int, proxy: bytes | None) -> Peer:
    """Build a Peer from a raw sockaddr, and from that of the proxy which told it."""
    host, port = _read_host(address)
    is_unix = listener.family == socket.AF_UNIX
    queue_wait = queue_wait_ms / 1000 if queue_wait_ms >= 0 and not is_unix else None
    where = str(listener.address)
    through = None if proxy is None else where if is_unix else read_name(proxy)
    return Peer(host, port, listener.family, where, queue_wait, through)


def read_name(address: bytes) -> str:
    """Return a raw sockaddr as text: HOST:PORT, or unix:PATH (nothing for a socket without)."""
    host, port = _read_host(address)
    if host is not None and port is not None:
        return format_host_port(host, port)
    # sun_path follows the family; a path ends with NUL, an abstract name begins with it.
    name = address[2:]
    path = name if name.startswith(b"\0") else name.partition(b"\0")[0]
    return str(Address("unix", path=os.fsdecode(path)))


def _read_host(address: bytes) -> tuple[str | None, int | None]:
    """Return host and port; None and None of a Unix socket."""
    family = int.from_bytes(address[:2], sys.byteorder)
    if family == socket.AF_INET:
        host = socket.inet_ntop(socket.AF_INET, address[4:8])
    elif family == socket.AF_INET6:
        packed = address[8:24]
        if packed.startswith(bytes(10) + b"\xff\xff"):
            host = socket.inet_ntop(socket.AF_INET, packed[12:])
        else:
            host = socket.inet_ntop(socket.AF_INET6, packed)
    else:
        return None, None
    return host, int.from_bytes(address[2:4], "big")
