"""Results to be shown on pages, made of histograms that stay the same from run to run.

Lives here: samples and what varies in them. Does not live here: what a page must show of them
(test_page.py, test_page_browser.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from fastecho._load import Histogram
from fastecho.measure.model_result import Figures, ModelRuns, Turn
from fastecho.measure.plan import Plan
from fastecho.measure.result import Generator, Interval, Result

HOSTILE = "</title><script>alert(1)</script><img src=\"http://x.example/\" onerror='a()'>&"
"""A text that does harm wherever it is not escaped."""


def histogram(seed: int, count: int = 20_000, stalled: int = 0) -> Histogram:
    """Return latencies around 30 us with a tail, some of them much longer."""
    chance = random.Random(seed)
    found = Histogram()
    for _ in range(count - stalled):
        found.record(int(30_000 * chance.lognormvariate(0, 0.35)))
    for n in range(stalled):
        found.record(200_000_000 * (n + 1) // stalled)
    return found


def result(label: str = "a run", **changes: Any) -> dict[str, Any]:
    """Return a usual result of an open loop, ten seconds long, as JSON; changes are of Result."""
    chance = random.Random(label)
    latency = histogram(1, stalled=400)
    given: dict[str, Any] = {
        "label": label,
        "started_at": 1_800_000_000.0,
        "host": {"name": "node-1", "system": "Linux 6.18 x86_64", "cpus": 4},
        "elapsed": 10.0,
        "messages": latency.count,
        "bytes": latency.count * 64,
        "sent": latency.count,
        "connects": 32,
        "latency": latency,
        "service": histogram(2),
        "schedule_error": histogram(3),
        "intervals": [
            Interval(
                float(n), 1.0, messages=2000, bytes=128_000,
                p50=30e-6 * chance.uniform(0.9, 1.1), p99=80e-6 * chance.uniform(0.9, 1.2),
                max=0.2 if n == 5 else 300e-6 * chance.uniform(0.8, 2),
            )
            for n in range(10)
        ],
        "generator": Generator(0.52, 5.2, 1.25, "The generator was busy 52 %: no limit."),
    }  # fmt: skip
    plan = changes.pop("plan", None) or Plan("127.0.0.1:7777", connections=32, rate=2000)
    return Result(plan, **{**given, **changes}).to_json()


def closed(label: str = "closed", **changes: Any) -> dict[str, Any]:
    """Return a result of a closed loop: there is no service time beside the latency."""
    plan = Plan("127.0.0.1:7777", connections=10)
    return result(label, plan=plan, service=None, schedule_error=None, **changes)


def empty() -> dict[str, Any]:
    """Return a result without one reply."""
    return result(
        "nothing came", messages=0, bytes=0, latency=Histogram(), service=Histogram(),
        schedule_error=None, intervals=[Interval(0.0, 10.0, failures=7)],
        failures={"lost": 7},
    )  # fmt: skip


def short() -> dict[str, Any]:
    """Return a result of a single interval and a single message."""
    one = Histogram()
    one.record(25_000)
    interval = Interval(0.0, 0.5, messages=1, bytes=64, p50=25e-6, p99=25e-6, max=25e-6)
    return closed(
        "one message", messages=1, bytes=64, elapsed=0.5, latency=one, intervals=[interval]
    )


def wide_range() -> dict[str, Any]:
    """Return a result whose latencies go from 1 us to more than an hour."""
    found = Histogram()
    for power in range(10):
        found.record(10 ** (3 + power), 10 ** (9 - power))
    found.record(5 * 3600 * 10**9)
    interval = Interval(0.0, 10.0, messages=9, bytes=9, p50=1e-6, p99=1.0, max=5 * 3600.0)
    return closed("from 1 us to 5 h", messages=found.count, latency=found, intervals=[interval])


def failing(label: str = "failing") -> dict[str, Any]:
    """Return a result with failures, described with text that does harm if it is not escaped."""
    return result(
        label,
        failures={"lost": 3, "corrupt": 1_234, "refused": 2},
        described=[f"0.5 s, connection {n}, message {n}: {HOSTILE}" for n in range(12)],
        reopened=2, gap=0.5, longest_gap=0.4,
        intervals=[
            Interval(n * 0.5, 0.5, messages=1000 if n != 3 else 0, failures=413 if n == 3 else 0,
                     p50=None if n == 3 else 30e-6, p99=None if n == 3 else 90e-6,
                     max=None if n == 3 else 2e-3)
            for n in range(20)
        ],
    )  # fmt: skip


def merged() -> dict[str, Any]:
    """Return a result of two hosts."""
    return result(
        "two hosts",
        parts=[
            {"label": "", "host": f"node-{n}", "started_at": "2026-11-25T07:00:00.000Z",
             "offset_ms": 0.25 * n, "messages": 10_000, "messages_per_s": 1000.0}
            for n in (1, 2)
        ],
    )  # fmt: skip


def hostile() -> dict[str, Any]:
    """Return a result whose every text from outside does harm if it is not escaped."""
    data = failing(HOSTILE)
    data["described"].insert(0, HOSTILE + "\x00\x1b[31m\udcff\u202e")
    data["host"] = {"name": HOSTILE, "system": HOSTILE, "cpus": HOSTILE}
    data["fastecho"] = data["generator"]["verdict"] = HOSTILE
    data["plan"]["targets"] = ["unix:/tmp/" + HOSTILE]
    data["parts"] = [{"label": HOSTILE, "host": HOSTILE, "started_at": HOSTILE}]
    return data


def model_runs() -> ModelRuns:
    """Return ten models at four sizes: one serves a single peer, one ends with a hostile word."""
    names = ["blocking", *(f"model-{n}" for n in range(7)), HOSTILE, "native"]
    runs = ModelRuns(names, [1, 10, 100, 1000], core="native", host={"name": HOSTILE, "cpus": 2})
    for size in runs.sizes:
        for n, name in enumerate(names):
            one = Figures(name, size)
            runs.figures.append(one)
            if name == HOSTILE and size > 10:
                one.problem = HOSTILE
                continue
            one.served = one.driven = 1 if name == "blocking" else size
            one.turns = [Turn(1000, 1000.0 * size, 0.01 * (n + 1), 0.5)]
            one.lone_cpu_per_message = (n + 1) * 2e-5 * size**0.5
            one.idle_cpu, one.threads = 0.0, 1
            one.memory_per_connection, one.latency = 500.0 * n, histogram(n, 1000)
    return runs


SAMPLES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "open": lambda: [result()],
    "closed": lambda: [closed()],
    "empty": lambda: [empty()],
    "short": lambda: [short()],
    "wide-range": lambda: [wide_range()],
    "failing": lambda: [failing()],
    "merged": lambda: [merged()],
    "hostile": lambda: [hostile()],
    "two-hostile": lambda: [hostile(), hostile()],
    "three": lambda: [result("before"), result("after"), closed()],
    "nine": lambda: [closed(f"run {n}") for n in range(8)] + [empty()],
}
