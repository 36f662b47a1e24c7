"""A life of a server while its calls fail at random, by seed; and what must hold of it.

Lives here: the kinds of servers and conversations that a seed stands for, a round, its account.
Does not live here: how a conversation is held and judged (workload.py), calls that fail by number
(one_call.py), the table (run.py).

A round: a start while calls fail (it succeeds, or raises and leaves nothing behind); a server
whose calls fail while many peers talk; a newcomer without faults, who is served exactly; an end
while calls fail. After it the books balance, descriptors and threads are those from before.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import proxied
from conftest import check_books
from datagram_talk import is_answered, send_datagrams
from lives import FUNCTIONS, Counts, Lives
from proxied import Front
from workload import Conversation, End, Manner, converse

PER_MILLE = 300
"""Calls in a thousand that are hit."""


class Kind(NamedTuple):
    """A server, and who talks to it."""

    name: str
    config: dict[str, Any]
    """Server's keywords; asks: with an accept callback, udp: with a UDP socket as well."""
    prefix: bytes | None = None
    """What stands before each line; None: raw echo."""
    is_crowd: bool = False
    """Many short conversations, with a timer for each: lists and heaps have to grow."""
    front: Front | None = None
    """Who connects comes through a proxy."""

    def keywords(self) -> dict[str, Any]:
        """Return what its server is made of."""
        return {**self.config, **(self.front.config() if self.front else {})}


CROWD = 90
"""Connections at a time: a heap of timers starts with room for 64."""
PREFIX = "you said: "
LINES: dict[str, Any] = {"frame": "line", "prefix": PREFIX}
KINDS = [
    Kind("raw", {}),
    Kind("lines", {**LINES, "high_water": 16384, "max_frame": 8192}, PREFIX.encode()),
    Kind("raw, 2 threads", {"threads": 2, "idle_timeout": 60, "access_log": True}),
    Kind("asked", {"asks": True}),
    Kind(
        "lines, asked, 2 threads",
        {**LINES, "asks": True, "threads": 2, "access_log": True},
        PREFIX.encode(),
    ),
    Kind("crowd", {"idle_timeout": 60, "access_log": True}, is_crowd=True),
    Kind("proxied", {"access_log": True}, front=Front("required", 40)),
    Kind(
        "proxied or not, asked, 2 threads",
        {"threads": 2, "access_log": True},
        front=Front("optional", 60, asks=True),
    ),
    Kind("proxied lines", LINES, PREFIX.encode(), front=Front("required", 60, False, asks=True)),
    Kind(
        "proxied crowd",
        {"idle_timeout": 60},
        is_crowd=True,
        front=Front("required", CROWD + 20, asks=True, gathers=50),
    ),
    Kind("raw and datagrams, 2 threads", {"udp": True, "threads": 2}),
    Kind("lines and datagrams", {**LINES, "udp": True}, PREFIX.encode()),
]
LATE_ONE_IN = 8
"""Rounds behind a proxy in which headers come late: each takes as long as they may."""


@dataclass
class Account:
    """What a campaign has seen so far."""

    rounds: int = 0
    refused_starts: int = 0
    """Starts that raised, as they may."""
    connections: int = 0
    hurt: int = 0
    """Connections that were reset by the server."""
    spared: int = 0
    """Connections whose calls never failed for good."""
    spared_hurt: int = 0
    """Of those: memory was refused, or no descriptor was left when they came."""
    verified: int = 0
    """Bytes that came back and were right."""
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FUNCTIONS, 0))
    hits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FUNCTIONS, 0))

    def add_counts(self, counts: Counts) -> None:
        """Add what a plan has counted."""
        for name in FUNCTIONS:
            self.calls[name] += counts.calls[name]
            self.hits[name] += counts.hits[name]

    def add_conversations(self, talk: list[Conversation]) -> None:
        """Add conversations that have ended and were judged."""
        self.connections += len(talk)
        self.hurt += sum(one.is_hurt for one in talk)
        self.spared += sum(one.spared for one in talk)
        self.spared_hurt += sum(one.is_hurt for one in talk if one.spared)
        self.verified += sum(len(one.received) for one in talk)


def segments(dice: random.Random, kind: Kind, sizes: list[int]) -> list[tuple[bytes, bytes]]:
    """Return what to send in pieces of these sizes, each with what is due for it."""
    pieces = [dice.randbytes(size) for size in sizes]
    if kind.prefix is None:
        return [(piece, piece) for piece in pieces]
    lines = [piece.replace(b"\n", b".")[:-1] + b"\n" for piece in pieces]
    return [(line, kind.prefix + line) for line in lines]


def conversations(dice: random.Random, kind: Kind) -> list[Conversation]:
    """Return the peers of one round; every manner comes spared and not spared."""
    if kind.is_crowd:
        return [
            Conversation(
                segments(dice, kind, [dice.randint(1, 400)]), Manner.TOGETHER, spared=n % 8 > 0
            )
            for n in range(CROWD)
        ]
    talk = []
    for spared in (True, False):

        def add(
            sizes: list[int],
            manner: Manner = Manner.STREAM,
            tail: bytes = b"",
            *,
            spared: bool = spared,
        ) -> None:
            pieces = segments(dice, kind, sizes)
            if tail:
                pieces[-1] = (pieces[-1][0] + tail, pieces[-1][1])
                tail = (kind.prefix or b"") + tail
            talk.append(Conversation(pieces, manner, spared=spared, tail=tail))

        add([])
        add([dice.randint(1, 2000) for _ in range(12)], Manner.TURNS)
        add([dice.randint(1, 200) for _ in range(200)], tail=b"without an end")
        add([dice.randint(1, 8000) for _ in range(25)])
        add([dice.randint(1, 8000) for _ in range(40)], Manner.LATE)
        add([dice.randint(1, 4000) for _ in range(20)], Manner.RESET)
        if kind.prefix is None:
            add([400_000])
    if dice.random() < 0.2:  # more than the kernel holds for one who does not read
        add([dice.randint(1, 8000) for _ in range(1500)], Manner.LATE)
    dice.shuffle(talk)
    return talk


def judge(talk: list[Conversation], excused: int, whom: str = "spared") -> None:
    """Hold what must be true of every conversation; at most `excused` spared ones are hurt."""
    wrong = [complaint for complaint in (one.complaint() for one in talk) if complaint]
    assert not wrong, wrong
    hurt = [one for one in talk if one.spared and one.is_hurt]
    assert len(hurt) <= excused, f"{whom} connections were hurt, {excused} excused: {hurt}"


def through_proxy(
    dice: random.Random, front: Front, talk: list[Conversation], *, late: bool
) -> list[Conversation]:
    """Return the peers of a round with headers, among others who come without or are refused."""
    proxied.put_behind_proxy(dice, front, talk, late=late)
    for spared in (True, False):
        talk += proxied.refused(dice, front, spared=spared, late=late)
        talk += proxied.unnamed(dice, front, spared=spared, late=late)
    dice.shuffle(talk)
    return talk


def start(lives: Lives, kind: Kind, account: Account, **more: Any) -> str:
    """Start a server while calls fail, or, if it cannot, while none does; its address."""
    config = {**kind.keywords(), **more}
    lives.play(True)
    address = lives.begin(**config)
    lives.play(False)
    if address is not None:
        return address
    account.refused_starts += 1
    left = lives.left_behind()
    assert not left, f"a start that failed has left {left}"
    address = lives.begin(**config)
    assert address is not None, "without faults the server did not start"
    return address


def live_through(lives: Lives, seed: int, account: Account) -> None:
    """Live through the round of a seed; fails when anything does not hold."""
    dice = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    with_memory = seed // len(KINDS) % 2 == 1
    late = kind.front is not None and seed // len(KINDS) % (2 * LATE_ONE_IN) in (1, 2)

    lives.plan_seed(seed, PER_MILLE, memory=with_memory)
    patience = {"proxy_timeout": proxied.PATIENCE} if late else {}
    address = start(lives, kind, account, **patience)

    at_start = lives.counts()
    talk = conversations(dice, kind)
    if kind.front:
        talk = through_proxy(dice, kind.front, talk, late=late)
    lives.play(True)
    for udp in lives.udp_addresses:
        wrong = send_datagrams(udp, dice, kind.prefix or b"")
        assert not wrong, wrong
    converse(address, talk)
    lives.play(False)
    stats = lives.stats()
    refused = lives.counts().memory_hits - at_start.memory_hits
    excused = refused + stats.shed_no_descriptors
    judge(talk, excused)
    account.add_conversations(talk)
    if kind.front:
        proxied.check_counters(stats, talk, excused)

    if kind.front:
        newcomers = proxied.census(lives, address, kind.front, segments(dice, kind, [50]))
    else:
        newcomers = [Conversation(segments(dice, kind, [5000]))]
        converse(address, newcomers)
        assert newcomers[0].end is End.FIN, newcomers
        judge(newcomers, 0)
    for udp in lives.udp_addresses:
        assert is_answered(udp, kind.prefix or b"")

    lives.play(True)
    stats = lives.finish(in_order=seed % 4 < 2)
    lives.play(False)
    check_books(stats)
    received = sum(len(one.received) for one in [*talk, *newcomers])
    assert received <= stats.bytes_out - stats.bytes_dropped, (received, stats)
    account.add_counts(lives.counts())
    account.rounds += 1
    left = lives.left_behind()
    assert not left, f"the server has left {left}"


def campaign(lives: Lives, seeds: range, account: Account) -> None:
    """Live through the rounds of all seeds; a failure names its seed."""
    for seed in seeds:
        try:
            live_through(lives, seed, account)
        except BaseException as error:
            name = KINDS[seed % len(KINDS)].name
            error.add_note(f"seed {seed}, {name}: {lives.errors()[-2000:]}")
            raise
