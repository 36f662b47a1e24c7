"""A latch: closed until it is opened, once and for all; threads wait for it.

Lives here: waiting, and what is called when it opens. Does not live here: what it stands for.

Not a threading.Event: a signal handler that raises (Ctrl-C) while the main thread waits for one may
leave the lock inside it taken, and then nobody can set it any more. Here everybody who waits has a
lock of his own, and what is shared is a list, whose operations no handler can cut in two.
"""

from __future__ import annotations

from _thread import allocate_lock
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Latch"]


class Latch:
    """Something that happens once.

    Thread: any thread may call any method.
    """

    def __init__(self) -> None:
        self._is_open = False
        self._calls: list[Callable[[], object]] = []

    def is_open(self) -> bool:
        """Tell whether it has happened."""
        return self._is_open

    def open(self) -> None:
        """It happens now: whoever waits is woken. A second call does nothing."""
        self._is_open = True
        while self._calls:  # what is added now finds it open
            self._calls.pop()()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it, at most `timeout` seconds (None: for ever); tell whether it has happened."""
        turn = allocate_lock()
        turn.acquire()
        with self.calling(turn.release):
            if not self._is_open:
                turn.acquire(timeout=-1 if timeout is None else timeout)
        return self._is_open

    @contextmanager
    def calling(self, act: Callable[[], object]) -> Iterator[None]:
        """In a `with` block: `act` is called when it opens, by the thread that opens it.

        It is not called if it was open before. `act` must not raise.
        """
        self._calls.append(act)
        try:
            yield
        finally:
            with suppress(ValueError):  # it was called
                self._calls.remove(act)
