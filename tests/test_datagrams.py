"""A UDP socket of a client: who answers, ICMP errors, the next address. No extension is needed."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from datagram_peers import DatagramServer, answering_datagrams, refusing_port
from peers import DEADLINE, has_ipv6

from fastecho.datagrams import HAS_QUEUE, LARGEST, Datagrams

T = TypeVar("T")
LINUX = pytest.mark.skipif(not HAS_QUEUE, reason="needs Linux's queue of errors (IP_RECVERR)")
IPV6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


def at(port: int, host: str = "127.0.0.1") -> tuple[int, tuple[object, ...]]:
    """Return family and socket address."""
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0]
    return int(found[0]), found[4]


def awaited(datagrams: Datagrams, look: Callable[[], T | None]) -> T:
    """Wait until there is something, and return it."""
    poller = select.poll()
    poller.register(datagrams, select.POLLIN)
    assert poller.poll(DEADLINE * 1e3)
    found = look()
    assert found is not None
    return found


@pytest.fixture
def server() -> Iterator[DatagramServer]:
    with answering_datagrams() as running:
        yield running


def test_what_comes_has_the_address_of_whom_was_asked(server: DatagramServer) -> None:
    with Datagrams([at(server.port)]) as datagrams:
        assert datagrams.receive() is None
        assert datagrams.error() is None
        datagrams.send(b"hello")
        assert awaited(datagrams, datagrams.receive) == (b"hello", datagrams.place)
        assert datagrams.peer == server.address.removeprefix("udp://")
        assert datagrams.local == "{}:{}".format(*(server.peer or ()))


@pytest.mark.parametrize(
    ("host", "peer"),
    [("0.0.0.0", "127.0.0.1"), pytest.param("::ffff:127.0.0.1", "[::ffff:127.0.0.1]", marks=IPV6)],
)
def test_every_way_to_write_an_address_knows_its_answers(
    server: DatagramServer, host: str, peer: str
) -> None:
    with Datagrams([at(server.port, host)]) as datagrams:
        datagrams.send(b"hello")
        assert awaited(datagrams, datagrams.receive) == (b"hello", datagrams.place)
        assert datagrams.peer == f"{peer}:{server.port}"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", pytest.param("::1", marks=IPV6), pytest.param("::ffff:127.0.0.1", marks=IPV6)],
)
@LINUX
def test_a_refusal_quotes_what_was_refused_and_costs_no_other_datagram(host: str) -> None:
    with Datagrams([at(refusing_port(), host)]) as datagrams:
        for data in (b"first", b"second"):
            datagrams.send(data)  # does not fail, though an error is waiting by now
            assert awaited(datagrams, datagrams.error) == (errno.ECONNREFUSED, data)
        assert list(datagrams.errors()) == []
        assert list(datagrams.some()) == []


@LINUX
def test_an_answer_from_elsewhere_is_seen(server: DatagramServer) -> None:
    with Datagrams([at(server.port)]) as datagrams:
        datagrams.send(b"hello")
        awaited(datagrams, datagrams.receive)
        server.other.sendto(b"psst", datagrams.sock.getsockname())
        assert awaited(datagrams, datagrams.receive) == (b"psst", server.other.getsockname())


def test_the_largest_datagram_is_sent_and_no_larger_one(server: DatagramServer) -> None:
    with Datagrams([at(server.port)]) as datagrams:
        datagrams.send(bytes(LARGEST))
        assert len(awaited(datagrams, datagrams.receive)[0]) == LARGEST
        with pytest.raises(OSError, match="Message too long"):
            datagrams.send(bytes(LARGEST + 1))


def test_the_next_address_has_a_socket_of_its_own_and_then_there_is_none(
    server: DatagramServer,
) -> None:
    with Datagrams([at(refusing_port()), at(server.port)]) as datagrams:
        first = datagrams.fileno(), datagrams.sock
        assert datagrams.move_on()
        assert first[1].fileno() == -1
        datagrams.send(b"hello")
        assert awaited(datagrams, datagrams.receive) == (b"hello", datagrams.place)
        assert not datagrams.move_on()
        assert datagrams.peer == server.address.removeprefix("udp://")


def test_what_this_machine_has_no_way_to_is_passed_over(server: DatagramServer) -> None:
    nowhere = at(9, "255.255.255.255")  # not without SO_BROADCAST
    with Datagrams([nowhere, at(server.port)]) as datagrams:
        assert datagrams.peer == server.address.removeprefix("udp://")
    with pytest.raises(PermissionError):
        Datagrams([nowhere])


def test_a_port_of_ours_is_no_privileged_one(server: DatagramServer) -> None:
    with Datagrams([at(server.port)]) as datagrams:
        assert datagrams.sock.getsockname()[1] >= 1024


def test_without_a_queue_of_errors_the_socket_is_connected(
    server: DatagramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on systems other than Linux."""
    monkeypatch.setattr("fastecho.datagrams.HAS_QUEUE", False)
    with Datagrams([at(refusing_port()), at(server.port)]) as datagrams:
        datagrams.send(b"hello")
        assert awaited(datagrams, datagrams.error) == (errno.ECONNREFUSED, b"")
        datagrams.send(b"hello")
        datagrams.send(b"hello")  # does not fail, though an error is waiting by now
        assert list(datagrams.errors()) == [(errno.ECONNREFUSED, b"")] * 2
        assert datagrams.move_on()
        datagrams.send(b"hello")
        assert awaited(datagrams, datagrams.receive) == (b"hello", datagrams.place)
