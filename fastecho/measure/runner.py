"""Runs a plan: one native load a thread, started together and watched from outside.

Lives here: making the loads and their shares, connecting, the common start, intervals, the end
(also by Ctrl-C), the result. Does not live here: what happens on a connection (the load,
fastecho/_load.pyx), checks before (preflight.py), sentences about the outcome (verdict.py).

The thread that calls run() only watches: it reads snapshots, which the loads' threads do not
notice, and calls `on_interval`. Loads run in threads of their own, without the GIL, so a slow
callback delays the next look and nothing else.
"""

from __future__ import annotations

import os
import threading
import time

from fastecho._load import Histogram, Load
from fastecho.errors import StartError
from fastecho.identity import silent, wrong

from . import datagrams, preflight, values
from .histograms import encode
from .instances import add_up, of_load
from .result import FAILURES, Generator, Interval, Result
from .verdict import no_echo, verdict, wrong_bytes

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .instances import Instances
    from .plan import Plan

__all__ = ["run", "this_host"]

START_DELAY_NS = 20_000_000
"""From the last connect to the start: threads need some of it to be ready."""
FOR_EVER = values.LONGEST
"""Seconds of a run that only its number of messages limits."""
LOOK = 0.1
"""Seconds between looks for a first right reply."""
LONGEST_WAIT = 1.0
"""Seconds: a Ctrl-C that comes just before a wait is noticed after it."""
FIRST_LOOK = 0.3
"""Seconds after which wrong bytes, and not one right reply, mean that there is no echo server."""
PATIENCE = 10.0
"""Seconds without a reply that end a run which only its number of messages limits."""
FEWEST_LOST = 10
"""Datagrams without a reply, and not one with one, from which on nobody is taken to answer."""
CONNECTS_PER_S = 2000
"""So slowly connecting is allowed to be when a run waits for its time."""
MOST_DESCRIBED = 20


def run(
    plan: Plan,
    on_interval: Callable[[Interval], object] | None = None,
    start_at: float | None = None,
) -> Result:
    """Run the plan and return what it found.

    Ctrl-C ends the window early: the result is of what there was.

    Args:
        plan: what to do.
        on_interval: called in this thread with each Interval, about every `plan.interval` seconds.
        start_at: when to begin, in seconds since 1970 (time.time()), at most an hour ahead; the
            connections are made shortly before. None: at once.
    Returns:
        Result: also if messages failed, as long as one came back right.
    Raises:
        StartError: a target cannot be reached, gives no echo, or descriptors or ports are too few.
        NotIdentifiedError: `plan.identify`, and a server did not say who answers.
        ConfigError: start_at is over or too far away; sources do not fit a target.
        KeyboardInterrupt: Ctrl-C came before there was anything to tell, or a second time.
    Thread: any; Ctrl-C reaches the main thread only.   Cost: plan.threads + 1 threads.
    """
    if start_at is not None:
        preflight.check_start(start_at)
    preflight.check_descriptors(plan)
    places = preflight.resolve(plan)
    preflight.check_ports(plan, places)
    running = _Run(plan, places)
    try:
        if start_at is not None:
            lead = 2.0 + (plan.connections + plan.idle_connections) / CONNECTS_PER_S
            time.sleep(max(start_at - time.time() - lead, 0))
        running.connect()
        running.start(start_at)
        running.watch(on_interval)
        return running.result()
    finally:
        running.close()


def _share(total: int, parts: int, index: int) -> int:
    """Return a part of a whole number; the parts differ by one at the most."""
    return total // parts + (index < total % parts)


class _Run:
    """One run, from the loads to the result. Used once."""

    def __init__(self, plan: Plan, places: list[preflight.Place]) -> None:
        self.plan = plan
        self.loads: list[Load] = []
        # Holds the idle connections, if any.
        self.idle: Load | None = None
        self.threads: list[threading.Thread] = []
        # What each load's thread has brought, in the order of the loads; the idle one's is last.
        self.outcomes: list[dict[str, Any] | BaseException | None] = []
        # Threads of loads that carry messages and have not ended.
        self.left = 0
        self.lock = threading.Lock()
        self.finished = threading.Event()
        # CLOCK_MONOTONIC at which the window begins; and the wall clock then.
        self.window_ns = 0
        self.started_at = 0.0
        self.intervals: list[Interval] = []
        self._before: dict[str, int] = {}
        self._latency_before: Histogram | None = None
        self.interrupted = False
        try:
            self._make(places)
        except BaseException:
            self.close()
            raise

    def _make(self, places: list[preflight.Place]) -> None:
        plan = self.plan
        common: dict[str, Any] = {
            "timeout": plan.timeout,
            "sources": preflight.local_addresses(plan, places),
            "identify": plan.identify,
            "proxy": 0 if plan.send_proxy is None else int(plan.send_proxy[1:]),
            "udp": plan.udp,
        }
        try:
            for i in range(plan.threads):
                self.loads.append(
                    Load(
                        # Each thread begins with another target: few connections spread as well.
                        places[i % len(places) :] + places[: i % len(places)],
                        connections=_share(plan.connections, plan.threads, i),
                        depth=self._depth(i),
                        size=plan.sizes,
                        frame="raw" if plan.frame == "recv" else plan.frame,
                        prefix=plan.prefix,
                        suffix=plan.suffix,
                        mode=plan.loop,
                        rate=(plan.rate or 0.0) * self._part(i),
                        schedule=plan.schedule,
                        phase=i / plan.threads,
                        seed=(plan.seed + i) % 2**64,
                        close=plan.close,
                        reopen=plan.loop != "reconnect",
                        **common,
                    )
                )
            if plan.idle_connections:
                self.idle = Load(places, connections=plan.idle_connections, mode="idle", **common)
        except MemoryError as error:
            raise StartError(12, f"cannot start: {error}") from None
        except OSError as error:
            raise StartError(error.errno or 0, f"cannot start: {error.strerror}") from None

    def _part(self, index: int) -> float:
        """Return a thread's part of the rate: that of its messages, so that all end together."""
        plan = self.plan
        if plan.messages is None:
            return 1 / plan.threads
        return _share(plan.messages, plan.threads, index) / plan.messages

    def _depth(self, index: int) -> int:
        """Return how many messages a thread's connections may have outstanding."""
        plan = self.plan
        if not plan.udp or plan.rate is None:
            return plan.depth
        connections = _share(plan.connections, plan.threads, index)
        return datagrams.depth_of(plan.rate * self._part(index), plan.timeout, connections)

    def connect(self) -> None:
        """Open the connections, but for those that a ramp will open."""
        waiting = [] if self.plan.ramp else self.loads
        targets = self.plan.targets
        # Each thread's load begins with another target (_make).
        for first, load in [*([(0, self.idle)] if self.idle else []), *enumerate(waiting)]:
            try:
                load.connect()
            except OSError as error:
                name = str(targets[(first + load.failed_target) % len(targets)])
                raise preflight.connect_failure(error, name, self.plan.timeout) from None

    def start(self, start_at: float | None) -> None:
        """Start a thread for each load; all begin at the same time."""
        now_ns, now = time.monotonic_ns(), time.time()
        start_ns = now_ns + START_DELAY_NS
        if start_at is not None:
            start_ns = now_ns + round((start_at - now) * 1e9)
            if start_ns < now_ns:
                raise StartError(0, f"connecting took until {now - start_at:.1f} s after the start")
        self.window_ns = start_ns + round(self.plan.warmup * 1e9)
        self.started_at = now + (self.window_ns - now_ns) / 1e9
        self.left = len(self.loads)
        everyone = [*self.loads, *([self.idle] if self.idle else [])]
        self.outcomes = [None] * len(everyone)
        for i, load in enumerate(everyone):
            thread = threading.Thread(
                target=self._drive, args=(i, load, start_ns), name=f"fastecho-load-{i}", daemon=True
            )
            self.threads.append(thread)
            thread.start()

    def _drive(self, index: int, load: Load, start_ns: int) -> None:
        """Run one load (its own thread)."""
        plan = self.plan
        seconds = FOR_EVER if plan.duration is None else plan.duration
        options: dict[str, Any] = {"warmup": plan.warmup, "start_ns": start_ns}
        if load is not self.idle:
            options["ramp"] = plan.ramp
            if plan.messages is not None:
                options["messages"] = _share(plan.messages, plan.threads, index)
        try:
            self.outcomes[index] = dict(load.run(seconds, **options))
            if load.unidentified is not None:
                self.stop(collect=False)  # the others would go on for nothing
        except BaseException as error:
            self.outcomes[index] = error
        finally:
            if load is not self.idle:
                with self.lock:
                    self.left -= 1
                    if self.left == 0:
                        self.finished.set()

    def stop(self, *, collect: bool = True) -> None:
        """End the window now, and the run as well if nothing is to be collected."""
        for load in (*self.loads, *([self.idle] if self.idle else [])):
            load.stop(collect=collect)

    # --- watching ---------------------------------------------------------------------------

    def watch(self, on_interval: Callable[[Interval], object] | None) -> None:
        """Look at the loads until all have ended; Ctrl-C ends the window."""
        try:
            self._watch(on_interval)
        except KeyboardInterrupt:
            self.interrupted = True
            self.stop()
            self._wait()
        if self.idle is not None:
            self.idle.stop()
        for thread in self.threads:
            thread.join()
        self._look(on_interval, self._elapsed())

    def _wait(self) -> None:
        while not self.finished.wait(LONGEST_WAIT):
            pass

    def _elapsed(self) -> float:
        """Return the seconds of the window so far, as the loads know it."""
        return max(load.snapshot()["elapsed_ns"] for load in self.loads) / 1e9

    def _watch(self, on_interval: Callable[[Interval], object] | None) -> None:
        span, tick = self.plan.interval, 1
        duration = FOR_EVER if self.plan.duration is None else self.plan.duration
        progress = _Progress(self.plan)
        while not self.finished.is_set():
            now = (time.monotonic_ns() - self.window_ns) / 1e9
            # A last part that would be shorter than half of one belongs to the one before.
            due = tick * span if (tick + 0.5) * span <= duration else float("inf")
            wait = min(due - now, LOOK if progress.looks else LONGEST_WAIT)
            if self.finished.wait(max(wait, 0)):
                return
            now = (time.monotonic_ns() - self.window_ns) / 1e9
            if progress.looks and progress.is_hopeless(counts := self.counts(), now):
                # The rest of a wrong reply may never come.
                self.stop(collect=not wrong_bytes(counts))
                self._wait()
                return
            if now >= due:
                # Not `now`: of a number of messages all may be given, and one reply missing.
                self._look(on_interval, self._elapsed())
                tick = max(tick + 1, int(now / span) + 1)

    def counts(self) -> dict[str, int]:
        """Return the sums of what the loads have counted so far; idle connections' failures too."""
        found = _summed([load.snapshot() for load in self.loads])
        if self.idle is not None:
            idle = self.idle.snapshot()
            for name in FAILURES:
                found[name] += idle[name]  # type: ignore[literal-required]
        return found

    def _look(self, on_interval: Callable[[Interval], object] | None, now: float) -> None:
        """Note the interval that ends now, `now` seconds into the window."""
        last = self.intervals[-1] if self.intervals else None
        start = last.start + last.elapsed if last else 0.0
        counts, latency = self.counts(), self._merged("latency")
        part = Histogram()
        part.merge(latency)
        if self._latency_before is not None:
            part.subtract(self._latency_before)
        before = self._before
        one = Interval(
            start,
            max(now - start, 0.0),
            messages=counts["messages_in_window"] - before.get("messages_in_window", 0),
            bytes=counts["bytes"] - before.get("bytes", 0),
            failures=sum(counts[name] - before.get(name, 0) for name in FAILURES),
            lost=counts["no_reply"] - before.get("no_reply", 0) if self.plan.udp else None,
        )
        if part.count:
            one.p50, one.p99 = part.percentile(50) / 1e9, part.percentile(99) / 1e9
            one.max, one.histogram = part.max / 1e9, encode(part)
        if not one.elapsed and not one.messages and not one.failures and not one.lost:
            return
        self._before, self._latency_before = counts, latency
        self.intervals.append(one)
        if on_interval is not None:
            on_interval(one)

    def _merged(self, name: Any) -> Histogram:
        total = Histogram()
        for load in self.loads:
            total.merge(load.histogram(name))
        return total

    # --- the end ----------------------------------------------------------------------------

    def result(self) -> Result:
        """Return the result of a run that has ended, or raise what it ended by."""
        outcomes: list[dict[str, Any]] = []
        for one in self.outcomes:
            if isinstance(one, OSError):
                raise StartError(one.errno or 0, f"the load failed: {one.strerror}")
            if isinstance(one, BaseException):
                raise one
            assert one is not None
            outcomes.append(one)
        carrying = outcomes[: len(self.loads)]
        counts = self.counts()
        described = self._described(outcomes)
        instances = self._instances(counts) if self.plan.identify else None
        if not counts["right"]:
            if self.interrupted:
                raise KeyboardInterrupt
            if any(counts[name] for name in FAILURES) and not self.plan.udp:
                raise no_echo(self.plan, counts, described)
        is_open = self.plan.loop == "open"
        connect = self._merged("connect")
        found = Result(
            self.plan,
            started_at=self.started_at,
            host=this_host(),
            elapsed=counts["elapsed_ns"] / 1e9,
            failures={name: counts[name] for name in FAILURES},
            datagrams=datagrams.of_counts(counts) if self.plan.udp else None,
            described=described,
            gap=counts["gap_ns"] / 1e9,
            longest_gap=counts["longest_gap_ns"] / 1e9,
            latency=self._merged("latency"),
            service=self._merged("service") if is_open else None,
            connect=connect if connect.count and not self.plan.udp else None,
            schedule_error=self._merged("schedule_error") if is_open else None,
            intervals=self.intervals,
            instances=instances,
            messages=counts["messages"],
            messages_in_window=counts["messages_in_window"],
            bytes=counts["bytes"],
            sent=counts["sent"],
            connects=counts["connects"],
            held=counts["held"],
            reopened=counts["reopened"],
        )
        found.generator = Generator(
            busy=max(_busy(one) for one in carrying),
            cpu=counts["cpu_ns"] / 1e9,
            spin=counts["spin_ns"] / 1e9,
        )
        found.generator.verdict = verdict(found)
        found.interrupted = self.interrupted
        return found

    def _described(self, outcomes: list[dict[str, Any]]) -> list[str]:
        """Return the first failures of all loads in the order of their times."""
        several = len(outcomes) > 1
        found = []
        for i, one in enumerate(outcomes):
            who = "" if not several else "idle, " if i == len(self.loads) else f"thread {i}, "
            found += [(ns, who, sentence) for ns, sentence in one["failures"]]
        return [
            (f"{ns / 1e9:.3f} s, " if ns >= 0 else "before the window, ") + who + sentence
            for ns, who, sentence in sorted(found)[:MOST_DESCRIBED]
        ]

    def _instances(self, counts: Mapping[str, int]) -> Instances:
        """Return what each instance has answered, or raise NotIdentifiedError."""
        targets = self.plan.targets
        # Each thread's load begins with another target (_make).
        for first, load in [*([(0, self.idle)] if self.idle else []), *enumerate(self.loads)]:
            if (found := load.unidentified) is not None:
                raise wrong(str(targets[(first + found[0]) % len(targets)]), found[1])
        instances = add_up(of_load(load) for load in self.loads)
        failed = any(counts[name] for name in FAILURES)
        if not instances and not self.interrupted and (counts["timed_out"] or not failed):
            raise silent(preflight.names_of(self.plan), self.plan.timeout)
        return instances

    def close(self) -> None:
        """End what is still under way and give everything back."""
        alive = [thread for thread in self.threads if thread.is_alive()]
        if alive:
            # A second Ctrl-C, or a callback that raised: the threads come back within the timeout.
            self.stop()
            for thread in alive:
                thread.join(0.5)
        for load in (*self.loads, *([self.idle] if self.idle else [])):
            try:
                load.close()
            except RuntimeError:
                pass  # its thread is still collecting; it goes with the last reference


def _summed(several: list[Any]) -> dict[str, int]:
    """Return the sums of counts, and the largest of what is a span of time of the whole."""
    longest = {"elapsed_ns", "total_ns", "longest_gap_ns"}
    return {
        name: (max if name in longest else sum)(one[name] for one in several)
        for name in several[0]
        if isinstance(several[0][name], int)
    }


def _busy(counts: Mapping[str, Any]) -> float:
    """Return the share of its window that a load's thread worked."""
    if not counts["elapsed_ns"]:
        return 0.0
    worked = counts["cpu_ns"] - counts["spin_ns"]
    return float(min(max(worked / counts["elapsed_ns"], 0.0), 1.0))


def this_host() -> dict[str, Any]:
    """Return name, system and number of CPUs of this machine, as results hold them."""
    name = os.uname()
    return {
        "name": name.nodename,
        "system": f"{name.sysname} {name.release} {name.machine}",
        "cpus": os.cpu_count() or 1,
    }


class _Progress:
    """Whether a run is worth going on with."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._patience = max(PATIENCE, 2 * plan.timeout)
        if plan.rate is not None:
            # So long nothing may be due; by chance far longer than on average.
            self._patience += (30 if plan.schedule == "poisson" else 2) / plan.rate
        # No right reply has been seen, or only the number of messages ends the run.
        self.looks = True
        self._right = 0
        self._right_at = 0.0

    def is_hopeless(self, counts: Mapping[str, int], now: float) -> bool:
        """Tell whether to give up, `now` seconds into the window."""
        plan = self._plan
        right = counts["right"]
        if right > self._right:
            self._right, self._right_at = right, now
        if right:
            self.looks = plan.duration is None
            return plan.duration is None and now - self._right_at > self._patience
        if now < FIRST_LOOK:
            return False
        if wrong_bytes(counts) >= min(plan.connections, 10):
            return True
        if counts["refused"] and (plan.udp or not counts["connects"]):
            return True
        if plan.udp:
            # A few may be lost by chance.
            return counts["no_reply"] >= FEWEST_LOST and now > plan.timeout + LOOK
        failed = any(counts[name] for name in FAILURES)
        return failed and now > plan.timeout + LOOK
