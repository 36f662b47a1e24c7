"""Callbacks: the user's functions, whether they fit, and what is said when one of them fails.

Lives here: checking them, naming reasons and peers for them, the log of their failures, calling
those that have a thread of their own. Does not live here: calling the others (_callbacks.pxd, on
the workers' threads), the answer of the accept callback (admission.py), Connection (_core.pyx).
"""

from __future__ import annotations

import inspect
import logging
import time
from contextlib import suppress

from ._core import reason_names
from .errors import ConfigError
from .peer import read_peer
from .reason import Reason
from .settings import DEFAULT_MAX_PENDING, LONGEST_TIME

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Connection
    from .peer import Peer
    from .server import OnAccept, Server

    OnMessage = Callable[[Connection, Any], object]
    OnConnection = Callable[[Connection], object]
    OnClose = Callable[[Connection, Reason], object]

__all__ = ["Callbacks", "check_callback"]

log = logging.getLogger("fastecho")

LARGEST_PENDING = 2**63 - 1
"""sys.maxsize, for who wants no limit."""
SHORTEST_SLOW = 0.000_001
ARGUMENTS = {
    "on_accept": ("peer",),
    "on_message": ("connection", "data"),
    "on_drain": ("connection",),
    "on_eof": ("connection",),
    "on_close": ("connection", "reason"),
}
"""What each is called with."""


def check_callback(name: str, callback: object) -> None:
    """Raise TypeError for what could not be called as a callback of that name is."""
    if not callable(callback):
        raise TypeError(f"{name} must be callable, not {type(callback).__name__}")
    if inspect.iscoroutinefunction(callback):
        raise TypeError(f"{name} must be a plain function: nobody would await a coroutine")
    try:
        inspect.signature(callback).bind(*ARGUMENTS[name])
    except ValueError:
        pass  # a function in C that does not tell
    except TypeError as error:
        text = f"{name} must take ({', '.join(ARGUMENTS[name])}): {error}"
        raise TypeError(text) from None


def check_max_pending(value: object, high_water: int) -> None:
    """Raise ConfigError for what is no number of bytes from high_water."""
    if isinstance(value, bool) or not isinstance(value, int) or value > LARGEST_PENDING:
        must = f"must be a whole number from high_water to {LARGEST_PENDING}"
        raise ConfigError("max_pending", value, must)
    if value < high_water:
        raise ConfigError("max_pending", value, f"is below high_water {high_water}")


def check_duration(value: object) -> None:
    """Raise ConfigError for what is no slow_callback_duration."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not SHORTEST_SLOW <= value <= LONGEST_TIME:  # type: ignore[operator]
        must = f"must be seconds from {SHORTEST_SLOW:f} to {LONGEST_TIME:.0f}"
        raise ConfigError("slow_callback_duration", value, must)


class Callbacks:
    """The callbacks of one server, as the core takes them.

    Args:
        server: whose they are; called from a callback, its stop() does not wait.
        on_accept, on_message, on_drain, on_eof, on_close: as in Server().
        memoryviews, max_pending, slow_callback_duration: as in Server().
    Raises:
        ConfigError: a setting says what a reply is, which a callback does; or a value is wrong.
        TypeError: one of the callbacks cannot be called.
    Thread: the core calls failed(), slow() and peer() on the workers' threads.
    """

    def __init__(
        self,
        server: Server,
        *,
        on_accept: OnAccept | None,
        on_message: OnMessage | None,
        on_drain: OnConnection | None,
        on_eof: OnConnection | None,
        on_close: OnClose | None,
        memoryviews: bool,
        max_pending: int,
        slow_callback_duration: float | None,
    ) -> None:
        self.on_accept = on_accept
        self.on_message = on_message
        self.on_drain = on_drain
        self.on_eof = on_eof
        self.on_close = on_close
        config = server.config
        for name in ARGUMENTS:
            if (one := getattr(self, name)) is not None:
                check_callback(name, one)
        needing = {
            "on_drain": on_drain is not None,
            "on_eof": on_eof is not None,
            "memoryviews": memoryviews,
            "max_pending": max_pending != DEFAULT_MAX_PENDING,
        }
        for name, is_given in needing.items():
            if is_given and on_message is None:
                raise TypeError(f"{name} needs on_message beside it")
        self.in_core = on_message is not None or on_close is not None
        if slow_callback_duration is not None and not self.in_core and on_accept is None:
            raise TypeError("slow_callback_duration needs a callback beside it")
        for address in config.bind if on_message is not None else ():
            if address.kind == "udp":
                reason = "cannot be used with on_message: datagrams have no callbacks"
                raise ConfigError("bind", str(address), reason)
        if on_message is not None and config.service != "echo":
            raise ConfigError("service", config.service, "gets no messages: on_message needs echo")
        for name in ("prefix", "suffix") if on_message is not None else ():
            if value := getattr(config, name):
                raise ConfigError(
                    name, value, "cannot be used with on_message: it makes the replies"
                )
        check_max_pending(max_pending, config.high_water)
        if slow_callback_duration is not None:
            check_duration(slow_callback_duration)
        # Where on_message runs; on_close alone has the accept callback's thread.
        self.on_workers = on_message is not None
        self.on_thread = on_accept is not None or (on_close is not None and on_message is None)
        self.memoryviews = memoryviews
        self.max_pending = max_pending
        self.slow_ns = round((slow_callback_duration or 0) * 1e9)
        known = set(Reason)
        # By number; a reason for which no connection is ever served has none.
        self.reasons = [Reason(one) if one in known else None for one in reason_names()]
        self._server = server
        # What the first callback that failed raised.
        self.error: BaseException | None = None
        # Of the accept callback's thread, which counts alone: its failures; the times that it has
        # dealt with all that had come.
        self.failures = 0
        self.rounds = 0

    def peer(self, address: bytes, listener: int, queue_wait_ms: int, proxy: bytes | None) -> Peer:
        """Return the Peer of a connection, from its raw sockaddr."""
        return read_peer(address, self._server.listeners[listener], queue_wait_ms, proxy)

    def ended(self, connection: Connection, reason: int) -> None:
        """Call on_close, on the thread of the accept callback: there is no on_message."""
        try:
            self.call("on_close", connection, self.reasons[reason])
        except BaseException as error:
            self.failed_here("on_close", connection, error)

    def call(self, name: str, subject: Peer | Connection, *more: object) -> object:
        """Call one on the thread of the accept callback, and tell of it if that took too long."""
        began = time.monotonic()
        try:
            return getattr(self, name)(subject, *more)
        finally:
            took = time.monotonic() - began
            if 0 < self.slow_ns <= took * 1e9:
                with suppress(Exception):  # a handler's
                    log.warning("%s took %.3f s for %r: newcomers waited", name, took, subject)

    def failed_here(self, name: str, subject: Peer | Connection, error: BaseException) -> None:
        """Count and tell of an exception on the thread of the accept callback."""
        self.failures += 1
        with suppress(Exception):  # a handler's
            self.failed(name, subject, error)

    def failed(self, name: str, subject: Peer | Connection | None, error: BaseException) -> None:
        """Tell of an exception; its connection is reset. One that asks for the end stops it all."""
        if self.error is None:  # it may be one that is false
            self.error = error
        if isinstance(error, KeyboardInterrupt | SystemExit):
            log.info("%s raised %s: the server stops", name, type(error).__name__)
            self._server.stop()
        else:
            then = "" if name == "on_close" else ": the connection is reset"
            log.error("%s failed for %r%s", name, subject, then, exc_info=error)

    def slow(self, name: str, connection: Connection, seconds: float) -> None:
        """Tell of a callback that held up its worker."""
        log.warning("%s took %.3f s for %r: its worker waited", name, seconds, connection)
