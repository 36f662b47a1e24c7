"""Faults of a server with message callbacks: they are for what callbacks reply and write."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    expect_stats,
    fill,
    is_reset,
    is_turned_away,
    pattern,
    plenty,
    read_to_eof,
    recv_exactly,
    reset,
    same,
    wait_until,
)

from fastecho import Fault

if TYPE_CHECKING:
    from fastecho import Connection


def echo(_: Connection, data: bytes) -> bytes:
    return data


def telling(told: list[bytes]) -> Callable[[Connection, bytes], bytes]:
    """Return a callback that echoes and notes what it was given."""

    def on_message(_: Connection, data: bytes) -> bytes:
        told.append(data)
        return data

    return on_message


def test_delay_holds_replies_and_writes_back(make_server: MakeServer, join: Join) -> None:
    kept: list[Connection] = []

    def on_message(connection: Connection, data: bytes) -> bytes:
        kept.append(connection)
        connection.write(b"<")
        return data + b">"

    server = make_server(fault="delay=50ms", on_message=on_message)
    peer = join(server)
    for _ in range(2):
        began = time.monotonic()
        peer.sendall(b"hello")
        assert recv_exactly(peer, 7) == b"<hello>"
        assert time.monotonic() >= began + 0.05
    began = time.monotonic()
    kept[0].write(b"from elsewhere")
    assert recv_exactly(peer, 14) == b"from elsewhere"
    assert time.monotonic() >= began + 0.05
    peer.sendall(b"x")
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b"<x>"
    expect_stats(server, ended_by_peer=1, bytes_dropped=0)


def test_slice_bandwidth_and_corrupt_reach_replies(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="slice=3,gap=0,bandwidth=1M,corrupt=1", on_message=echo)
    data = pattern(100_000)
    began = time.monotonic()
    received = exchange(join(server), data)
    assert time.monotonic() - began >= 0.1
    assert all(a != b for a, b in zip(data, received, strict=True))


def test_silent_still_calls(make_server: MakeServer, join: Join) -> None:
    told: list[bytes] = []
    server = make_server(fault="silent", frame="line", on_message=telling(told))
    peer = join(server)
    peer.sendall(b"a\nb\n")
    wait_until(lambda: len(told) == 2)
    expect_stats(server, bytes_out=0, bytes_discarded=4)
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""


@pytest.mark.parametrize("end", ["close_after", "reset_after"])
@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_limits_end_it_and_on_close_is_told(
    make_server: MakeServer, join: Join, end: str, from_elsewhere: bool
) -> None:
    reasons: list[str] = []
    threads: list[threading.Thread] = []

    def on_message(connection: Connection, data: bytes) -> bytes | None:
        if not from_elsewhere:
            return data
        threads.append(threading.Thread(target=connection.write, args=[data]))
        threads[-1].start()
        return None

    limits: dict[str, Any] = {end: 3}
    server = make_server(
        fault=Fault(**limits),
        on_message=on_message,
        on_close=lambda _, reason: reasons.append(reason),
    )
    peer = join(server)
    peer.sendall(b"abcdef")
    assert recv_exactly(peer, 3) == b"abc"
    assert is_reset(peer) == (end == "reset_after")
    peer.close()
    wait_until(lambda: reasons == ["fault"])
    for thread in threads:
        thread.join()
    expect_stats(server, ended_by_fault=1, bytes_out=3)


@pytest.mark.parametrize("end", ["close", "write_eof"])
@pytest.mark.parametrize("fault", ["", "slice=1,gap=0", "delay=20ms"])
@pytest.mark.parametrize("limit", [5, 10])
def test_a_limit_that_is_reached_resets_also_who_is_being_closed(
    make_server: MakeServer, join: Join, end: str, fault: str, limit: int
) -> None:
    def on_message(connection: Connection, data: bytes) -> None:
        connection.write(data)
        getattr(connection, end)()

    server = make_server(fault=f"{fault},reset_after={limit}".strip(","), on_message=on_message)
    peer = join(server)
    peer.sendall(b"0123456789")
    assert recv_exactly(peer, limit) == b"0123456789"[:limit]
    assert is_reset(peer)


def test_a_fin_does_not_come_before_the_rst_of_a_peer_that_reads_late(
    make_server: MakeServer, join: Join
) -> None:
    def on_message(connection: Connection, data: bytes) -> None:
        connection.write(bytes(200_000))
        connection.write_eof()

    server = make_server(fault="reset_after=200k", send_buffer=1 << 20, on_message=on_message)
    peer = join(server, receive_buffer=1 << 14)
    peer.sendall(b"x")
    expect_stats(server, bytes_out=200_000, bytes_pending=0)
    assert recv_exactly(peer, 200_000) == bytes(200_000)
    assert is_reset(peer)


def test_a_paused_peer_that_is_gone_is_noticed_while_its_rst_waits(
    make_server: MakeServer, join: Join
) -> None:
    def on_message(connection: Connection, data: bytes) -> None:
        connection.write(bytes(100_000))
        connection.pause_reading()

    server = make_server(fault="reset_after=100k", on_message=on_message)
    peer = join(server, receive_buffer=4096)
    peer.sendall(b"x")
    expect_stats(server, bytes_out=100_000)
    reset(peer)
    expect_stats(server, ended_by_error=1, connections_open=0)


def test_no_read_delivers_nothing_whatever_is_resumed(make_server: MakeServer, join: Join) -> None:
    told: list[bytes] = []
    server = make_server(fault="no_read", on_message=telling(told))
    assert fill(join(server), plenty()) > 100_000
    assert (told, server.stats().bytes_in) == ([], 0)


def test_half_close_and_deny(make_server: MakeServer, join: Join) -> None:
    told: list[bytes] = []
    server = make_server(fault="half_close", on_message=telling(told))
    peer = join(server)
    assert read_to_eof(peer) == b""
    peer.sendall(b"x")
    wait_until(lambda: told == [b"x"])
    server.set_fault("deny")
    assert is_turned_away(server)


def test_on_drain_comes_when_the_line_has_taken_it(make_server: MakeServer, join: Join) -> None:
    drained = threading.Event()
    full: list[bool] = []
    data = pattern(200_000)

    def on_message(connection: Connection, _: bytes) -> None:
        full.append(not connection.write(data))

    server = make_server(
        fault="bandwidth=2M",
        high_water=100_000,
        on_message=on_message,
        on_drain=lambda _: drained.set(),
    )
    peer = join(server)
    peer.sendall(b"x")
    wait_until(lambda: full == [True])
    assert not drained.is_set()
    assert same(recv_exactly(peer, len(data)), data)
    assert drained.wait(5)


def test_on_accept_chooses_beside_on_message(make_server: MakeServer) -> None:
    answers: list[object] = [Fault(close_after=1), True]
    server = make_server(on_accept=lambda _: answers.pop(0), on_message=echo)
    for expected in (b"a", b"abc"):
        with connect(server) as peer:
            peer.sendall(b"abc")
            peer.shutdown(socket.SHUT_WR)
            assert read_to_eof(peer) == expected


def test_close_and_drain_wait_for_what_is_delayed(make_server: MakeServer, join: Join) -> None:
    def on_message(connection: Connection, data: bytes) -> None:
        connection.write(data)
        if data == b"close":
            connection.close()

    server = make_server(fault="delay=100ms", drain_idle=0.01, on_message=on_message)
    closed, drained = join(server), join(server)
    closed.sendall(b"close")
    drained.sendall(b"drain")
    expect_stats(server, bytes_out=5 + 5)
    server.close()
    assert read_to_eof(closed) == b"close"
    closed.close()
    assert server.stop(10)
    assert read_to_eof(drained) == b"drain"


def test_fewest_resources_are_kept(make_server: MakeServer) -> None:
    server = make_server(threads=2, fault="delay=1ms,slice=2", on_message=echo)
    for _ in range(50):
        with connect(server) as peer:
            assert exchange(peer, b"hello") == b"hello"
    expect_stats(server, connections_open=0, connections_faulty=50, bytes_pending=0)
