"""The PROXY header that a client sends first, as HAProxy's send-proxy and send-proxy-v2 do.

Lives here: the header of one connection, made of its own two addresses. Does not live here: when
it is sent (cli/connect.py, measure/route.py), reading one (src_c/proxy.h), what a load sends
(fastecho/_load_connection.pxd). It needs nothing but the standard library.
"""

from __future__ import annotations

import errno
import os
import socket
from struct import pack

from .errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Protocol

    class HasDescriptor(Protocol):
        """A socket, or what has one: fastecho.Client."""

        def fileno(self) -> int:
            """Return the socket's descriptor."""


__all__ = ["VERSIONS", "checked_version", "header_of"]

VERSIONS = ("v1", "v2")

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
"""Version 2 and its command."""

FAMILIES: dict[int, tuple[str, int]] = {
    socket.AF_INET: ("TCP4", 0x11),
    socket.AF_INET6: ("TCP6", 0x21),
}
"""How each version names a family with its stream protocol."""


def header_of(connection: HasDescriptor, version: str = "v2") -> bytes:
    """Return the PROXY header of a connection: who it is, by its own two addresses.

    Send it before anything else, to a server that expects one:
    `client.send(header_of(client, "v2"))`. A Unix socket has no addresses to tell: version 1 then
    says UNKNOWN, version 2 LOCAL.

    Args:
        connection: a connected stream socket, or a fastecho.Client.
        version: "v1" (a line of text) or "v2" (binary).
    Returns:
        bytes: 15 to 116 of them.
    Raises:
        ConfigError: there is no such version.
        OSError: errno kept: ECONNRESET when the peer has reset it meanwhile; EBADF once closed.
    Thread: any.   Cost: four system calls.
    Source: proxy-protocol.txt of HAProxy; getsockname(2), getpeername(2).
    """
    checked_version(version)
    with socket.socket(fileno=socket.dup(connection.fileno())) as sock:
        family, source = sock.family, sock.getsockname()
        try:
            destination = sock.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None
    if family not in FAMILIES:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else SIGNATURE + pack("!BBH", LOCAL, 0, 0)
    word, number = FAMILIES[family]
    # Without a link-local address's link, which is nobody's but this machine's: it stands apart.
    hosts = source[0], destination[0]
    ports = source[1], destination[1]
    if version == "v1":
        return f"PROXY {word} {hosts[0]} {hosts[1]} {ports[0]} {ports[1]}\r\n".encode()
    told = b"".join(socket.inet_pton(family, host) for host in hosts) + pack("!HH", *ports)
    return SIGNATURE + pack("!BBH", PROXY, number, len(told)) + told


def checked_version(version: object, option: str = "send_proxy") -> str:
    """Return the version of a header, or raise ConfigError."""
    if version not in VERSIONS:
        raise ConfigError(option, version, "must be v1 or v2")
    assert isinstance(version, str)
    return version
