"""Signals: which threads take them, and waiting for those that end a server.

Lives here: the mask of a worker's thread, and the main thread's wait in serve_forever. Does not
live here: what ending means (server.py).

A handler of Python's runs only when the main thread executes bytecode, so a main thread that
waits in a lock would never see it. signal.set_wakeup_fd makes the C handler write to a socket at
once: the main thread waits there, and by then the handler of Python's has noted the signal.
"""

from __future__ import annotations

import signal
import socket

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["block_signals", "ending_signals"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

NOT_BLOCKED = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGPROF,
    }
)
"""What a worker takes: faults of its own (faulthandler needs them) and profilers."""


def block_signals() -> None:
    """Block all signals in this thread but NOT_BLOCKED: they go to the threads of the user."""
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - NOT_BLOCKED)


class ending_signals:  # noqa: N801 - a context manager, named as it is used
    """While it is entered, SIGINT, SIGTERM and SIGHUP call `ended` instead of their handlers.

    Signals that are ignored stay ignored. On leaving, the handlers and the wakeup descriptor that
    were there are put back.

    Args:
        ended: called by wait(), with 1 for the first such signal, 2 for the second, and so on.
        on_hangup: called by wait() at SIGHUP, which then is no such signal; None: it is one.
    Thread: the main thread only, but for wake().
    """

    def __init__(
        self, ended: Callable[[int], None], on_hangup: Callable[[], object] | None = None
    ) -> None:
        self._ended = ended
        self._on_hangup = on_hangup
        self._count = 0
        # Signals that came and were not reported yet, oldest first.
        self._seen: list[int] = []
        self._handlers: dict[int, object] = {}
        self._sockets: tuple[socket.socket, ...] = ()
        self._wakeup: int | None = None

    def __enter__(self) -> ending_signals:
        try:
            # The handlers first: from here on no Ctrl-C raises. What comes before there is
            # something to wake is seen all the same.
            for number in ENDING:
                # None: the handler was not set from Python and could not be put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(number, self._note)
            self._sockets = socket.socketpair()
            self._sockets[1].setblocking(False)
            self._wakeup = signal.set_wakeup_fd(
                self._sockets[1].fileno(), warn_on_full_buffer=False
            )
        except BaseException:
            try:
                self._put_back()
            finally:
                for noted in self._seen:  # nobody will wait for them here
                    signal.raise_signal(noted)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._put_back()

    def _put_back(self) -> None:
        """The handlers last, and that of Ctrl-C after all others: it may raise at once."""
        if self._wakeup is not None:
            signal.set_wakeup_fd(self._wakeup)
        for one in self._sockets:
            one.close()
        for number, handler in reversed(self._handlers.items()):
            signal.signal(number, handler)  # type: ignore[arg-type]

    def wait(self) -> None:
        """Block until a signal came or wake() was called, and report the signals."""
        if not self._seen:
            self._sockets[0].recv(64)
        while self._seen:
            number = self._seen.pop(0)
            if number == signal.SIGHUP and self._on_hangup is not None:
                self._on_hangup()
            else:
                self._count += 1
                self._ended(self._count)

    def wake(self) -> None:
        """Make wait() return. Any thread."""
        try:
            self._sockets[1].send(b"\0")
        except OSError:
            pass  # full: it wakes anyway; closed: nobody waits

    def _note(self, number: int, _: object) -> None:
        self._seen.append(number)
