"""fastecho.Client, connected: what each call sends, returns, keeps and raises.

Most tests drive the peer's end themselves, in the same thread: the kernel's buffers hold what is
under way. Only where both sides must move at once does the peer run in a thread. No extension is
needed.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator

import pytest
from driven import DrivenServer, echo
from peers import DEADLINE, pattern, reset

from fastecho import Client

SHORT = 0.05  # seconds: for calls that must run into their timeout


class Pair:
    """A client and the socket of its peer, which the test drives."""

    def __init__(self, client: Client, peer: socket.socket) -> None:
        self.client = client
        self.peer = peer


@pytest.fixture
def pair() -> Iterator[Pair]:
    with DrivenServer() as server, Client(server.address, timeout=DEADLINE) as client:
        yield Pair(client, server.accept())


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Run functions in threads; at the end each must have ended, without an exception."""
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    def start(function: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=guarded, args=(function,)))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert errors == []


# Sending and receiving


def test_send_takes_all_and_returns_its_size(pair: Pair) -> None:
    assert pair.client.send(b"hello") == 5
    assert pair.peer.recv(100) == b"hello"


@pytest.mark.parametrize("data", [bytearray(b"abcd"), memoryview(b"abcd"), array("H", [1, 2])])
def test_send_takes_every_contiguous_buffer(pair: Pair, data: bytearray | memoryview) -> None:
    assert pair.client.send(data) == 4
    assert pair.peer.recv(100) == bytes(memoryview(data).cast("B"))


def test_send_of_nothing_sends_nothing(pair: Pair) -> None:
    assert pair.client.send(b"") == 0
    assert pair.client.echo(b"") == b""
    pair.client.shutdown()
    assert pair.peer.recv(1) == b""


def test_send_in_vain_times_out_and_says_how_much_went(pair: Pair) -> None:
    pair.client.timeout = SHORT
    with pytest.raises(TimeoutError, match=r"took \d+ of 67108864 bytes") as caught:
        pair.client.send(bytes(64 << 20))
    assert caught.value.errno == errno.ETIMEDOUT


def test_send_to_a_peer_that_reset_keeps_errno(pair: Pair) -> None:
    reset(pair.peer)
    pair.client.timeout = DEADLINE
    with pytest.raises(ConnectionResetError) as caught:
        pair.client.send(b"more")
    assert caught.value.errno == errno.ECONNRESET


def test_recv_returns_what_is_there_up_to_n(pair: Pair) -> None:
    pair.peer.sendall(b"hello")
    assert pair.client.recv(2) == b"he"
    assert pair.client.recv(100) == b"llo"


def test_recv_waits_for_the_first_byte(
    pair: Pair, run: Callable[[Callable[[], object]], None]
) -> None:
    run(lambda: pair.peer.sendall(b"x" if pair.peer.recv(1) else b""))
    pair.client.send(b"?")
    assert pair.client.recv(1) == b"x"


def test_recv_at_the_end_returns_nothing_each_time(pair: Pair) -> None:
    pair.peer.shutdown(socket.SHUT_WR)
    assert pair.client.recv(1) == b""
    assert pair.client.recv(1) == b""


@pytest.mark.parametrize("n", [0, -1])
def test_recv_refuses_no_room(pair: Pair, n: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 byte, not {n}"):
        pair.client.recv(n)


def test_recv_from_a_peer_that_reset_keeps_errno(pair: Pair) -> None:
    reset(pair.peer)
    with pytest.raises(ConnectionResetError) as caught:
        pair.client.recv(1)
    assert caught.value.errno == errno.ECONNRESET


def test_recv_exactly_joins_pieces(pair: Pair, run: Callable[[Callable[[], object]], None]) -> None:
    data = pattern(3 << 20)
    run(lambda: pair.peer.sendall(data + b"rest"))
    assert pair.client.recv_exactly(len(data)) == data
    assert pair.client.recv_exactly(0) == b""
    assert pair.client.recv_exactly(4) == b"rest"


def test_recv_exactly_tells_how_much_came_before_the_end(pair: Pair) -> None:
    pair.peer.sendall(b"abc")
    pair.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError, match="sent 3 of 10 bytes, then closed"):
        pair.client.recv_exactly(10)
    assert pair.client.recv(10) == b"abc"


def test_recv_exactly_refuses_a_negative_size(pair: Pair) -> None:
    with pytest.raises(ValueError, match="not -1"):
        pair.client.recv_exactly(-1)


def test_recv_exactly_keeps_what_came_before_a_timeout(pair: Pair) -> None:
    pair.peer.sendall(b"abc")
    pair.client.timeout = SHORT
    with pytest.raises(TimeoutError, match="sent 3 of 6 bytes"):
        pair.client.recv_exactly(6)
    pair.peer.sendall(b"def")
    assert pair.client.recv_exactly(6) == b"abcdef"


def test_timeout_is_for_the_whole_call_not_for_each_piece(
    pair: Pair, run: Callable[[Callable[[], object]], None]
) -> None:
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.02):
            pair.peer.sendall(b".")

    pair.client.timeout = 0.2
    run(trickle)
    started = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            pair.client.recv_exactly(1000)
    finally:
        over.set()
    assert 0.2 <= time.monotonic() - started < 5


def test_recv_line_returns_each_line_with_its_newline(pair: Pair) -> None:
    pair.peer.sendall(b"one\n\ntwo\r\nthr")
    assert [pair.client.recv_line() for _ in range(3)] == [b"one\n", b"\n", b"two\r\n"]
    pair.peer.sendall(b"ee\n")
    assert pair.client.recv_line() == b"three\n"


def test_recv_line_at_the_end_returns_the_rest_and_then_nothing(pair: Pair) -> None:
    pair.peer.sendall(b"one\nrest")
    pair.peer.shutdown(socket.SHUT_WR)
    assert [pair.client.recv_line() for _ in range(4)] == [b"one\n", b"rest", b"", b""]


def test_recv_line_keeps_what_came_before_a_timeout(pair: Pair) -> None:
    pair.peer.sendall(b"ab")
    pair.client.timeout = SHORT
    for _ in range(2):
        with pytest.raises(TimeoutError, match="sent 2 bytes without a newline"):
            pair.client.recv_line()
    pair.peer.sendall(b"c\n")
    assert pair.client.recv_line() == b"abc\n"


def test_recv_line_misses_no_line_behind_one_that_came_in_pieces(pair: Pair) -> None:
    pair.peer.sendall(b"lon")
    pair.client.timeout = SHORT
    with pytest.raises(TimeoutError):
        pair.client.recv_line()
    pair.peer.sendall(b"g\n\nx\n")
    assert [pair.client.recv_line() for _ in range(3)] == [b"long\n", b"\n", b"x\n"]


def test_recv_line_takes_a_mebibyte_and_no_more(
    pair: Pair, run: Callable[[Callable[[], object]], None]
) -> None:
    longest = b"x" * (2**20 - 1) + b"\n"
    run(lambda: pair.peer.sendall(longest + b"x" + longest))
    assert pair.client.recv_line() == longest
    for _ in range(2):
        with pytest.raises(OSError, match="1048576 bytes without a newline") as caught:
            pair.client.recv_line()
        assert caught.value.errno == errno.EMSGSIZE
    assert pair.client.recv_exactly(2**20 + 1) == b"x" + longest


def test_all_ways_to_receive_share_one_buffer(pair: Pair) -> None:
    pair.peer.sendall(b"line\nabcdefgh\nxyz")
    assert pair.client.recv_line() == b"line\n"
    assert pair.client.recv_exactly(3) == b"abc"
    assert pair.client.recv(2) == b"de"
    assert pair.client.recv_line() == b"fgh\n"
    assert pair.client.echo(b"123") == b"xyz"
    assert pair.peer.recv(10) == b"123"


# The exchange


@pytest.mark.parametrize("size", [1, 65536, 8 << 20])
def test_echo_returns_data_of_any_size(
    pair: Pair, run: Callable[[Callable[[], object]], None], size: int
) -> None:
    data = pattern(size)
    run(lambda: echo(pair.peer))
    assert pair.client.echo(data) == data
    pair.client.shutdown()


def test_echo_returns_as_many_bytes_as_it_sent_and_keeps_the_rest(pair: Pair) -> None:
    pair.peer.sendall(b"prefix hello")
    assert pair.client.echo(b"hello") == b"prefi"
    assert pair.client.recv(100) == b"x hello"


def test_echo_reads_on_while_it_sends_though_its_reply_was_there_before(
    pair: Pair, run: Callable[[Callable[[], object]], None]
) -> None:
    early, data = pattern(16 << 20).replace(b"\n", b"."), pattern(1 << 20)

    def answer_before_asked() -> None:
        pair.peer.sendall(early)
        received = bytearray()
        while len(received) < len(data):
            received += pair.peer.recv(65536)
        assert received == data

    with socket.socket(fileno=os.dup(pair.client.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131072)
    run(answer_before_asked)
    with pytest.raises(OSError, match="without a newline"):
        pair.client.recv_line()  # leaves a mebibyte in the client's buffer
    assert pair.client.echo(data) == early[: len(data)]
    assert pair.client.recv_exactly(len(early) - len(data)) == early[len(data) :]


def test_echo_tells_how_much_came_before_the_end(pair: Pair) -> None:
    pair.peer.sendall(b"hel")
    pair.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError, match="took 5 of 5 bytes and sent 3 back, then closed"):
        pair.client.echo(b"hello")


def test_echo_tells_how_much_came_in_time(pair: Pair) -> None:
    pair.peer.sendall(b"hel")
    pair.client.timeout = SHORT
    with pytest.raises(TimeoutError, match="took 5 of 5 bytes and sent 3 back"):
        pair.client.echo(b"hello")


def test_echo_with_a_peer_that_reset_keeps_errno(pair: Pair) -> None:
    reset(pair.peer)
    with pytest.raises(ConnectionError) as caught:
        pair.client.echo(b"hello")
    assert caught.value.errno in (errno.ECONNRESET, errno.EPIPE)


def test_one_thread_sends_while_another_receives(
    pair: Pair, run: Callable[[Callable[[], object]], None]
) -> None:
    data = pattern(4 << 20)
    run(lambda: echo(pair.peer))
    run(lambda: pair.client.send(data))
    assert pair.client.recv_exactly(len(data)) == data
    pair.client.shutdown()


def test_exchange_works_where_there_is_no_poll(
    pair: Pair, run: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(select, "poll")
    data = pattern(4 << 20)
    run(lambda: echo(pair.peer))
    assert pair.client.echo(data) == data
    pair.client.timeout = SHORT
    with pytest.raises(TimeoutError):
        pair.client.recv(1)
    pair.client.shutdown()


def test_small_messages_are_sent_at_once(pair: Pair) -> None:
    with socket.socket(fileno=os.dup(pair.client.fileno())) as same:
        assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


# Ending


def test_shutdown_ends_sending_only(pair: Pair) -> None:
    pair.client.shutdown()
    assert pair.peer.recv(1) == b""
    pair.peer.sendall(b"late")
    assert pair.client.recv_exactly(4) == b"late"
    with pytest.raises(BrokenPipeError):
        pair.client.send(b"x")


def test_close_may_be_repeated_and_later_calls_say_so(pair: Pair) -> None:
    pair.client.close()
    pair.client.close()
    assert pair.peer.recv(1) == b""
    assert pair.client.fileno() == -1
    assert "closed" in repr(pair.client)
    calls: list[Callable[[], object]] = [
        lambda: pair.client.send(b"x"),
        lambda: pair.client.recv(1),
        lambda: pair.client.recv_exactly(1),
        pair.client.recv_line,
        lambda: pair.client.echo(b"x"),
        pair.client.shutdown,
    ]
    for call in calls:
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_with_block_closes_the_client() -> None:
    with DrivenServer() as server:
        with pytest.raises(ZeroDivisionError), Client(server.address) as client:
            raise ZeroDivisionError
        assert client.fileno() == -1
