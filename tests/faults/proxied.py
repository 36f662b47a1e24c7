"""Conversations that come through a proxy: what they claim to be, and what becomes of them.

Lives here: servers that read PROXY headers, the headers, the line by which a server says who
answers, who must be refused, and whether addresses are counted right. Does not live here: how a
conversation is held (workload.py), the faults (rounds.py, one_call.py).

All claim to be the same client: one address counts them all, and the limit is above their number.
When they are gone, just as many may come as the limit allows: one more would be a connection that
was not counted, one less a connection that was counted and never left.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any, NamedTuple

from conftest import SETTLE
from lives import Lives
from peers import wait_until
from workload import HIT_HOST, SPARED_HOST, Conversation, End, Manner, converse

from fastecho.stats import Stats

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
CLIENT = "192.0.2.7"
"""Whom the headers name."""
DENIED = "192.0.2.66"
"""Whom the accept callback sends away."""
STRANGER = "127.0.0.3"
"""Whose headers are not believed."""
PATIENCE = 2.0
"""proxy_timeout where a header comes late: long enough for those that come at once."""


class Front(NamedTuple):
    """How a server reads PROXY headers.

    Attributes:
        mode: proxy_protocol.
        limit: max_per_ip.
        identifies: says who answers.
        asks: has an accept callback.
        gathers: connections with a header that wait for the callback's first answer.
    """

    mode: str
    limit: int
    identifies: bool = True
    asks: bool = False
    gathers: int = 0

    def config(self) -> dict[str, Any]:
        """Return Server's keywords."""
        config: dict[str, Any] = {
            "proxy_protocol": self.mode,
            "proxy_trusted": f"{HIT_HOST},{SPARED_HOST}",
            "max_per_ip": self.limit,
            "identify": self.identifies,
        }
        if self.identifies:
            config["instance"] = "web-1"
        if self.asks:
            config["denies"] = DENIED
            config["gathers"] = self.gathers
        return config


# --- headers ------------------------------------------------------------------------------------


def line(host: str = CLIENT) -> bytes:
    """Return a header of version 1."""
    return f"PROXY TCP4 {host} 192.0.2.8 40112 7\r\n".encode()


def binary(tlvs: bytes = b"", host: str = CLIENT) -> bytes:
    """Return a header of version 2."""
    addresses = b"".join(
        bytes(int(part) for part in text.split(".")) for text in (host, "192.0.2.8")
    )
    rest = addresses + (40112).to_bytes(2, "big") + (7).to_bytes(2, "big") + tlvs
    return SIGNATURE + b"\x21\x11" + len(rest).to_bytes(2, "big") + rest


def tlv(kind: int, value: bytes) -> bytes:
    """Return a TLV."""
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def headers() -> list[bytes]:
    """Return headers that name the client: short ones, one with much in it, the longest."""
    return [
        line(),
        binary(),
        binary(tlv(2, b'ex"ample.com') + tlv(5, bytes(range(128)))),
        binary(tlv(0xE0, b"x" * 4065)),
    ]


# --- who comes ----------------------------------------------------------------------------------


def put_behind_proxy(
    dice: random.Random, front: Front, talk: list[Conversation], *, late: bool = False
) -> None:
    """Give each conversation a header: in one send with what follows, or in pieces.

    late: the server has little patience, so there are no pieces.
    """
    for one in talk:
        header = dice.choice(headers())
        cuts = sorted(
            dice.randrange(1, len(header) + 1)
            for _ in range(dice.choice([0, 0, 1, 4]) if not late else 0)
        )
        one.introduce(header, cuts)
    expect_greetings(front, talk)


def expect_greetings(front: Front, talk: list[Conversation]) -> None:
    """Let each conversation begin by the server's line, if it says who answers."""
    if front.identifies:
        for one in talk:
            one.greeting = greeting_complaint


def greeting_complaint(one: Conversation, said: bytes) -> str:
    """Say what is wrong with the line that a connection began by; '' for nothing."""
    try:
        told = json.loads(said)
    except ValueError:
        return f"{said!r} is not JSON"
    has_header = bool(one.header)
    wanted = {
        "instance": "web-1",
        "seen": one.own_address,
        "claimed": f"{CLIENT}:40112" if has_header else None,
    }
    found = {key: told.get(key) for key in wanted}
    if found != wanted or (told["proxy"] is not None) != has_header:
        return f"{told} was said to {wanted}"
    if b'ex"ample' in one.header and told["proxy"]["authority"] != 'ex"ample.com':
        return f"{told['proxy']} was said of {one.header!r}"
    return ""


def refused(dice: random.Random, front: Front, *, spared: bool, late: bool) -> list[Conversation]:
    """Return who must be reset without a byte."""
    whole = binary(tlv(3, b"\x00\x00\x00\x00"))
    payload = dice.randbytes(dice.randint(1, 3000))

    def one(why: str, *pieces: bytes, host: str | None = None, ends: bool = True) -> Conversation:
        return Conversation(
            [(piece, b"") for piece in pieces],
            Manner.TURNS,
            spared=spared and host is None,
            host=host,
            refused=why,
            ends=ends,
        )

    talk = [
        one("header", b"PROXY TCP4 192.0.2.256 192.0.2.8 1 2\r\n", payload),
        one("header", whole, payload),
        one("header", whole[: dice.randrange(13, len(whole))]),
    ]
    if front.mode == "required":
        talk.append(one("header", b"no" + payload))
        talk.append(one("header", b"PRO"))
        talk.append(one("silence", b""))
        talk.append(one("stranger", line(), payload, host=STRANGER))
    if front.asks:
        talk += [one("denied", line(DENIED), payload), one("denied", binary(host=DENIED))]
    if late:
        talk.append(one("header", whole[: dice.randrange(13, len(whole))], ends=False))
        if front.mode == "required":
            talk += [one("header", b"", ends=False), one("header", b"PROXY T", ends=False)]
    return talk


def unnamed(dice: random.Random, front: Front, *, spared: bool, late: bool) -> list[Conversation]:
    """Return who comes without a header where that is allowed."""
    if front.mode != "optional":
        return []
    piece = dice.randbytes(500)
    like = b"PROXY TCP4 192.0.2.7"
    talk = [
        Conversation([(b"P" + piece, b"P" + piece)] * 3, Manner.TURNS, spared=spared),
        Conversation([(b"PRO", b"PRO")], spared=spared),  # echoed at our FIN
        Conversation([], spared=spared),
        Conversation([(like, like)] * 2, Manner.TURNS, host=STRANGER),
    ]
    if late:  # served when nobody waits for a header any more
        talk.append(Conversation([(b"PR", b"PR"), (piece, piece)], Manner.TURNS, spared=spared))
        if front.identifies:
            talk.append(Conversation([], Manner.TOGETHER, spared=spared))
    expect_greetings(front, talk)
    return talk


# --- what is counted ----------------------------------------------------------------------------


def census(
    lives: Lives, address: str, front: Front, segments: list[tuple[bytes, bytes]]
) -> list[Conversation]:
    """Let as many come as may, and one more: that one is refused. No fault is at work."""
    wait_until(lambda: lives.stats().connections_open == 0, SETTLE)
    before = lives.stats().ended_by_max_per_ip
    talk = [Conversation(segments, Manner.TOGETHER) for _ in range(front.limit + 1)]
    for one in talk:
        one.introduce(line(), [])
    expect_greetings(front, talk)
    converse(address, talk)
    wrong = [complaint for complaint in (one.complaint() for one in talk) if complaint]
    assert not wrong, wrong
    over = [one for one in talk if one.end is not End.FIN]
    assert len(over) == 1, f"{len(over)} of {len(talk)} were over a limit of {front.limit}: {over}"
    assert not over[0].received, over
    over[0].refused = "limit"
    assert lives.stats().ended_by_max_per_ip == before + 1
    return talk


def check_counters(stats: Stats, talk: list[Conversation], excused: int) -> None:
    """Hold the counters against what peers know; `excused` of them may have ended otherwise."""
    why = Counter(one.refused for one in talk)
    named = [one for one in talk if one.header]
    served = sum(bool(one.received) for one in named)
    assert served <= stats.connections_proxied <= len(named) + why["denied"], stats
    assert stats.ended_by_proxy_header <= why["header"], stats
    assert stats.shed_untrusted <= why["stranger"], stats
    spared = sum(one.spared for one in talk if one.refused == "header")
    assert stats.ended_by_proxy_header >= spared - excused, stats
