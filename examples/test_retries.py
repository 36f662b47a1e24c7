"""A client that retries, and its tests with the fixtures: timeouts, retries, partial reads.

    pytest examples/test_retries.py

docs/how-to/test-your-client.md walks through it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from fastecho import black_hole
from fastecho.refused import RefusedAddress
from fastecho.testing import EchoServer

MakeEchoServer = Callable[..., EchoServer]


def ask(host: str, port: int, question: bytes, timeout: float = 5, tries: int = 3) -> bytes:
    """Send a line and return the line that answers it: the client under test.

    It tries again when the connection fails, with a pause, but not after the time is over.
    """
    deadline = time.monotonic() + timeout
    for left in reversed(range(tries)):
        try:
            return _ask_once(host, port, question, deadline)
        except ConnectionError:
            if not left:
                raise
            time.sleep(0.01)
    raise AssertionError


def _ask_once(host: str, port: int, question: bytes, deadline: float) -> bytes:
    answer = b""
    with socket.create_connection((host, port), max(deadline - time.monotonic(), 0.001)) as sock:
        sock.sendall(question + b"\n")
        while not answer.endswith(b"\n"):
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            data = sock.recv(4096)
            if not data:
                raise ConnectionError(f"the answer ended after {answer!r}")
            answer += data
    return answer[:-1]


# --- timeouts ---------------------------------------------------------------------------------


def test_connect_ends_in_time(black_hole: black_hole) -> None:
    with pytest.raises(TimeoutError):
        ask(black_hole.host, black_hole.port, b"hello", timeout=0.05)


def test_a_server_that_never_answers_ends_in_time(make_echo_server: MakeEchoServer) -> None:
    server = make_echo_server(on_message=lambda connection, data: None)
    with pytest.raises(TimeoutError):
        ask(server.host, server.port, b"hello", timeout=0.1)
    server.wait_for(closed=1)  # the client has hung up
    assert server.received == b"hello\n"  # it has asked once only


def test_a_server_that_drips_does_not_stretch_the_time(make_echo_server: MakeEchoServer) -> None:
    server = make_echo_server(fault="slice=1,gap=20ms")
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        ask(server.host, server.port, bytes(1000), timeout=0.1)
    assert time.monotonic() - began < 10  # the whole answer takes 20 s


# --- retries ----------------------------------------------------------------------------------


def test_it_tries_again_after_a_reset(make_echo_server: MakeEchoServer) -> None:
    server = make_echo_server(fault="deny,fail_first=2")
    assert ask(server.host, server.port, b"hello") == b"hello"
    assert server.stats().connections_accepted == 3


def test_it_gives_up_after_three_tries(make_echo_server: MakeEchoServer) -> None:
    server = make_echo_server(on_message=lambda connection, data: connection.close())
    with pytest.raises(ConnectionError):
        ask(server.host, server.port, b"hello")
    assert server.received_by == {1: b"hello\n", 2: b"hello\n", 3: b"hello\n"}


def test_it_gives_up_where_nobody_listens(refused_address: RefusedAddress) -> None:
    with pytest.raises(ConnectionRefusedError):
        ask(refused_address.host, refused_address.port, b"hello")


# --- partial reads ----------------------------------------------------------------------------


def test_an_answer_in_single_bytes_is_one_answer(make_echo_server: MakeEchoServer) -> None:
    server = make_echo_server(fault="slice=1")
    assert ask(server.host, server.port, b"hello") == b"hello"


@pytest.mark.parametrize("end", ["close_after", "reset_after"])
def test_an_answer_that_is_cut_off_is_asked_for_again(
    make_echo_server: MakeEchoServer, end: str
) -> None:
    server = make_echo_server(fault=f"{end}=3,fail_first=1")
    assert ask(server.host, server.port, b"hello") == b"hello"
    assert server.stats().connections_accepted == 2


def test_a_large_question_arrives_whole(echo_server: EchoServer) -> None:
    question = bytes(range(1, 10)) * 10_000
    assert ask(echo_server.host, echo_server.port, question) == question
    assert echo_server.received == question + b"\n"
