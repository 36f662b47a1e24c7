"""What every echo server of this project does, whatever its I/O model; asyncio is the oracle.

The same tests run against each server of entries.py, over each address family that it claims.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Join, open_descriptors
from entries import ENTRIES, MANY_PEERS, ORDERLY_STOP, PREFIX, STOP, Command, Entry, Running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import (
    connect,
    exchange,
    fill,
    has_ipv6,
    is_reset,
    pattern,
    plenty,
    read_to_eof,
    recv_exactly,
    reset,
    same,
    wait_until,
)

Start = Callable[..., Running]

FAMILIES = ("ipv4", "ipv6", "unix") if has_ipv6() else ("ipv4", "unix")


def each_entry(*needed: str) -> pytest.MarkDecorator:
    """Run a test for each server that claims what is needed, over each of its families."""
    return pytest.mark.parametrize(
        ("entry", "family"),
        [
            pytest.param(
                entry,
                family,
                id=f"{entry.name}-{family}",
                marks=[] if entry.name.startswith("model-") else [pytest.mark.no_model],
            )
            for entry in ENTRIES
            if entry.claims.issuperset(needed)
            for family in entry.families
            if family in FAMILIES
        ],
    )


@pytest.fixture(scope="session", autouse=True)
def prepared() -> None:
    """Start what outlives a test before the first one looks at what it leaves behind."""
    Command.prepare()


@pytest.fixture
def start(entry: Entry, family: str, tmp_path: Path) -> Iterator[Start]:
    """Start the entry's server; at the end it is stopped, if the test has not done so."""
    places = {"ipv4": "127.0.0.1:0", "ipv6": "[::1]:0", "unix": f"unix:{tmp_path}/echo"}
    stops: list[Callable[[], None]] = []

    def start_one(bind: str | None = None, prefix: bytes = b"") -> Running:
        running = entry.start(bind or places[family], prefix)
        stops.append(running.stop)
        return running

    yield start_one
    for stop in stops:
        stop()


@pytest.fixture
def running(start: Start) -> Running:
    """Return the entry's server, started."""
    return start()


@each_entry()
# The server is meant to be the same for all examples: each has a connection of its own.
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(
        st.one_of(st.integers(1, 40), st.integers(1, 5000), st.integers(1, 300_000)),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 2**32),
)
def test_any_bytes_in_any_segmentation_come_back(
    running: Running, sizes: list[int], seed: int
) -> None:
    segments = [pattern(size, seed + place) for place, size in enumerate(sizes)]
    with connect(running.address) as peer:
        assert exchange(peer, segments) == b"".join(segments)
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""


@each_entry()
def test_bytes_that_come_one_at_a_time_come_back(running: Running, join: Join) -> None:
    peer, data = join(running.address), pattern(300)
    for byte in data:
        peer.sendall(bytes([byte]))
    assert same(recv_exactly(peer, len(data)), data)


@each_entry(MANY_PEERS)
def test_many_peers_get_their_own_bytes_at_the_same_time(running: Running, join: Join) -> None:
    peers = [join(running.address) for _ in range(80)]
    for turn in range(3):
        for place, peer in enumerate(peers):
            peer.sendall(pattern(1000 + place, seed=turn * 1000 + place))
        for place, peer in reversed(list(enumerate(peers))):
            expected = pattern(1000 + place, seed=turn * 1000 + place)
            assert same(recv_exactly(peer, len(expected)), expected)


@each_entry()
def test_everything_is_echoed_before_the_fin_is_answered(running: Running, join: Join) -> None:
    peer, data = join(running.address), pattern(2_000_000)

    def send() -> None:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received = read_to_eof(peer)
    sender.join()
    assert same(received, data)


@each_entry()
def test_a_fin_without_data_is_answered_by_a_fin(running: Running, join: Join) -> None:
    peer = join(running.address)
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""


@each_entry()
def test_resets_harm_nobody_else_and_leave_nothing_open(
    running: Running, join: Join, entry: Entry
) -> None:
    # Whoever was answered once is served by a server that has opened all that it needs.
    others = [join(running.address) for _ in range(2 * (MANY_PEERS in entry.claims))]
    for other in others:
        assert exchange(other, b"before") == b"before"
    before = open_descriptors(running.pid).keys()
    idle, talking, owed = (join(running.address) for _ in range(3))
    talking.sendall(b"half of a mess")
    fill(owed, plenty())
    for victim in (idle, talking, owed):
        reset(victim)
    wait_until(lambda: open_descriptors(running.pid).keys() == before)
    for other in others:
        assert exchange(other, b"after") == b"after"
    peer = join(running.address)
    assert same(exchange(peer, pattern(100_000)), pattern(100_000))


@each_entry()
def test_a_reader_that_comes_late_loses_nothing(running: Running, join: Join) -> None:
    peer, data = join(running.address, receive_buffer=65536), plenty()
    sent = fill(peer, data)
    assert same(recv_exactly(peer, sent), data[:sent])
    assert exchange(peer, b"and on it goes") == b"and on it goes"


@each_entry(MANY_PEERS)
def test_a_reader_that_never_comes_stalls_nobody_else(running: Running, join: Join) -> None:
    fill(join(running.address, receive_buffer=65536), plenty())
    peer = join(running.address)
    assert same(exchange(peer, pattern(500_000)), pattern(500_000))


@each_entry(PREFIX)
def test_what_each_recv_gave_has_the_prefix(start: Start, join: Join) -> None:
    prefix = "服务端收到, 你发的消息是: ".encode()
    peer = join(start(prefix=prefix).address)
    for message in (b"a", "你好".encode(), b"\0\n" * 100):
        peer.sendall(message)
        assert recv_exactly(peer, len(prefix) + len(message)) == prefix + message


@each_entry(PREFIX, MANY_PEERS)
def test_a_reply_that_leaves_in_pieces_has_its_prefix_once(start: Start, join: Join) -> None:
    """Small segments make for small buffers: soon a piece ends in the middle of a prefix."""
    prefix = pattern(2048).hex().encode()
    address = start(prefix=prefix).address
    other, peer, count = join(address), join(address, receive_buffer=4096, segment=536), 100
    for _ in range(count):
        peer.sendall(b"x")
        # Where one thread serves both, it has taken the byte when this is answered.
        assert len(exchange(other, b"y", len(prefix) + 1)) == len(prefix) + 1
    received = b""
    while received.count(b"x") < count:
        part = peer.recv(1 << 20)
        assert part, f"FIN after {len(received)} bytes"
        received += part
    first, *messages = received.split(prefix)
    assert first == b""
    assert {message.strip(b"x") for message in messages} == {b""}


@each_entry()
def test_it_restarts_where_it_was_with_peers_still_there(start: Start, join: Join) -> None:
    first = start()
    old = join(first.address)
    assert exchange(old, b"before") == b"before"
    first.stop()
    second = start(first.address)
    assert second.address == first.address
    assert exchange(join(second.address), b"after") == b"after"


@each_entry()
def test_stop_ends_in_time_whatever_its_peers_do(running: Running, join: Join) -> None:
    silent, owed = join(running.address), join(running.address, receive_buffer=65536)
    fill(owed, plenty())
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < STOP
    is_reset(silent)  # an end, either way
    is_reset(owed)
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        connect(running.address)


@each_entry(ORDERLY_STOP)
def test_stop_ends_quiet_peers_by_fin(running: Running, join: Join) -> None:
    peers = [join(running.address) for _ in range(5)]
    for peer in peers:
        assert exchange(peer, b"hello") == b"hello"
    running.stop()
    assert [is_reset(peer) for peer in peers] == [False] * 5
