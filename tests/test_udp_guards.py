"""The guards of the UDP echo: who is not answered, floods that hurt nobody else, loops that end.

Two servers that echo to each other are made without raw sockets: a socket on the second one's
address sends the first a datagram while that stands still; then the second binds the address.
"""

from __future__ import annotations

import logging
import socket

import pytest
from conftest import MakeServer, Serve
from datagrams import ask, collect, forge, open_socket, place_of, send_train, wait_for_rest
from peers import expect_stats, wait_until
from served import Served

LOOP_ROUNDS = 1000
"""FE_LOOP_ROUNDS of src_c/datagram.h."""


def free_port(host: str) -> int:
    with open_socket(host) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_no_port_below_1024_is_answered(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0")
    for port in range(1023, 900, -1):
        try:
            sock = open_socket("127.0.0.1", port)
        except PermissionError:
            pytest.skip("ports below 1024 take root")
        except OSError:
            continue
        break
    with sock:
        sock.sendto(b"x", place_of(server.address))
        expect_stats(server, datagrams_in=1, datagrams_out=0, datagrams_refused_port=1)
        assert collect(sock, 1) == []


def test_no_port_of_ours_is_answered_whatever_its_address(make_server: MakeServer) -> None:
    server = make_server(["udp://127.0.0.1:0", "udp://127.0.0.1:0"])
    first, second = server.addresses
    for port in (place_of(first)[1], place_of(second)[1]):
        with open_socket("127.0.0.7", port) as sock:
            sock.sendto(b"x", place_of(first))
    expect_stats(server, datagrams_in=2, datagrams_out=0, datagrams_refused_port=2)


def test_what_is_sent_to_a_broadcast_address_is_not_answered(make_server: MakeServer) -> None:
    server = make_server("udp://0.0.0.0:0")
    with open_socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(b"x", place_of(server.address, "127.255.255.255"))
        expect_stats(server, datagrams_in=1, datagrams_out=0, datagrams_refused_address=1)


def test_what_is_sent_to_a_group_is_not_answered(make_server: MakeServer) -> None:
    """A socket of every address hears each group that anybody on the machine has joined."""
    server = make_server("udp://0.0.0.0:0")
    group, loopback = "239.255.7.7", socket.inet_aton("127.0.0.1")
    with open_socket("0.0.0.0") as member, open_socket() as sock:
        member.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + loopback
        )
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        sock.sendto(b"x", place_of(server.address, group))
        expect_stats(server, datagrams_in=1, datagrams_out=0, datagrams_refused_address=1)


def test_without_guards_all_of_them_are_answered(make_server: MakeServer) -> None:
    server = make_server(["udp://127.0.0.1:0", "udp://127.0.0.1:0"], udp_guards=False)
    first, second = server.addresses
    with open_socket("127.0.0.7", place_of(second)[1]) as sock:
        sock.sendto(b"x", place_of(first))
        assert collect(sock, 1, quiet=5.0) == [b"x"]


def test_a_flood_of_one_source_costs_another_nothing(make_server: MakeServer) -> None:
    """The bucket is an address's, not a port's."""
    server = make_server("udp://127.0.0.1:0", udp_rate=50)
    place = place_of(server.address)
    with open_socket("127.0.0.1") as one, open_socket("127.0.0.1") as two:
        for _ in range(500):
            one.sendto(b"flood", place)
            two.sendto(b"flood", place)
        for number in range(40):
            data = b"%d" % number
            assert ask(server.address, data, source="127.0.0.2")[0] == data
        expect_stats(server, datagrams_in=1040)
        stats = server.stats()
        assert stats.datagrams_out == 1040 - stats.datagrams_refused_rate
        assert 50 + 40 <= stats.datagrams_out < 50 + 40 + 200


@pytest.mark.parametrize("rate", [1, 3, 7, 999])
def test_a_burst_of_one_second_is_answered_whole(make_server: MakeServer, rate: int) -> None:
    """Also where a second in ns cannot be divided by the rate."""
    server = make_server("udp://127.0.0.1:0", udp_rate=rate)
    with open_socket() as sock:
        for number in range(rate):
            sock.sendto(b"%d" % number, place_of(server.address))
        expect_stats(server, datagrams_in=rate, datagrams_out=rate)


def test_a_train_that_is_refused_counts_as_its_datagrams(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0", udp_rate=2)
    with open_socket() as sock:
        send_train(sock, b"x" * 250, 100, place_of(server.address))
        expect_stats(server, datagrams_in=3, datagrams_out=0, datagrams_refused_rate=3)


def test_trouble_is_told_with_the_guard_that_it_was(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fastecho")
    server = make_server("udp://127.0.0.1:0", udp_rate=1)
    with open_socket() as sock:
        for _ in range(10):
            sock.sendto(b"x", place_of(server.address))
        expect_stats(server, datagrams_in=10, datagrams_refused_rate=9)
    server.stop()
    told = [one.getMessage() for one in caplog.records]
    assert sum(int(one.split()[0]) for one in told) == 9
    assert all("not answered, by guard: rate " in one for one in told)


# --- loops --------------------------------------------------------------------------------------


def loop(serve_apart: Serve, data: bytes = b"x", **config: object) -> list[Served]:
    """Return two servers, between which a datagram is on its way from the first one's point."""
    first = serve_apart(bind="udp://127.0.0.1:0", **config)
    second_place = ("127.0.0.1", free_port("127.0.0.1"))
    with first.paused():
        forge(first, second_place, data)
        second = serve_apart(bind=f"udp://127.0.0.1:{second_place[1]}", **config)
    return [first, second]


def test_two_servers_without_guards_loop(serve_apart: Serve) -> None:
    """So the next ones show something."""
    servers = loop(serve_apart, udp_rate=None, udp_guards=False)
    wait_until(lambda: servers[0].stats().datagrams_in > 10 * LOOP_ROUNDS)
    servers[0].end()


@pytest.mark.parametrize("rate", [100, 1000])
def test_a_loop_ends_at_the_bucket(serve_apart: Serve, rate: int) -> None:
    """A datagram that finds it empty is dropped, and it was the only one."""
    servers = loop(serve_apart, udp_rate=rate, udp_guards=False)
    rounds = wait_for_rest(servers, 20 * rate)
    assert 2 * rate <= rounds < 4 * rate
    assert sum(one.stats().datagrams_refused_rate for one in servers) == 1


def test_a_loop_below_every_rate_ends_as_a_loop(serve_apart: Serve) -> None:
    servers = loop(serve_apart, udp_rate=None)
    rounds = wait_for_rest(servers, 10 * LOOP_ROUNDS)
    assert rounds == 2 * LOOP_ROUNDS + 1
    assert sum(one.stats().datagrams_refused_loop for one in servers) == 1


def test_with_default_settings_a_loop_ends_soon(serve_apart: Serve) -> None:
    servers = loop(serve_apart)
    assert 0 < wait_for_rest(servers, 10 * LOOP_ROUNDS) <= 2 * LOOP_ROUNDS + 1


def test_a_loop_that_grows_by_a_prefix_ends_as_a_loop(serve_apart: Serve) -> None:
    servers = loop(serve_apart, udp_rate=None, prefix="*")
    assert wait_for_rest(servers, 10 * LOOP_ROUNDS) == 2 * LOOP_ROUNDS + 2


def test_who_asks_the_same_again_and_again_is_told(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It looks like a loop: one in a thousand is not answered, and the log says so."""
    caplog.set_level(logging.WARNING, "fastecho")
    server = make_server("udp://127.0.0.1:0", udp_rate=None)
    with open_socket() as sock:
        for _ in range(LOOP_ROUNDS):
            sock.sendto(b"same", place_of(server.address))
            assert sock.recv(100) == b"same"
        sock.sendto(b"same", place_of(server.address))
        expect_stats(server, datagrams_refused_loop=1)
        sock.sendto(b"same", place_of(server.address))
        assert sock.recv(100) == b"same"
    server.stop()
    assert [one.getMessage() for one in caplog.records] == [
        "1 datagram was not answered, by guard: loop 1"
    ]
