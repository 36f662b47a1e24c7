"""Limits that one peer alone can reach: connections of an address, newcomers a second, silence.

What is refused is reset and counted under the limit's own name; what is served is served in full,
and a place that is given back is free for the next. (max_connections: test_accept.py; idle_timeout:
test_timeouts.py.)
"""

from __future__ import annotations

import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    expect_stats,
    has_ipv6,
    is_reset,
    is_turned_away,
    read_to_eof,
    reset,
    wait_until,
)

import fastecho


def connect_from(source: str, server: fastecho.Server) -> socket.socket:
    """Return a socket that is connected to `server` from the loopback address `source`."""
    assert server.port is not None
    return socket.create_connection(("127.0.0.1", server.port), 20, (source, 0))


def is_served_from(source: str, server: fastecho.Server) -> bool:
    """Tell whether a connection from `source` is echoed; it ends in order before this returns."""
    try:
        with connect_from(source, server) as sock:
            if exchange(sock, b"x") != b"x":
                return False
            sock.shutdown(socket.SHUT_WR)
            return read_to_eof(sock) == b""
    except ConnectionError:
        return False


# --- max_per_ip ------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_an_address_gets_so_many_connections_and_another_its_own(
    make_server: MakeServer, threads: int
) -> None:
    server = make_server(max_per_ip=2, threads=threads)
    kept = [connect_from(f"127.0.0.{n}", server) for n in (2, 2, 3, 3, 4)]
    try:
        for sock in kept:
            assert exchange(sock, b"x") == b"x"
        for source in ("127.0.0.2", "127.0.0.3"):
            assert not is_served_from(source, server)
        assert is_served_from("127.0.0.4", server)
        for sock in kept:
            assert exchange(sock, b"still") == b"still"
    finally:
        for sock in kept:
            sock.close()
    expect_stats(server, shed_max_per_ip=2, shed_max_connections=0, connections_accepted=6)


@pytest.mark.parametrize("ending", ["FIN", "RST"])
def test_a_place_is_free_as_soon_as_the_peer_has_seen_the_end(
    make_server: MakeServer, ending: str
) -> None:
    """Again and again: a place that leaks is missed after one round."""
    server = make_server(max_per_ip=1)
    for _ in range(50):
        if ending == "FIN":
            assert is_served_from("127.0.0.2", server)
            continue
        sock = connect_from("127.0.0.2", server)
        assert exchange(sock, b"x") == b"x"
        reset(sock)
        wait_until(lambda: server.stats().connections_open == 0)
    assert server.stats().shed_max_per_ip == 0


def test_what_another_limit_or_the_callback_refuses_takes_no_place(make_server: MakeServer) -> None:
    answers = iter([False] * 10)
    server = make_server(max_per_ip=1, max_connections=1, on_accept=lambda _: next(answers, None))
    for _ in range(10):
        assert not is_served_from("127.0.0.2", server)
    with connect_from("127.0.0.3", server) as other:
        assert exchange(other, b"x") == b"x"
        for _ in range(10):
            assert not is_served_from("127.0.0.2", server)
        other.shutdown(socket.SHUT_WR)
        assert read_to_eof(other) == b""
    assert is_served_from("127.0.0.2", server)
    expect_stats(server, shed_max_per_ip=0, shed_max_connections=10, ended_by_denial=10)


def test_a_place_under_max_connections_is_given_back_by_who_has_too_many(
    make_server: MakeServer,
) -> None:
    server = make_server(max_per_ip=1, max_connections=2)
    with connect_from("127.0.0.2", server) as one:
        assert exchange(one, b"x") == b"x"
        for _ in range(5):
            assert not is_served_from("127.0.0.2", server)
        assert is_served_from("127.0.0.3", server)
    expect_stats(server, shed_max_per_ip=5, shed_max_connections=0)


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize("bits", [0, 64, 128])
def test_ipv6_and_ipv4_of_one_listener_are_counted_apart(
    make_server: MakeServer, bits: int
) -> None:
    """Whatever the bits: an IPv4 address that comes as ::ffff:127.0.0.1 counts as IPv4."""
    server = make_server(":0", max_per_ip=1, ipv6_prefix=bits)
    with connect(f"[::1]:{server.port}") as six, connect(f"127.0.0.1:{server.port}") as four:
        assert exchange(six, b"x") == b"x"
        assert exchange(four, b"x") == b"x"
        assert is_turned_away(f"[::1]:{server.port}")
        assert is_turned_away(f"127.0.0.1:{server.port}")
        assert is_served_from("127.0.0.2", server)
    expect_stats(server, shed_max_per_ip=2)


def test_unix_sockets_have_no_address_to_count(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    server = make_server(f"unix:{tmp_path}/s", max_per_ip=1)
    for _ in range(5):
        assert exchange(join(server), b"x") == b"x"
    assert server.stats().shed_max_per_ip == 0


# --- accept_rate -----------------------------------------------------------------------------


def test_newcomers_above_the_rate_are_reset(make_server: MakeServer, join: Join) -> None:
    """10 a second with a burst of one: two at once, then one every 100 ms."""
    server = make_server(accept_rate=10)
    begun = time.monotonic()
    served = 0
    for _ in range(50):
        try:
            served += exchange(join(server), b"x") == b"x"
        except ConnectionError:
            pass
    most = 2 + (time.monotonic() - begun) * 10
    assert 2 <= served <= most
    expect_stats(server, shed_accept_rate=50 - served, connections_accepted=served)


def test_after_a_pause_newcomers_are_served_again(make_server: MakeServer) -> None:
    server = make_server(accept_rate=20)
    while is_served_from("127.0.0.1", server):
        pass
    refused = time.monotonic()
    wait_until(lambda: is_served_from("127.0.0.1", server))
    # The next is due 50 ms after the last one that was served, at the latest after the refusal.
    assert time.monotonic() - refused < 5
    assert server.stats().shed_accept_rate >= 1


# --- first_byte_timeout ----------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"idle_timeout": 30.0}, {"frame": "line"}])
def test_who_sends_nothing_is_ended_and_counted(
    make_server: MakeServer, join: Join, config: dict[str, object]
) -> None:
    server = make_server(first_byte_timeout=0.1, **config)
    begun = time.monotonic()
    peer = join(server)
    assert not is_reset(peer)
    assert time.monotonic() - begun >= 0.1
    peer.close()
    expect_stats(server, ended_by_first_byte_timeout=1, ended_by_idle_timeout=0, linger_timeouts=0)


@pytest.mark.parametrize("config", [{}, {"frame": "line"}])
def test_one_byte_in_time_is_enough(
    make_server: MakeServer, join: Join, config: dict[str, object]
) -> None:
    server = make_server(first_byte_timeout=0.15, **config)
    peer, silent = join(server), join(server)
    peer.sendall(b"x")
    assert not is_reset(silent)  # the timer of the other one has run out as well by now
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() > begun + 0.3)
    assert exchange(peer, b"\n", size=2) == b"x\n"
    expect_stats(server, ended_by_first_byte_timeout=1, connections_open=1)


def test_idle_timeout_counts_on_after_the_first_byte(make_server: MakeServer, join: Join) -> None:
    server = make_server(first_byte_timeout=0.05, idle_timeout=0.3)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    last = time.monotonic()
    assert read_to_eof(peer) == b""
    assert time.monotonic() - last >= 0.25
    peer.close()
    expect_stats(server, ended_by_idle_timeout=1, ended_by_first_byte_timeout=0)


def test_the_shorter_of_the_two_counts_before_the_first_byte(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(first_byte_timeout=30.0, idle_timeout=0.1)
    peer = join(server)
    assert not is_reset(peer)
    peer.close()
    expect_stats(server, ended_by_idle_timeout=1, ended_by_first_byte_timeout=0)


# --- what TCP is told ------------------------------------------------------------------------


def option_of_connection(server: fastecho.Server, level: int, option: int) -> int:
    """Return a socket option of the server's end of its only connection."""
    from os import dup, listdir, readlink

    listening = {sock.fileno() for sock in server.sockets}
    for name in listdir("/proc/self/fd"):
        number = int(name)
        try:
            if number in listening or not readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
        except OSError:
            continue
        with socket.socket(fileno=dup(number)) as sock:
            if sock.family == socket.AF_INET and sock.getsockname()[1] == server.port:
                return sock.getsockopt(level, option)
    raise AssertionError("the server has no connection")


@pytest.mark.parametrize(
    ("config", "level", "option", "expected"),
    [
        ({"user_timeout": 1.5}, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1500),
        ({"keepalive": 7}, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        ({"keepalive": 7}, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7),
        ({"keepalive": 7.5}, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 8),
        ({"keepalive": 7}, socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        ({"send_buffer": 65536}, socket.SOL_SOCKET, socket.SO_SNDBUF, 131072),
        ({"receive_buffer": 65536}, socket.SOL_SOCKET, socket.SO_RCVBUF, 131072),
        ({}, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0),
        ({}, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0),
        ({}, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    ],
)
@pytest.mark.parametrize("inherited", [False, True], ids=["own", "inherited"])
def test_a_connection_has_the_options_that_were_asked_for(
    make_server: MakeServer,
    join: Join,
    config: dict[str, float],
    level: int,
    option: int,
    expected: int,
    inherited: bool,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = f"fd://{listener.fileno()}" if inherited else "127.0.0.1:0"
        server = make_server(bind, **config)
        if inherited:
            listener.close()
        peer = join(server)
        assert exchange(peer, b"x") == b"x"
        assert option_of_connection(server, level, option) == expected


def test_a_peer_that_takes_nothing_is_given_up_after_user_timeout(
    make_server: MakeServer, join: Join
) -> None:
    """Its window is shut: TCP's probes are answered, but nothing that was sent is taken."""
    server = make_server(user_timeout=0.5, send_buffer=4096)
    peer = join(server, receive_buffer=4096)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100_000))
    with pytest.raises((BlockingIOError, TimeoutError, ConnectionError)):
        while True:
            peer.send(b"x" * 65536)
    wait_until(lambda: server.stats().errors.get("ETIMEDOUT") == 1)
    expect_stats(server, ended_by_error=1, connections_open=0, bytes_pending=0)


# --- limits that change ----------------------------------------------------------------------


def test_a_lower_limit_ends_nobody_and_counts_for_the_next(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2)
    inside = [join(server) for _ in range(5)]
    for sock in inside:
        assert exchange(sock, b"x") == b"x"
    server.set_limits(max_connections=3)
    wait_until(lambda: is_turned_away(server))
    for sock in inside:
        assert exchange(sock, b"still") == b"still"
    server.set_limits(max_connections=None)
    wait_until(lambda: is_served_from("127.0.0.1", server))
    assert server.config.max_connections is None


def test_a_limit_of_an_address_counts_who_came_since(make_server: MakeServer) -> None:
    """And who came before gives back no place that it never had."""
    server = make_server(threads=2)
    before = [connect_from("127.0.0.2", server) for _ in range(3)]
    for sock in before:
        assert exchange(sock, b"x") == b"x"
    server.set_limits(max_per_ip=1)
    with connect_from("127.0.0.2", server) as first:
        assert exchange(first, b"x") == b"x"
        wait_until(lambda: not is_served_from("127.0.0.2", server))
        for sock in before:
            sock.close()
        wait_until(lambda: server.stats().connections_open == 1)
        assert not is_served_from("127.0.0.2", server)
        server.set_limits(max_per_ip=None)
        wait_until(lambda: is_served_from("127.0.0.2", server))
    server.set_limits(max_per_ip=1)
    wait_until(lambda: server.stats().connections_open == 0)
    for _ in range(5):
        assert is_served_from("127.0.0.2", server)


def test_a_new_timeout_counts_from_now(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 0.3)
    server.set_limits(idle_timeout=0.2)
    told = time.monotonic()
    assert read_to_eof(peer) == b""
    assert time.monotonic() - told >= 0.2
    peer.close()
    expect_stats(server, ended_by_idle_timeout=1)


@pytest.mark.parametrize("changed", [0.1, None])
def test_a_timeout_that_runs_is_shortened_or_taken_away(
    make_server: MakeServer, join: Join, changed: float | None
) -> None:
    server = make_server(idle_timeout=0.5 if changed is None else 600.0)
    peer = join(server)
    begun = time.monotonic()
    assert exchange(peer, b"x") == b"x"
    server.set_limits(idle_timeout=changed)
    if changed is None:
        wait_until(lambda: time.monotonic() - begun > 0.8)
        assert exchange(peer, b"y") == b"y"
        assert server.stats().connections_open == 1
    else:
        assert read_to_eof(peer) == b""


def test_a_first_byte_timeout_that_is_taken_away_ends_nobody(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(first_byte_timeout=0.2)
    peer = join(server)
    wait_until(lambda: server.stats().connections_open == 1)
    begun = time.monotonic()
    server.set_limits(first_byte_timeout=None)
    wait_until(lambda: time.monotonic() - begun > 0.5)
    assert exchange(peer, b"x") == b"x"


def test_idle_timeout_stays_when_first_byte_timeout_is_taken_away(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(first_byte_timeout=0.2, idle_timeout=0.3)
    peer = join(server)
    wait_until(lambda: server.stats().connections_open == 1)
    server.set_limits(first_byte_timeout=None)
    assert not is_reset(peer)
    peer.close()
    expect_stats(server, ended_by_idle_timeout=1, ended_by_first_byte_timeout=0)


def test_a_rate_can_be_set_and_lifted(make_server: MakeServer) -> None:
    server = make_server()
    server.set_limits(accept_rate=1)
    wait_until(lambda: not is_served_from("127.0.0.1", server))
    server.set_limits(accept_rate=None)
    for _ in range(20):
        assert is_served_from("127.0.0.1", server)


def test_limits_set_before_the_start_are_in_force(make_server: MakeServer) -> None:
    server = fastecho.Server()
    server.set_limits(max_connections=1)
    with server, connect(server) as inside:
        assert exchange(inside, b"x") == b"x"
        assert is_turned_away(server)
        inside.shutdown(socket.SHUT_WR)
        assert read_to_eof(inside) == b""
    server.set_limits(max_connections=2)  # ended: nothing is left to tell


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_connections": 0}, "max_connections 0 must be a whole number from 1 to"),
        ({"threads": 2}, "threads 2 cannot change: max_connections, max_per_ip, "),
        ({"idle_timeout": 5.0, "nonsense": 1}, "nonsense 1 cannot change: "),
    ],
)
def test_a_wrong_limit_is_named_and_changes_nothing(
    make_server: MakeServer, limits: dict[str, object], message: str
) -> None:
    server = make_server()
    before = server.config
    with pytest.raises(fastecho.ConfigError) as caught:
        server.set_limits(**limits)
    assert str(caught.value).startswith(message)
    assert server.config is before


def test_limits_that_change_all_the_time_lose_nothing(make_server: MakeServer) -> None:
    """While connections come, echo and go on two workers."""
    from fastecho._load import Load

    server = make_server(threads=2)
    assert server.host is not None and server.port is not None
    address = (server.host, server.port)
    with (
        Load([(socket.AF_INET, address)], connections=8, mode="reconnect") as load,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(load.run, 1.0)
        turns = 0
        while not running.done():
            turns += 1
            server.set_limits(
                max_per_ip=(None, 1000)[turns % 2],
                idle_timeout=(None, 60.0, 90.0)[turns % 3],
                first_byte_timeout=(None, 60.0)[turns // 2 % 2],
                accept_rate=(None, 1_000_000)[turns % 2],
            )
        result = running.result()
    assert turns > 100
    assert result["messages"] == result["sent"] > 100
    assert result["failures"] == []
    expect_stats(server, connections_open=0, shed_max_per_ip=0, shed_accept_rate=0)
