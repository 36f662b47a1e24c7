"""Frames that are too long: counted, answered by an end in order, after the replies before them.

max_frame counts what the peer pays for: a line with its line end, a length frame's payload.
"""

from __future__ import annotations

import socket
import struct

import pytest
from conftest import Join, MakeServer
from peers import exchange, is_reset, pattern, read_to_eof, recv_exactly, same, wait_until

import fastecho

LIMIT = 1000


def too_long(server: fastecho.Server, count: int = 1) -> None:
    """Hold that so many connections ended for a frame that was too long, and for nothing else."""
    wait_until(lambda: server.stats().connections_closed == count)
    stats = server.stats()
    assert stats.ended_by_frame_too_long == count
    assert stats.linger_timeouts == 0


def ends_in_order(peer: socket.socket) -> bytes:
    """Read to the server's FIN, then send ours; return what was read."""
    received = read_to_eof(peer)
    peer.close()
    return received


@pytest.fixture
def lines(make_server: MakeServer) -> fastecho.Server:
    """Return a server of lines."""
    return make_server(frame="line", max_frame=LIMIT, prefix="-")


@pytest.fixture
def lengths(make_server: MakeServer) -> fastecho.Server:
    """Return a server of length frames."""
    return make_server(frame="length", max_frame=LIMIT, prefix="-")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_of_exactly_max_frame_is_answered(
    lines: fastecho.Server, join: Join, end: bytes
) -> None:
    line = b"x" * (LIMIT - len(end)) + end
    assert exchange(join(lines), line * 3, 3 * (LIMIT + 1)) == (b"-" + line) * 3
    assert lines.stats().connections_closed == 0


def test_line_one_byte_longer_ends_the_connection(lines: fastecho.Server, join: Join) -> None:
    peer = join(lines)
    peer.sendall(b"x" * LIMIT + b"\n")
    assert ends_in_order(peer) == b""
    too_long(lines)


def test_unterminated_rest_of_exactly_max_frame_is_a_frame(
    lines: fastecho.Server, join: Join
) -> None:
    peer = join(lines)
    peer.sendall(b"x" * LIMIT)
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b"-" + b"x" * LIMIT
    wait_until(lambda: lines.stats().ended_by_peer == 1)
    assert lines.stats().frames_incomplete == 0


def test_line_without_end_is_ended_as_soon_as_it_is_too_long(
    lines: fastecho.Server, join: Join
) -> None:
    """Not kept until its end comes: it may never come."""
    peer = join(lines)
    peer.sendall(b"x" * LIMIT)
    wait_until(lambda: lines.stats().bytes_in == LIMIT)
    assert lines.stats().connections_open == 1
    peer.sendall(b"x")
    assert ends_in_order(peer) == b""
    too_long(lines)


def test_line_that_grows_too_long_byte_by_byte_ends(make_server: MakeServer, join: Join) -> None:
    server = make_server(frame="line", max_frame=20)
    peer = join(server)
    for count in range(1, 22):
        peer.sendall(b"x")
        wait_until(lambda count=count: server.stats().bytes_in == count)  # type: ignore[misc]
    assert ends_in_order(peer) == b""
    too_long(server)


def test_length_frame_of_exactly_max_frame_is_answered(
    lengths: fastecho.Server, join: Join
) -> None:
    payload = pattern(LIMIT)
    reply = struct.pack(">I", LIMIT + 1) + b"-" + payload
    assert same(exchange(join(lengths), struct.pack(">I", LIMIT) + payload, len(reply)), reply)


@pytest.mark.parametrize("size", [LIMIT + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_header_that_promises_more_ends_the_connection_at_once(
    lengths: fastecho.Server, join: Join, size: int
) -> None:
    """Four bytes are enough to know: not a byte of the payload is waited for."""
    peer = join(lengths)
    peer.sendall(struct.pack(">I", size))
    assert ends_in_order(peer) == b""
    too_long(lengths)


@pytest.mark.parametrize("frame", ["line", "length"])
def test_replies_of_earlier_frames_are_delivered_first(
    make_server: MakeServer, join: Join, frame: str
) -> None:
    server = make_server(frame=frame, max_frame=LIMIT, prefix="x" * 4000)
    good = b"good\n" if frame == "line" else struct.pack(">I", 4) + b"good"
    bad = b"x" * (LIMIT + 1) if frame == "line" else struct.pack(">I", LIMIT + 1)
    reply = b"x" * 4000 + b"good\n"
    if frame == "length":
        reply = struct.pack(">I", 4004) + b"x" * 4000 + b"good"
    peer = join(server, receive_buffer=65536)
    peer.sendall(good * 1000 + bad)
    assert same(ends_in_order(peer), reply * 1000)
    too_long(server)
    assert server.stats().messages == 1000


def test_good_frames_behind_the_bad_one_are_not_answered(
    lines: fastecho.Server, join: Join
) -> None:
    peer = join(lines)
    peer.sendall(b"first\n" + b"x" * LIMIT * 2 + b"\nlast\n")
    assert ends_in_order(peer) == b"-first\n"
    too_long(lines)
    assert lines.stats().messages == 1


def test_peer_that_goes_on_sending_gets_its_replies_and_no_reset(
    lines: fastecho.Server, join: Join
) -> None:
    """Our close with unread input would reset, and the reset would eat the replies."""
    peer = join(lines)
    peer.sendall(b"answer me\n" + b"x" * (LIMIT + 1))
    peer.sendall(b"y" * 300_000)
    assert not is_reset_after(peer, b"-answer me\n")
    peer.close()
    too_long(lines)
    assert lines.stats().bytes_discarded + lines.stats().bytes_in == 10 + LIMIT + 1 + 300_000


def is_reset_after(peer: socket.socket, expected: bytes) -> bool:
    """Read what is expected; tell whether RST follows, instead of FIN."""
    assert same(recv_exactly(peer, len(expected)), expected)
    return is_reset(peer)


def test_too_long_frame_at_the_end_of_the_stream_is_counted(
    lines: fastecho.Server, join: Join
) -> None:
    peer = join(lines)
    peer.sendall(b"good\n" + b"x" * (LIMIT + 1))
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b"-good\n"
    too_long(lines)


def test_too_long_frame_harms_only_its_connection(lines: fastecho.Server, join: Join) -> None:
    other = join(lines)
    other.sendall(b"hal")
    for _ in range(20):
        peer = join(lines)
        peer.sendall(b"x" * (LIMIT + 1))
        assert ends_in_order(peer) == b""
    too_long(lines, 20)
    other.sendall(b"f\n")
    assert recv_exactly(other, 6) == b"-half\n"


def test_unparsed_input_is_bounded_by_the_frame(make_server: MakeServer, join: Join) -> None:
    """One byte before the limit, a hundred times over: what is kept is the frames, not more."""
    server = make_server(frame="line", max_frame=100_000)
    peers = [join(server) for _ in range(20)]
    for peer in peers:
        peer.sendall(b"x" * 99_999)
    wait_until(lambda: server.stats().bytes_in == 20 * 99_999)
    assert server.stats().bytes_pending == 0
    for peer in peers:
        peer.sendall(b"\n")
        assert recv_exactly(peer, 100_000) == b"x" * 99_999 + b"\n"
