"""Many cycles at a time, each as far as it can go.

Lives here: the loop, who is waited for, what a hanging one costs. Does not live here: what a cycle
does (cycles.py).
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterable

from cycles import REST, Cycle, Script

AT_ONCE = 48
"""Cycles that are under way at a time."""
REST_SECONDS = 0.01
"""How long a cycle rests that asks for it."""
PATIENCE = 60.0
"""Seconds without an event on any connection after which what is left counts as hanging."""


class Crowd:
    """Cycles under way to one server.

    Args:
        address: "host:port".
        ended: called with each cycle that has come to its end.
    """

    def __init__(self, address: str, ended: Callable[[Cycle], object]) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._ended = ended
        self._talking: dict[int, tuple[Cycle, Script]] = {}
        self._asked: dict[int, int] = {}
        self._resting: deque[tuple[float, int]] = deque()
        """When each goes on, and its descriptor; all rest equally long, so it is sorted."""

    def hold(self, cycles: Iterable[Cycle]) -> None:
        """Go through all cycles, to the end of each; fail at the first that goes wrong or hangs."""
        waiting, more = select.epoll(), iter(cycles)
        try:
            with waiting:
                while self._start(waiting, more) or self._talking:
                    self._wait(waiting)
        finally:
            for cycle, _ in self._talking.values():
                cycle.sock.close()

    def _start(self, waiting: select.epoll, more: Iterable[Cycle]) -> bool:
        """Let as many begin as may; False when there is none any more."""
        for cycle in more:
            cycle.connect(self._host, self._port, PATIENCE)
            fd = cycle.sock.fileno()
            self._talking[fd] = cycle, cycle.script()
            self._go_on(waiting, fd)
            if len(self._talking) >= AT_ONCE:
                return True
        return False

    def _wait(self, waiting: select.epoll) -> None:
        """Wait for events and rests, and go on with whom they are for."""
        patience = self._resting[0][0] - time.monotonic() if self._resting else PATIENCE
        heard = waiting.poll(max(patience, 0))
        if not heard and not self._resting:
            hanging = [cycle for cycle, _ in self._talking.values()]
            raise AssertionError(f"nothing within {PATIENCE} s: {hanging}")
        for fd, _ in heard:
            if self._asked[fd] != REST:
                self._go_on(waiting, fd)
        while self._resting and self._resting[0][0] <= time.monotonic():
            self._go_on(waiting, self._resting.popleft()[1])

    def _go_on(self, waiting: select.epoll, fd: int) -> None:
        """Let one do what it can, and ask epoll for what it waits for then."""
        cycle, script = self._talking[fd]
        try:
            wanted = next(script)
        except StopIteration:
            # Closed: epoll has forgotten it.
            del self._talking[fd]
            self._asked.pop(fd, None)
            self._ended(cycle)
            return
        except OSError as error:
            raise AssertionError(f"{error}: {cycle!r}") from error
        if wanted == REST:
            self._resting.append((time.monotonic() + REST_SECONDS, fd))
        if fd not in self._asked:
            waiting.register(fd, wanted)
        elif self._asked[fd] != wanted:
            waiting.modify(fd, wanted)
        self._asked[fd] = wanted
