"""A server through many rounds of cycles, with residents; and what must hold after each.

Lives here: a round, the warm-up, what is looked at when all is quiet. Does not live here: what a
peer does (cycles.py, residents.py), what the statistics must say (books.py), reading what the
process holds (holdings.py), the table (soak.py).

A round: cycles come and go while the residents talk; then the cycles are gone and the residents
are quiet. What the server holds then is what it held after the warm-up. At the end the residents
leave as well: it has the descriptors and threads that it had at first.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from books import Account
from conftest import SETTLE, check_books
from cycles import Cycle, Wire, choose, noise
from cycling import Crowd
from holdings import Footprint, changes, footprint, growth
from peers import wait_until
from residents import CONNECTIONS, Residents
from soaked import Soaked

if TYPE_CHECKING:
    import fastecho

GROWTH = 1_000_000
"""Bytes by which memory may grow after the warm-up."""


class Part(NamedTuple):
    """A server, and how much it lives through."""

    name: str
    config: dict[str, Any]
    """Server's keywords."""
    wire: Wire
    rounds: int
    warm_up: int
    """Rounds that come before, and do not count."""
    cycles: int
    """In a round."""
    messages: int
    """In a round, at least."""


class Sample(NamedTuple):
    """What the server held at one moment, and how much it had been through."""

    when: str
    cycles: int
    messages: int
    held: Footprint


class Life:
    """A server's life under a part.

    Args:
        part: what it lives through.
        seed: decides every choice.
        until: time.monotonic() by which all must be done.
        after_round: called with this after each round.
        serve: starts the server.
    """

    def __init__(
        self,
        part: Part,
        seed: int,
        until: float,
        after_round: Callable[[Life], object] = lambda life: None,
        serve: Callable[..., Soaked] = Soaked,
    ) -> None:
        self.part = part
        self.account = Account()
        self.samples: list[Sample] = []
        """When all was quiet: at the start, after the warm-up and each round, at the end."""
        self.busy: list[Footprint] = []
        """In the middle of each round."""
        self.stats: fastecho.Stats | None = None
        """Of the server when it had ended."""
        self._seed = seed
        self._until = until
        self._after_round = after_round
        self._text = noise(seed)
        self._serve = serve

    def live(self) -> None:
        """Live through everything, from the server's start to its end; fail when anything fails."""
        part, where = self.part, "start"
        self._served = served = self._serve(**part.config)
        try:
            crowd = Crowd(served.address, self.account.add)
            self._residents = Residents(served.address, part.wire, self._seed)
            start = self._sample("start")
            try:
                self._residents.connect()
                for number in range(-part.warm_up, 0):
                    where = f"round {number}"
                    self._round(crowd, number)
                    self._settle(CONNECTIONS)
                warm = self._sample("warm")
                for number in range(1, part.rounds + 1):
                    where = f"round {number}"
                    self._round(crowd, number)
                    self._settle(CONNECTIONS, warm)
                    self._expect(growth(warm, self._sample(where), GROWTH))
                    self._after_round(self)
            finally:
                self._residents.close()
            where = "end"
            self._settle(0, start)
            self._expect(growth(warm, self._sample("all gone"), GROWTH))
            self.stats = served.end()
            check_books(self.stats)
        except BaseException as error:
            error.add_note(f"seed {self._seed}, {part.name}, {where}")
            raise
        finally:
            served.kill()

    def _round(self, crowd: Crowd, number: int) -> None:
        """Let cycles come and go while the residents talk, until both have done their part."""
        part, first = self.part, self.account.cycles
        dice = random.Random(f"{self._seed} {part.name} {number}")
        cycles = choose(dice, part.cycles, first, self._text, part.wire)
        is_over = False

        def share() -> float:
            return 1 if is_over else (self.account.cycles - first) / part.cycles

        with ThreadPoolExecutor(1) as pool:
            talking = pool.submit(self._residents.talk, part.messages, share, self._until)
            try:
                crowd.hold(self._watched(cycles))
            finally:
                is_over = True
            talking.result()

    def _watched(self, cycles: Iterable[Cycle]) -> Iterator[Cycle]:
        """Yield the cycles while there is time; look at the server in the middle of them."""
        for number, cycle in enumerate(cycles):
            assert time.monotonic() < self._until, "the time is up"
            if number == self.part.cycles // 2:
                self.busy.append(footprint(self._served.pid))
            yield cycle

    def _settle(self, staying: int, held: Footprint | None = None) -> None:
        """Wait until the server has noticed that all others are gone.

        Then its books are right, and it has the descriptors and threads that it held before.
        """

        def complaints() -> list[str]:
            stats = self._served.stats()
            found = self.account.complaints(stats, self._residents, staying)
            return found + (changes(held, footprint(self._served.pid)) if held else [])

        try:
            wait_until(lambda: not complaints(), SETTLE)
        except AssertionError:
            self._expect(complaints())

    def _sample(self, when: str) -> Footprint:
        """Look at the server while all is quiet, and keep what is seen."""
        held = footprint(self._served.pid)
        self.samples.append(Sample(when, self.account.cycles, self._residents.messages, held))
        return held

    def _expect(self, complaints: list[str]) -> None:
        """Fail if there are any."""
        assert not complaints, "; ".join(complaints)
