"""Network: a range of addresses, as in 10.0.0.0/8.

A leaf: it reads text and opens nothing. (ipaddress would do, and costs every start 4 ms.)
"""

from __future__ import annotations

from .errors import ConfigError

__all__ = ["Network", "parse_networks"]


class Network:
    """A range of IP addresses, immutable.

    Attributes:
        packed: its first address, 4 or 16 bytes.
        bits: how many of them count, from the first.
    """

    __slots__ = ("bits", "packed")

    packed: bytes
    bits: int

    def __init__(self, packed: bytes, bits: int) -> None:
        object.__setattr__(self, "packed", packed)
        object.__setattr__(self, "bits", bits)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Network is immutable: {name} cannot be set")

    @property
    def is_ipv6(self) -> bool:
        """Tell the family."""
        return len(self.packed) == 16

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return (self.packed, self.bits) == (other.packed, other.bits)

    def __hash__(self) -> int:
        return hash((self.packed, self.bits))

    def __str__(self) -> str:
        from _socket import AF_INET, AF_INET6, inet_ntop

        return f"{inet_ntop(AF_INET6 if self.is_ipv6 else AF_INET, self.packed)}/{self.bits}"

    def __repr__(self) -> str:
        return f"Network({str(self)!r})"


def parse_networks(value: object, option: str) -> tuple[Network, ...]:
    """Read one range or several: texts ("10.0.0.0/8", "::1", several by commas) or a list of them.

    Raises:
        ConfigError: it names `option` and the range that is wrong.
    """
    several = value if isinstance(value, (list, tuple)) else [value]
    networks: list[Network] = []
    for one in several:
        if isinstance(one, Network):
            networks.append(one)
        elif isinstance(one, str):
            networks += [_parse(part.strip(), option) for part in one.split(",") if part.strip()]
        else:
            raise ConfigError(option, value, "must be addresses, as in 10.0.0.0/8,::1")
    return tuple(dict.fromkeys(networks))


def _parse(text: str, option: str) -> Network:
    from _socket import AF_INET, AF_INET6, inet_pton  # socket itself costs a start 3 ms

    host, slash, length = text.partition("/")
    try:
        packed = inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    except (OSError, ValueError):
        raise ConfigError(
            option, text, "is no IP address, nor a range as in 10.0.0.0/8 or fd00::/8"
        ) from None
    most = len(packed) * 8
    bits = most
    if slash:
        if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= most):
            raise ConfigError(option, text, f"must have a number from 0 to {most} behind the /")
        bits = int(length)
    rest = most - bits
    number = int.from_bytes(packed, "big")
    first = (number >> rest << rest).to_bytes(len(packed), "big")
    if first != packed:
        raise ConfigError(
            option, text, f"has bits beyond its first {bits}: {Network(first, bits)} is the range"
        )
    return Network(packed, bits)
