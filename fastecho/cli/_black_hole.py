"""`fastecho serve --black-hole`: addresses on which connect hangs, until a signal.

Lives here: what goes together with it, waiting for the signal, what is said. Does not live here:
the black hole itself (fastecho/hole.py).
"""

from __future__ import annotations

import os
import signal

from fastecho.address import is_loopback, parse_bind
from fastecho.errors import ConfigError
from fastecho.settings import SETTINGS

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.cli._log import Log
    from fastecho.cli._rights import Rights
    from fastecho.config import Merged

__all__ = ["HONOURED", "check", "run"]

HONOURED = frozenset({"bind", "log_format"})
"""The settings of a server that mean something to a black hole."""


def check(merged: Merged) -> None:
    """Refuse what a black hole cannot honour.

    Raises:
        ConfigError: it names the setting.
    """
    if not merged.values["black_hole"]:
        return
    name = merged.labels["black_hole"]
    if merged.values["model"] != "native":
        label, value = merged.labels["model"], merged.given["model"]
        raise ConfigError(label, value, f"cannot be used with {name}: it serves nobody")
    for setting in SETTINGS:
        value = merged.values[setting.name]
        chosen = merged.sources[setting.name] != "default" and value != setting.default
        if chosen and setting.name not in HONOURED:
            label, given = merged.labels[setting.name], merged.given[setting.name]
            raise ConfigError(label, given, f"cannot be used with {name}: it serves nobody")
    if merged.values["metrics"] is not None:
        label, given = merged.labels["metrics"], merged.given["metrics"]
        raise ConfigError(label, given, f"cannot be used with {name}: it serves nobody")
    for address in merged.config.bind:
        if address.kind != "tcp":
            raise ConfigError(merged.labels["bind"], str(address), f"must be HOST:PORT with {name}")


def run(merged: Merged, log: Log, ready_fd: int | None, rights: Rights) -> int:
    """Hold the addresses until SIGINT, SIGTERM or SIGHUP; return the exit code."""
    from fastecho import black_hole

    numbers = {
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup leaves SIGHUP
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # what comes from here on, sigwait() takes
    with black_hole(merged.config.bind) as hole:
        rights.drop([])
        for address in hole.addresses:
            log.say("info", f"black hole on {address}: every connect hangs")
            host = parse_bind(address).host
            if host is not None and not is_loopback(host):
                log.say("warning", f"{address} can be reached from other machines")
        if ready_fd is not None:
            from fastecho.cli.serve import tell_ready

            tell_ready(hole.addresses, ready_fd, log)
        if "NOTIFY_SOCKET" in os.environ:
            from fastecho.cli._service_manager import tell_serving

            tell_serving(log)
        signal.sigwait(numbers)
    log.say("info", "stopped")
    return 0
