"""Connecting, for everything that starts a connection: one address at a time, blocking.

Lives here: looking a name up, connecting a socket to one of its addresses, the text of addresses
and of failures. Does not live here: which address to try when (client.py, measure/), what is
done with the connection.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

from .address import Address

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["connect", "connect_error", "is_itself", "reason", "resolve", "text_of"]


def resolve(address: Address, family: int = 0) -> Sequence[tuple[int, object]]:
    """Return (family, socket address) of all that the address stands for, without repeats.

    `family` restricts a name to one family (AF_INET, AF_INET6); 0 takes both.
    """
    if address.kind == "unix":
        assert address.path is not None
        if not hasattr(socket, "AF_UNIX"):
            raise OSError(errno.EAFNOSUPPORT, f"cannot connect to {address}: no Unix sockets here")
        return [(socket.AF_UNIX, os.fsencode(address.path))]
    assert address.host is not None
    try:
        # As bytes: a str goes through the idna codec, whose tables cost 5 ms at import.
        host = address.host.encode("ascii" if address.host.isascii() else "idna")
        sort = socket.SOCK_DGRAM if address.kind == "udp" else socket.SOCK_STREAM
        found = socket.getaddrinfo(host, address.port, family, sort)
    except OSError as error:
        sentence = f"cannot resolve {address.host}: {reason(error)}"
        raise socket.gaierror(error.errno, sentence) from None
    except UnicodeError:
        sentence = f"cannot resolve {address.host}: it is no name"
        raise socket.gaierror(socket.EAI_NONAME, sentence) from None
    return list(dict.fromkeys((int(family), place) for family, _, _, _, place in found))


def connect(sock: socket.socket, place: object, timeout: float | None) -> None:
    """Connect a new stream socket, or raise OSError with an errno; TCP_NODELAY is set.

    `timeout` is in seconds, None for the system's. The socket is left in some blocking mode.
    """
    try:
        if sock.family == getattr(socket, "AF_UNIX", None):
            _connect_unix(sock, place, timeout)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(timeout)
        sock.connect(place)  # type: ignore[arg-type]
        if is_itself(sock):
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _connect_unix(sock: socket.socket, path: object, timeout: float | None) -> None:
    """Connect a Unix socket, waiting for room in the listener's queue.

    When that queue is full a non-blocking connect gives EAGAIN and nothing to wait for (unix(7));
    only a blocking one waits, and on Linux SO_SNDTIMEO bounds it, then too with EAGAIN.
    """
    if timeout is not None and sys.platform == "linux":
        from struct import pack

        seconds, part = divmod(timeout, 1)
        interval = pack("@ll", int(min(seconds, 2**31 - 1)), max(int(part * 1_000_000), 1))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
    try:
        sock.connect(path)  # type: ignore[arg-type]
    except BlockingIOError:
        raise TimeoutError from None


def is_itself(sock: socket.socket) -> bool:
    """Tell whether a TCP socket is connected with itself.

    It happens on this machine when nobody listens on a port and the kernel picks that same port
    for our own end (RFC 9293, 3.5: both sides open at once). Such a socket echoes perfectly.
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # reset already; the first call on it will say so
        return False


def connect_error(address: Address, failures: Sequence[tuple[str, OSError]]) -> OSError:
    """Return one error for all failures: the last one's errno, everybody's reason."""
    reasons = {reason(error) for _, error in failures}
    if len(failures) == 1 and failures[0][0] == str(address):
        detail = reasons.pop()
    elif len(reasons) == 1:
        detail = f"{reasons.pop()} (tried {', '.join(place for place, _ in failures)})"
    else:
        detail = ", ".join(f"{place}: {reason(error)}" for place, error in failures)
    return OSError(failures[-1][1].errno, f"cannot connect to {address}: {detail}")


def reason(error: OSError) -> str:
    """Return the system's words for an error, without its number."""
    return error.strerror or str(error) or type(error).__name__


def text_of(family: int, place: object) -> str:
    """Return the text of a socket address; an unnamed Unix socket is `unix:`."""
    if isinstance(place, tuple):
        return str(Address("tcp", host=place[0], port=place[1]))
    assert family == socket.AF_UNIX
    return str(Address("unix", path=os.fsdecode(place)))  # type: ignore[arg-type]
