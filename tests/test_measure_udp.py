"""Measuring over UDP: plans, results, rules and sums that know what a path does to datagrams."""

from __future__ import annotations

import json
import math
import re
import socket
from typing import Any

import pytest
from udp_paths import Rule as Behaviour
from udp_paths import answering, change, double, echo, keep, lose, nobody, swap

from fastecho import ConfigError, Server
from fastecho.measure import Interval, Plan, Result, Rule, find_max, run
from fastecho.measure.compare import compare
from fastecho.measure.datagrams import NAMES, depth_of, lines, percent_text
from fastecho.measure.merge import merge
from fastecho.measure.page import page
from fastecho.measure.verdict import verdict

TARGET = "udp://127.0.0.1:7777"
NOTHING = dict.fromkeys(NAMES, 0)


def measured(behaviour: Behaviour, **settings: Any) -> Result:
    """Run a plan against a path."""
    with answering(behaviour) as server:
        return run(Plan(server.url(), **settings))


# Plans


def test_a_plan_over_udp_waits_a_second_for_a_reply_and_says_so() -> None:
    plan = Plan(TARGET)
    assert (plan.udp, plan.timeout, Plan("a:1").timeout) == (True, 1.0, 5.0)
    assert str(plan).endswith(
        "sends the next message when the reply is in, or the timeout is over."
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert "timeout" not in repr(plan) and "timeout=5.0" in repr(Plan(TARGET, timeout=5))
    around = Plan(TARGET, prefix=b"> ", suffix=b"!", size="16:65504")
    assert (around.prefix, around.suffix) == (b"> ", b"!")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"frame": "line"}, "frame 'line' has no meaning over UDP: each datagram is a message"),
        ({"reconnect": True}, "reconnect needs a connection, which UDP has not"),
        ({"close": "reset"}, "close 'reset' needs a connection, which UDP has not"),
        ({"idle_connections": 5}, "idle_connections 5 needs connections, which UDP has not"),
        ({"send_proxy": "v2"}, "send_proxy 'v2' needs a connection, which UDP has not"),
        ({"identify": True}, "identify needs a connection, which UDP has not"),
        ({"rate": 50, "depth": 2}, "depth 2 has no effect with rate over UDP: each is sent when"),
        ({"size": 15}, "size 15 is below 16 bytes, which the header of a datagram needs over UDP"),
        ({"size": "8:64"}, "size '8:64' is below 16 bytes"),
        ({"size": 65508}, "size 65508 is above 65507 bytes, the largest datagram over IPv4"),
        ({"size": 65507, "prefix": "x"}, "size 65507 with prefix and suffix is above 65507 bytes"),
    ],
)
def test_what_a_datagram_cannot_have_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        Plan(TARGET, **settings)


@pytest.mark.parametrize("other", ["127.0.0.1:7777", "unix:/run/echo"])
def test_targets_are_all_of_one_kind(other: str) -> None:
    with pytest.raises(ConfigError, match=r"targets 'udp://127\.0\.0\.1:7777' is UDP, and another"):
        Plan([other, TARGET])


def test_an_open_loop_has_room_for_what_is_lost() -> None:
    assert depth_of(1000, 1.0, 10) >= 100
    assert depth_of(1e7, 1.0, 1) == 65536


# Runs


@pytest.mark.parametrize(
    ("behaviour", "settings", "found"),
    [
        (echo, {}, {}),
        (lose(10), {"depth": 12, "timeout": 0.4}, {"lost": 10}),
        (double(10), {}, {"duplicates": 10}),
        (swap(10), {"depth": 4}, {"reordered": 10}),
        (keep(3, until=4), {"timeout": 0.4}, {"lost": 1, "late": 1}),
    ],
)
def test_a_result_has_what_the_path_did(
    behaviour: Behaviour, settings: dict[str, Any], found: dict[str, int]
) -> None:
    result = measured(behaviour, messages=100, connections=1, interval=0.05, **settings)
    assert result.datagrams == {**NOTHING, **found}
    assert (result.failed, result.connect) == (0, None)
    assert result.messages == 100 - found.get("lost", 0)
    assert result.latency is not None and result.latency.count == result.messages
    assert result.lost_percent == found.get("lost", 0)
    assert sum(one.lost or 0 for one in result.intervals) == found.get("lost", 0)
    data = json.loads(json.dumps(result.to_json()))
    assert data["datagrams"] == {**NOTHING, **found, "lost_percent": found.get("lost", 0)}
    again = Result.from_json(data)
    assert again.to_json() == data and again.datagrams == result.datagrams
    assert "% lost" in str(result) and "% lost" in page([data])


def test_several_threads_and_targets_have_sockets_of_their_own() -> None:
    with answering() as one, answering() as other:
        plan = Plan(
            [one.url(), other.url()], connections=4, threads=2, messages=100, size="16:9000"
        )
        result = run(plan)
    assert result.messages == 100 and result.datagrams == NOTHING
    assert one.asked + other.asked == 100 and min(one.asked, other.asked) > 1


def test_an_open_loop_goes_on_beside_what_is_lost() -> None:
    result = measured(lose(2), rate=500, duration=0.4, connections=1, timeout=0.4)
    assert result.datagrams == {**NOTHING, "lost": 100}
    assert (result.messages, result.held, result.failed) == (100, 0, 0)
    assert 0 < (result.percentile(100, "service") or 0) < 0.4
    assert "50 % of the datagrams were lost" in result.generator.verdict


def test_wrong_bytes_are_failures_and_end_a_run_in_which_nothing_is_right() -> None:
    result = measured(change(5, at=20), messages=50, connections=1)
    assert result.failures["corrupt"] == result.failed == 10 and result.messages == 40
    result = measured(change(1, at=20), duration=30)
    assert result.messages == 0 and result.elapsed < 5
    assert "answered, but not with what was sent: no echo server" in result.generator.verdict


def test_nobody_is_a_result_that_says_so() -> None:
    host, port = nobody()
    result = run(Plan(f"udp://{host}:{port}", duration=30))
    assert result.messages == 0 and result.failures["refused"] > 0 and result.elapsed < 5
    assert f"udp://{host}:{port} refused: ICMP says" in result.generator.verdict
    result = measured(lose(1), duration=30, timeout=0.05)
    assert (result.messages, result.failed, result.lost_percent) == (0, 0, 100)
    assert "not one datagram came back from udp://" in result.generator.verdict


def test_of_several_addresses_of_a_name_the_one_that_answers_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, empty = nobody()
    with answering() as server, answering(lose(1)) as silent:
        places = [("127.0.0.1", empty), silent.place, server.place]
        found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", place) for place in places]
        real = socket.getaddrinfo

        def look_up(host: str, *more: Any, **kinds: Any) -> Any:
            return found if host == "echo.example" else real(host, *more, **kinds)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        result = run(Plan("udp://echo.example:7", messages=5, connections=1))
        assert result.messages == 5 and result.datagrams == NOTHING
        found.pop()
        assert run(Plan("udp://echo.example:7", messages=1, connections=1, timeout=0.05)).sent == 1
        assert silent.asked >= 2


# Rules and searches


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ("loss>0", True), ("loss>1.9%", True), ("loss>2%", False), ("loss>=2", True),
        ("lost>1", True), ("lost>2", False), ("late>0", True), ("duplicates>2", True),
        ("reordered>4", False), ("not_sent>0", True), ("failures>0", False),
    ],
)  # fmt: skip
def test_a_rule_judges_datagrams(text: str, is_true: bool) -> None:
    counts = {"lost": 2, "late": 1, "duplicates": 3, "reordered": 4, "not_sent": 1, "overflows": 0}
    result = Result(Plan(TARGET), messages=98, sent=101, datagrams=counts)
    rule = Rule(text)
    rule.check_plan(result.plan)
    assert rule.fails(result) is is_true


@pytest.mark.parametrize(
    ("target", "text", "reason"),
    [
        ("a:1", "loss>0", "needs datagrams: a target udp://HOST:PORT"),
        ("a:1", "reordered>0", "needs datagrams"),
        (TARGET, "connect.p99>1ms", "is not measured by a load over UDP"),
        (TARGET, "foreign>0", "is not measured by a load over UDP"),
    ],
)
def test_a_rule_that_does_not_fit_the_target_is_refused(
    target: str, text: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        Rule(text).check_plan(Plan(target))


def test_the_highest_rate_without_loss_is_found() -> None:
    with answering() as server:
        found = find_max(Plan(server.url(), rate=400, duration=0.2), Rule("loss<=0"))
    # On a busy machine the first step may come out too slow; the next one is at the same rate then.
    assert found.rate == 400 and found.steps[-1].rate == 400
    with answering(lose(1)) as server:
        plan = Plan(server.url(), rate=1, duration=0.05, timeout=0.05)
        found = find_max(plan, Rule("loss<1%"))
    assert (found.rate, len(found.steps)) == (None, 2)
    with pytest.raises(ConfigError, match="does not go together with --depth over UDP"):
        find_max(Plan(TARGET, depth=2), Rule("p99<1ms"))


# Sums, files and words


def test_results_are_added_up_and_compared() -> None:
    counts = {**NOTHING, "lost": 5, "not_sent": 10}
    several = [
        Result(
            Plan(TARGET), started_at=100 * n, elapsed=10, messages=85, sent=100, datagrams=counts,
            intervals=[Interval(0, 10, messages=85, lost=5)],
        )
        for n in range(2)
    ]  # fmt: skip
    total = merge(several)
    assert total.datagrams == {**NOTHING, "lost": 10, "not_sent": 20}
    assert math.isclose(total.lost_percent or 0, 100 * 10 / 180)
    assert [one.lost for one in total.intervals] == [5, 5]
    together = merge(several, started_together=True)
    assert [one.lost for one in together.intervals] == [10]
    notes = compare(several)[0].notes
    assert sum("lost 5.6 % of its datagrams" in note for note in notes) == 2
    assert merge([Result(Plan("a:1"), elapsed=1)]).datagrams is None
    with pytest.raises(ValueError, match="too large to be added up"):
        merge([Result(Plan(TARGET), datagrams={**NOTHING, "lost": 2**62}) for _ in range(2)])


@pytest.mark.parametrize(
    ("value", "reason"),
    [(5, "has 'datagrams' that is no object"), ({"lost": -1}, "has -1 for 'lost'"),
     ({"late": "x"}, "has 'x' for 'late': a count is a whole number")],
)  # fmt: skip
def test_a_broken_file_is_told(value: object, reason: str) -> None:
    data = {**Result(Plan(TARGET)).to_json(), "datagrams": value}
    with pytest.raises(ValueError, match=re.escape(reason)):
        Result.from_json(data)


def test_counts_are_told_in_words() -> None:
    counts = {"lost": 3, "late": 1, "duplicates": 1, "reordered": 2, "not_sent": 4, "overflows": 1}
    dropped = (
        "1 reply dropped here: our own receive buffers were full (net.core.rmem_max, or a smaller "
        "--depth)"
    )
    assert lines(counts, 1004) == [
        "0.3 % lost: 3 of 1,000 datagrams, 1 of them answered after the timeout",
        "1 duplicate, 2 reordered",
        "4 datagrams not sent: our own socket did not take them",
        dropped,
    ]
    assert lines({}, 0) == ["0 % lost: 0 of 0 datagrams"]
    said = [percent_text(share) for share in (0, 0.00123, 3.44, 12.34, 100)]
    assert said == ["0 %", "0.0012 %", "3.4 %", "12.3 %", "100 %"]


@pytest.mark.parametrize(
    ("rates", "lost", "plan", "hint"),
    [
        ((1990, 1010, 1000, 1001), 60, {"rate": 1100}, "came at 1,000/s"),
        ((3900, 2010, 2000, 1990), 90, {"rate": 2500}, "came at 1,995/s"),
        ((1700,), 3300, {"rate": 5000}, "came at 1,700/s"),
        ((2500, 1500, 1500, 1500), 3250, {"rate": 5000}, "came at 1,500/s"),
        ((64000, 64000, 64000), 9000, {"rate": 73000}, "came at 64,000/s"),
        ((90000, 90000, 90000), 9000, {"rate": 99000}, None),
        ((1990, 1010, 1000, 1001), 1, {"rate": 1100}, None),
        ((1400, 1400, 1400, 1400), 60, {"rate": 1460}, None),
        ((1900, 1400, 1600, 1400), 60, {"rate": 1660}, None),
        # A closed loop waits for what is lost: its rate says nothing.
        ((2100, 2078, 2078, 2078), 10, {}, "came at 2,078/s"),
        ((300,), 3, {}, "came at 300/s"),
        ((26000, 26000, 26000), 1, {}, None),
        ((26000, 26000, 26000), 0, {}, None),
    ],
)
def test_a_rate_limit_is_thought_of(
    rates: tuple[int, ...], lost: int, plan: dict[str, Any], hint: str | None
) -> None:
    parts = [Interval(n, 1, messages=rate, lost=lost) for n, rate in enumerate(rates)]
    result = Result(
        Plan(TARGET, duration=len(rates), **plan), elapsed=len(rates),
        messages=sum(rates), messages_in_window=sum(rates),
        sent=sum(rates) + len(rates) * lost, datagrams={**NOTHING, "lost": len(rates) * lost},
        intervals=parts,
    )  # fmt: skip
    said = verdict(result)
    assert ((hint or "") in said, "looks like a rate limit" in said) == (True, hint is not None)
    result.generator.busy = 0.95
    assert "looks like" not in verdict(result)


@pytest.mark.parametrize("settings", [{"timeout": 0.1, "depth": 4}, {"rate": 5000}])
def test_the_limit_of_a_server_as_it_is_by_default_is_thought_of(settings: dict[str, Any]) -> None:
    with Server("udp://127.0.0.1:0", threads=1) as server:
        result = run(Plan(str(server.address), duration=0.5, connections=4, **settings))
    assert (result.datagrams or {})["lost"] > 0
    said = result.generator.verdict
    assert "which looks like a rate limit for each source address" in said
    assert "--udp-rate, 1,000 a second for each thread by default; --server udp starts" in said


def test_replies_that_we_dropped_ourselves_are_not_the_path_s() -> None:
    result = Result(
        Plan(TARGET),
        elapsed=10,
        messages=5,
        sent=7,
        datagrams={**NOTHING, "lost": 2, "overflows": 2},
    )
    assert "2 replies were dropped in our own receive buffers" in verdict(result)
