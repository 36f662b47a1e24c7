"""A peer that does not read: the server stops reading from it, keeps little, and loses nothing.

What is little is a bound that is written down: raw echo keeps at most one read; frames keep less
than high water and one reply (which for recv frames is up to one read). The bounds hold at every
moment, so none is tested by waiting.
"""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Join, MakeServer, Serve
from peers import (
    connect,
    exchange,
    fill,
    iterations_at_rest,
    plenty,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)

import fastecho
from benchmarks._sockets import held

READ = 256 * 1024
"""What the core reads at once."""


def fill_all(peers: list[socket.socket]) -> None:
    """Send from every peer at once, without reading, until nothing more is taken from any."""
    with ThreadPoolExecutor(len(peers)) as pool:
        assert all(pool.map(lambda peer: fill(peer, plenty()), peers))


def test_server_stops_reading_from_a_peer_that_does_not_read(
    server: fastecho.Server, join: Join
) -> None:
    peer = join(server)
    sent = fill(peer, plenty(), lambda: server.stats().bytes_pending > 0)
    assert 0 < server.stats().bytes_pending <= READ
    assert server.stats().bytes_in <= sent
    assert same(recv_exactly(peer, sent), plenty()[:sent])
    wait_until(lambda: server.stats().bytes_pending == 0)
    assert exchange(peer, b"and on") == b"and on"


def test_blocked_peer_costs_no_iterations(server: fastecho.Server, join: Join) -> None:
    fill(join(server), plenty(), lambda: server.stats().bytes_pending > 0)
    assert iterations_at_rest(server) <= 3


def test_peer_that_has_caught_up_costs_no_iterations(server: fastecho.Server, join: Join) -> None:
    """It is writable all the time again; nothing may go on asking for that."""
    late = join(server)
    sent = fill(late, plenty(), lambda: server.stats().bytes_pending > 0)
    recv_exactly(late, sent)
    exchange(late, b"caught up")
    assert iterations_at_rest(server) <= 3


@pytest.mark.parametrize(
    ("config", "replies", "most"),
    [
        ({}, READ, READ),
        ({"prefix": "x", "high_water": 100_000}, 100_000 + READ, 100_000 + READ),
        ({"frame": "line", "prefix": "x", "high_water": 100_000}, 165_537, 165_537 + READ),
    ],
    ids=["raw", "recv", "line"],
)
def test_peers_that_do_not_read_cost_bounded_memory(
    serve_apart: Serve, join: Join, config: dict[str, Any], replies: int, most: int
) -> None:
    """`replies` may wait for each of them, and `most` in all, input that is no reply yet too."""
    count = 30
    served = serve_apart(**config)
    peers = [join(served.address, receive_buffer=65536) for _ in range(count)]
    before = served.usage().resident
    fill_all(peers)
    wait_until(lambda: served.stats().bytes_pending > 0)
    assert served.stats().bytes_pending <= count * replies
    # Buffers double as they grow: at worst they take twice what they hold. (A sanitizer keeps a
    # shadow of its own beside them, several times as large.)
    if "san.so" not in os.environ.get("LD_PRELOAD", ""):
        assert served.usage().resident - before <= count * 2 * most + 2 * READ
    for peer in peers:
        peer.close()
    wait_until(lambda: served.stats().connections_open == 0)
    assert served.stats().bytes_pending == 0


@pytest.mark.parametrize("config", [{}, {"frame": "line", "prefix": "x"}], ids=["raw", "line"])
def test_set_buffers_bound_what_the_kernel_holds_for_peers_that_do_not_read(
    serve_apart: Serve, join: Join, config: dict[str, Any]
) -> None:
    """Twice what was asked for, as Linux does it, and one segment above it, each way."""
    count, size, segment = 20, 32768, 65536
    served = serve_apart(send_buffer=size, receive_buffer=size, **config)
    port = int(served.address.rpartition(":")[2])
    peers = [join(served.address) for _ in range(count)]
    fill_all(peers)
    full = held(port=port)
    assert full.connections == count
    assert 0 < full.memory <= count * 2 * (2 * size + segment)


def test_empty_lines_that_grow_in_the_reply_stay_bounded(
    make_server: MakeServer, join: Join
) -> None:
    """256 KiB of empty lines become 9.5 MiB of replies; the peer reads none of them at first."""
    prefix, high_water, count = b"0123456789 0123456789 0123456789 0123", 262144, 262144
    server = make_server(frame="line", prefix=prefix, high_water=high_water)
    peer = join(server, receive_buffer=65536)
    worst = 0

    def paused() -> bool:
        nonlocal worst
        worst = max(worst, server.stats().bytes_pending)
        return server.stats().bytes_pending >= high_water

    peer.sendall(b"\n" * count + b"end\n")
    wait_until(paused)
    peer.shutdown(socket.SHUT_WR)
    received = bytearray()
    while data := peer.recv(1 << 20):
        received += data
        paused()
    assert worst < high_water + len(prefix) + 1
    assert len(received) == count * 38 + len(prefix) + 4
    assert same(received, (prefix + b"\n") * count + prefix + b"end\n")
    assert server.stats().messages == count + 1


def test_pipelined_lines_are_answered_in_order_after_a_pause(
    make_server: MakeServer, join: Join
) -> None:
    # A server that is slow lets the kernel's buffer grow until it holds all of this.
    server = make_server(frame="line", suffix="!" * 100, high_water=100_000, receive_buffer=65536)
    peer = join(server, receive_buffer=65536, send_buffer=65536)
    lines = b"".join(b"%d\n" % number for number in range(600_000))
    sent = fill(peer, lines, lambda: server.stats().bytes_pending >= 100_000)
    peer.shutdown(socket.SHUT_WR)
    received = read_to_eof(peer)
    assert same(received.replace(b"!" * 100, b""), lines[:sent])


@pytest.mark.parametrize(
    ("high_water", "low_water"), [(1_000_000, 50_000), (1_000_000, 900_000), (300_000, None)]
)
def test_reading_pauses_at_high_water_and_goes_on_at_low_water(
    make_server: MakeServer, join: Join, high_water: int, low_water: int | None
) -> None:
    server = make_server(frame="line", prefix="-", high_water=high_water, low_water=low_water)
    for listener in server.sockets:  # the kernel shall hold little: what it takes is no pause
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer = join(server, receive_buffer=4096)
    line = b"x" * 998 + b"\n"
    fill(peer, line * 40_000, lambda: server.stats().bytes_pending >= high_water)
    start = server.stats()
    assert high_water <= start.bytes_pending < high_water + 1000
    now, taken, lowest = start, 0, start.bytes_pending
    while now.messages == start.messages:
        now = server.stats()
        if now.messages == start.messages:
            lowest = now.bytes_pending
            taken += len(peer.recv(2000))
    low = high_water // 4 if low_water is None else low_water
    # It went on only after the peer had taken what lies between the two marks, less what the
    # kernel holds for it; and not long after the mark was passed.
    assert taken >= high_water - low - 100_000
    assert lowest >= low - 100_000


def test_low_water_zero_empties_the_pending_bytes_first(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(
        frame="line", prefix="-", high_water=200_000, low_water=0, receive_buffer=65536
    )
    peer = join(server, receive_buffer=65536, send_buffer=65536)
    lines = b"".join(b"%d\n" % number for number in range(1_000_000))
    sent = fill(peer, lines, lambda: server.stats().bytes_pending >= 200_000)
    peer.shutdown(socket.SHUT_WR)
    received = read_to_eof(peer)
    assert same(received.replace(b"-", b""), lines[:sent])


@pytest.mark.parametrize(
    "config",
    [{}, {"frame": "line", "prefix": "x"}, {"send_buffer": 4096, "receive_buffer": 4096}],
    ids=["raw", "line", "buffers"],
)
def test_many_blocked_peers_leave_the_others_alone(
    make_server: MakeServer, join: Join, config: dict[str, Any]
) -> None:
    """Who was there before, and who comes while they fill what there is to fill, or later."""
    server = make_server(**config)
    lines = (b"-" * 99 + b"\n") * 20_000
    expected = lines.replace(b"-" * 99, b"x" + b"-" * 99) if "frame" in config else lines
    before = join(server)
    blocked = [join(server, receive_buffer=4096) for _ in range(10)]
    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(fill_all, blocked)
        wait_until(lambda: server.stats().bytes_pending > 0)
        assert same(exchange(before, lines, len(expected)), expected)
        filling.result()
    with connect(server) as newcomer:
        assert same(exchange(newcomer, lines, len(expected)), expected)
    assert iterations_at_rest(server) <= 3
    assert server.stats().bytes_pending <= 10 * 2 * READ
