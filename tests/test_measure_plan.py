"""A plan takes what it may, names what it refuses, and says in a sentence what it will do."""

from __future__ import annotations

import json
import pickle
import re
from itertools import pairwise
from typing import Any

import pytest

from fastecho import ConfigError
from fastecho.measure import Plan
from fastecho.measure.plan import OPTIONS, read_options

TARGET = "127.0.0.1:7777"

EVERYTHING: dict[str, Any] = {
    "connections": 64,
    "threads": 4,
    "depth": 8,
    "duration": "2m",
    "messages": 1000,
    "rate": "50k",
    "schedule": "poisson",
    "size": "64*9,1024*1",
    "frame": "line",
    "prefix": b"\xff: ",
    "suffix": "!",
    "warmup": "500ms",
    "ramp": 2,
    "timeout": 1.5,
    "idle_connections": 100,
    "sources": ["127.0.0.2", "127.0.0.3,127.0.0.4"],
    "send_proxy": "v2",
    "seed": 7,
    "label": "before",
    "interval": "250ms",
}


def test_a_plan_of_nothing_but_a_target_is_a_closed_loop_of_ten_seconds() -> None:
    plan = Plan(TARGET)
    assert (plan.loop, plan.connections, plan.threads, plan.depth) == ("closed", 10, 1, 1)
    assert (plan.duration, plan.messages, plan.rate, plan.sizes) == (10.0, None, None, 64)


def test_a_number_of_messages_takes_the_limit_of_time_away() -> None:
    assert Plan(TARGET, messages=5).duration is None
    assert Plan(TARGET, messages=5, duration=2).duration == 2.0


def test_values_are_converted_and_kept() -> None:
    plan = Plan([TARGET, "unix:/run/echo"], **EVERYTHING)
    assert [str(one) for one in plan.targets] == [TARGET, "unix:/run/echo"]
    assert (plan.duration, plan.warmup, plan.ramp, plan.interval) == (120.0, 0.5, 2.0, 0.25)
    assert (plan.rate, plan.loop) == (50000.0, "open")
    assert (plan.prefix, plan.suffix) == (b"\xff: ", b"!")
    assert plan.sources == ("127.0.0.2", "127.0.0.3", "127.0.0.4")


def test_every_default_of_the_table_is_the_keyword_s() -> None:
    plan = Plan(TARGET)
    for option in OPTIONS:
        wanted = {"duration": 10.0, "timeout": 5.0}.get(option.name, option.default)
        assert getattr(plan, option.name) == wanted, option.name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("10s", 10), ("500ms", 0.5), ("2m", 120), ("1h", 3600), ("1.5", 1.5),
     ("250000us", 0.25), ("2000µs", 0.002), ("2000000ns", 0.002), ("2min", 120)],
)  # fmt: skip
def test_a_time_is_written_as_people_write_it(text: str, seconds: float) -> None:
    assert Plan(TARGET, duration=text).duration == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("size", "table"),
    [(640, 640), ("64", 64), ("64:64", 64), ("4:7", [4, 5, 6, 7]), ("8*3,9*1", [8, 8, 8, 9]),
     ("8*6,9*2", [8, 8, 8, 9]), ([8, 8, 9], [8, 8, 9]), ("8,8", 8), ("5*7", 5)],
)  # fmt: skip
def test_a_size_is_fixed_or_a_table(size: Any, table: Any) -> None:
    assert Plan(TARGET, size=size).sizes == table


def test_a_range_wider_than_a_table_is_spread_evenly_over_it() -> None:
    table = Plan(TARGET, size="1:1000000").sizes
    assert isinstance(table, list)
    assert (len(table), table[0], table[-1]) == (65536, 1, 1_000_000)
    steps = {after - before for before, after in pairwise(table)}
    assert steps == {15, 16}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"connections": 0}, "connections 0 must be a whole number from 1 to 1048576"),
    ({"connections": True}, "connections True must be a whole number from 1 to 1048576"),
    ({"connections": 1.5}, "connections 1.5 must be a whole number from 1 to 1048576"),
    ({"connections": "1e3"}, "connections '1e3' must be a whole number from 1 to 1048576"),
    ({"threads": 11}, "connections 10 is less than threads 11: each thread needs one"),
    ({"threads": 2, "messages": 1}, "messages 1 is less than threads 2: each thread needs one"),
    ({"depth": 65537}, "depth 65537 must be a whole number from 1 to 65536"),
    ({"duration": "5 parsecs"}, "must be a time such as 10, 10s, 500ms or 2m"),
    ({"duration": "nan"}, "must be a time such as 10, 10s, 500ms or 2m"),
    ({"duration": float("nan")}, "duration nan must be 1 ms to 500,000 s"),
    ({"duration": 0}, "duration 0 must be 1 ms to 500,000 s"),
    ({"duration": []}, "must be a time"),
    ({"rate": "fast"}, "rate 'fast' must be messages a second, such as 50000 or 50k"),
    ({"rate": 0}, "rate 0 must be above 0 messages a second"),
    ({"rate": float("inf")}, "rate inf is more messages a second than any load can send"),
    ({"rate": 10**400}, "is more messages a second than any load can send"),
    ({"rate": float("nan")}, "rate nan must be above 0 messages a second"),
    ({"duration": 10**400}, "must be 1 ms to 500,000 s"),
    ({"rate": 2e7}, "must be 0.001 to 10000000 messages a second for each of threads 1"),
    ({"schedule": "random"}, "schedule 'random' must be fixed or poisson"),
    ({"size": 0}, "size '0' has a size outside of 1 to 67108864 bytes"),
    ({"size": "9:3"}, "size '9:3' has its larger size first: write SMALLEST:LARGEST"),
    ({"size": "64*"}, "has a weight that is not a whole number above 0: write SIZE*WEIGHT"),
    ({"size": "64*1,65*70000"}, "has weights that add up to 70001: at most 65536"),
    ({"size": "big"}, "size 'big' must be bytes: 64, 64:1024 or 64*9,1024*1"),
    ({"size": None}, "size None must be bytes"),
    ({"size": []}, "must be bytes"),
    ({"frame": "raw"}, "frame 'raw' must be recv or line or length"),
    ({"prefix": "x"}, "prefix 'x' needs frame line or length: bytes alone have no beginning"),
    ({"prefix": "x" * 5000, "frame": "line"}, "has 5000 bytes: at most 4096"),
    ({"prefix": 5, "frame": "line"}, "prefix 5 must be text or bytes"),
    ({"suffix": "\ud800", "frame": "line"}, "must be text that UTF-8 can encode"),
    ({"reconnect": 1}, "reconnect 1 must be true or false"),
    ({"reconnect": True, "rate": 5}, "rate 5 does not go together with reconnect: there"),
    ({"reconnect": True, "depth": 2}, "depth 2 does not go together with reconnect"),
    ({"reconnect": True, "ramp": "2s"}, "ramp '2s' does not go together with reconnect"),
    ({"ramp": 10}, "ramp 10 does not end before the run: duration and warmup are 10 s together"),
    ({"ramp": "3s", "warmup": 1, "duration": 2}, "duration and warmup are 3 s together"),
    ({"close": "reset"}, "close 'reset' has no effect without reconnect"),
    ({"timeout": 0}, "timeout 0 must be 1 ms to 1,000,000 s"),
    ({"timeout": []}, "timeout [] must be a time"),
    ({"warmup": -1}, "warmup -1 must be 0 s to 500,000 s"),
    ({"sources": "localhost"}, "sources 'localhost' must be a numeric address, without a port"),
    ({"sources": ["127.0.0.1", 5]}, "sources 5 must be a numeric address"),
    ({"sources": 5}, "sources 5 must be an address or a list of addresses"),
    ({"seed": -1}, "seed -1 must be a whole number from 0 to 18446744073709551615"),
    ({"label": "a\nb"}, "must be one line of printable characters"),
    ({"label": "x" * 201}, "has 201 characters: at most 200"),
    ({"label": 5}, "label 5 must be text"),
    ({"interval": 0}, "interval 0 must be 10 ms to 60 min"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG, ids=[str(w)[:40] for w, _ in WRONG])
def test_a_wrong_value_is_named_in_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan(TARGET, **wrong)
    text = str(caught.value)
    assert sentence in text
    assert "\n" not in text
    assert len(text) < 250


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [([], "targets [] names no server: write HOST:PORT"),
     ("nowhere", "targets 'nowhere' has no port: write HOST:PORT"),
     (["127.0.0.1:1", "127.0.0.1:0"], "has port 0, which nothing can be reached at"),
     (None, "targets None must be a string or a (host, port) pair"),
     ("fd://3", "is a descriptor to listen on, not an address to reach")],
)  # fmt: skip
def test_a_wrong_target_is_named(targets: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan(targets)
    assert sentence in str(caught.value)


def test_sources_make_no_sense_for_unix_sockets_alone() -> None:
    with pytest.raises(ConfigError, match="a Unix socket has no local address"):
        Plan("unix:/run/echo", sources="127.0.0.1")
    assert Plan(["unix:/run/echo", TARGET], sources="127.0.0.1").sources == ("127.0.0.1",)


def test_flags_are_named_as_flags() -> None:
    with pytest.raises(ConfigError, match=r"^--expect-prefix 'x' needs --frame line or"):
        read_options({"prefix": "x"}, [TARGET])
    with pytest.raises(ConfigError, match=r"^--source 'x' must be a numeric address"):
        read_options({"sources": ["x"]}, [TARGET])
    with pytest.raises(ConfigError, match=r"^--source '127.0.0.1,127.0.0.2' has no effect"):
        read_options({"sources": ["127.0.0.1", "127.0.0.2"]}, ["unix:/run/echo"])
    with pytest.raises(ConfigError, match=r"^--rate '5k' does not .* there --connections are"):
        read_options({"rate": "5k", "reconnect": True}, [TARGET])


def test_a_ramp_that_ends_within_the_run_is_taken() -> None:
    assert Plan(TARGET, ramp=2.5, warmup=1, duration=2).ramp == 2.5
    assert Plan(TARGET, ramp=20, messages=5).ramp == 20.0


def test_a_plan_never_changes() -> None:
    plan = Plan(TARGET)
    with pytest.raises(AttributeError, match=r"a Plan is immutable: rate cannot be set"):
        plan.rate = 5.0
    with pytest.raises(AttributeError, match="immutable"):
        del plan.rate
    other = plan.replace(rate=5)
    assert (plan.rate, other.rate) == (None, 5.0)
    assert other.targets == plan.targets


@pytest.mark.parametrize(
    "plan",
    [Plan(TARGET), Plan(TARGET, **EVERYTHING), Plan(TARGET, reconnect=True, close="reset"),
     Plan("unix:/run/\udcff", messages=3)],
    ids=["default", "everything", "reconnect", "bytes"],
)  # fmt: skip
def test_a_plan_survives_json_and_pickle(plan: Plan) -> None:
    text = json.dumps(plan.to_json())
    assert Plan.from_json(json.loads(text), label=plan.label) == plan
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    assert hash(again) == hash(plan)
    assert eval(repr(plan), {"Plan": Plan}) == plan


def test_json_of_a_plan_names_what_is_wrong_with_it() -> None:
    with pytest.raises(ConfigError, match=r"^plan\.depth 'x' must be a whole number"):
        Plan.from_json({"targets": [TARGET], "depth": "x"})
    with pytest.raises(ConfigError, match=r"^plan\.targets None"):
        Plan.from_json({})


TEN = "127.0.0.1:7777: 10 connections"
SAID: list[tuple[dict[str, Any], str]] = [
    ({}, f"""{TEN} for 10 s, messages of 64 bytes.
     Closed loop: each connection sends the next message when the reply is in."""),
    ({"connections": 1, "messages": 1, "size": 1, "depth": 4},
     """127.0.0.1:7777: 1 connection until 1 message was sent, messages of 1 byte.
     Closed loop: each connection keeps 4 messages outstanding."""),
    ({"rate": 2_500_000, "threads": 2, "duration": 0.5, "frame": "line", "warmup": 1},
     f"""{TEN} by 2 threads for 500 ms, messages of 64 bytes, frame line.
     Open loop: 2,500,000 messages/s, evenly, whatever the server does.
     1 s of warm-up is not counted."""),
    ({"reconnect": True, "idle_connections": 2, "messages": 5, "duration": 2},
     f"""{TEN} for 2 s or until 5 messages were sent, messages of 64 bytes.
     Closed loop, a new connection for every message: connect, echo, close.
     2 further connections stay idle."""),
    ({"rate": 0.5, "schedule": "poisson", "ramp": 3},
     f"""{TEN} for 10 s, messages of 64 bytes.
     Open loop: 0.5 messages/s, at random times (Poisson), whatever the server does.
     Connections open over 3 s."""),
]  # fmt: skip


@pytest.mark.parametrize(("keywords", "said"), SAID, ids=[str(k)[:30] for k, _ in SAID])
def test_a_plan_says_what_it_will_do(keywords: dict[str, Any], said: str) -> None:
    assert str(Plan(TARGET, **keywords)) == re.sub(r"\s+", " ", said)
