"""Measures several servers side by side: whom they serve, how fast, at what cost.

Lives here: the order of things and their deadlines. Does not live here: which servers there are
(commands are passed in; nothing of `fastecho.models` or the server is known here), a server's
process (model_server.py), what the figures are (model_result.py) and mean (model_words.py).

At each size every server is started, looked at by a probe (who is answered, threads, memory, CPU
while nobody talks and while one does), and connected to a load of its own. Then they take short
turns in an order that is rotated, so that what else happens on the machine hurts all alike. Only
one of them runs at a time: the others are stopped (SIGSTOP), as one that never waits would take
their core.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack, contextmanager

from fastecho._load import Histogram, Load
from fastecho.errors import ConfigError

from .model_result import Figures, ModelRuns, Turn
from .model_server import ModelServer, Peers, ServerError
from .result import FAILURES
from .runner import this_host
from .words import counted, failure_name

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Progress = Callable[[str, bool], object]

__all__ = ["check_descriptors", "longest", "measure_models"]

START_SECONDS = 5.0
"""Within which a server must be ready."""
QUIET_SECONDS = 1.0
"""Without a further answer, the peers of a probe that have none are not served."""
PROBE_SECONDS = 4.0
"""A probe ends then, whatever still comes."""
IDLE_SECONDS = 0.25
"""Of looking at the CPU while nobody talks."""
LONE_SECONDS, LONE_PARTS = 0.25, 5
"""Of one peer talking while the others are silent, in parts whose median counts."""
LEAVE_SECONDS = 2.0
"""For a server to notice that the peers of the probe have left."""
REPLY_SECONDS = 2.0
"""For a reply under load."""
TURN_SECONDS = 0.3
"""Of a turn, about."""
LEAD_IN_SECONDS = 0.03
"""Of load before each turn that does not count: caches were the others'."""
PREPARED_SECONDS = 1.1
"""What starting a server and the probe take, beside the load."""
SLACK, MORE_SECONDS = 1.45, 8.0
"""The deadline: so many times the time that all should take, and so many seconds more."""
SPARE_DESCRIPTORS = 100


def longest(models: int, sizes: int, duration: float) -> float:
    """Return the seconds within which so many models at so many sizes end, whatever happens."""
    wanted = models * sizes * (PREPARED_SECONDS + duration * (1 + LEAD_IN_SECONDS / TURN_SECONDS))
    return wanted * SLACK + MORE_SECONDS


def measure_models(
    commands: Mapping[str, Sequence[str]],
    connections: Sequence[int] = (1, 10, 100, 1000),
    *,
    duration: float = 3.0,
    core: str = "",
    environment: Mapping[str, str] | None = None,
    on_progress: Progress = lambda _text, _is_step: None,
) -> ModelRuns:
    """Measure each server at each number of connections, interleaved.

    A server that does not start, hangs, ends or refuses is a finding: its figures say so, and the
    others go on. With two CPUs or more this thread and the servers are pinned to one each. Ctrl-C
    ends it early, with what there is. No process is left.

    Args:
        commands: what starts each server, by name; `--ready-fd N` is added, to which it writes
            HOST:PORT once it listens.
        connections: the sizes; measured in this order.
        duration: seconds of load for each server and size.
        core: the name of the one that is compiled, which the others are compared with.
        environment: of the servers; None: ours.
        on_progress: is told what is done now, and whether that begins a step.
    Returns:
        ModelRuns: within longest(...) seconds.
    Raises:
        ConfigError: this process may not have as many descriptors.
    Thread: the main one if Ctrl-C shall end it.   Cost: a process for each server.
    """
    check_descriptors(len(commands), max(connections))
    at_most = longest(len(commands), len(connections), duration)
    runs = ModelRuns(
        list(commands), connections, core=core, started_at=time.time(), host=this_host(),
        duration=duration, at_most=at_most,
    )  # fmt: skip
    began = time.monotonic()
    try:
        with _two_cores() as core_of_servers:
            runs.pinned = core_of_servers is not None
            for n, size in enumerate(connections):
                # Each size has its part of the time: one with many that hang costs no other.
                end = began + (at_most - 1.0) * (n + 1) / len(connections)
                with ExitStack() as stack:
                    one = _Size(commands, size, end, stack, environment, core_of_servers)
                    one.found = runs.figures
                    one.on_progress = on_progress
                    one.measure(duration)
    except KeyboardInterrupt:
        runs.interrupted = True
    runs.elapsed = time.monotonic() - began
    return runs


def check_descriptors(models: int, most: int) -> None:
    """Raise ConfigError if so many models at so many connections need more than are allowed."""
    import resource

    needed = (models + 1) * most + SPARE_DESCRIPTORS
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed != resource.RLIM_INFINITY and needed > allowed:
        raise ConfigError(
            "--connections", most, f"needs {needed:,} descriptors for "
            f"{counted(models, 'model')}, and {allowed:,} are allowed (ulimit -n)",
        )  # fmt: skip


@contextmanager
def _two_cores() -> Iterator[int | None]:
    """Pin this thread to one CPU, give another for the servers; None where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        yield None
        return
    os.sched_setaffinity(0, {allowed[-1]})
    try:
        yield allowed[0]
    finally:
        os.sched_setaffinity(0, allowed)


class _Contender:
    """A server at one size, with its load."""

    def __init__(self, server: ModelServer, figures: Figures) -> None:
        self.server = server
        self.figures = figures
        self.load: Load | None = None
        # Clock ticks in user mode and in the kernel, of its turns.
        self.ticks = [0, 0]


class _Size:
    """All servers at one number of connections."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        size: int,
        end: float,
        stack: ExitStack,
        environment: Mapping[str, str] | None,
        core: int | None,
    ) -> None:
        self.commands = commands
        self.size = size
        self.end = end
        self.stack = stack
        self.environment = environment
        self.core = core
        # Figures are there as soon as there is something to tell: Ctrl-C keeps them.
        self.found: list[Figures] = []
        self.on_progress: Progress = lambda _text, _is_step: None

    def left(self, most: float) -> float:
        """Return so many seconds, or what is left of the time.

        Raises:
            ServerError: nothing is left.
        """
        left = min(self.end - time.monotonic(), most)
        if left <= 0:
            raise ServerError("was not measured: the time was over")
        return left

    def measure(self, duration: float) -> None:
        where = counted(self.size, "connection")
        ready = []
        for name, command in self.commands.items():
            self.on_progress(f"{where}: {name}", True)
            figures = Figures(name, self.size)
            self.found.append(figures)
            try:
                ready.append(self._prepare(command, figures))
            except ServerError as error:
                figures.problem = str(error)
        rounds = max(1, round(duration / TURN_SECONDS))
        self.on_progress(f"{where}: {counted(rounds, 'round')} of turns", True)
        for number in range(rounds):
            for one in _rotated(ready, number):
                self.on_progress(
                    f"{where}: round {number + 1} of {rounds}, {one.figures.model}", False
                )
                try:
                    self._turn(one, duration / rounds)
                except ServerError as error:
                    _add_problem(one.figures, str(error))
                    ready.remove(one)
                    one.server.end()

    # --- before the turns -------------------------------------------------------------------

    def _prepare(self, command: Sequence[str], figures: Figures) -> _Contender:
        """Start a server, look at it by a probe, connect its load, and stop it until its turn."""
        server = ModelServer(command, self.environment, self.left(START_SECONDS))
        self.stack.enter_context(server)
        if self.core is not None:
            server.pin(self.core)
        one = _Contender(server, figures)
        try:
            self._probe(server, figures)
            self._connect(one)
        except BaseException:
            server.end()
            raise
        server.pause()
        return one

    def _probe(self, server: ModelServer, figures: Figures) -> None:
        """Find out whom it serves, and what it takes while they are there."""
        # What the first peer brings into memory, modules and pages of code, is no peer's.
        with Peers(server.address, 1) as first:
            first.wait(self.left(QUIET_SECONDS), self.left(QUIET_SECONDS))
            if not first.answered:
                figures.served = 0
                seconds = f"gave no answer within {QUIET_SECONDS:g} s"
                raise ServerError(server.reason(first.refusal() or seconds))
        memory = server.memory()
        with Peers(server.address, self.size) as peers:
            peers.wait(self.left(QUIET_SECONDS), self.left(PROBE_SECONDS))
            figures.served = peers.answered
            figures.problem = peers.refusal()
            if not peers.answered:
                raise ServerError(server.reason(figures.problem or "answered no peer"))
            figures.memory_per_connection = max(server.memory() - memory, 0) / peers.answered
            figures.threads = server.threads()
            began, cpu = time.monotonic(), server.cpu()
            time.sleep(self.left(IDLE_SECONDS))
            figures.idle_cpu = (server.cpu() - cpu) / (time.monotonic() - began)
            without_peers = server.descriptors() - peers.answered
            try:
                figures.lone_cpu_per_message = self._lone(server, peers)
            except ServerError as error:
                raise ServerError(server.reason(str(error))) from None
        server.await_descriptors(without_peers, self.left(LEAVE_SECONDS))

    def _lone(self, server: ModelServer, peers: Peers) -> float:
        """Return the seconds of CPU for each message while one peer talks."""
        found = []
        for _ in range(LONE_PARTS):
            cpu = server.cpu()
            got = peers.talk(self.left(LONE_SECONDS / LONE_PARTS))
            found.append((server.cpu() - cpu) / got)
        return sorted(found)[LONE_PARTS // 2]

    def _connect(self, one: _Contender) -> None:
        """Connect a load of as many as are served."""
        figures, (host, port) = one.figures, one.server.address
        assert figures.served is not None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        figures.driven = figures.served
        figures.latency = Histogram()
        one.load = Load(
            [(family, (host, port))], connections=figures.driven, timeout=self.left(REPLY_SECONDS)
        )
        self.stack.callback(one.load.close)
        try:
            one.load.connect()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ServerError(one.server.reason(f"took no load: {why}")) from None
        self._run(one, LEAD_IN_SECONDS * 2)

    # --- turns ------------------------------------------------------------------------------

    def _turn(self, one: _Contender, seconds: float) -> None:
        """Drive one server for so long, and note what it showed."""
        server, figures = one.server, one.figures
        server.resume()
        self._run(one, LEAD_IN_SECONDS)
        assert one.load is not None
        assert figures.latency is not None
        one.load.reset()
        ticks, cpu = server.kernel_cpu(), server.cpu()
        counts, failed = self._driven(one, seconds)
        used = server.cpu() - cpu
        for i, now in enumerate(server.kernel_cpu()):
            one.ticks[i] += now - ticks[i]
        server.pause()
        if counts["messages"]:
            rate = counts["messages_in_window"] / counts["elapsed_ns"] * 1e9
            busy = min(counts["cpu_ns"] / counts["total_ns"], 1.0)
            figures.turns.append(Turn(counts["messages"], rate, used, busy))
            figures.latency.merge(one.load.histogram())
            if total := sum(one.ticks):
                figures.kernel_share = one.ticks[1] / total
        if failed:
            raise ServerError(failed)

    def _run(self, one: _Contender, seconds: float) -> None:
        """Drive a server so that nothing of it counts but a failure."""
        _, failed = self._driven(one, seconds)
        if failed:
            raise ServerError(failed)

    def _driven(self, one: _Contender, seconds: float) -> tuple[dict[str, int], str]:
        """Drive a server; return what the load has counted, and what failed."""
        assert one.load is not None
        try:
            result = one.load.run(self.left(seconds))
        except RuntimeError:  # no connection is open
            raise ServerError(one.server.reason("has ended all connections")) from None
        counts = {name: n for name, n in result.items() if isinstance(n, int)}
        kinds = [
            f"{counts[kind]:,} {failure_name(kind, counts[kind])}"
            for kind in FAILURES
            if counts[kind]
        ]
        if not kinds and counts["messages"]:
            return counts, ""
        said = f"failed under load: {', '.join(kinds) or 'no reply'}"
        return counts, one.server.reason(said)


def _add_problem(figures: Figures, sentence: str) -> None:
    figures.problem = f"{figures.problem}; {sentence}" if figures.problem else sentence


def _rotated(ready: list[_Contender], number: int) -> list[_Contender]:
    """Return the order of a round: rotated each time, mirrored every other time.

    So none stands always behind the same one.
    """
    if not ready:
        return []
    shift = (number // 2) % len(ready)
    order = [*ready[shift:], *ready[:shift]]
    return order[::-1] if number % 2 else order
