"""What one round of callbacks holds: frames, bytes of replies and time are bounded.

Each test has all its peers send while the worker is kept in a callback, so that one round receives
everything. The last callback of all then waits for the first reply: it comes, if the round has
ended before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from diary import Gate
from peers import exchange, recv_exactly
from sanitize import chosen

from fastecho import Connection


def replies_in_time(
    make_server: MakeServer,
    join: Join,
    where: Path,
    lines: list[int],
    answer: Callable[[int], bytes],
) -> list[bool]:
    """Have peers send so many lines each; tell whether the first had its replies before the last.

    That five times: a round that a busy machine makes long may end for another reason.

    answer: from the number of a line among all, the reply.
    """
    gate, has_come = Gate(), threading.Event()
    total, seen, told = sum(lines), 0, []

    def on_message(_: Connection, data: bytes) -> bytes:
        nonlocal seen
        if data == b"hello\n":
            return data
        if data == b"hold\n":
            gate.hold()
            return data
        seen += 1
        if seen == total:
            told.append(has_come.wait(2))
        return answer(seen)

    server = make_server(f"unix:{where / 'socket'}", frame="line", on_message=on_message)
    holder, *peers = [join(server) for _ in range(1 + len(lines))]
    for peer in peers:
        assert exchange(peer, b"hello\n") == b"hello\n"  # it is served
    for _ in range(5):
        gate, seen = Gate(), 0
        has_come.clear()
        holder.sendall(b"hold\n")
        gate.wait()
        for peer, number in zip(peers, lines, strict=True):
            peer.sendall(b"\n" * number)
        gate.open()
        recv_exactly(peers[0], lines[0] * len(answer(0)))
        has_come.set()
        for peer, number in zip(peers[1:], lines[1:], strict=True):
            recv_exactly(peer, number * len(answer(0)))
    return told


def test_a_round_ends_behind_its_1024th_frame(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    """Within the lines of a peer: the 1,025th is the last of the 17th's."""
    lines = [10, *[64] * 15, 55]
    assert sum(lines) == 1025
    told = replies_in_time(make_server, join, tmp_path, lines, lambda _: b".")
    assert told == [True] * 5


def test_a_round_ends_behind_1_mib_of_replies(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    reply = bytes(100_000)
    told = replies_in_time(make_server, join, tmp_path, [1] * 12, lambda _: reply)
    assert told == [True] * 5


@pytest.mark.parametrize(("lines", "slow"), [([1] * 20, 1), ([1] * 40, 20), ([1, 59], 20)])
def test_a_round_ends_after_2_ms(
    make_server: MakeServer, join: Join, tmp_path: Path, lines: list[int], slow: int
) -> None:
    """One slow callback does it; at the pace of those before it, the clock is looked at rarely."""

    def answer(number: int) -> bytes:
        if number == slow:
            threading.Event().wait(0.003)
        return b"."

    assert replies_in_time(make_server, join, tmp_path, lines, answer) == [True] * 5


def resident() -> int:
    """Return this process's memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(bool(chosen()), reason="a sanitizer keeps what is freed")
def test_memory_of_a_large_reply_does_not_stay(make_server: MakeServer, join: Join) -> None:
    size = 40_000_000

    def answer(_: Connection, data: bytes) -> bytes:
        return bytes(size) if data == b"large" else data

    server = make_server(on_message=answer)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    before = resident()
    peer.sendall(b"large")
    buffer, left = bytearray(1 << 20), size
    while left:
        left -= peer.recv_into(buffer, min(left, len(buffer)))
    assert exchange(peer, b"x") == b"x"
    assert resident() - before < size // 2
