"""Turns: contenders take short turns in rotated order, and each turn tells what it cost.

A contender is a running server with its own load. All are alive and connected during the whole
figure; only one is driven at a time. Nothing is judged or printed here.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from benchmarks._errors import MeasurementError
from benchmarks._neighbours import Neighbours
from benchmarks._programs import Program
from benchmarks._servers import Process, Server
from benchmarks._slow_peers import Kind, SlowPeers
from fastecho.measure.result import FAILURES

if TYPE_CHECKING:
    from fastecho._load import Load, RunResult

# share of the two cores' time in a round that other programs may use; a quiet machine shows 0-1 %
FOREIGN_LIMIT = 0.03

# rounds of a run that is worth repeating some of them
REPEATING = 16


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of one contender showed."""

    messages: int
    # from the first send until the last reply, in seconds
    seconds: float
    # CPU time of the server, in seconds
    server_cpu: float
    # CPU time of the load, in seconds
    load_cpu: float
    # latency in microseconds
    p50_us: float
    p99_us: float
    # service time in microseconds: an open loop's, from the send
    service_p50_us: float = 0.0
    service_p99_us: float = 0.0

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """Server CPU per message, in microseconds."""
        return self.server_cpu / self.messages * 1e6

    @property
    def load_busy(self) -> float:
        """Share of its core that the load used: near 1, the load is the limit, not the server."""
        return self.load_cpu / self.seconds


# one round: the turn of each contender that took part, by its name
Round = dict[str, Turn]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Do nothing around a turn."""
    yield


@dataclass(slots=True)
class Contender:
    """A server, its load, and what surrounds its turns."""

    name: str
    server: Server
    load: Load
    # takes part in every n-th round only
    every: int = 1
    # entered before each of its turns, left after it
    around: Callable[[], contextlib.AbstractContextManager[None]] = field(default=undisturbed)
    # seconds of unmeasured load at the start of each of its turns
    lead_in: float = 0.0
    # each of its turns is on new connections
    fresh: bool = False
    # processes of ours, beside the server, that do something in its turns
    beside: Sequence[Process] = ()

    def turn(self, seconds: float) -> Turn:
        """Drive the load for `seconds` and return what that showed."""
        with self.around():
            if self.fresh:
                self.load.disconnect()
                self.load.connect()
            if self.lead_in:
                self._run(self.lead_in)
            self.load.reset()
            before = self.server.cpu_ns()
            result = self._run(seconds)
            server_ns = self.server.cpu_ns() - before
        latency, service = self.load.histogram(), self.load.histogram("service")
        return Turn(
            messages=result["messages"],
            seconds=result["total_ns"] / 1e9,
            server_cpu=server_ns / 1e9,
            load_cpu=result["cpu_ns"] / 1e9,
            p50_us=latency.percentile(50.0) / 1e3,
            p99_us=latency.percentile(99.0) / 1e3,
            service_p50_us=service.percentile(50.0) / 1e3,
            service_p99_us=service.percentile(99.0) / 1e3,
        )

    def _run(self, seconds: float) -> RunResult:
        try:
            result = self.load.run(seconds)
        except RuntimeError as error:
            raise MeasurementError(f"{self.name}: {error}") from error
        values: dict[str, Any] = dict(result)
        faults = [f"{key} {values[key]}" for key in FAILURES if values[key]]
        if faults or not result["messages"]:
            what = ", ".join(faults) or "no message came back"
            first = f" ({result['failures'][0][1]})" if result["failures"] else ""
            raise MeasurementError(f"{self.name}: a turn of {seconds:g} s showed {what}{first}")
        return result


def rotated(contenders: Sequence[Contender], number: int) -> list[Contender]:
    """Return the order of round `number`: rotated each round, mirrored in every other one.

    So every contender stands at every place, and not always behind the same one.
    """
    shift = (number // 2) % len(contenders)
    order = [*contenders[shift:], *contenders[:shift]]
    return order[::-1] if number % 2 else order


@dataclass(slots=True)
class Taken:
    """The rounds of a figure, and what the machine's other programs did to them."""

    rounds: list[Round]
    # rounds in which others used too much of the cores, and that were taken again
    repeated: int = 0
    # rounds that others disturbed and that count nevertheless, since it did not get better
    disturbed: int = 0

    def note(self) -> str:
        """Return a sentence about other programs, "" if there were none."""
        used = f"other programs used more than {FOREIGN_LIMIT:.0%} of the two cores"
        parts: list[str] = []
        if self.repeated:
            parts.append(f"{used} in {self.repeated} rounds, which were repeated")
        if self.disturbed:
            parts.append(f"{used} in {self.disturbed} of the {len(self.rounds)} rounds that count")
        return "; ".join(parts)


def interleave(contenders: Sequence[Contender], rounds: int, seconds: float) -> Taken:
    """Return `rounds` rounds of turns of `seconds`, after one round that is thrown away.

    Rounds in which other programs used the cores are repeated, as often as half of `rounds` in
    all; a short run repeats none.
    """
    repeats = rounds // 2 if rounds >= REPEATING else 0
    for contender in contenders:
        contender.turn(min(seconds, 0.1))
    ours = [process for one in contenders for process in (one.server, *one.beside)]
    taken = Taken([])
    while len(taken.rounds) < rounds:
        number = len(taken.rounds)
        taking_part = [one for one in contenders if number % one.every == 0]
        neighbours = Neighbours(ours)
        made = {one.name: one.turn(seconds) for one in rotated(taking_part, number)}
        if neighbours.share() > FOREIGN_LIMIT:
            if taken.repeated < repeats:
                taken.repeated += 1
                continue
            taken.disturbed += 1
        taken.rounds.append(made)
    return taken


class Stage:
    """The servers and loads of one figure; leaving it ends them all, whatever happened."""

    def __init__(self, server_core: int, load_core: int) -> None:
        self.server_core = server_core
        self.load_core = load_core
        self._loads = contextlib.ExitStack()
        self._processes = contextlib.ExitStack()
        self._running: list[Process] = []

    def server(self, program: Program, cores: Sequence[int] = ()) -> Server:
        """Start `program`, pinned to the server's core unless `cores` says otherwise."""
        server = self._processes.enter_context(
            Server(program.name, program.command, cores or (self.server_core,), obeys=program.obeys)
        )
        self._running.append(server)
        return server

    def slow_peers(self, server: Server, kind: Kind, count: int, *, buffer: int = 0) -> SlowPeers:
        """Connect slow peers to `server`, held by a process on the load's core."""
        peers = self._processes.enter_context(
            SlowPeers(server.address, kind, count, self.load_core, buffer=buffer)
        )
        self._running.append(peers)
        return peers

    def load(self, server: Server, **options: Any) -> Load:
        """Return a connected load on `server`; `options` are those of Load."""
        from fastecho._load import Load  # here: a missing extension is a sentence, see _command

        load = self._loads.enter_context(Load([(socket.AF_INET, server.address)], **options))
        load.connect()
        return load

    def contender(
        self, program: Program, *, every: int = 1, cores: Sequence[int] = (), **options: Any
    ) -> Contender:
        """Start `program` and connect a load with `options` to it."""
        server = self.server(program, cores)
        return Contender(program.name, server, self.load(server, **options), every)

    def close_loads(self) -> None:
        """Close every connection; the servers stay."""
        self._loads.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close_loads()
        finally:
            with self._processes:  # leaving it calls end() of every server
                for process in self._running:
                    process.begin_end()
