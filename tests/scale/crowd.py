"""Many servers and the processes that hold connections to them, told what to do all at once.

Lives here: starting and ending them, who is connected to whom, giving an order to as many at a
time as there are CPUs. Does not live here: which orders in which turn, and what must hold
(hold.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from footprint import descriptors
from holder import Holder
from plan import Plan, most_descriptors
from served import Served

Thing = TypeVar("Thing")
Result = TypeVar("Result")


class Crowd:
    """The processes of one phase."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.servers: list[Served] = []
        self.holders: list[Holder] = []
        self.connections = plan.connections
        """Of all holders together, once the servers are started."""
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def start(self) -> None:
        """Start all processes."""

        def serve(_: int) -> None:
            self.servers.append(Served())

        def hold(number: int) -> None:
            self.holders.append(Holder(number))

        self._each("server", serve, range(self.plan.servers))
        if not self.connections:
            self.connections = most_descriptors() - len(descriptors(self.servers[0].pid))
        self._each("holder", hold, range(self.plan.holders))

    def each_server(self, work: Callable[[Served], Result]) -> list[Result]:
        """Do the work for each server, some at a time; return the results in order.

        The first failure is raised, with the number of the server that it is about.
        """
        return self._each("server", work, self.servers)

    def each_holder(self, work: Callable[[Holder], Result]) -> list[Result]:
        """Do the work for each process that connects, likewise."""
        return self._each("holder", work, self.holders)

    def _each(
        self, noun: str, work: Callable[[Thing], Result], things: Iterable[Thing]
    ) -> list[Result]:
        futures = [self._pool.submit(work, thing) for thing in things]
        results = []
        for number, future in enumerate(futures, 1):
            try:
                results.append(future.result())
            except BaseException as error:
                for other in futures:
                    other.cancel()
                error.add_note(f"{noun} {number} of {len(futures)}")
                raise
        return results

    def share(self, holder: Holder) -> int:
        """Return how many connections a holder has."""
        count, rest = divmod(self.connections, self.plan.holders)
        return count + (holder.number < rest)

    def server_of(self, holder: Holder) -> Served:
        """Return the server that a holder is connected to."""
        return self.servers[holder.number % len(self.servers)]

    def due(self, server: Served) -> int:
        """Return how many connections a server has."""
        return sum(self.share(one) for one in self.holders if self.server_of(one) is server)

    def kill(self) -> None:
        """End all processes, whatever state they are in."""
        self._pool.shutdown(cancel_futures=True)
        for one in [*self.holders, *self.servers]:
            one.kill()
