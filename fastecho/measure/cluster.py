"""One plan on many machines at once, over Dask distributed: the extra `distributed`.

Lives here: finding the workers, how far their clocks are off, starting all loads at one time,
deadlines, and who answered. Does not live here: the load (runner.py), what runs on a worker
(cluster_task.py), adding up what came back (compare.py).

Each worker gets one task that is pinned to it and runs the whole plan. Dask runs tasks in threads,
off the worker's event loop, and the load releases the GIL: so the worker goes on answering the
scheduler. Dask itself waits for ever for a task whose worker is gone (it may come back under its
address; under a nanny it comes back under another). So what is waited for here has a deadline, and
a worker that the scheduler no longer knows is lost at once.

Clocks: each worker is asked for its time a few times; the quickest exchange bounds the error by
half its duration. Every worker is told the beginning in its own time.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastecho.errors import ConfigError, ExtensionMissingError, StartError

from . import cluster_task as task
from .merge import add_up, merge
from .result import Interval, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .plan import Plan

__all__ = ["check_where", "run_on_cluster"]

REACH = 10.0
"""Seconds for the scheduler to answer, and for workers to come up and tell their clocks."""
FIRST_BYTE = 3.0
"""Seconds for the scheduler to say its first byte, which it does when it is connected to."""
CLOCK_READS = 8
"""Times that each worker is asked for its time."""
AHEAD = 1.0
"""Seconds from the last word with the workers to the beginning."""
SPARE = 10.0
"""Seconds that a worker may answer later than its load can take."""
LOOK = 0.1
"""Seconds between two looks at the tasks."""


class _Worker:
    """One worker of the cluster, and what became of its load."""

    def __init__(self, address: str, name: str) -> None:
        self.address = address
        self.name = name
        # Seconds that its clock is ahead of ours, and by how much that may be wrong.
        self.offset = 0.0
        self.uncertain = 0.0
        # The intervals that it has told.
        self.intervals: list[Interval] = []
        self.future: Any = None
        self.result: Result | None = None
        # Why there is no result; "" while there may be one.
        self.lost = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected."""
        return self.result is not None or bool(self.lost)


def run_on_cluster(
    plan: Plan,
    where: str,
    on_interval: Callable[[Interval], object] | None = None,
    on_lost: Callable[[str], object] | None = None,
) -> Result:
    """Run a plan on every worker of a Dask cluster at once, and add up what they measured.

    Each worker runs the whole plan: so many connections, so many messages a second each. Ctrl-C
    ends the windows of all; what they have measured until then is the result.

    Args:
        plan: what each worker does; its seed is that of the first.
        where: the scheduler's address, such as tcp://192.0.2.1:8786, or local:N: N workers on this
            machine that end afterwards.
        on_interval: called in the calling thread with each Interval of all workers together.
        on_lost: called with a sentence for each worker that is lost, as soon as that is known.
    Returns:
        Result: of the workers that answered; `parts` has one entry for each worker, with the
        offset of its clock, or with the reason why it is missing ("lost").
    Raises:
        ConfigError: `where` has no valid form.
        ExtensionMissingError: the extra `distributed` is not installed.
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
        watch = _Watch(client, workers, deadline)
        watch.grace = plan.interval + plan.timeout + SPARE
        watch.on_interval, watch.on_lost = on_interval, on_lost
        watch.run()
    return _added_up(workers, plan.label)


# --- the cluster -------------------------------------------------------------------------------


@contextmanager
def _client(where: str) -> Iterator[Any]:
    """Return a Dask client; a cluster that was made for it ends with it."""
    count = check_where(where)
    try:
        import dask
        import distributed
    except ImportError:
        raise ExtensionMissingError(
            "a cluster needs distributed, which is not installed: "
            "pip install 'fastecho[distributed]'"
        ) from None
    if not count:
        _reach(where)
    cluster: Any = None
    with dask.config.set({"distributed.comm.timeouts.connect": REACH}):
        try:
            if count:
                cluster = _local_cluster(count)
            client: Any = distributed.Client(  # type: ignore[no-untyped-call]
                cluster or where, timeout=REACH, set_as_default=False
            )
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


def _local_cluster(count: int) -> Any:
    """Start workers on this machine, which a Ctrl-C in the terminal does not reach.

    It goes to every process there. These are to be told by us, and to bring their results: they
    have the signal blocked, as the threads have from which Dask starts them.
    """
    from multiprocessing import resource_tracker

    import distributed

    resource_tracker.ensure_running()  # it unblocks the signal where it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    cluster: Any = None
    try:
        cluster = distributed.LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # one that came is raised here
    except BaseException:
        if cluster is not None:
            cluster.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return cluster


def check_where(where: str) -> int:
    """Return N of local:N; 0: it is the address of a scheduler.

    Raises:
        ConfigError: it is neither.
    """
    if not where.startswith("local:"):
        host, _, port = where.rpartition("://")[2].rpartition(":")
        if not (host and _whole(port, 65535)):
            raise ConfigError("--cluster", where, "must be tcp://HOST:PORT or local:N")
        return 0
    count = _whole(where.removeprefix("local:"), 256)
    if not count:
        raise ConfigError(
            "--cluster", where, "needs a number of workers from 1 to 256 after local:"
        )
    return count


def _whole(digits: str, most: int) -> int:
    """Return a whole number from 1 to `most`; 0: it is none."""
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 9 else 0
    return number if number <= most else 0


def _reach(where: str) -> None:
    """See whether somebody listens there: a Dask client that does not connect leaves its thread."""
    import socket

    host, _, port = where.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH) as sock:
            sock.settimeout(FIRST_BYTE)
            # A scheduler speaks first, unless TLS has to be agreed upon.
            if where.startswith("tcp://") and not sock.recv(1):
                raise OSError("it closed the connection")
    except TimeoutError:
        why = f"at {where} there is no Dask scheduler: nothing came from it"
        raise StartError(0, why) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StartError(0, f"cannot reach the Dask scheduler at {where}: {why}") from None


def _known(client: Any) -> dict[str, dict[str, Any]]:
    """Return what the scheduler knows of its workers, by address."""
    found: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1).get("workers", {})
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
            said = _ask(client, address)
            after = time.time()
            if said is None:
                worker.lost = f"it did not tell its time within {REACH:g} s"
                continue
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


def _ask(client: Any, address: str) -> Any:
    """Return what a worker's clock() gives or raises; None: nothing in time.

    Dask would wait for ever for a worker that is stopped, so a thread of our own does.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            said = client.run(task.clock, workers=[address], on_error="return")
            answers.put(said.get(address))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, name="fastecho-clock", daemon=True).start()
    try:
        return answers.get(timeout=REACH)
    except queue.Empty:
        return None


# --- while it runs -----------------------------------------------------------------------------


class _Watch:
    """Waits until each worker has answered or is lost; a second Ctrl-C breaks that off."""

    def __init__(self, client: Any, workers: Sequence[_Worker], deadline: float) -> None:
        self.on_interval: Callable[[Interval], object] | None = None
        self.on_lost: Callable[[str], object] | None = None
        self._client = client
        self._workers = {worker.address: worker for worker in workers}
        self._deadline = deadline
        # Seconds that workers have after Ctrl-C.
        self.grace = SPARE
        # What Dask's thread has heard and this one has not taken yet.
        self._news: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        # Intervals of all together that were told.
        self._told = 0
        # Names of the lost ones that were told.
        self._told_lost: set[str] = set()

    def run(self) -> None:
        """Do it."""
        everyone = self._workers.values()
        self._client.subscribe_topic(task.TOPIC, lambda event: self._news.put(event[1]))
        stopped = False
        try:
            while not all(worker.is_over for worker in everyone):
                try:
                    time.sleep(LOOK)
                    self._turn()
                except KeyboardInterrupt:
                    if stopped:
                        raise
                    stopped = True
                    self._deadline = min(self._deadline, time.time() + self.grace)
                    _stop(self._client, list(everyone))
            self._turn()
        finally:
            self._client.unsubscribe_topic(task.TOPIC)
            self._client.cancel([one.future for one in everyone if one.future is not None])

    def _turn(self) -> None:
        known = _known(self._client)
        for worker in self._workers.values():
            _look(worker, worker.address in known, self._deadline)
            if worker.lost and worker.name not in self._told_lost:
                self._told_lost.add(worker.name)
                if self.on_lost is not None:
                    self.on_lost(f"{worker.name} lost: {worker.lost}")
        while not self._news.empty():
            address, interval = self._news.get()
            if address in self._workers:
                self._workers[address].intervals.append(Interval.from_json(interval))
        self._tell()

    def _tell(self) -> None:
        """Tell of each interval that all workers have told of, but for those that are over."""
        everyone = self._workers.values()
        while True:
            n = self._told
            parts = [one.intervals[n] for one in everyone if len(one.intervals) > n]
            behind = [one for one in everyone if len(one.intervals) <= n and not one.is_over]
            if behind or not parts:
                return
            self._told += 1
            if self.on_interval is not None:
                self.on_interval(add_up(parts))


def _look(worker: _Worker, is_known: bool, deadline: float) -> None:
    """See what has become of a worker's task."""
    if worker.is_over:
        return
    if worker.future.status == "finished":
        try:
            said = worker.future.result(timeout=REACH)
        except (OSError, TimeoutError) as error:
            worker.lost = f"its result did not arrive ({error})"
            return
        if isinstance(said, str):
            worker.lost = f"its load failed ({said})"
        else:
            worker.result = Result.from_json(said)
            # In our own time: by their clocks, loads that ran together might not seem to.
            worker.result.started_at -= worker.offset
    elif worker.future.status in ("error", "lost", "cancelled"):
        worker.lost = f"its load failed ({_why(worker.future)})"
    elif not is_known:
        worker.lost = "it left the cluster"
    elif time.time() > deadline:
        worker.lost = "it did not answer in time"


def _why(future: Any) -> str:
    """Return why a task has failed."""
    if future.status != "error":
        return str(future.status)
    try:
        error = future.exception(timeout=REACH)
    except (OSError, TimeoutError):
        return "error"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _longest(plan: Plan) -> float:
    """Return the seconds that a plan can take; infinite if only the number of messages ends it."""
    if plan.duration is None:
        return float("inf")
    return plan.warmup + plan.ramp + plan.duration + plan.timeout


def _stop(client: Any, workers: Sequence[_Worker]) -> None:
    """End the windows of all that still run, after their interval."""
    waiting = [worker.address for worker in workers if not worker.is_over]

    def tell(address: str) -> None:
        try:
            client.run(task.stop, workers=[address], on_error="ignore")
        except Exception:
            pass  # it is gone, or the client is

    for address in waiting:  # one that is stopped itself does not answer
        threading.Thread(target=tell, args=(address,), daemon=True).start()


def _added_up(workers: Sequence[_Worker], label: str) -> Result:
    """Return one result of all that answered, with a word about each."""
    results = [worker.result for worker in workers if worker.result is not None]
    if not results:
        reasons = "; ".join(f"{worker.name}: {worker.lost}" for worker in workers)
        raise StartError(0, f"no worker has answered: {reasons}")
    whole = merge(results, label=label, started_together=True)
    whole.label = label
    for worker in workers:
        part = next((one for one in whole.parts if one["label"] == worker.name), None)
        if part is None:
            lost = {"label": worker.name, "host": "", "started_at": "", "offset_ms": 0.0}
            lost |= {"messages": 0, "messages_per_s": 0.0, "lost": worker.lost}
            whole.parts.append(lost)
        else:
            part["offset_ms"] = worker.offset * 1000
            part["offset_uncertain_ms"] = worker.uncertain * 1000
    return whole
