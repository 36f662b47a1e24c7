"""Measuring echo servers from Python: what `bench` and `ping` do, with results as plain objects.

    from fastecho import measure
    result = measure.run(measure.Plan("127.0.0.1:7777", connections=64, duration=5))
    print(result, result.percentile(99))
    for event in measure.Pinger("127.0.0.1:7777", count=3): print(event)

Here are the public names, and where each of them lives. They are imported when they are first
used, so that importing this costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .datagram_pinger import DatagramPinger
    from .pinger import Pinger
    from .plan import Plan
    from .result import Interval, Result
    from .rules import Rule
    from .runner import run
    from .saved import read
    from .search import find_max

__all__ = [
    "DatagramPinger", "Interval", "Pinger", "Plan", "Result", "Rule", "find_max", "read", "run",
]  # fmt: skip

_HOMES = {
    "DatagramPinger": "datagram_pinger",
    "Interval": "result",
    "Pinger": "pinger",
    "Plan": "plan",
    "Result": "result",
    "Rule": "rules",
    "find_max": "search",
    "read": "saved",
    "run": "runner",
}
_NEEDS_LOAD = frozenset({"runner", "saved", "search"})


def _find(name: str) -> object:
    """Return a public name, importing its module; the next access no longer comes here."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if home in _NEEDS_LOAD:
        import fastecho

        fastecho._require_core(f"measure.{name}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


if not TYPE_CHECKING:  # for a type checker, an unknown name stays an error
    __getattr__ = _find
