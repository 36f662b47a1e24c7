"""redis-py's timeouts and retries under test; no Redis is installed, a callback answers.

pytest examples/test_redis.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

import fastecho
from fastecho.refused import RefusedAddress
from fastecho.testing import EchoServer

MakeEchoServer = Callable[..., EchoServer]


def client_of(target: Any, tries: int = 0, timeout: float = 5) -> Any:
    """Return a client that repeats a command so many times."""
    return redis.Redis(
        target.host,
        target.port,
        protocol=2,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), tries),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
    )


def is_greeting(command: bytes) -> bool:
    """Tell whether it is what the client says of itself, first thing on each connection."""
    return b"SETINFO" in command


def test_connect_timeout(black_hole: fastecho.black_hole) -> None:
    with client_of(black_hole, timeout=0.05) as client, pytest.raises(redis.TimeoutError):
        client.ping()


def test_nobody_listens(refused_address: RefusedAddress) -> None:
    with client_of(refused_address) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_a_silent_server_is_asked_again(make_echo_server: MakeEchoServer) -> None:
    def answer(connection: fastecho.Connection, command: bytes) -> bytes | None:
        if is_greeting(command):
            return b"+OK\r\n"
        return None if connection.id < 3 else b"+PONG\r\n"

    server = make_echo_server(on_message=answer)
    with client_of(server, tries=2, timeout=0.2) as client:
        assert client.ping()
    assert list(server.received_by) == [1, 2, 3]
    assert all(b"PING" in command for command in server.received_by.values())


def test_a_connection_lost_in_a_reply_is_opened_again(make_echo_server: MakeEchoServer) -> None:
    def answer(connection: fastecho.Connection, command: bytes) -> bytes:
        if is_greeting(command):
            return b"+OK\r\n"
        if connection.id == 1:
            connection.write(b"$5\r\nhel")
            connection.close()
        return b"$5\r\nhello\r\n"

    server = make_echo_server(on_message=answer)
    with client_of(server, tries=1) as client:
        assert client.get("greeting") == b"hello"
    server.wait_for(connections=2)
