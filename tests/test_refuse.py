"""refuse() and admit(): a port that stays ours refuses, and listens again."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Join, MakeServer
from peers import (
    DEADLINE,
    connect,
    exchange,
    expect_stats,
    has_ipv6,
    is_refused,
    is_reset,
    iterations_at_rest,
    wait_until,
)

import fastecho
from fastecho.testing import EchoServer

configs = pytest.mark.parametrize(
    "config",
    [
        {},
        {"threads": 3},
        {"threads": 2, "reuse_port": True},
        {"at_limit": "queue", "max_connections": 50},
        {"bind": ["127.0.0.1:0", "127.0.0.2:0"], "threads": 2},
        pytest.param(
            {"bind": "[::1]:0"},
            marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"),
        ),
        pytest.param(
            {"bind": ":0"},
            marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"),
        ),
    ],
    ids=str,
)


@configs
def test_connect_is_refused_until_admitted_and_open_connections_live_on(
    make_server: MakeServer, join: Join, config: dict[str, Any]
) -> None:
    server = make_server(**config)
    addresses = server.addresses
    peers = [join(address) for address in addresses for _ in range(4)]
    assert [exchange(peer, b"here") for peer in peers] == [b"here"] * len(peers)
    for _ in range(3):
        server.refuse()
        assert not server.is_serving()
        for address in addresses:
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError):
                    connect(address).close()
        assert [exchange(peer, b"open") for peer in peers] == [b"open"] * len(peers)
        server.admit()
        assert server.is_serving()
        assert server.addresses == addresses
        peers += [join(address) for address in addresses for _ in range(4)]
        assert [exchange(peer, b"again") for peer in peers] == [b"again"] * len(peers)
    expect_stats(server, connections_open=len(peers), errors={}, accept_errors=0)


def test_nobody_else_gets_the_port(make_server: MakeServer) -> None:
    server = make_server()
    place = (server.host, server.port)
    server.refuse()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(place)
    server.admit()
    assert not is_refused(server)


def test_a_server_that_refuses_rests(make_server: MakeServer) -> None:
    server = make_server(threads=2)
    server.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(server).close()
    wait_until(lambda: iterations_at_rest(server) == 0)
    assert repr(server) == f"<fastecho.Server {server.address} refusing>"


def test_who_is_queued_is_reset(make_server: MakeServer, join: Join) -> None:
    server = make_server(max_connections=1, at_limit="queue")
    first = join(server)
    assert exchange(first, b"served") == b"served"
    queued = join(server)
    server.refuse()
    assert is_reset(queued)
    server.admit()
    later = join(server)
    first.close()
    assert exchange(later, b"now") == b"now"


def test_both_may_be_said_again(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    server.admit()
    server.refuse()
    server.refuse()
    server.admit()
    server.admit()
    assert exchange(join(server), b"x") == b"x"


@pytest.mark.parametrize("end", ["stop", "close", "abort"])
def test_a_server_that_refuses_ends_as_any_other(
    make_server: MakeServer, join: Join, end: str
) -> None:
    server = make_server(drain_idle=0)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    server.refuse()
    if end == "stop":
        peer.close()
    getattr(server, end)()
    if end == "close":
        assert exchange(peer, b"y") == b"y"
        peer.close()
    assert server.wait(5)
    assert is_refused(server.address)
    for again in (server.refuse, server.admit):
        with pytest.raises(RuntimeError, match="does not listen"):
            again()


def test_a_server_that_has_not_started_cannot_refuse() -> None:
    with pytest.raises(RuntimeError, match="does not listen"):
        fastecho.Server().refuse()


def test_a_unix_socket_and_an_inherited_one_are_left_as_they_are(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    server = make_server(["127.0.0.1:0", f"unix:{tmp_path}/s"])
    with pytest.raises(OSError, match=r"unix:.* cannot refuse for a time") as told:
        server.refuse()
    assert told.value.errno == errno.EOPNOTSUPP
    assert [exchange(join(address), b"x") for address in server.addresses] == [b"x", b"x"]
    with socket.create_server(("127.0.0.1", 0)) as ours:
        inherited = make_server(f"fd://{ours.fileno()}")
        with pytest.raises(OSError, match="only a TCP port of ours can"):
            inherited.refuse()
        assert exchange(join(inherited), b"x") == b"x"


def test_a_thief_of_the_port_is_named_and_admit_may_be_called_again(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server()
    server.refuse()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind((server.host, server.port))
        thief.listen()
        address = re.escape(server.address)
        with pytest.raises(OSError, match=f"cannot listen again on {address}: .* in use") as told:
            server.admit()
        assert told.value.errno == errno.EADDRINUSE
        assert not server.is_serving()
    server.admit()
    assert exchange(join(server), b"x") == b"x"


def test_a_thief_of_one_port_makes_all_refuse_again(make_server: MakeServer, join: Join) -> None:
    server = make_server(["127.0.0.1:0", "127.0.0.2:0"])
    first, second = server.addresses
    server.refuse()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.2", int(second.rpartition(":")[2])))
        thief.listen()
        with pytest.raises(OSError, match=f"cannot listen again on {re.escape(second)}: "):
            server.admit()
        assert is_refused(first)
    server.admit()
    assert [exchange(join(address), b"x") for address in server.addresses] == [b"x", b"x"]


@pytest.mark.parametrize("end", ["stop", "close", "abort"])
def test_an_end_in_another_thread_is_told_as_any_other(make_server: MakeServer, end: str) -> None:
    def change(server: fastecho.Server, once: threading.Event) -> None:
        try:
            while True:
                server.refuse()
                server.admit()
                once.set()
        finally:
            once.set()

    with ThreadPoolExecutor(1) as pool:
        for _ in range(10):  # each meets the end at another place
            server = make_server([f"127.0.0.{number}:0" for number in range(1, 9)])
            once = threading.Event()
            changing = pool.submit(change, server, once)
            assert once.wait(DEADLINE)
            getattr(server, end)()
            with pytest.raises(RuntimeError, match=r"(ending|ended)> does not listen"):
                changing.result(DEADLINE)


def test_an_echo_server_refuses_and_has_faults(
    make_echo_server: Callable[..., EchoServer], join: Join
) -> None:
    server = make_echo_server()
    server.refuse()
    server.set_fault("close_after=0")
    with pytest.raises(ConnectionRefusedError):
        connect(server).close()
    server.admit()
    assert not is_reset(join(server))


def test_a_forked_child_cannot(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    pid = os.fork()
    if pid == 0:
        try:
            server.refuse()
        except fastecho.ForkedError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert exchange(join(server), b"x") == b"x"


def test_a_storm_of_connects_meets_only_three_answers(make_server: MakeServer) -> None:
    server = make_server(threads=2)
    over = threading.Event()
    seen: set[str] = set()

    def storm() -> None:
        while not over.is_set():
            try:
                with connect(server.address) as sock:
                    seen.add("served" if exchange(sock, b"x") == b"x" else "wrong")
            except (ConnectionError, AssertionError) as error:
                seen.add(type(error).__name__)

    threads = [threading.Thread(target=storm) for _ in range(3)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        server.refuse()
        server.admit()
    over.set()
    for thread in threads:
        thread.join()
    # Reset: it was in the queue. An end without a byte (the assertion) would be a lost reply.
    assert seen <= {"served", "ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError"}
    assert not is_refused(server)
