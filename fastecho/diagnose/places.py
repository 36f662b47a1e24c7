"""Places: which listeners somebody asks for, by port or address.

Lives here: reading PORT, HOST:PORT and unix:PATH, and whose listener is meant by them. Does not
live here: looking (queues.py), options (fastecho.cli).

A place is where a client would connect: who listens on every address is found by each of them, a
name by every address that it has. A wildcard address means the wildcard listeners alone.
"""

from __future__ import annotations

import socket

from fastecho.address import parse_target
from fastecho.errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.diagnose.listening import Listening

__all__ = ["Place"]

V4, V6 = socket.AF_INET, socket.AF_INET6
ANY_V4, ANY_V6 = bytes(4), bytes(16)
MAPPED = bytes(10) + b"\xff\xff"


class Place:
    """One place that was asked for: called with a listener, it tells whether that is there.

    Attributes:
        text: as it was written.
    Raises:
        ConfigError: what is no port and no address, or a name that does not resolve.
    """

    def __init__(self, text: str, option: str = "PORT") -> None:
        self.text = text
        self._name: str | None = None
        self._port: int | None = None
        self._hosts: set[bytes] | None = None
        if text.isascii() and text.isdigit():
            self._port = _port(text, option)
        elif text.startswith("unix:") and len(text) > 5:
            self._name = text
        elif ":" not in text:
            raise ConfigError(option, text, "must be a port, HOST:PORT or unix:PATH")
        elif text.startswith(("*:", ":")):
            self._port = _port(text.partition(":")[2], option, text)
        else:
            address = parse_target(text, option)
            assert address.host is not None
            self._port = address.port
            self._hosts = _resolve(address.host, text, option)

    def __call__(self, one: Listening) -> bool:
        if self._name is not None:
            return one.kind == "unix" and one.address == self._name
        if one.kind != "tcp" or one.port != self._port:
            return False
        return self._hosts is None or any(_answers(one.host or "", host) for host in self._hosts)


def _port(digits: str, option: str, text: str | None = None) -> int:
    if digits.isascii() and digits.isdigit() and not digits.startswith("0") and len(digits) <= 5:
        port = int(digits)
        if port <= 65535:
            return port
    zeros = digits.startswith("0") and digits.strip("0").isdigit()
    extra = ", without zeros before it" if zeros else ""
    raise ConfigError(option, text or digits, f"must be 1 to 65535{extra}")


def _resolve(host: str, text: str, option: str) -> set[bytes]:
    try:
        found = socket.getaddrinfo(host.partition("%")[0], None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(option, text, f"does not resolve: {why}") from None
    return {_packed(str(target[0])) for family, _, _, _, target in found if family in (V4, V6)}


def _packed(host: str) -> bytes:
    """Return an address as bytes; IPv4 in IPv6 as IPv4."""
    host = host.partition("%")[0]
    if ":" not in host:
        return socket.inet_pton(V4, host)
    packed = socket.inet_pton(V6, host)
    return packed[12:] if packed.startswith(MAPPED) else packed


def _answers(listening: str, asked: bytes) -> bool:
    """Tell whether who connects to `asked` may reach a listener of this address."""
    if listening == "":
        return True  # every address of both kinds
    there = _packed(listening)
    return there == asked or (there in (ANY_V4, ANY_V6) and len(there) == len(asked))
