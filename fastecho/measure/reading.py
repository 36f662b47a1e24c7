"""Values of a result's JSON as they are read and checked: texts, counts, times; and times as text.

Lives here: one function a kind of value, each raising ValueError with the rest of a sentence that
names the file. Does not live here: which keys there are (result.py).
"""

from __future__ import annotations

from fastecho.errors import shown

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = [
    "MOST", "count", "figures", "is_plain", "part", "rate", "real", "seconds",
    "seconds_since_1970", "text", "utc_text",
]  # fmt: skip

MOST = 2**63
"""No number in a file is as large."""


def part(data: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a list or dict of the JSON; an absent one is empty."""
    value = data.get(key, kind())
    if not isinstance(value, kind):
        raise ValueError(f"has {key!r} that is no {'object' if kind is dict else 'list'}")
    return value


def figures(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the figures of a histogram, of which its minimum and maximum are exact."""
    found = data.get(f"{name}_us")
    return found if isinstance(found, dict) else {}


def is_plain(value: object) -> bool:
    """Tell whether a value is one that host has: a text or a number."""
    if isinstance(value, (int, float)):
        return abs(value) < MOST
    return isinstance(value, str)


def text(data: Mapping[str, Any], key: str) -> str:
    """Return a text; an absent one is empty."""
    value = data.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"has {shown(value)} for {key!r}: it must be text")
    return value


def count(data: Mapping[str, Any], key: str) -> int:
    """Return a whole number, not below 0; an absent one is 0."""
    value = data.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST:
        raise ValueError(f"has {shown(value)} for {key!r}: a count is a whole number")
    return value


def real(data: Mapping[str, Any], key: str, low: float = -MOST, most: float = MOST) -> float:
    """Return a number between two limits; an absent one is 0."""
    value = data.get(key, 0.0)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # As a float: an int just below the limit would be rounded to it.
    if not number or not -most < value < most or not low <= float(value) < most:
        least = ", not below 0" if low == 0 else ""
        raise ValueError(f"has {shown(value)} for {key!r}: it must be a number{least}")
    return float(value)


def rate(data: Mapping[str, Any], key: str) -> float:
    """Return messages a second: at most as many as there can be within a nanosecond."""
    return real(data, key, low=0, most=1e28)


def seconds(data: Mapping[str, Any], key: str, units: float = 1.0) -> float:
    """Return a time in seconds, of a key that has so many units in one of them."""
    # A window of less than a nanosecond is none: no rate comes of it.
    return round(real(data, key, low=0) / units, 9)


def utc_text(seconds: float) -> str:
    """Return a time as 2026-11-25T07:00:00.000Z."""
    from time import gmtime, strftime

    whole, ms = divmod(round(seconds * 1e3), 1000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(whole))}.{ms:03}Z"


def seconds_since_1970(text: object) -> float:
    """Return what utc_text() gave, or any time in ISO form."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text if isinstance(text, str) else "")
    except ValueError:
        raise ValueError(f"has {shown(text)} for 'started_at': it must be a time") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    if found.year > 9000 or (seconds := found.timestamp()) < 0:
        raise ValueError(f"has {shown(text)} for 'started_at': it must be a time since 1970")
    return seconds
