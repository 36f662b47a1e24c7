"""Addresses as the user writes them, and back to text: parsing and formatting only.

Nothing here resolves a name or opens a socket. The forms:

    HOST:PORT     a name or an IPv4 address; a name stands for every address it resolves to
    [V6]:PORT     an IPv6 address, with %ZONE where it needs one; [::] is IPv6 only
    :PORT         to listen: every address, IPv4 and IPv6; to connect: this machine
    udp://...     the three above for UDP instead of TCP
    unix:PATH     a Unix stream socket
    fd://N        to listen: a listening socket that this process has inherited
    systemd:NAME  to listen: those that a service manager has passed under that name; systemd: all
"""

from __future__ import annotations

import os

from .errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Literal, NoReturn

    Kind = Literal["tcp", "udp", "unix", "fd", "systemd"]
    Key = tuple[Kind, str | None, int | None, str | None, int | None, str | None]

__all__ = ["UDP", "Address", "format_host_port", "is_loopback", "parse_bind", "parse_target"]

UNIX_PATH_BYTES = 107
"""Longest path of a Unix socket in bytes: sun_path of unix(7) less its final zero."""

PASSED_NAME_CHARACTERS = 255
"""Longest FileDescriptorName= of systemd.socket(5)."""

UDP = "udp://"

_FORMS = "HOST:PORT, [IPV6]:PORT, :PORT, udp://HOST:PORT, unix:PATH, fd://N or systemd:NAME"


class Address:
    """Where to listen or connect, immutable; `str(address)` is the text that parses back to it.

    Attributes:
        kind: "tcp", "udp", "unix", "fd" or "systemd".
        host: tcp and udp; "" for every address, IPv4 and IPv6.
        port: tcp and udp, 0..65535.
        path: unix only; may hold undecodable bytes as surrogates (os.fsencode gives them back);
            an inherited socket of the abstract namespace has a path that starts with NUL.
        fd: a descriptor number: of fd, and of systemd once it is known.
        name: systemd only; "" for every passed socket that is not asked for by name.
    """

    # A dataclass would read better and cost 8 ms of every start (it imports inspect).
    __slots__ = ("fd", "host", "kind", "name", "path", "port")

    kind: Kind
    host: str | None
    port: int | None
    path: str | None
    fd: int | None
    name: str | None

    def __init__(
        self,
        kind: Kind,
        *,
        host: str | None = None,
        port: int | None = None,
        path: str | None = None,
        fd: int | None = None,
        name: str | None = None,
    ) -> None:
        for slot, value in (
            ("kind", kind),
            ("host", host),
            ("port", port),
            ("path", path),
            ("fd", fd),
            ("name", name),
        ):
            object.__setattr__(self, slot, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Address is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Address is immutable: {name} cannot be deleted")

    def _key(self) -> Key:
        return (self.kind, self.host, self.port, self.path, self.fd, self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, self._key())

    def __repr__(self) -> str:
        return f"<Address {self!s}>"

    def __str__(self) -> str:
        if self.kind == "unix":
            assert self.path is not None
            return f"unix:{'@' + self.path[1:] if self.path.startswith(chr(0)) else self.path}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        if self.kind == "systemd":
            return f"systemd:{self.name}"
        assert self.host is not None and self.port is not None
        return (UDP if self.kind == "udp" else "") + format_host_port(self.host, self.port)


def _rebuild(
    kind: Kind,
    host: str | None,
    port: int | None,
    path: str | None,
    fd: int | None,
    name: str | None,
) -> Address:
    """Unpickle an Address."""
    return Address(kind, host=host, port=port, path=path, fd=fd, name=name)


def format_host_port(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets round an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_bind(value: str | tuple[str, int] | Address, option: str = "bind") -> Address:
    """Parse an address to listen on.

    Args:
        value: one of the forms above, a (host, port) pair, or an Address.
        option: the name that an error shall show.
    Returns:
        Address: not resolved and not opened; port 0 asks the kernel for a free one.
    Raises:
        ConfigError: the text has none of the forms, or a part of it is out of range.
    Thread: any.   Cost: microseconds, no system call.
    Source: the forms of nginx, ncat and uvicorn; ip(7), ipv6(7), unix(7).
    """
    if isinstance(value, Address):
        return value
    if isinstance(value, tuple):
        return _parse_pair(value, option)
    if not isinstance(value, str):
        raise ConfigError(option, value, "must be a string or a (host, port) pair")
    if value.startswith("unix:"):
        return _parse_unix(value, option)
    if value.startswith("fd:"):
        return _parse_fd(value, option)
    if value.startswith("systemd:"):
        return _parse_passed(value, option)
    if value.startswith(UDP):
        return _parse_host_port("udp", value.removeprefix(UDP), value, option)
    return _parse_host_port("tcp", value, value, option)


def parse_target(
    value: str | tuple[str, int] | Address, option: str = "address", *, udp: bool = False
) -> Address:
    """Parse an address to connect to.

    Args:
        value: HOST:PORT, [V6]:PORT, :PORT (this machine), the same behind udp://, unix:PATH, a
            (host, port) pair, or an Address such as a server reports.
        option: the name that an error shall show.
        udp: whether the caller can talk UDP; otherwise such an address is refused.
    Returns:
        Address: tcp or udp with a host that is not empty and a port above 0, or unix.
    Raises:
        ConfigError: the text has none of the forms, or a part of it is out of range.
    Thread: any.   Cost: microseconds, no system call.
    Source: the same forms as for listening, without those that only a server can use.
    """
    address = parse_bind(value, option)
    if address.kind == "fd":
        raise ConfigError(option, value, "is a descriptor to listen on, not an address to reach")
    if address.kind == "systemd":
        raise ConfigError(option, value, "is a passed socket to listen on, not an address to reach")
    if address.kind == "udp" and not udp:
        raise ConfigError(option, value, "is UDP, which cannot be used here")
    if address.kind in ("tcp", "udp"):
        if address.port == 0:
            raise ConfigError(option, value, "has port 0, which nothing can be reached at")
        if address.host == "":
            return Address(address.kind, host="localhost", port=address.port)
    return address


def is_loopback(host: str) -> bool:
    """Tell whether a numeric address reaches this machine only; "" and names are not loopback."""
    from socket import AF_INET, AF_INET6, inet_pton

    try:
        return inet_pton(AF_INET, host)[0] == 127
    except (OSError, ValueError):
        pass
    try:
        packed = inet_pton(AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    mapped = packed.startswith(bytes(10) + b"\xff\xff")
    return packed[12] == 127 if mapped else packed == bytes(15) + b"\x01"


def _parse_pair(value: tuple[object, ...], option: str) -> Address:
    if len(value) != 2:
        raise ConfigError(option, value, "must have two parts: (host, port)")
    host, port = value
    if not isinstance(host, str):
        raise ConfigError(option, value, "has a host that is not a string")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(option, value, "has a port that is not a whole number from 0 to 65535")
    if ":" in host:
        _check_ipv6(host, value, option)
    elif host:
        _check_name(host, value, option)
    return Address("tcp", host=host, port=port)


def _parse_unix(value: str, option: str) -> Address:
    path = value.removeprefix("unix:")
    if not path:
        raise ConfigError(option, value, "has no path: write unix:PATH")
    if path.startswith("@"):
        raise ConfigError(
            option,
            value,
            f"is an abstract name, which is not supported: write unix:./{path} "
            "for a file of that name",
        )
    if any(character < " " or character == "\x7f" for character in path):
        raise ConfigError(option, value, "has a control character in its path")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise ConfigError(option, value, "has a path that cannot be encoded") from None
    if size > UNIX_PATH_BYTES:
        raise ConfigError(
            option,
            value,
            f"has a path of {size} bytes: a Unix socket takes at most {UNIX_PATH_BYTES}",
        )
    return Address("unix", path=path)


def _parse_fd(value: str, option: str) -> Address:
    digits = value.removeprefix("fd://")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise ConfigError(option, value, "is not a descriptor: write fd://N, such as fd://3")
    return Address("fd", fd=int(digits))


def _parse_passed(value: str, option: str) -> Address:
    name = value.removeprefix("systemd:")
    valid = name.isascii() and (name.isprintable() or not name) and ":" not in name
    if not valid or len(name) > PASSED_NAME_CHARACTERS:
        must = f"printable ASCII without a colon, at most {PASSED_NAME_CHARACTERS}"
        raise ConfigError(option, value, f"has no valid name: {must}")
    return Address("systemd", name=name)


def _parse_host_port(kind: Kind, text: str, value: str, option: str) -> Address:
    """Parse `text`, the part of `value` that names host and port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ConfigError(option, value, "is not complete: write [IPV6]:PORT")
        _check_ipv6(host, value, option)
        return Address(kind, host=host, port=_parse_port(rest[1:], value, option))
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ConfigError(option, value, _no_port(text))
    if ":" in host:
        raise ConfigError(option, value, _no_brackets(text, host, port_text))
    if host:
        _check_name(host, value, option)
    return Address(kind, host=host, port=_parse_port(port_text, value, option))


def _parse_port(text: str, value: str, option: str) -> int:
    digits = text.lstrip("0") or "0" if text else ""
    if not (text.isascii() and text.isdigit() and len(digits) <= 5 and int(digits) <= 65535):
        raise ConfigError(option, value, "has a port that is not a whole number from 0 to 65535")
    return int(digits)


def _no_port(value: str) -> str:
    if not value:
        return f"is empty: write {_FORMS}"
    if value.isascii() and value.isdigit():
        return f"is a port without a host: write 127.0.0.1:{value}, or :{value} for every address"
    if value.lower() in ("udp", "unix", "systemd", "fd"):
        return f"is no address: write {_FORMS}"
    return "has no port: write HOST:PORT"


def _no_brackets(value: str, host: str, port_text: str) -> str:
    """Say how to write an IPv6 address that came without brackets, as far as it is clear."""
    if _is_ipv6(host) and port_text.isdigit():
        return f"is an IPv6 address without brackets: write [{host}]:{port_text}"
    if _is_ipv6(value):
        return f"is an IPv6 address without brackets and port: write [{value}]:PORT"
    scheme, _, rest = value.partition(":")
    if scheme.lower() == "udp" or rest.startswith("//"):
        return f"is no address: write {_FORMS}"
    return "has more than one colon: write HOST:PORT, or [IPV6]:PORT"


def _is_ipv6(host: str) -> bool:
    from socket import AF_INET6, inet_pton

    numbers, percent, zone = host.partition("%")
    if percent and (not zone or not zone.isprintable() or " " in zone):
        return False
    try:
        inet_pton(AF_INET6, numbers)
    except (OSError, ValueError):
        return False
    return True


def _check_ipv6(host: str, value: object, option: str) -> None:
    if not _is_ipv6(host):
        raise ConfigError(option, value, "has no valid IPv6 address in it: write it as in [::1]:7")


def _check_name(host: str, value: object, option: str) -> None:
    """Refuse what no resolver could take, so that getaddrinfo never sees it."""
    plain = host.removesuffix(".")
    valid = plain.isprintable() and " " not in plain and not set(plain) & set("[]/@%")
    if valid and not plain.isascii():
        try:
            plain = plain.encode("idna").decode("ascii")
        except UnicodeError:
            valid = False
    labels = plain.split(".")
    if not valid or len(plain) > 253 or not all(0 < len(label) < 64 for label in labels):
        raise ConfigError(option, value, "has a host that is neither a name nor an address")
