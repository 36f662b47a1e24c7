"""The search for the highest rate that holds a limit, against real servers of a known speed."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest
from load_servers import exact, serving
from wrong_servers import address_of

import fastecho
from fastecho import ConfigError
from fastecho.measure import Plan, Rule, find_max, search
from fastecho.measure.search import Step
from fastecho.measure.words import found_text

PAUSE = 0.005


def slow(sock: Any) -> None:
    """Echo a message of 64 bytes in 5 ms or more: at most 200 a second on a connection."""
    while True:
        data = exact(sock, 64)
        time.sleep(PAUSE)
        sock.sendall(data)


def test_the_rate_found_is_below_what_the_server_can_do() -> None:
    steps: list[Step] = []
    with serving(slow) as served:
        plan = Plan(address_of(served), connections=1, duration=0.5)
        found = find_max(plan, Rule("p50<50ms"), steps.append)
    assert found.steps == steps
    assert found.rate is not None
    assert 50 < found.rate < 215
    assert found.result.plan.rate == found.rate
    assert (found.result.percentile(50) or 1) < 0.05
    held = [one.rate for one in steps if one.holds]
    failed = [one.rate for one in steps if not one.holds]
    assert found.rate == max(held)
    # Enough is known: either that near above it fails, or steps ran out.
    assert min(failed) <= found.rate * 1.06 or len(steps) == 24


def test_a_step_that_fails_is_tried_twice() -> None:
    with serving(slow) as served:
        found = find_max(Plan(address_of(served), rate=2, duration=0.02), Rule("p50<=1us"))
    assert found.rate is None
    assert [one.rate for one in found.steps] == [2, 2, 1, 1]
    assert found.result is found.steps[-1].result


def test_a_rate_that_held_at_the_second_try_only_is_told_as_such() -> None:
    quick = threading.Event()

    def slow_at_first(sock: Any) -> None:
        while True:
            data = exact(sock, 64)
            if not quick.is_set():
                time.sleep(0.04)
            sock.sendall(data)

    with serving(slow_at_first) as served:
        plan = Plan(address_of(served), rate=20, duration=0.3)
        found = find_max(plan, Rule("p50<30ms"), lambda _: quick.set())
    assert [(one.rate, one.holds) for one in found.steps] == [(20, False), (20, True)]
    assert found_text(found.to_json()) == (
        "20 messages/s held p50<30ms at the second try only, the highest that was tried (2 steps)"
    )


def test_the_plan_s_rate_is_the_highest_that_is_tried(server: fastecho.Server) -> None:
    found = find_max(Plan(server.address, rate=300, duration=0.5), Rule("p50<5s"))
    assert found.rate == 300.0
    assert {one.rate for one in found.steps} == {300.0}
    data = found.to_json()
    assert data["limit"] == "p50<5s"
    assert data["rate_per_s"] == 300.0
    assert data["steps"][-1]["holds"] is True
    assert ("second try" in found_text(data)) == (len(found.steps) > 1)


@pytest.mark.parametrize(
    ("rule", "more", "sentence"),
    [
        ("p99>1ms", {}, "must be a limit to hold, such as p99<1ms"),
        ("p99<1ms", {"reconnect": True}, "does not go together with --reconnect"),
        ("p99<1ms", {"messages": 10}, "needs steps of a --duration, not of --messages"),
        ("rate<5k", {}, "'rate<5k' limits no latency: a rate is searched by one, such as p99<1ms"),
        ("failures<=0", {}, "limits no latency"),
        ("lost<1", {}, "limits no latency"),
        ("connect.p99<1ms", {}, "limits no latency"),
    ],
)
def test_what_cannot_be_searched_is_told_before(
    rule: str, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        find_max(Plan("127.0.0.1:1", **more), Rule(rule))


def interrupt(_: object) -> None:
    """Do what Ctrl-C does, here and now."""
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_callback_keeps_the_steps_that_were_whole(server: fastecho.Server) -> None:
    plan = Plan(server.address, rate=300, duration=0.1)
    found = find_max(plan, Rule("p50<1ns"), interrupt)
    assert [one.rate for one in found.steps] == [300]
    assert (found.rate, found.result) == (None, found.steps[0].result)


@pytest.mark.parametrize("moment", ["_next", "_try"])
def test_ctrl_c_between_steps_keeps_those_that_were_whole(
    server: fastecho.Server, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    real, calls = getattr(search, moment), []

    def then_interrupt(*arguments: Any) -> Any:
        calls.append(arguments)
        if moment == "_next" or len(calls) == 3:
            interrupt(None)
        return real(*arguments)

    monkeypatch.setattr(search, moment, then_interrupt)
    found = find_max(Plan(server.address, rate=300, duration=0.05), Rule("p50<1ns"))
    assert [one.rate for one in found.steps] == [300, 300]


def test_ctrl_c_before_a_step_was_whole_is_no_result(server: fastecho.Server) -> None:
    plan = Plan(server.address, duration=0.5, interval=0.05)
    with pytest.raises(KeyboardInterrupt):
        find_max(plan.replace(rate=300), Rule("p50<5s"), on_interval=interrupt)


def test_a_search_takes_a_schedule_without_a_rate(server: fastecho.Server) -> None:
    plan = Plan(server.address, schedule="poisson", duration=0.05, ramp=0.01)
    found = find_max(plan, Rule("p50<5s"), interrupt)
    assert found.result.plan.schedule == "poisson"
    assert found.result.plan.loop == "open"
