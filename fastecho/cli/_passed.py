"""Passed sockets as `fastecho serve` takes them: the default of --bind, names that must be there.

Lives here: which options ask for which names. Does not live here: the protocol, which is loaded
only where sockets are passed or asked for (fastecho/passed.py).
"""

from __future__ import annotations

import os
import sys

from fastecho.address import Address

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.config import Merged

__all__ = ["check", "default_bind", "unused"]


def default_bind(usual: str) -> str:
    """Return where to listen when nobody says: at what was passed, if anything was.

    Raises:
        ConfigError: LISTEN_FDS or LISTEN_FDNAMES has no valid form.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        from fastecho.passed import passed_sockets

        if passed_sockets():
            return "systemd:"
    return usual


def check(merged: Merged) -> None:
    """Raise ConfigError, which names the option, for a name that no passed socket has."""
    asked = _asked(merged)
    if not asked:
        return
    from fastecho.passed import choose

    for name in sorted(asked, key=lambda name: not name):  # systemd: takes what the others leave
        choose(name, asked[name])


def unused(merged: Merged) -> list[str]:
    """Return the names of passed sockets that no option asks for."""
    passed = sys.modules.get("fastecho.passed")
    asked = _asked(merged)
    if passed is None or "" in asked:
        return []
    names = dict.fromkeys(one.name for one in passed.passed_sockets())
    return [name for name in names if name not in asked]


def _asked(merged: Merged) -> dict[str, str]:
    """Return the names that are asked for, each with the option that does."""
    asked = {one.name: merged.labels["bind"] for one in merged.config.bind if one.name is not None}
    metrics = merged.values["metrics"]
    if isinstance(metrics, Address) and metrics.name is not None:
        asked[metrics.name] = merged.labels["metrics"]
    return asked
