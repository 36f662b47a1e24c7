"""urllib3's timeouts and retries under test: a few lines of HTTP from a callback are enough.

pytest examples/test_urllib3.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest
import urllib3

import fastecho
from fastecho.refused import RefusedAddress
from fastecho.testing import EchoServer

MakeEchoServer = Callable[..., EchoServer]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
CUT_OFF = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(timeout=5) as pool:
        yield pool


def test_connect_timeout(http: urllib3.PoolManager, black_hole: fastecho.black_hole) -> None:
    with pytest.raises(urllib3.exceptions.ConnectTimeoutError):
        http.request("GET", f"http://{black_hole.address}/", retries=False, timeout=0.05)


def test_read_timeout(http: urllib3.PoolManager, make_echo_server: MakeEchoServer) -> None:
    server = make_echo_server(on_message=lambda connection, data: None)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        http.request("GET", f"http://{server.address}/", retries=False, timeout=0.05)


def test_refused_is_tried_three_times(
    http: urllib3.PoolManager, refused_address: RefusedAddress
) -> None:
    with pytest.raises(urllib3.exceptions.MaxRetryError) as told:
        http.request("GET", f"http://{refused_address}/", retries=2)
    assert isinstance(told.value.reason, urllib3.exceptions.NewConnectionError)


def test_busy_is_asked_again(http: urllib3.PoolManager, make_echo_server: MakeEchoServer) -> None:
    answers = chain([BUSY, BUSY], repeat(OK))
    server = make_echo_server(on_message=lambda connection, data: next(answers))
    retries = urllib3.Retry(3, status_forcelist=[503])
    assert http.request("GET", f"http://{server.address}/", retries=retries).data == b"hello"
    assert server.received.count(b"GET / HTTP/1.1\r\n") == 3
    assert server.stats().connections_accepted == 1  # the connection was kept


def test_a_body_that_is_cut_off_is_an_error(
    http: urllib3.PoolManager, make_echo_server: MakeEchoServer
) -> None:
    def cut_off(connection: fastecho.Connection, data: bytes) -> None:
        connection.write(CUT_OFF)
        connection.close()

    server = make_echo_server(on_message=cut_off)
    with pytest.raises(urllib3.exceptions.ProtocolError, match="3 bytes read, 2 more expected"):
        http.request("GET", f"http://{server.address}/", retries=False)
