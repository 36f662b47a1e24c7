"""UDP: every datagram comes back as it was, once, from the address that was asked."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from pathlib import Path

import pytest
from conftest import MakeServer, Serve
from datagrams import SOL_UDP, UDP_GRO, ask, collect, open_socket, place_of, send_train
from peers import expect_stats, has_ipv6, pattern

import fastecho
from fastecho.address import Address
from fastecho.datagram_socket import DatagramSocket
from fastecho.errors import ConfigError, StartError

LONGEST = 65507
"""Bytes of the longest IPv4 datagram."""
SO_TIMESTAMP, IP_RECVTTL = 29, 12
"""Of asm-generic/socket.h and linux/in.h; Python has no names for them."""
needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize("size", [0, 1, 64, 1472, 1473, 9000, LONGEST])
def test_a_datagram_of_any_size_comes_back_as_it_was(make_server: MakeServer, size: int) -> None:
    server = make_server("udp://127.0.0.1:0")
    data = pattern(size)
    assert ask(server.address, data) == (data, "127.0.0.1")
    expect_stats(
        server, datagrams_in=1, datagrams_out=1, datagram_bytes_in=size, datagram_bytes_out=size,
        bytes_in=0, connections_accepted=0,
    )  # fmt: skip


@needs_ipv6
def test_over_ipv6_as_well(make_server: MakeServer) -> None:
    server = make_server("udp://[::1]:0")
    data = pattern(65487)
    assert ask(server.address, data) == (data, "::1")


def test_prefix_and_suffix_are_put_round_each_datagram(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0", prefix="you said: ", suffix="!", frame="line")
    assert ask(server.address, b"hello\n")[0] == b"you said: hello\n!"
    assert ask(server.address, b"")[0] == b"you said: !"
    data = pattern(LONGEST - 11)
    assert ask(server.address, data)[0] == b"you said: " + data + b"!"
    with open_socket() as sock:
        sock.sendto(pattern(LONGEST), place_of(server.address))
        expect_stats(server, datagrams_in=4, datagrams_out=4, datagrams_too_long=1, errors={})
        assert collect(sock, 1) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3"])
def test_the_reply_comes_from_the_address_that_was_asked(
    make_server: MakeServer, host: str
) -> None:
    server = make_server("udp://0.0.0.0:0")
    assert ask(server.address, b"x", host=host) == (b"x", host)


@needs_ipv6
def test_every_address_means_a_socket_for_each_family_on_one_port(make_server: MakeServer) -> None:
    server = make_server("udp://:0")
    four, six = server.addresses
    assert four.startswith("udp://0.0.0.0:") and six.startswith("udp://[::]:")
    assert place_of(four)[1] == place_of(six)[1] == server.port
    assert ask(four, b"four", host="127.0.0.9") == (b"four", "127.0.0.9")
    assert ask(six, b"six", host="::1") == (b"six", "::1")


def test_each_thread_has_a_socket_of_its_own_and_each_source_one_thread(
    make_server: MakeServer,
) -> None:
    server = make_server("udp://127.0.0.1:0", threads=3)
    assert len(server.sockets) == len(server.datagram_sockets) == 3
    assert len(server.addresses) == 1
    for number in range(60):
        assert ask(server.address, b"%d" % number)[0] == b"%d" % number
    stats = server.stats()
    assert stats.datagrams_in == stats.datagrams_out == 60
    assert all(worker.datagrams_in for worker in stats.workers)


def test_tcp_and_udp_share_a_port_number(make_server: MakeServer) -> None:
    server = make_server()
    both = make_server([f"udp://127.0.0.1:{server.port}", "127.0.0.1:0"])
    assert both.addresses == [both.address, f"udp://127.0.0.1:{server.port}"]
    assert both.address.startswith("127.0.0.1:")
    assert ask(both.addresses[1], b"x")[0] == b"x"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_port_that_somebody_has_is_refused(make_server: MakeServer, threads: int) -> None:
    """Also one of ours, with SO_REUSEPORT: each would get a part of the datagrams."""
    taken = make_server("udp://127.0.0.1:0", threads=threads)
    second = fastecho.Server(["127.0.0.1:0", taken.address], threads=threads)
    with pytest.raises(StartError, match="the address is in use") as caught:
        second.start()
    assert caught.value.errno == errno.EADDRINUSE
    assert second.addresses == []


@pytest.mark.parametrize("host", ["127.255.255.255", "255.255.255.255", "224.0.0.1", "[ff02::1]"])
def test_an_address_of_many_machines_is_refused(host: str) -> None:
    with pytest.raises(StartError, match=r"is not an address of one machine|cannot listen on"):
        fastecho.Server(f"udp://{host}:0").start()


def test_a_train_comes_back_datagram_by_datagram(make_server: MakeServer) -> None:
    """Whatever the peer's socket takes: single ones, or the train."""
    server = make_server("udp://127.0.0.1:0")
    data = pattern(10 * 100 + 30)
    with open_socket() as sock:
        send_train(sock, data, 100, place_of(server.address))
        replies = collect(sock, 11)
        assert [len(one) for one in replies] == [100] * 10 + [30]
        assert b"".join(replies) == data
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        send_train(sock, data, 100, place_of(server.address))
        reply, beside, _, _ = sock.recvmsg(1 << 16, 64)
        assert reply == data
        assert [struct.unpack("=i", one[2])[0] for one in beside] == [100]
    expect_stats(server, datagrams_in=22, datagrams_out=22, datagram_bytes_out=2 * len(data))


def test_each_datagram_of_a_train_gets_its_own_prefix(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0", prefix="> ")
    with open_socket() as sock:
        send_train(sock, b"aaabbbcc", 3, place_of(server.address))
        assert collect(sock, 3) == [b"> aaa", b"> bbb", b"> cc"]
    expect_stats(server, datagrams_in=3, datagrams_out=3)


def test_many_that_wait_are_answered_in_their_order(serve_apart: Serve) -> None:
    """More than one batch, and more than one event may take."""
    served = serve_apart(bind="udp://127.0.0.1:0", udp_rate=None)
    sent = [b"%d" % number for number in range(600)]
    with open_socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        with served.paused():
            for data in sent:
                sock.sendto(data, place_of(served.address))
        answered = collect(sock, 600)
    lost = served.stats().datagrams_overflowed
    assert answered == sent[: 600 - lost]


def test_the_receive_buffer_is_told_as_it_is(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0", receive_buffer=30_000, threads=2)
    for one in server.datagram_sockets:
        real = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert one.receive_buffer == real == 60_000


def test_what_finds_the_buffer_full_is_counted(serve_apart: Serve) -> None:
    served = serve_apart(bind="udp://127.0.0.1:0", udp_rate=None, receive_buffer=8192)
    with open_socket() as sock:
        with served.paused():
            for _ in range(100):
                sock.sendto(b"x" * 1000, place_of(served.address))
        answered = len(collect(sock, 100))
    stats = served.stats()
    assert 0 < answered == stats.datagrams_in < 100
    assert stats.datagrams_overflowed == 100 - answered


def test_what_was_lost_up_to_the_end_is_still_known() -> None:
    with open_socket() as sock:
        one = DatagramSocket(open_socket(), Address("udp", host="127.0.0.1", port=0))
        one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        for _ in range(50):
            sock.sendto(b"x" * 1000, one.socket.getsockname())
        one.close()
        assert 0 < one.drops() < 50


def test_what_has_come_is_answered_before_it_stops(serve_apart: Serve) -> None:
    """More than it takes at one event."""
    served = serve_apart(bind="udp://127.0.0.1:0", udp_rate=None)
    with open_socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        with served.paused():
            for _ in range(400):
                sock.sendto(b"x", place_of(served.address))
            served.begin_end(by="stop")
        assert len(collect(sock, 400)) == 400
        served.end()
        sock.connect(place_of(served.address))
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


def test_a_reply_without_room_is_lost_and_counted(serve_shimmed: Serve) -> None:
    served = serve_shimmed(bind="udp://127.0.0.1:0", udp_rate=None)
    with open_socket() as sock:
        served.rule("sendmmsg", error="EAGAIN", times=1)
        with served.paused():
            for number in range(5):
                sock.sendto(b"%d" % number, place_of(served.address))
        assert collect(sock, 5) == []
        expect_stats(served, datagrams_in=5, datagrams_out=5, datagrams_unsent=5, errors={})
        sock.sendto(b"again", place_of(served.address))
        assert collect(sock, 1) == [b"again"]


def test_a_reply_that_fails_costs_no_other(serve_shimmed: Serve) -> None:
    """The call tells an error only of the first message that it is given."""
    served = serve_shimmed(bind="udp://127.0.0.1:0", udp_rate=None)
    sent = [b"%d" % 10**number for number in range(6)]  # each longer than the last: no train
    with open_socket() as sock:
        served.rule("sendmmsg", limit=2, times=1)
        served.rule("sendmmsg", error="EPERM", times=1)
        with served.paused():
            for data in sent:
                sock.sendto(data, place_of(served.address))
        assert collect(sock, 6) == [*sent[:2], *sent[3:]]
    expect_stats(served, datagrams_out=6, datagrams_failed=1, errors={"EPERM": 1})


def test_a_train_that_cannot_leave_as_one_leaves_by_pieces(serve_shimmed: Serve) -> None:
    """A device without checksums says EIO; one datagram is what it always takes."""
    served = serve_shimmed(bind="udp://127.0.0.1:0", udp_rate=None)
    data = pattern(450)
    with open_socket() as sock:
        served.rule("sendmmsg", error="EIO", times=1)
        send_train(sock, data, 100, place_of(served.address))
        replies = collect(sock, 5)
        assert [len(one) for one in replies] == [100, 100, 100, 100, 50]
        assert b"".join(replies) == data
    expect_stats(served, datagrams_out=5, datagrams_failed=0, errors={})


def test_receiving_that_fails_again_and_again_rests_and_goes_on(serve_shimmed: Serve) -> None:
    served = serve_shimmed(bind="udp://127.0.0.1:0")
    with open_socket() as sock:
        served.rule("recvmmsg", error="ENOMEM", times=200)
        sock.sendto(b"x", place_of(served.address))
        assert collect(sock, 1, quiet=5.0) == [b"x"]
    stats = served.stats()
    assert stats.errors == {"ENOMEM": 200}
    assert stats.iterations < 1000


def test_an_inherited_socket_is_shared_by_all_threads(make_server: MakeServer) -> None:
    with open_socket() as given:
        server = make_server(f"fd://{given.fileno()}", threads=2)
        assert server.addresses == [f"udp://127.0.0.1:{given.getsockname()[1]}"]
        assert not server.datagram_sockets[0].owned
        assert ask(server.address, b"x")[0] == b"x"
        server.stop()
        assert given.fileno() >= 0


@pytest.mark.parametrize(
    "option",
    [
        (socket.SOL_SOCKET, SO_TIMESTAMP),  # the kernel would not take it beside a reply
        (socket.IPPROTO_IP, socket.IP_RECVTOS),  # and would give the reply this one
        (socket.IPPROTO_IP, IP_RECVTTL),
    ],
)
def test_what_somebody_asked_to_be_told_on_an_inherited_socket_is_no_reply_s(
    make_server: MakeServer, option: tuple[int, int]
) -> None:
    with open_socket() as given, open_socket() as sock:
        given.setsockopt(*option, 1)
        server = make_server(f"fd://{given.fileno()}")
        place = place_of(server.address)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
        for wanted in (socket.IP_RECVTOS, IP_RECVTTL):
            sock.setsockopt(socket.IPPROTO_IP, wanted, 1)
        sock.sendto(b"x", place)
        reply, beside, _, _ = sock.recvmsg(100, 300)
        assert reply == b"x"
        said = {kind: int.from_bytes(value, sys.byteorder) for _, kind, value in beside}
        assert said[socket.IP_TTL] != 33 and said[socket.IP_TOS] == 0
        send_train(sock, b"a" * 100 + b"b" * 100 + b"c" * 10, 100, place)
        assert collect(sock, 4) == [b"a" * 100, b"b" * 100, b"c" * 10]


@needs_ipv6
def test_an_inherited_socket_of_both_families_is_guarded_for_both(make_server: MakeServer) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as given, open_socket() as sock:
        given.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        given.bind(("::", 0))
        server = make_server(f"fd://{given.fileno()}")
        for host in ("127.0.0.1", "127.1.2.3", "::1"):
            assert ask(server.address, b"x", host=host) == (b"x", host)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(b"x", place_of(server.address, "127.255.255.255"))
        expect_stats(server, datagrams_in=4, datagrams_out=3, datagrams_refused_address=1)


@pytest.mark.parametrize("host", ["127.255.255.255", "224.0.0.1", "::ffff:224.0.0.1"])
def test_an_inherited_socket_of_many_machines_is_refused(host: str) -> None:
    with (
        open_socket(host) as given,
        pytest.raises(StartError, match=r"is not an address of one machine"),
    ):
        fastecho.Server(f"fd://{given.fileno()}").start()


def test_refusals_on_an_inherited_socket_do_not_wake_the_server_for_ever(
    make_server: MakeServer,
) -> None:
    """With IP_RECVERR they wait in a queue that nobody reads, and the kernel says so each time."""
    with open_socket() as given:
        given.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR of linux/in.h
        server = make_server(f"fd://{given.fileno()}")
        with open_socket() as gone:
            place = gone.getsockname()
            gone.sendto(b"x", place_of(server.address))
            assert gone.recv(100) == b"x"
        given.sendto(b"to nobody", place)
        assert ask(server.address, b"x")[0] == b"x"
        poller = select.poll()
        poller.register(given, 0)
        assert poller.poll(0) == []


def test_a_limit_changes_while_it_runs(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0", udp_rate=5)
    with open_socket() as sock:
        for _ in range(20):
            sock.sendto(b"x", place_of(server.address))
        expect_stats(server, datagrams_in=20)
        assert server.stats().datagrams_refused_rate >= 10
        server.set_limits(udp_rate=None)
        for _ in range(20):
            sock.sendto(b"x", place_of(server.address))
        expect_stats(server, datagrams_in=40)
        assert server.stats().datagrams_out >= 25


def test_close_gives_the_port_back(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0", threads=2)
    place = place_of(server.address)
    server.close()
    assert server.sockets == ()
    with open_socket(*place):
        pass


def test_it_has_no_accept_queue_and_cannot_refuse(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0")
    assert server.stats().listen_queue is None
    with pytest.raises(RuntimeError, match="no accept queue"):
        server.listen_queue()
    with pytest.raises(OSError, match="cannot refuse for a time") as caught:
        server.refuse()
    assert caught.value.errno == errno.EOPNOTSUPP


def test_callbacks_on_messages_are_for_connections() -> None:
    with pytest.raises(ConfigError, match="datagrams have no callbacks"):
        fastecho.Server("udp://127.0.0.1:0", on_message=lambda connection, data: data)


def test_a_child_of_the_process_has_no_part_in_it(make_server: MakeServer) -> None:
    server = make_server("udp://127.0.0.1:0")
    descriptors = [one.fileno() for one in server.sockets]
    child = os.fork()
    if child == 0:
        links = [Path(f"/proc/self/fd/{one}").exists() for one in descriptors]
        os._exit(any(links))
    assert os.waitpid(child, 0)[1] == 0
    assert ask(server.address, b"x")[0] == b"x"
