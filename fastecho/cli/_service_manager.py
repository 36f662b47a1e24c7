"""The service manager of `fastecho serve`: what systemd is told, and when.

Lives here: READY, RELOADING, STOPPING, STATUS, the watchdog, and the thread that looks after them.
Does not live here: how it is told (fastecho/notify.py), the server. Loaded only where NOTIFY_SOCKET
is set.

The watchdog is told that all is well only while every worker answers: one that hangs, in a callback
for instance, costs the message. It is asked again at once, so that only who hangs for the whole of
the watchdog's time has the manager restart the service.
"""

from __future__ import annotations

import logging
import os
from _thread import allocate_lock, start_new_thread

from fastecho.notify import monotonic_usec, take_notifier, take_watchdog

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastecho.cli._log import Log
    from fastecho.server import Server

__all__ = ["ServiceManager", "say_anywhere", "tell_serving"]

STATUS_SECONDS = 5.0
"""How often STATUS is looked at while the server serves."""
DRAIN_SECONDS = 1.0
"""The same while it drains."""
EXTEND_USEC = 10_000_000
"""What a drain asks for each time, beyond the unit's TimeoutStopSec=; its own deadline holds."""
JOIN_SECONDS = 2.0
SHOWN = 1000
"""Bytes of addresses in a status: systemd ignores a message of more than 4,096."""


class ServiceManager:
    """What one run of the server tells the manager.

    Args:
        say: takes a level and a sentence, in any thread.
    Thread: the main one.
    """

    def __init__(self, say: Callable[[str, str], object]) -> None:
        self._say = say
        self._can_tell = True
        self._silent: list[int] = []
        self._status = ""
        # There is a thread; released at its end.
        self._looks = False
        self._over = allocate_lock()
        self._over.acquire()
        self._notifier = take_notifier(os.environ)
        self._watchdog = take_watchdog(os.environ)

    def serving(self, server: Server) -> None:
        """The server accepts: the thread tells so, and looks after it from now on."""
        self._looks = True
        try:
            # One call of C code: a signal handler that raises comes before it or after it.
            start_new_thread(self._look_after, (server,))
        except RuntimeError as error:
            self._looks = False
            self._say("warning", f"the service manager is told nothing but READY: {error}")
            self._tell("READY=1")

    def reloading(self) -> None:
        """The settings are read again."""
        self._tell("RELOADING=1", monotonic_usec())

    def reloaded(self) -> None:
        """That is over, well or not."""
        self._tell("READY=1")

    def close(self) -> None:
        """The server has ended."""
        if self._looks:
            self._over.acquire(timeout=JOIN_SECONDS)
        if self._notifier is not None:
            self._notifier.close()

    def _tell(self, *lines: str) -> None:
        if self._notifier is None:
            return
        try:
            self._notifier.tell(*lines)
        except OSError as error:
            if self._can_tell:
                self._can_tell = False
                why = (error.strerror or str(error)).lower()
                self._say("warning", f"NOTIFY_SOCKET: the service manager is not told: {why}")

    # --- the thread ------------------------------------------------------------------------

    def _look_after(self, server: Server) -> None:
        try:
            pause = min(STATUS_SECONDS, self._watchdog / 2 if self._watchdog else STATUS_SECONDS)
            self._status = _status_of(server)
            self._tell("READY=1", f"STATUS={self._status}")
            self._look(server)
            while not server.wait_retired(pause / 10 if self._silent else pause):
                self._look(server)
            self._status = _status_of(server)
            self._tell("STOPPING=1", f"STATUS={self._status}")
            while not server.wait(min(pause, DRAIN_SECONDS)):
                self._look(server, f"EXTEND_TIMEOUT_USEC={EXTEND_USEC}")
        finally:
            self._over.release()

    def _look(self, server: Server, *more: str) -> None:
        """Tell what has changed, and that all is well, if it is; `more` only then."""
        wait = self._watchdog / 4 if self._watchdog else 1.0
        silent = server.silent_workers(wait)
        lines = [] if silent else [*(["WATCHDOG=1"] if self._watchdog else []), *more]
        if silent != self._silent:
            self._silent = silent
            if silent:
                who = ", ".join(map(str, silent))
                self._say("error", f"worker {who} does not answer: the watchdog is not told")
            else:
                self._say("info", "every worker answers again")
        status = _status_of(server)
        if silent:
            status += f"; worker {', '.join(map(str, silent))} does not answer"
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if lines:
            self._tell(*lines)


def say_anywhere(level: str, message: str) -> None:
    """Say something from any thread, once the command's log has taken the loggers over."""
    logging.getLogger("fastecho").log(logging.getLevelName(level.upper()), message)


def tell_serving(log: Log) -> None:
    """Tell the manager that something serves that has no more to tell: a model, a black hole."""
    manager = ServiceManager(log.say)
    manager._tell("READY=1")
    manager.close()


def _status_of(server: Server) -> str:
    count = server.stats().connections_open
    connections = f"{count} connection{'' if count == 1 else 's'}"
    if server.is_ready():
        return f"listening on {_shown(server.addresses)}; {connections}"
    if server.is_ending():
        return f"draining: {connections} left"
    return f"about to drain: {connections}"


def _shown(addresses: Sequence[str]) -> str:
    """Return the addresses in a line, as many as have room."""
    shown, room = 0, SHOWN
    for address in addresses:
        room -= len(f", {address}".encode(errors="backslashreplace"))
        if room < 0:
            break
        shown += 1
    more = len(addresses) - shown
    return ", ".join(addresses[:shown]) + (f" and {more} more" if more else "")
