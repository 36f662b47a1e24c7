"""A send that takes less than it was offered: the rest follows later, complete and in order.

First with real sockets whose buffers are small, then with a shim that shortens every send and
recv of the server, down to one byte, so that each place where a write can end is met.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    fill,
    pattern,
    plenty,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)
from served import Served

import fastecho

BUFFERS = 16384
"""SO_SNDBUF and SO_RCVBUF, in bytes; with much less the kernel drops what it must then repeat."""


def lines(count: int) -> bytes:
    """Return lines of growing length; some are empty."""
    return b"".join(b"%d " % place * (place % 30) + b"\n" for place in range(count))


@pytest.fixture
def small(make_server: MakeServer) -> MakeServer:
    """Start servers whose connections have a small send buffer."""

    def start(**config: Any) -> fastecho.Server:
        server = make_server(**config)
        for listener in server.sockets:  # what it accepts inherits the size
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFERS)
        return server

    return start


def test_peer_with_small_buffers_gets_everything(small: MakeServer, join: Join) -> None:
    server = small()
    peer, data = join(server, receive_buffer=BUFFERS, send_buffer=BUFFERS), pattern(1_000_000)
    sent = fill(peer, plenty(), lambda: server.stats().bytes_pending > 0)
    assert same(recv_exactly(peer, sent), plenty()[:sent])
    assert same(exchange(peer, data), data)
    assert server.stats().short_writes >= 1
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    assert server.stats().bytes_dropped == 0


def test_framed_replies_survive_small_buffers(small: MakeServer, join: Join) -> None:
    server = small(frame="line", prefix="> ")
    peer = join(server, receive_buffer=BUFFERS, send_buffer=BUFFERS)
    data = lines(5000) * 40
    sent = fill(peer, data, lambda: server.stats().bytes_pending > 0)
    expected = b"".join(b"> " + line for line in data[:sent].splitlines(keepends=True))
    peer.shutdown(socket.SHUT_WR)
    assert same(read_to_eof(peer), expected)
    assert server.stats().short_writes >= 1


def test_fin_comes_behind_everything_that_was_pending(small: MakeServer, join: Join) -> None:
    peer = join(small(), receive_buffer=BUFFERS, send_buffer=BUFFERS)
    sent = fill(peer, plenty())
    peer.shutdown(socket.SHUT_WR)
    assert same(read_to_eof(peer), plenty()[:sent])


LIMITS = [1, 7, -50, -3000]
"""Bytes a call; negative: at random up to that."""


@pytest.mark.parametrize("limit", LIMITS)
def test_shortened_sends_lose_nothing(served: Served, limit: int) -> None:
    served.rule("send", limit=limit)
    data = pattern(20_000)
    with connect(served.address) as peer:
        assert same(exchange(peer, data), data)
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    stats = served.stats()
    assert stats.short_writes >= 1
    assert (stats.bytes_in, stats.bytes_out, stats.bytes_pending) == (20_000, 20_000, 0)
    assert served.clear_rules() >= 20_000 / abs(limit)


@pytest.mark.parametrize("limit", LIMITS)
def test_shortened_receives_lose_nothing(served: Served, limit: int) -> None:
    served.rule("recv", limit=limit)
    data = pattern(20_000)
    with connect(served.address) as peer:
        assert same(exchange(peer, data), data)
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert served.stats().messages >= 20_000 / abs(limit)


def test_shortened_bulk_loses_nothing(served: Served) -> None:
    """Long reads are continued until the buffer is full; these end anywhere in it."""
    served.rule("recv", limit=-100_000)
    served.rule("send", limit=-200_000)
    data = pattern(3_000_000)
    with connect(served.address) as peer:
        assert same(exchange(peer, data), data)
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert served.stats().short_writes >= 1


@pytest.mark.parametrize("served", [{"frame": "line", "prefix": "<", "suffix": ">"}], indirect=True)
@pytest.mark.parametrize("limit", LIMITS)
def test_lines_are_whole_whatever_is_shortened(served: Served, limit: int) -> None:
    served.rule("send", limit=limit)
    served.rule("recv", limit=limit)
    data = lines(200)
    expected = b"".join(b"<" + line[:-1] + b">\n" for line in data.splitlines(keepends=True))
    with connect(served.address) as peer:
        assert same(exchange(peer, data, len(expected)), expected)
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert served.stats().messages == 200


@pytest.mark.parametrize("served", [{"frame": "length", "prefix": "abc"}], indirect=True)
@pytest.mark.parametrize("limit", LIMITS)
def test_length_frames_are_whole_whatever_is_shortened(served: Served, limit: int) -> None:
    served.rule("send", limit=limit)
    served.rule("recv", limit=limit)
    payloads = [pattern(size, seed=size) for size in (0, 1, 3, 4, 5, 255, 256, 2000)]
    data = b"".join(struct.pack(">I", len(one)) + one for one in payloads)
    expected = b"".join(struct.pack(">I", len(one) + 3) + b"abc" + one for one in payloads)
    with connect(served.address) as peer:
        assert same(exchange(peer, data, len(expected)), expected)
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert served.stats().messages == len(payloads)


def test_shortened_connection_does_not_slow_its_neighbour(served: Served) -> None:
    with connect(served.address) as slow, connect(served.address) as quick:
        served.rule("send", port=slow.getsockname()[1], limit=1)
        slow.sendall(pattern(5000))
        for turn in range(20):
            assert exchange(quick, pattern(100, turn)) == pattern(100, turn)
        assert same(recv_exactly(slow, 5000), pattern(5000))


def test_every_short_write_is_counted(served: Served) -> None:
    served.rule("send", limit=1)
    with connect(served.address) as peer:
        assert same(exchange(peer, pattern(500)), pattern(500))
        wait_until(lambda: served.stats().bytes_pending == 0)
    # Every send but the last, which was offered one byte.
    assert served.stats().short_writes == 499


def test_bytes_are_counted_before_the_peer_can_have_them(served: Served) -> None:
    """The server is held inside send(): its peer has the bytes, and they are in the books."""
    with connect(served.address) as peer:
        assert exchange(peer, b"settled") == b"settled"
        served.rule("send", hold=True, times=1)
        peer.sendall(b"counted")
        assert recv_exactly(peer, 7) == b"counted"
        assert served.stats().bytes_out == 14
        assert served.stats().bytes_in == 14
        assert served.clear_rules() == 1
        assert exchange(peer, b"released") == b"released"
