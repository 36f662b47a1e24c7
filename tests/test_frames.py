"""Frames: how the stream is cut, and what each reply looks like, byte for byte.

The oracle is a few lines of Python that see the whole stream at once; the server sees it in
whatever pieces the peer sends.
"""

from __future__ import annotations

import functools
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import pytest
from conftest import Join, MakeServer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from peers import connect, exchange, pattern, read_to_eof, recv_exactly, same, wait_until

import fastecho

Test = TypeVar("Test", bound=Callable[..., None])

PREFIX, SUFFIX = b"<pre>", b"</suf>"
ADDED = [(b"", b""), (PREFIX, b""), (b"", SUFFIX), (PREFIX, SUFFIX)]
IDS = ["bare", "prefix", "suffix", "both"]


def reply_to_lines(stream: bytes, prefix: bytes, suffix: bytes) -> bytes:
    """Return the reply to all lines of a stream that has ended."""
    reply = bytearray()
    *lines, rest = stream.split(b"\n")
    for line in lines:
        end = b"\r" if line.endswith(b"\r") else b""
        reply += prefix + line.removesuffix(end) + suffix + end + b"\n"
    if rest:
        reply += prefix + rest + suffix
    return bytes(reply)


def reply_to_lengths(stream: bytes, prefix: bytes, suffix: bytes) -> bytes:
    """Return the reply to all length frames of a stream that has ended."""
    reply = bytearray()
    place = 0
    while place + 4 <= len(stream):
        size = int.from_bytes(stream[place : place + 4], "big")
        payload = stream[place + 4 : place + 4 + size]
        if len(payload) < size:
            break
        reply += framed([prefix + payload + suffix])
        place += 4 + size
    return bytes(reply)


def framed(payloads: Iterable[bytes]) -> bytes:
    """Return length frames with these payloads."""
    return b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads)


REPLY: dict[str, Callable[[bytes, bytes, bytes], bytes]] = {
    "line": reply_to_lines,
    "length": reply_to_lengths,
}


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut a stream at these places; each piece becomes a segment."""
    bounds = [0, *sorted(place for place in set(places) if 0 < place < len(stream)), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(bounds) if a < b]


def whole_reply(server: fastecho.Server, segments: Sequence[bytes], wait: bool = False) -> bytes:
    """Send segments and FIN, and return all that comes back.

    wait: each segment is sent when the server has received those before it: so a recv of the
    server never gives two of them.
    """
    with connect(server) as peer:
        received = server.stats().bytes_in
        for segment in segments:
            peer.sendall(segment)
            received += len(segment)
            if wait:
                wait_until(lambda received=received: server.stats().bytes_in == received)  # type: ignore[misc]
        peer.shutdown(socket.SHUT_WR)
        return read_to_eof(peer)


@pytest.fixture
def started_once(make_server: MakeServer) -> MakeServer:
    """Start a server for the first example of a test; the others get the same."""
    return functools.cache(make_server)


# --- any stream, in any pieces -------------------------------------------------------------

lines = st.lists(
    st.one_of(
        st.sampled_from([b"\n", b"\r\n", b"\r", b"a\n", b"\r\r\n", b"\n\r", b"rest", b"\0\xff\n"]),
        st.binary(max_size=40),
        st.integers(1, 3000).map(lambda size: b"l" * size + b"\n"),
    ),
    max_size=30,
).map(b"".join)
lengths = st.tuples(
    st.lists(
        st.one_of(st.binary(max_size=20), st.integers(250, 3000).map(lambda size: b"p" * size)),
        max_size=20,
    ).map(framed),
    st.sampled_from([b"", b"\0", b"\0\0\0", b"\0\0\0\5", b"\0\0\0\5four"]),
).map(b"".join)
places = st.lists(st.integers(1, 5000), max_size=8)


def each_frame(test: Test) -> Test:
    """Run a test for line and length frames, each bare, with prefix, suffix, and both."""
    kinds = pytest.mark.parametrize("frame", ["line", "length"])
    added = pytest.mark.parametrize(("prefix", "suffix"), ADDED, ids=IDS)
    marked: Test = kinds(added(test))
    return marked


@each_frame
# The server is meant to be the same for all examples: each has a connection of its own.
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_stream_in_any_pieces_is_answered_as_the_oracle_says(
    started_once: MakeServer, frame: str, prefix: bytes, suffix: bytes, data: st.DataObject
) -> None:
    server = started_once(frame=frame, prefix=prefix, suffix=suffix)
    stream = data.draw(lines if frame == "line" else lengths, "stream")
    segments = cut(stream, data.draw(places, "cuts"))
    wait = len(segments) <= 6 and data.draw(st.booleans(), "one recv each")
    assert same(whole_reply(server, segments, wait), REPLY[frame](stream, prefix, suffix))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.binary(max_size=60), at=st.integers(0, 60))
@example(text=b"a\r\nb", at=2)
@example(text=b"\r\n", at=1)
def test_line_cut_anywhere_is_one_line(started_once: MakeServer, text: bytes, at: int) -> None:
    """The cut may fall inside a line end of two bytes."""
    server = started_once(frame="line", prefix=PREFIX, suffix=SUFFIX)
    expected = reply_to_lines(text, PREFIX, SUFFIX)
    assert same(whole_reply(server, cut(text, [at]), wait=True), expected)


@pytest.mark.parametrize("frame", ["line", "length"])
def test_stream_that_comes_byte_by_byte_is_answered_the_same(
    make_server: MakeServer, frame: str
) -> None:
    server = make_server(frame=frame, prefix=PREFIX, suffix=SUFFIX)
    stream = b"one\r\n\ntwo\nrest" if frame == "line" else framed([b"one", b"", b"three"])
    segments = [bytes([byte]) for byte in stream]
    assert same(whole_reply(server, segments, wait=True), REPLY[frame](stream, PREFIX, SUFFIX))


# --- recv ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefix", "suffix"), ADDED, ids=IDS)
def test_recv_puts_prefix_and_suffix_around_what_each_recv_gave(
    make_server: MakeServer, join: Join, prefix: bytes, suffix: bytes
) -> None:
    server = make_server(prefix=prefix, suffix=suffix)
    peer = join(server)
    for size in (1, 10, 1000):  # one segment, one recv
        data = pattern(size)
        expected = prefix + data + suffix
        assert same(exchange(peer, data, len(expected)), expected)
    assert server.stats().messages == 3


def test_recv_of_bulk_adds_to_each_recv_and_loses_nothing(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(prefix=PREFIX, suffix=SUFFIX)
    data = pattern(3_000_000)
    peer = join(server)

    def send() -> None:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    reply = read_to_eof(peer)
    sender.join()
    count = server.stats().messages
    assert reply.startswith(PREFIX)
    assert reply.endswith(SUFFIX)
    assert reply.count(SUFFIX + PREFIX) == count - 1
    assert same(reply.replace(PREFIX, b"").replace(SUFFIX, b""), data)


def test_recv_answers_the_tutorials_dialogue(make_server: MakeServer, join: Join) -> None:
    prefix = "服务端收到, 你发的消息是: "
    peer = join(make_server(prefix=prefix))
    for line in ("你好\n", "q\n", " \n"):
        peer.sendall(line.encode())
        expected = (prefix + line).encode()
        assert same(recv_exactly(peer, len(expected)), expected)


# --- line ----------------------------------------------------------------------------------


def test_lines_are_answered_when_their_end_comes_and_not_before(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(frame="line", prefix="> ")
    peer = join(server)
    peer.sendall(b"first\nsecond, not yet com")
    assert recv_exactly(peer, 8) == b"> first\n"
    wait_until(lambda: server.stats().bytes_in == 25)
    assert (server.stats().messages, server.stats().bytes_out) == (1, 8)
    peer.sendall(b"plete\r\n")
    assert recv_exactly(peer, 28) == b"> second, not yet complete\r\n"


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"\n", b"[]\n"),
        (b"\r\n", b"[]\r\n"),
        (b"\r\r\n", b"[\r]\r\n"),
        (b"a\rb\n", b"[a\rb]\n"),
        (b"a\n\nb\n", b"[a]\n[]\n[b]\n"),
        (b"rest", b"[rest]"),
        (b"a\nrest\r", b"[a]\n[rest\r]"),
        (b"\r", b"[\r]"),
        (b"\0\n\xff\n", b"[\0]\n[\xff]\n"),
        (b"", b""),
    ],
)
def test_suffix_stands_before_the_line_end(
    make_server: MakeServer, stream: bytes, expected: bytes
) -> None:
    server = make_server(frame="line", prefix="[", suffix="]")
    assert same(whole_reply(server, [stream] if stream else []), expected)
    wait_until(lambda: server.stats().ended_by_peer == 1)
    assert server.stats().frames_incomplete == 0


# --- length --------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefix", "suffix"), ADDED, ids=IDS)
def test_header_of_the_reply_counts_prefix_payload_and_suffix(
    make_server: MakeServer, join: Join, prefix: bytes, suffix: bytes
) -> None:
    peer = join(make_server(frame="length", prefix=prefix, suffix=suffix))
    for payload in (b"", b"x", pattern(255), pattern(256), pattern(65536)):
        expected = framed([prefix + payload + suffix])
        assert same(exchange(peer, framed([payload]), len(expected)), expected)


@pytest.mark.parametrize("rest", [b"\0", b"\0\0\0", b"\0\0\0\1", b"\0\0\0\5four"])
def test_incomplete_frame_at_the_end_is_dropped_and_counted(
    make_server: MakeServer, rest: bytes
) -> None:
    server = make_server(frame="length")
    assert whole_reply(server, [framed([b"whole"]) + rest]) == framed([b"whole"])
    wait_until(lambda: server.stats().ended_by_peer == 1)
    stats = server.stats()
    assert (stats.messages, stats.frames_incomplete) == (1, 1)


def test_stream_that_ends_between_frames_drops_nothing(make_server: MakeServer) -> None:
    server = make_server(frame="length")
    assert whole_reply(server, [framed([b"whole", b""])]) == framed([b"whole", b""])
    wait_until(lambda: server.stats().ended_by_peer == 1)
    assert server.stats().frames_incomplete == 0


# --- long pipelines ------------------------------------------------------------------------


@each_frame
def test_huge_pipeline_is_answered_whole_and_in_order(
    make_server: MakeServer, join: Join, frame: str, prefix: bytes, suffix: bytes
) -> None:
    """More than a hundred thousand frames of all small sizes, many rounds of replies."""
    server = make_server(frame=frame, prefix=prefix, suffix=suffix)
    texts = [b"%d" % number * (number % 5) for number in range(120_000)]
    stream = b"".join(text + b"\n" for text in texts) if frame == "line" else framed(texts)
    expected = REPLY[frame](stream, prefix, suffix)
    assert same(exchange(join(server), stream, len(expected), timeout=20), expected)
    assert server.stats().messages == len(texts)


@pytest.mark.parametrize("frame", ["line", "length"])
def test_frames_larger_than_a_read_are_answered(
    make_server: MakeServer, join: Join, frame: str
) -> None:
    size = 2_000_000
    server = make_server(
        frame=frame, prefix=PREFIX, suffix=SUFFIX, max_frame=size, high_water=2 * size
    )
    payloads = [b"x" * (size - 1), b"y", b"z" * (size - 1)]
    stream = b"".join(one + b"\n" for one in payloads) if frame == "line" else framed(payloads)
    expected = REPLY[frame](stream, PREFIX, SUFFIX)
    assert same(exchange(join(server), stream, len(expected)), expected)


def test_many_peers_with_half_a_frame_each_do_not_mix(make_server: MakeServer, join: Join) -> None:
    server = make_server(frame="line", threads=2)
    peers = [join(server) for _ in range(100)]
    for peer in peers:
        peer.sendall(b"I am number ")
    wait_until(lambda: server.stats().bytes_in == 100 * 12)
    for place, peer in reversed(list(enumerate(peers))):
        peer.sendall(b"%d\n" % place)
    for place, peer in enumerate(peers):
        expected = b"I am number %d\n" % place
        assert same(recv_exactly(peer, len(expected)), expected)
