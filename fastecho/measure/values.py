"""How single values of a plan are read: times, rates, sizes, addresses. From Python or as text.

Each checker takes a value and the name that an error shall show, and returns the value in its own
type or raises ConfigError. Does not live here: which options there are (plan.py).
"""

from __future__ import annotations

from fastecho.address import parse_target
from fastecho.errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable

    from fastecho.address import Address

    Check = Callable[[object, str], object]

__all__ = [
    "affix", "choice", "label", "rate", "read_number", "read_seconds", "seconds", "seconds_text",
    "size", "size_table", "sources", "switch", "targets", "whole",
]  # fmt: skip

MOST_CONNECTIONS = 1 << 20
DEEPEST = 65536
LARGEST_SIZE = 64 << 20
LONGEST_AFFIX = 4096
LONGEST = 500_000.0
"""Seconds, nearly six days: with a warm-up as long it is below the load's own limit."""
LARGEST_TABLE = 65536
"""Sizes that a load draws from."""
MOST_THREADS = 1024
SLOWEST, FASTEST = 0.001, 1e7
"""Messages a second of one thread's schedule."""
LONGEST_LABEL = 200

UNITS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0,
}  # fmt: skip
"""Of every time that a user writes, in seconds: in options and in rules."""


def read_number(text: str) -> float | None:
    """Return a plain decimal number; None for anything else (nan, 1e5, 1_0)."""
    digits = text.replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 30):
        return None
    return float(text)


def _whole(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 30):
        return None
    return int(text)


def whole(low: int, high: int) -> Check:
    """Return the checker of a whole number."""

    def check(value: object, label: str) -> int:
        number = _whole(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise ConfigError(label, value, f"must be a whole number from {low} to {high}")
        return number

    return check


def choice(*names: str) -> Check:
    """Return the checker of one of these words."""

    def check(value: object, label: str) -> str:
        if not isinstance(value, str) or value not in names:
            raise ConfigError(label, value, f"must be {' or '.join(names)}")
        return value

    check.choices = names  # type: ignore[attr-defined]  # shells complete them
    return check


def switch(value: object, label: str) -> bool:
    """Check a bool."""
    if not isinstance(value, bool):
        raise ConfigError(label, value, "must be true or false")
    return value


def read_seconds(text: str) -> float | None:
    """Return the seconds that 10, 10s, 500ms, 2m or 1h stand for; None for anything else."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzµ")
    unit = text[len(number) :] or "s"
    value = read_number(number)
    return None if value is None or unit not in UNITS else value * UNITS[unit]


def seconds(low: float, high: float) -> Check:
    """Return the checker of a time: a number of seconds, or a text such as "500ms"."""

    def check(value: object, label: str) -> float:
        number = read_seconds(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise ConfigError(label, value, "must be a time such as 10, 10s, 500ms or 2m")
        if not low <= number <= high:
            raise ConfigError(label, value, f"must be {seconds_text(low)} to {seconds_text(high)}")
        return float(number)

    return check


def seconds_text(value: float) -> str:
    """Return a time as people write it: 500 ms, 10 s, 2 min."""
    if value and value < 1:
        return f"{value * 1e3:g} ms" if value >= 1e-3 else f"{value * 1e6:g} us"
    if value >= 120 and value % 60 == 0:
        return f"{value / 60:,.0f} min"
    return f"{value:,.10g} s"


def rate(value: object, label: str) -> float:
    """Check messages a second: a number above 0, or a text such as 50k."""
    number: object = value
    if isinstance(value, str):
        factor = {"k": 1e3, "M": 1e6}.get(value[-1:], 1.0)
        plain = read_number(value[:-1] if factor > 1 else value)
        number = None if plain is None else plain * factor
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ConfigError(label, value, "must be messages a second, such as 50000 or 50k")
    if not number > 0:
        raise ConfigError(label, value, "must be above 0 messages a second")
    if number > FASTEST * MOST_THREADS:
        raise ConfigError(label, value, "is more messages a second than any load can send")
    return float(number)


def size(value: object, label: str) -> str:
    """Check the size of messages, fixed or a distribution; return it as text."""
    if isinstance(value, (list, tuple)):
        value = ",".join(str(one) for one in value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ConfigError(label, value, "must be bytes: 64, 64:1024 or 64*9,1024*1")
    try:
        size_table(value)
    except ValueError as error:
        raise ConfigError(label, value, str(error)) from None
    return value


def size_table(text: str) -> int | list[int]:
    """Return the size of every message, or the table from which each draws one.

    A range of more sizes than a table holds is represented by that many, evenly spread.

    Raises:
        ValueError: the rest of the sentence that starts with the text.
    """
    low, colon, high = text.partition(":")
    if colon:
        first, last = _one_size(low), _one_size(high)
        if first > last:
            raise ValueError("has its larger size first: write SMALLEST:LARGEST")
        count = min(last - first + 1, LARGEST_TABLE)
        step = (last - first) / max(count - 1, 1)
        return [first + round(i * step) for i in range(count)] if count > 1 else first
    sizes, weights = [], []
    for part in text.split(","):
        one, star, weight = part.partition("*")
        sizes.append(_one_size(one))
        number = _whole(weight) if star else 1
        if not number or number > 10**9:
            raise ValueError("has a weight that is not a whole number above 0: write SIZE*WEIGHT")
        weights.append(number)
    if len(set(sizes)) == 1:
        return sizes[0]
    return _weighted(sizes, weights)


def _weighted(sizes: list[int], weights: list[int]) -> list[int]:
    from math import gcd

    common = gcd(*weights)
    total = sum(weights) // common
    if total > LARGEST_TABLE:
        raise ValueError(f"has weights that add up to {total}: at most {LARGEST_TABLE}")
    return [
        one for one, weight in zip(sizes, weights, strict=True) for _ in range(weight // common)
    ]


def _one_size(text: str) -> int:
    number = _whole(text)
    if number is None:
        raise ValueError("must be bytes: 64, 64:1024 or 64*9,1024*1")
    if not 1 <= number <= LARGEST_SIZE:
        raise ValueError(f"has a size outside of 1 to {LARGEST_SIZE} bytes")
    return number


def affix(value: object, label: str) -> bytes:
    """Check what a server adds to a reply: text or bytes."""
    if isinstance(value, str):
        try:
            value = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ConfigError(label, value, "must be text that UTF-8 can encode") from None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise ConfigError(label, value, "must be text or bytes")
    data = bytes(value)
    if len(data) > LONGEST_AFFIX:
        raise ConfigError(label, value, f"has {len(data)} bytes: at most {LONGEST_AFFIX}")
    return data


def label(value: object, label: str) -> str:
    """Check the name of a run: one line that can be printed."""
    if not isinstance(value, str):
        raise ConfigError(label, value, "must be text")
    if value and not value.isprintable():
        raise ConfigError(label, value, "must be one line of printable characters")
    if len(value) > LONGEST_LABEL:
        raise ConfigError(label, value, f"has {len(value)} characters: at most {LONGEST_LABEL}")
    return value


def sources(value: object, label: str) -> tuple[str, ...]:
    """Check local addresses: a list, or text with commas."""
    from socket import AF_INET, AF_INET6, inet_pton

    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ConfigError(label, value, "must be an address or a list of addresses")
    found = [part for one in value for part in (one.split(",") if isinstance(one, str) else [one])]
    for one in found:
        if not isinstance(one, str):
            raise ConfigError(label, one, "must be a numeric address")
        try:
            inet_pton(AF_INET6 if ":" in one else AF_INET, one)
        except (OSError, ValueError):
            raise ConfigError(label, one, "must be a numeric address, without a port") from None
    return tuple(found)


def targets(value: object, label: str) -> tuple[Address, ...]:
    """Check one target or several; a (host, port) pair is one, any other sequence several."""
    pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int)
    several = value if isinstance(value, (list, tuple)) and not pair else [value]
    if not several:
        raise ConfigError(label, value, "names no server: write HOST:PORT")
    found = tuple(parse_target(one, label, udp=True) for one in several)  # type: ignore[arg-type]
    datagrams = [one for one in found if one.kind == "udp"]
    if datagrams and len(datagrams) < len(found):
        reason = "is UDP, and another target is not: all are of one kind"
        raise ConfigError(label, str(datagrams[0]), reason)
    return found
