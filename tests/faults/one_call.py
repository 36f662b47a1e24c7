"""A life of a server in which one call fails, chosen by its number; or that and all later ones.

Lives here: which faults there are and what each may cost, a life, the walk through all numbers.
Does not live here: calls that fail at random (rounds.py), the table (run.py).

A life: start, a small workload that is always the same, an end in order. A first life without a
fault counts the calls; then every number of every function has its turn. The count differs from
life to life by a few, as segments meet: a number that was not reached is not counted as tried.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from conftest import check_books
from lives import Counts, Fault, Lives
from peers import wait_until
from proxied import Front, census, check_counters, put_behind_proxy, refused, unnamed
from rounds import KINDS, PREFIX, Account, Kind, judge, segments
from workload import Conversation, End, Manner, converse

MANY = 1 << 40
"""More calls than there are: a plan that only counts."""
NAMED = {kind.name: kind for kind in KINDS}
RAW, ASKED, CROWD = NAMED["raw"], NAMED["asked"], NAMED["crowd"]
LINES = Kind("lines", {"frame": "line", "prefix": PREFIX}, PREFIX.encode())
PROXIED = Kind("proxied", {"access_log": True}, front=Front("required", 12, asks=True))
PROXIED_OR_NOT = Kind("proxied or not", {}, front=Front("optional", 12))
PROXIED_CROWD = Kind(
    "proxied crowd", {}, is_crowd=True, front=Front("required", 80, asks=True, gathers=50)
)

ONCE = {
    ("recv", "EINTR"): 0,
    ("recv", "EAGAIN"): 0,
    ("recv", "ENOMEM"): 0,
    ("recv", "ECONNRESET"): 1,
    ("send", "EINTR"): 0,
    ("send", "EAGAIN"): 0,
    ("send", "ENOBUFS"): 0,
    ("send", "EPIPE"): 1,
    ("accept4", "EINTR"): 0,
    ("accept4", "EAGAIN"): 0,
    ("accept4", "ECONNABORTED"): 0,
    ("accept4", "ENOMEM"): 0,
    ("accept4", "EMFILE"): 1,
    ("epoll_ctl", "ENOSPC"): 1,
    ("epoll_wait", "EINTR"): 0,
    ("epoll_wait", "ENOMEM"): 0,
    ("read", "EINTR"): 0,
    ("read", "EAGAIN"): 0,
    ("write", "EINTR"): 0,
    ("close", "EINTR"): 0,
    ("malloc", "ENOMEM"): 1,
    ("calloc", "ENOMEM"): 1,
    ("realloc", "ENOMEM"): 1,
    ("aligned_alloc", "ENOMEM"): 1,
}
"""Connections that one such failure may cost, by docs/reference/errors.md."""

LASTING = [
    ("recv", "ECONNRESET"),
    ("recv", "ENOMEM"),
    ("send", "EPIPE"),
    ("send", "ENOBUFS"),
    ("accept4", "ECONNABORTED"),
    ("accept4", "EPERM"),
    ("accept4", "EMFILE"),
    ("accept4", "ENFILE"),
    ("accept4", "ENOMEM"),
    ("epoll_ctl", "ENOSPC"),
    ("epoll_wait", "ENOMEM"),
    ("close", "EIO"),
    ("malloc", "ENOMEM"),
    ("calloc", "ENOMEM"),
    ("realloc", "ENOMEM"),
    ("aligned_alloc", "ENOMEM"),
]
"""What the kernel can go on saying. (EINTR and EAGAIN for ever would be a defect of the kernel;
an eventfd that is not full is always written.)"""

FAULTS = [Fault(*names, False) for names in ONCE] + [Fault(*names, True) for names in LASTING]

WATCHED = 0.05
"""Seconds for which a server that serves nobody is watched."""
ACCEPT_PAUSE = 0.1
"""Seconds that accepting rests (_accept.pxd)."""
ACCEPT_BURST = 127
"""accept4 calls before a rest: 1 + 2 + 4 + ... + 64."""


def kind_for(fault: Fault) -> Kind:
    """Return the server under which the function is called often enough, and not too often."""
    if fault.function == "realloc":
        return CROWD
    if fault.function in ("read", "write"):
        return ASKED
    return RAW if fault.function in ("recv", "accept4", "epoll_wait", "close") else LINES


def kind_behind_proxy(fault: Fault) -> Kind:
    """Return the server behind a proxy under which the function is called often enough."""
    if fault.function == "realloc":
        return PROXIED_CROWD
    return PROXIED_OR_NOT if fault.function in ("recv", "close") else PROXIED


PAIRS = [(kind(fault), fault) for kind in (kind_for, kind_behind_proxy) for fault in FAULTS]
"""Each fault, and the server that it meets."""


def proxied_conversations(dice: random.Random, kind: Kind, front: Front) -> list[Conversation]:
    """Return peers with headers, whole and in pieces, and some who are refused."""
    talk = [
        Conversation([]),
        Conversation(segments(dice, kind, [100] * 3), Manner.TURNS),
        Conversation(segments(dice, kind, [1000] * 2)),
        Conversation(segments(dice, kind, [3000] * 4), Manner.RESET),
        Conversation(segments(dice, kind, [8000] * 4), Manner.LATE),
    ]
    if kind.is_crowd:
        talk = [Conversation(segments(dice, kind, [20]), Manner.TOGETHER) for _ in range(70)]
    put_behind_proxy(dice, front, talk)
    talk += unnamed(dice, front, spared=False, late=False)
    return talk + refused(dice, front, spared=False, late=False)


def conversations(kind: Kind) -> list[Conversation]:
    """Return the same peers every time."""
    dice = random.Random(1)
    if kind.front:
        return proxied_conversations(dice, kind, kind.front)
    if kind is CROWD:
        return [Conversation(segments(dice, kind, [20]), Manner.TOGETHER) for _ in range(70)]
    tail = (kind.prefix or b"") + b"no end"
    last = segments(dice, kind, [3000, 3000])
    last[-1] = (last[-1][0] + b"no end", last[-1][1])
    return [
        Conversation([]),
        Conversation(segments(dice, kind, [100] * 30), Manner.TURNS),
        Conversation(segments(dice, kind, [1000] * 20), Manner.TURNS),
        Conversation(segments(dice, kind, [7000] * 20)),
        Conversation(last, tail=tail),
        Conversation(segments(dice, kind, [5000] * 8), Manner.RESET),
        # More than the kernel holds for one who does not read.
        Conversation(segments(dice, kind, [8000] * (800 if kind is LINES else 40)), Manner.LATE),
    ]


class Rest:
    """Ends a lasting fault when nobody is served any more, and looks whether that burns a CPU."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives

    def __call__(self) -> None:
        """Nobody has heard anything for a while: see what the server does meanwhile, then stop."""
        began = time.monotonic()
        before = self._lives.counts().calls["accept4"]
        wait_until(lambda: time.monotonic() > began + WATCHED)
        accepts = self._lives.counts().calls["accept4"] - before
        most = (1 + (time.monotonic() - began) / ACCEPT_PAUSE) * ACCEPT_BURST
        self._lives.play(False)
        assert accepts <= most, f"{accepts} calls of accept4 that could not succeed: a busy loop"


def live_through(lives: Lives, kind: Kind, fault: Fault, number: int, account: Account) -> Counts:
    """Live with the fault at that call; what was called and hit. Fails when anything is wrong."""
    lives.plan_number(fault, number)
    lives.play(True)
    address = lives.begin(**kind.keywords())
    if address is None:
        lives.play(False)
        counts = lives.counts()
        assert sum(counts.hits.values()), "a start failed for no reason"
        account.refused_starts += 1
    else:
        counts = serve(lives, fault, kind, address, account)
    left = lives.left_behind()
    assert not left, f"the server has left {left}"
    account.rounds += 1
    account.add_counts(counts)
    return counts


def serve(lives: Lives, fault: Fault, kind: Kind, address: str, account: Account) -> Counts:
    """Hold the conversations with a server that has started, and end it."""
    talk = conversations(kind)
    converse(address, talk, Rest(lives) if fault.is_lasting else None)
    hits = sum(lives.counts().hits.values())
    judge(talk, 0)
    hurt = sum(one.is_hurt for one in talk)
    if not fault.is_lasting:
        most = ONCE[fault.function, fault.error]
        assert hurt <= min(most, hits), f"{hurt} connections were hurt, at most {most} may be"
    account.add_conversations(talk)

    lives.play(False)
    # The one fault that ends a worker: nobody listens any more.
    is_over = fault.function == "epoll_wait" and fault.is_lasting and hits > 0
    newcomers = [Conversation(segments(random.Random(2), kind, [5000]))]
    if kind.front and not is_over:
        check_counters(lives.stats(), talk, hits)
        newcomers = census(lives, address, kind.front, segments(random.Random(2), kind, [50]))
    else:
        converse(address, newcomers)
        assert newcomers[0].end is (End.RESET if is_over else End.FIN), newcomers
    account.add_conversations([] if is_over else newcomers)

    # An end in order takes a loop; a loop that cannot wait ends at once.
    lives.play(True)
    stats = lives.finish(in_order=True)
    lives.play(False)
    check_books(stats)
    received = sum(len(one.received) for one in [*talk, *newcomers])
    assert received <= stats.bytes_out - stats.bytes_dropped, (received, stats)
    return lives.counts()


def walk(lives: Lives, kind: Kind, fault: Fault, account: Account, step: int = 1) -> Iterator[int]:
    """Live with the fault at every step-th call in turn; yield the numbers that were reached."""
    count = live_through(lives, kind, fault, MANY, account).calls[fault.function]
    assert count > 0, f"{fault.function} is never called"
    for number in range(1, count + 1, step):
        try:
            counts = live_through(lives, kind, fault, number, account)
            assert (counts.hits[fault.function] > 0) == (counts.calls[fault.function] >= number)
        except BaseException as error:
            error.add_note(
                f"{kind.name}: {fault}, call {number} of {count}: {lives.errors()[-2000:]}"
            )
            raise
        if counts.hits[fault.function]:
            yield number
