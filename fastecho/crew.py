"""The threads of a server: daemons that are started with it and waited for after its end.

Lives here: starting them, telling whether the caller is one of them, waiting. Does not live here:
what they do (server.py names it), their signals (signals.py).

Thread.start() waits until the thread has begun, and a signal handler that raises there (Ctrl-C) may
leave the thread stuck before it has begun. Handlers run in the main thread only. So it is another
thread that starts them, and the caller waits in a single call of C code.
"""

from __future__ import annotations

import threading
from _thread import allocate_lock, start_new_thread

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Crew"]

WAIT = 0.2
"""Seconds to wait for a thread that has nothing left to do."""


class Crew:
    """The threads of one server."""

    def __init__(self) -> None:
        # Each with the seconds that it has after the server's end.
        self._threads: list[tuple[threading.Thread, float]] = []

    def add(self, target: Callable[[], None], name: str, wait: float = WAIT) -> None:
        """Add a daemon thread.

        Args:
            wait: seconds that it is waited for in wait().
        """
        self._threads.append((threading.Thread(target=target, name=name, daemon=True), wait))

    def start(self) -> None:
        """Start them all.

        Raises:
            RuntimeError: a thread was refused; some of them may run, none will any more.
            Whatever a signal handler raises: those that do not run may still begin to.
        """
        errors: list[BaseException] = []
        over = allocate_lock()
        over.acquire()

        def start_all() -> None:
            try:
                for thread, _ in self._threads:
                    thread.start()
            except BaseException as error:
                errors.append(error)
            finally:
                over.release()

        start_new_thread(start_all, ())
        over.acquire()
        if errors:
            raise errors[0]

    def has_current(self) -> bool:
        """Tell whether the caller runs in one of them, and must not wait for them."""
        current = threading.current_thread()
        return any(thread is current for thread, _ in self._threads)

    def join(self, name: str, seconds: float) -> bool:
        """Wait for the thread of that name, if there is one; tell whether it has ended."""
        for thread, _ in self._threads:
            if thread.name == name and thread.is_alive():
                if thread is not threading.current_thread():
                    thread.join(seconds)
                return not thread.is_alive()
        return True

    def wait(self) -> None:
        """Wait for each of them as long as it has, but never for the calling thread."""
        for thread, seconds in self._threads:
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(seconds)
