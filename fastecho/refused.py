"""A refused address: a port that is taken and where nobody listens.

Lives here: holding the port. Does not live here: addresses where connect hangs (hole.py).

A socket that is bound and does not listen keeps its port from everybody else, and the kernel
answers each SYN to it by RST. A port that merely was free a moment ago can be anybody's by now, or
the client's own: on one machine a connect may even reach itself.
"""

from __future__ import annotations

import socket

from .address import Address
from .errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Self

__all__ = ["RefusedAddress"]


class RefusedAddress:
    """An address that refuses every connection and is nobody else's, until close().

    Args:
        host: an address of this machine, IPv4 or IPv6.
    Attributes:
        address, host, port: where; str() is the address.
    Raises:
        ConfigError: the host is no numeric address.
        OSError: it is not an address of this machine.
    Thread: any.   Cost: one socket.
    Source: connect(2), ECONNREFUSED.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        try:
            if "\0" in host:  # where C would end it; TypeError unless it is text
                raise ValueError
            [(family, _, _, _, place)] = socket.getaddrinfo(
                host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except (socket.gaierror, TypeError, ValueError):  # UnicodeError is one
            raise ConfigError("host", host, "must be a numeric IPv4 or IPv6 address") from None
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.bind(place)
        except BaseException:
            self._socket.close()
            raise
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self.address = str(Address("tcp", host=host, port=self.port))

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return self.address

    def __repr__(self) -> str:
        return f"<RefusedAddress {self.address}>"
