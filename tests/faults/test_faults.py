"""A server whose system calls and allocations fail serves everybody who was not hit, exactly.

A part of what `make faults` tries: 160 seeds, and every seventh call of each function. The
judgement is tested as well: what it is to find, it finds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lives import FUNCTIONS, MEMORY, Fault, Lives
from one_call import MANY, PAIRS, walk
from proxied import CLIENT, greeting_complaint, line
from rounds import PER_MILLE, Account, Kind, campaign, judge
from workload import Conversation, End

SEEDS = 160
STEP = 7


@pytest.fixture
def lives(shim: Path) -> Iterator[Lives]:
    """Return a process in which servers live and end, with the shim; it ends in order."""
    one = Lives(shim)
    try:
        yield one
        one.leave()
    finally:
        one.kill()


@pytest.mark.timeout(300)
def test_calls_that_fail_at_random_hurt_nobody_else(lives: Lives) -> None:
    account = Account()
    campaign(lives, range(SEEDS), account)
    assert [name for name in FUNCTIONS if not account.hits[name]] == []
    assert account.rounds == SEEDS
    assert 0 < account.refused_starts < SEEDS
    # The rest of them came when memory or a descriptor was refused.
    assert account.hurt - account.spared_hurt > account.spared_hurt > 0
    assert account.spared_hurt < account.spared / 4


@pytest.mark.parametrize(
    ("kind", "fault"), PAIRS, ids=[f"{kind.name}-{fault}" for kind, fault in PAIRS]
)
def test_one_call_that_fails_costs_what_its_rule_says(
    lives: Lives, kind: Kind, fault: Fault
) -> None:
    account = Account()
    reached = list(walk(lives, kind, fault, account, STEP))
    assert reached
    assert account.hits[fault.function] >= len(reached)


def test_same_seed_gives_the_same_faults(lives: Lives) -> None:
    found = []
    for seed in (3, 4, 3):
        lives.plan_seed(seed, PER_MILLE, memory=True)
        lives.play(True)
        for _ in range(20):
            if lives.begin():
                lives.play(False)
                lives.finish(in_order=False)
                lives.play(True)
        lives.play(False)
        counts = lives.counts()
        found.append({name: counts.hits[name] for name in ("calloc", "aligned_alloc", "epoll_ctl")})
    assert found[0] == found[2] != found[1]


def test_calls_of_python_itself_are_left_alone(lives: Lives) -> None:
    """Orders come by read, answers go by write, and Python allocates all the time."""
    lives.plan_seed(1, 1000, memory=True)
    lives.play(True)
    assert lives.begin() is None
    calls = lives.counts().calls
    assert calls["calloc"] == 1
    assert [name for name in FUNCTIONS if name not in MEMORY and calls[name]] == []
    # Python's allocator may end in a jump to malloc: that returns into the extension as well.
    assert calls["malloc"] < 5


def test_calls_are_counted_without_a_fault(lives: Lives) -> None:
    lives.plan_number(Fault("recv", "ECONNRESET", True), MANY)
    lives.play(True)
    assert lives.begin()
    lives.finish(in_order=True)
    counts = lives.counts()
    assert counts.calls["calloc"] == 2
    assert counts.calls["aligned_alloc"] == 1
    assert sum(counts.hits.values()) == 0


def test_what_the_core_holds_in_memory_is_known(lives: Lives) -> None:
    lives.plan_number(Fault("recv", "ECONNRESET", True), MANY)
    assert lives.begin()
    assert lives.ask("belongings")["blocks"]
    lives.finish(in_order=True)
    assert not lives.left_behind()


def ended(end: End, sent: int, received: bytes, *, half_closed: bool = True) -> Conversation:
    """Return a spared conversation about eight bytes that has come that far."""
    one = Conversation([(b"abcd", b"abcd"), (b"efgh", b"efgh")], spared=True)
    one.sent, one.end, one.is_half_closed = sent, end, half_closed
    one.received += received
    return one


def refused(end: End, received: bytes) -> Conversation:
    """Return a conversation that was to be reset and has come that far."""
    one = Conversation([(b"PROXY no\r\n", b"")], refused="header")
    one.end = end
    one.received += received
    return one


def greeted(said: bytes, end: End = End.FIN) -> Conversation:
    """Return a conversation behind a proxy that was told something before four bytes came back."""
    one = Conversation([(b"abcd", b"abcd")], spared=True)
    one.introduce(line(), [])
    one.greeting = greeting_complaint
    one.own_address = "127.0.0.2:9"
    one.sent, one.end, one.is_half_closed = len(one.data), end, True
    one.received += said + b"abcd"
    return one


def identity(claimed: str = f"{CLIENT}:40112") -> bytes:
    """Return what a server says of that conversation."""
    told = {"instance": "web-1", "seen": "127.0.0.2:9", "claimed": claimed, "proxy": {}}
    return json.dumps(told).encode() + b"\n"


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (lambda: ended(End.FIN, 8, b"abcdef"), "FIN after a loss"),
        (lambda: ended(End.FIN, 4, b"abcd"), "FIN after a loss"),
        (lambda: ended(End.FIN, 8, b"abcdefgh", half_closed=False), "FIN after a loss"),
        (lambda: ended(End.FIN, 8, b"abcdefghi"), "not due"),
        (lambda: ended(End.RESET, 8, b"abdc"), "not due"),
        (lambda: ended(End.OURS, 8, b"bcd"), "not due"),
        (lambda: ended(End.HANGS, 8, b"abcdefgh"), "hangs"),
        (lambda: ended(End.RESET, 8, b"abcd"), "were hurt"),
        (lambda: refused(End.FIN, b""), "served"),
        (lambda: refused(End.RESET, b"P"), "served"),
        (lambda: refused(End.HANGS, b""), "hangs"),
        (lambda: greeted(b""), "FIN after a loss"),
        (lambda: greeted(b"{}\n"), "was said to"),
        (lambda: greeted(b"no\n"), "is not JSON"),
        (lambda: greeted(identity("192.0.2.8:1")), "was said to"),
        (lambda: greeted(identity() + identity()), "not due"),
    ],
    ids=[
        "cut",
        "early",
        "unasked",
        "more",
        "swapped",
        "hole",
        "hangs",
        "spared",
        "served",
        "byte",
        "kept",
        "untold",
        "empty",
        "no-json",
        "stranger",
        "twice",
    ],
)
def test_what_must_not_be_is_found(one: Callable[[], Conversation], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        judge([one()], 0)


def test_what_may_be_is_accepted() -> None:
    judge([ended(End.FIN, 8, b"abcdefgh"), ended(End.OURS, 6, b"ab")], 0)
    judge([ended(End.RESET, 8, b"abcd")], 1)
    judge([refused(End.RESET, b""), greeted(identity())], 0)
