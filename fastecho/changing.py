"""What can change while a server runs: its limits, and the fault in force.

Lives here: Changing, a part of Server. Does not live here: which limits there are (limits.py),
Fault (faults.py), what the core makes of them.
"""

from __future__ import annotations

from .config import Config
from .errors import ConfigError
from .limits import change_limits, limits_of, milliseconds
from .view import View

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from threading import RLock
    from typing import Any

    from .callbacks import Callbacks
    from .faults import Fault

__all__ = ["Changing"]


class Changing(View):
    """The part of Server that changes limits and faults."""

    _calls: Callbacks | None
    _lock: RLock

    def set_limits(self, **limits: Any) -> None:
        """Change limits of a server, running or not; no connection is ended for that at once.

        A connection of which no time was measured so far has the whole of a new timeout.
        max_per_ip counts connections that came while there was such a limit.

        Args:
            limits: max_connections, max_per_ip, ipv6_prefix, accept_rate, first_byte_timeout,
                idle_timeout, graceful_timeout or drain_idle, as in Server().
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
        config = Config(**{**self.config.keywords(), "fault": fault})
        self._check_fault(config.fault)
        with self._lock:
            self.config = Config(**{**self.config.keywords(), "fault": config.fault})
            self._tell_fault()

    def _check_fault(self, fault: Fault | None) -> None:
        """Raise ConfigError for a fault that this server cannot have."""
        if fault is None:
            return
        if self._calls is not None and self._calls.on_workers:
            if fault.duplicate:
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
