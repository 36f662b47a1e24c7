"""What can change while a server runs: its limits, the fault in force, whether its ports refuse.

Lives here: Changing, a part of Server. Does not live here: which limits there are (limits.py),
Fault (faults.py), what the core makes of them.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from .config import Config
from .errors import ConfigError
from .limits import change_limits, limits_of, milliseconds
from .view import View

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from threading import RLock
    from typing import Any

    from .faults import Fault
    from .listener import Listener

__all__ = ["Changing"]


class Changing(View):
    """The part of Server that changes what it does for newcomers."""

    _lock: RLock

    def set_limits(self, **limits: Any) -> None:
        """Change limits of a server, running or not; no connection is ended for that at once.

        A connection of which no time was measured so far has the whole of a new timeout.
        max_per_ip counts connections that came while there was such a limit.

        Args:
            limits: max_connections, max_per_ip, ipv6_prefix, accept_rate, udp_rate,
                first_byte_timeout, idle_timeout, graceful_timeout, drain_delay or drain_idle, as in
                Server().
        Raises:
            ConfigError: a value is wrong, or another setting is named; nothing has changed.
        Thread: any.   Cost: each worker looks at all its connections once.
        """
        self._check_process()
        with self._lock:
            self.config = change_limits(self.config, limits)
            if self._core is not None:
                self._core.set_limits(**limits_of(self.config))

    def set_fault(self, fault: Fault | str | None) -> None:
        """Change the fault of connections that are accepted from now on; None for no fault.

        Open connections keep the one that they began with. `fail_first` begins to count anew.

        Args:
            fault: a Fault, or its text ("delay=50ms,slice=1").
        Raises:
            ConfigError: it is wrong, or cannot be used with another setting; nothing has changed.
        Thread: any.   Cost: some microseconds; no worker is disturbed.
        """
        self._check_process()
        with self._lock:
            config = Config(**{**self.config.keywords(), "fault": fault})
            self._check_fault(config.fault)
            self.config = config
            self._tell_fault()

    def refuse(self) -> None:
        """Refuse new connections on ports that stay ours, until admit(); open ones live on.

        For tests of what a client does while a server is down. Who stands in the accept queue is
        reset. A second call does nothing.

        Raises:
            OSError: EOPNOTSUPP: it listens on a Unix, a UDP or an inherited socket; nothing has
                changed.
            RuntimeError: it does not listen: not yet, or no more.
        Thread: any.   Cost: one shutdown(2) for each listener.
        Source: shutdown(2) of a listener, as Linux does it.
        """
        with self._lock:
            self._check_listening()
            if self._refusing:
                return
            for one in self._opened():
                if not one.can_refuse:
                    text = f"{one.address} cannot refuse for a time: only a TCP port of ours can"
                    raise OSError(errno.EOPNOTSUPP, text)
            try:
                for listener in self._listeners:
                    listener.refuse()
            except OSError:
                self._check_listening()  # not a stop() in another thread
                raise
            self._refusing = True

    def admit(self) -> None:
        """Accept connections again after refuse(), on the same ports.

        Raises:
            OSError: EADDRINUSE: another socket, with SO_REUSEADDR, listens on a port meanwhile; it
                still refuses, and may be called again.
            RuntimeError: it does not listen: not yet, or no more.
        Thread: any.   Cost: one listen(2) for each listener.
        """
        with self._lock:
            self._check_listening()
            if not self._refusing:
                return
            admitted: list[Listener] = []
            try:
                for listener in self._listeners:
                    listener.admit()
                    admitted.append(listener)
            except OSError as error:
                for one in admitted:
                    with suppress(OSError):  # it is closed, see the next
                        one.refuse()
                self._check_listening()  # not a stop() in another thread
                text = f"cannot listen again on {listener.address}: {error.strerror}"
                raise OSError(error.errno, text) from None
            self._refusing = False
            assert self._core is not None
            self._core.set_limits(**limits_of(self.config))  # makes every worker look

    def _check_listening(self) -> None:
        self._check_process()
        if not self._accepting or self._ending:
            raise RuntimeError(f"{self!r} does not listen")

    def _check_fault(self, fault: Fault | None) -> None:
        """Raise ConfigError for a fault that this server cannot have."""
        if fault is None:
            return
        if fault.duplicate and self._calls is not None and self._calls.on_workers:
            reason = "duplicates frames, which on_message answers itself"
            raise ConfigError("fault", str(fault), reason)
        Config(**{**self.config.keywords(), "fault": fault})  # where frames matter

    def _tell_fault(self) -> None:
        """Tell the core, if there is one."""
        fault = self.config.fault
        if self._core is not None:
            self._core.set_fault(
                None if fault is None else fault.numbers(),
                0 if fault is None else milliseconds(fault.accept_delay),
            )
