"""One plan on many machines at once, over Dask distributed: the extra `distributed`.

Lives here: finding the workers, how far their clocks are off, starting all loads at one time,
deadlines, and who answered. Does not live here: the load (runner.py), what runs on a worker
(cluster_task.py), adding up what came back (compare.py).

Each worker gets one task that is pinned to it and runs the whole plan. Dask runs tasks in threads,
off the worker's event loop, and the load releases the GIL: so the worker goes on answering the
scheduler. Dask itself waits for ever for a task whose worker is gone (it may come back under its
address; under a nanny it comes back under another). So what is waited for here has a deadline, and a
worker that the scheduler no longer knows is lost at once.

Clocks: each worker is asked for its time a few times; the quickest exchange bounds the error by half
its duration. Every worker is told the beginning in its own time.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from fastecho.errors import ConfigError, StartError, shown

from . import cluster_task as task
from .merge import merge
from .result import Result

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["Progress", "run_on_cluster"]

REACH = 10.0
"""Seconds for the scheduler to answer, and for workers to come up and tell their clocks."""
CLOCK_READS = 8
"""Times that each worker is asked for its time."""
AHEAD = 1.0
"""Seconds from the last word with the workers to the beginning."""
SPARE = 10.0
"""Seconds that a worker may answer later than its load can take."""
LOOK = 0.1
"""Seconds between two looks at the tasks."""


class Progress(NamedTuple):
    """What the workers have told of their latest intervals."""

    workers: int
    """How many take part."""
    answered: int
    """How many have ended."""
    lost: tuple[str, ...]
    """Names of those that are gone, each with the reason."""
    messages_per_s: float
    """Of all latest intervals together."""
    p99: float
    """Seconds, the worst of the latest intervals."""
    failures: int
    """Of all intervals so far."""


class _Worker:
    """One worker of the cluster, and what became of its load."""

    def __init__(self, address: str, name: str) -> None:
        self.address = address
        self.name = name
        # Seconds that its clock is ahead of ours, and by how much that may be wrong.
        self.offset = 0.0
        self.uncertain = 0.0
        # The latest interval that it told, its failures so far.
        self.interval: dict[str, Any] = {}
        self.failures = 0
        self.future: Any = None
        self.result: Result | None = None
        # Why there is no result; "" while there may be one.
        self.lost = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected."""
        return self.result is not None or bool(self.lost)


def run_on_cluster(
    plan: Plan, where: str, on_progress: Callable[[Progress], object] | None = None
) -> Result:
    """Run a plan on every worker of a Dask cluster at once, and add up what they measured.

    Each worker runs the whole plan: so many connections, so many messages a second each. Ctrl-C
    ends the windows of all; what they have measured until then is the result.

    Args:
        plan: what each worker does; its seed is that of the first.
        where: the scheduler's address, such as tcp://192.0.2.1:8786, or local:N: N workers on this
            machine that end afterwards.
        on_progress: called some times a second, in the calling thread.
    Returns:
        Result: of the workers that answered; `parts` has one entry for each worker, with the
        offset of its clock, or with the reason why it is missing ("lost").
    Raises:
        ConfigError: `where` has no valid form, or the extra `distributed` is not installed.
        StartError: the scheduler cannot be reached or has no worker that could run it, or none
            has answered.
    Thread: any.   Cost: some 100 ms and the plan; `local:N` starts N processes.
    Source: docs/how-to/many-machines.md.
    """
    with _client(where) as client:
        workers = _workers(client, where)
        _read_clocks(client, workers)
        begin = time.time() + AHEAD
        deadline = begin + _longest(plan) + SPARE
        for i, worker in enumerate(workers):
            if worker.lost:
                continue
            own = plan.replace(seed=(plan.seed + i) % 2**64, label=worker.name)
            worker.future = client.submit(
                task.run_here, own, begin + worker.offset, worker.address,
                key=f"fastecho-bench-{begin}-{i}", workers=[worker.address],
                allow_other_workers=False, pure=False, retries=0,
            )  # fmt: skip
        _collect(client, workers, deadline, on_progress)
    return _added_up(workers)


# --- the cluster -------------------------------------------------------------------------------


@contextmanager
def _client(where: str) -> Iterator[Any]:
    """Return a Dask client; a cluster that was made for it ends with it."""
    count = _local_count(where)
    try:
        import distributed
    except ImportError:
        why = "needs Dask distributed: pip install 'fastecho[distributed]'"
        raise ConfigError("--cluster", where, why) from None
    import dask

    if not count:
        _reach(where)
    with dask.config.set({"distributed.comm.timeouts.connect": REACH}):
        cluster = None
        try:
            if count:
                cluster = distributed.LocalCluster(
                    n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None
                )
            client = distributed.Client(cluster or where, timeout=REACH, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            if cluster is not None:
                cluster.close()
            raise StartError(0, f"cannot reach the Dask scheduler at {where}: {error}") from None
        try:
            yield client
        finally:
            client.close()
            if cluster is not None:
                cluster.close()


def _local_count(where: str) -> int:
    """Return N of local:N; 0: it is the address of a scheduler."""
    if not where.startswith("local:"):
        if "://" not in where and ":" not in where:
            raise ConfigError("--cluster", where, "must be tcp://HOST:PORT or local:N")
        return 0
    digits = where.removeprefix("local:")
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 256):
        raise ConfigError("--cluster", where, "needs a number of workers from 1 to 256 after local:")
    return int(digits)


def _reach(where: str) -> None:
    """See whether somebody listens there: a Dask client that does not connect leaves its thread."""
    import socket

    host, _, port = where.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StartError(0, f"cannot reach the Dask scheduler at {where}: {why}") from None


def _known(client: Any) -> dict[str, dict[str, Any]]:
    """Return what the scheduler knows of its workers, by address."""
    found: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    return found


def _workers(client: Any, where: str) -> list[_Worker]:
    """Return the workers that can run a plan, by name."""
    known = _known(client)
    if not known:
        raise StartError(0, f"the Dask scheduler at {where} has no workers")
    hosts = [address.rpartition("://")[2].rpartition(":")[0] for address in known]
    workers = []
    for (address, facts), host in zip(known.items(), hosts, strict=True):
        alone = hosts.count(host) == 1
        workers.append(_Worker(address, host if alone else f"{host}/{facts.get('name', address)}"))
    return sorted(workers, key=lambda worker: worker.name)


def _read_clocks(client: Any, workers: Sequence[_Worker]) -> None:
    """Ask each worker for its version and its time."""
    from fastecho._version import __version__

    best = {worker.address: (float("inf"), 0.0) for worker in workers}
    by_address = {worker.address: worker for worker in workers}
    for _ in range(CLOCK_READS):
        for address, worker in by_address.items():
            if worker.lost:
                continue
            before = time.time()
            try:
                said = client.run(task.clock, workers=[address], on_error="return")[address]
            except (KeyError, OSError, TimeoutError) as error:
                worker.lost = f"it does not answer ({error})"
                continue
            after = time.time()
            if isinstance(said, BaseException):
                worker.lost = f"it cannot run fastecho ({' '.join(str(said).split())})"
            elif said[0] != __version__:
                worker.lost = f"it has fastecho {said[0]}, not {__version__}"
            elif after - before < best[address][0]:
                best[address] = (after - before, said[1] - (before + after) / 2)
    for worker in workers:
        worker.uncertain, worker.offset = best[worker.address][0] / 2, best[worker.address][1]
    if all(worker.lost for worker in workers):
        reasons = "; ".join(f"{worker.name}: {worker.lost}" for worker in workers)
        raise StartError(0, f"no worker can run the load: {reasons}")


# --- while it runs -----------------------------------------------------------------------------


def _collect(
    client: Any,
    workers: Sequence[_Worker],
    deadline: float,
    on_progress: Callable[[Progress], object] | None,
) -> None:
    """Wait until each worker has answered or is lost; a second Ctrl-C breaks that off."""
    news: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
    client.subscribe_topic(task.TOPIC, lambda event: news.put(event[1]))
    stopped = False
    try:
        while not all(worker.is_over for worker in workers):
            try:
                time.sleep(LOOK)
                known = _known(client)
                for worker in workers:
                    _look(worker, worker.address in known, deadline)
                _hear(workers, news)
                if on_progress is not None:
                    on_progress(_progress(workers))
            except KeyboardInterrupt:
                if stopped:
                    raise
                stopped = True
                _stop(client, workers)
    finally:
        client.unsubscribe_topic(task.TOPIC)
        client.cancel([worker.future for worker in workers if worker.future is not None])


def _hear(workers: Sequence[_Worker], news: queue.SimpleQueue[tuple[str, dict[str, Any]]]) -> None:
    """Take in what the workers have told of their intervals."""
    by_address = {worker.address: worker for worker in workers}
    while not news.empty():
        address, interval = news.get()
        if address in by_address:
            by_address[address].interval = interval
            by_address[address].failures += interval["failures"]


def _look(worker: _Worker, is_known: bool, deadline: float) -> None:
    """See what has become of a worker's task."""
    if worker.is_over:
        return
    if worker.future.status == "finished":
        try:
            worker.result = Result.from_json(worker.future.result(timeout=REACH))
        except (OSError, TimeoutError) as error:
            worker.lost = f"its result did not arrive ({error})"
    elif worker.future.status in ("error", "lost", "cancelled"):
        error = worker.future.exception() if worker.future.status == "error" else None
        worker.lost = f"its load failed ({error or worker.future.status})"
    elif not is_known:
        worker.lost = "it left the cluster"
    elif time.time() > deadline:
        worker.lost = "it did not answer in time"


def _longest(plan: Plan) -> float:
    """Return the seconds that a plan can take; infinite if only the number of messages ends it."""
    if plan.duration is None:
        return float("inf")
    return plan.warmup + plan.ramp + plan.duration + plan.timeout


def _stop(client: Any, workers: Sequence[_Worker]) -> None:
    """End the windows of all that still run, after their interval."""
    waiting = [worker.address for worker in workers if not worker.is_over]
    client.run(task.stop, workers=waiting, on_error="ignore")


def _progress(workers: Sequence[_Worker]) -> Progress:
    latest = [worker.interval for worker in workers if worker.interval]
    return Progress(
        workers=len(workers),
        answered=sum(worker.result is not None for worker in workers),
        lost=tuple(f"{worker.name}: {worker.lost}" for worker in workers if worker.lost),
        messages_per_s=sum(one["messages"] / one["elapsed_s"] for one in latest),
        p99=max((one["p99_us"] or 0.0 for one in latest), default=0.0) / 1e6,
        failures=sum(worker.failures for worker in workers),
    )


def _added_up(workers: Sequence[_Worker]) -> Result:
    """Return one result of all that answered, with a word about each."""
    results = [worker.result for worker in workers if worker.result is not None]
    if not results:
        reasons = "; ".join(f"{worker.name}: {worker.lost}" for worker in workers)
        raise StartError(0, f"no worker has answered: {reasons}")
    whole = merge(results)
    for worker in workers:
        part = next((one for one in whole.parts if one["label"] == worker.name), None)
        if part is None:
            whole.parts.append({"label": worker.name, "lost": worker.lost})
        else:
            part["offset_ms"] = worker.offset * 1000
            part["offset_uncertain_ms"] = worker.uncertain * 1000
    return whole
