"""Notify: telling a service manager how this process is, by datagrams to its Unix socket.

Lives here: the protocol of sd_notify(3), lines such as READY=1, and of its watchdog. Does not live
here: what is told, and when (cli/_service_manager.py).
"""

from __future__ import annotations

import os
import socket
import time

from .errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["Notifier", "monotonic_usec", "take_notifier", "take_watchdog"]

SEND_SECONDS = 5.0
"""So long a message may wait for the manager to read those before."""


class Notifier:
    """The socket that the manager listens on.

    Args:
        path: a file, or @NAME of the abstract namespace.
    Raises:
        ConfigError: it is neither.
        OSError: no descriptor is left.
    Thread: any.
    Source: sd_notify(3), "Implementation".
    """

    def __init__(self, path: str) -> None:
        if path[:1] not in ("/", "@") or len(path) < 2:
            raise ConfigError("NOTIFY_SOCKET", path, "is neither a path nor an abstract name")
        self._address = os.fsencode(path.replace("@", "\0", 1) if path[0] == "@" else path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_SECONDS)

    def tell(self, *lines: str) -> None:
        """Send the lines as one message, escaped where they are no text.

        Raises:
            OSError: nobody listens there, or does not read.
        """
        self._socket.sendto("\n".join(lines).encode(errors="backslashreplace"), self._address)

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()


def take_notifier(environ: MutableMapping[str, str]) -> Notifier | None:
    """Return the notifier of NOTIFY_SOCKET, which is removed, or None if that is not set."""
    path = environ.pop("NOTIFY_SOCKET", "")
    return Notifier(path) if path else None


def take_watchdog(environ: MutableMapping[str, str]) -> float | None:
    """Return the seconds within which the manager wants a sign of life, or None: it wants none.

    The variables are removed.

    Raises:
        ConfigError: they have no valid form.
    Source: sd_watchdog_enabled(3).
    """
    text = environ.pop("WATCHDOG_USEC", "")
    pid = environ.pop("WATCHDOG_PID", "")
    if not text or (pid and pid != str(os.getpid())):
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise ConfigError("WATCHDOG_USEC", text, "must be a whole number of microseconds above 0")
    return int(text) / 1e6


def monotonic_usec() -> str:
    """Return the line that goes with RELOADING=1."""
    return f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
