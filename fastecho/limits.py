"""Limits of a running server: which settings they are, and what the core takes for them.

Lives here: from a Config to plain numbers, and a Config with other limits. Does not live here: what
a limit means (settings.py), telling the workers (server.py, the core).
"""

from __future__ import annotations

from .config import Config
from .errors import ConfigError
from .settings import SETTINGS

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["change_limits", "limits_of", "milliseconds", "seconds"]


def change_limits(config: Config, limits: Mapping[str, object]) -> Config:
    """Return `config` with other limits, or raise ConfigError: wrong, or no limit at all."""
    live = [one.name for one in SETTINGS if one.live and one.kind != "fault"]
    for name, value in limits.items():
        if name not in live:
            raise ConfigError(name, value, f"cannot change: {', '.join(live)} can")
    return Config(**{**config.keywords(), **limits})


def limits_of(config: Config) -> dict[str, int]:
    """Return what Core.set_limits takes."""
    return {
        "max_connections": -1 if config.max_connections is None else config.max_connections,
        "max_per_ip": config.max_per_ip or 0,
        "ipv6_prefix": config.ipv6_prefix,
        "accept_rate": config.accept_rate or 0,
        "datagram_interval_ns": 1_000_000_000 // config.udp_rate if config.udp_rate else 0,
        "idle_timeout_ms": milliseconds(config.idle_timeout or 0),
        "first_byte_timeout_ms": milliseconds(config.first_byte_timeout or 0),
    }


def seconds(timeout: float) -> float:
    """Return a timeout in seconds, or raise ValueError."""
    if not timeout >= 0:
        raise ValueError(f"timeout {timeout!r} must be seconds, 0 or more")
    return min(timeout, 1_000_000.0)


def milliseconds(seconds: float) -> int:
    """Round up: a deadline is never early."""
    return int(-(-seconds * 1000 // 1))
