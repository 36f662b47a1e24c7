"""The threads of a server: daemons that are started with it and waited for after its end.

Lives here: starting them, telling whether the caller is one of them, waiting. Does not live here:
what they do (server.py names it), their signals (signals.py).
"""

from __future__ import annotations

import threading

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

    def start(self, target: Callable[[], None], name: str, wait: float = WAIT) -> None:
        """Add a daemon thread and start it; it is in the crew even if starting it raises.

        Args:
            wait: seconds that it is waited for in wait().
        """
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append((thread, wait))
        thread.start()

    def has_current(self) -> bool:
        """Tell whether the caller runs in one of them, and must not wait for them."""
        current = threading.current_thread()
        return any(thread is current for thread, _ in self._threads)

    def wait(self) -> None:
        """Wait for each of them as long as it has, but never for the calling thread."""
        for thread, seconds in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(seconds)
