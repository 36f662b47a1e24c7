"""Each errno that a socket call of a served connection can give has its rule and its counter.

The shim lets one connection's calls fail. Its neighbour, which is served by the same worker, must
never notice, and a newcomer must be served afterwards. (Failures of accept4 and a want of
descriptors: test_errno_accept.py.)
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from conftest import Join, Serve
from peers import (
    connect,
    exchange,
    expect_stats,
    is_reset,
    pattern,
    port_of,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)
from served import Served


@pytest.fixture
def neighbour(served: Served, join: Join) -> Iterator[socket.socket]:
    """Return a connection that exists before anything fails; it and a newcomer go on after."""
    neighbour = join(served.address)
    assert exchange(neighbour, b"before") == b"before"
    yield neighbour
    assert same(exchange(neighbour, pattern(50_000)), pattern(50_000))
    with connect(served.address) as newcomer:
        assert exchange(newcomer, b"after") == b"after"


@pytest.fixture
def victim(served: Served, neighbour: socket.socket, join: Join) -> socket.socket:
    """Return the connection whose calls are to fail."""
    victim = join(served.address)
    assert exchange(victim, b"before") == b"before"
    return victim


def ends(sock: socket.socket) -> None:
    """Hold that the connection ends, by FIN or by RST."""
    is_reset(sock)


LOST = ["ECONNRESET", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "ECONNREFUSED", "EIO"]
"""The last one has no rule of its own: whatever nobody has foreseen is treated alike."""


@pytest.mark.parametrize("error", LOST)
@pytest.mark.parametrize("call", ["recv", "send"])
def test_lost_connection_is_ended_and_counted_by_errno(
    served: Served, victim: socket.socket, call: str, error: str
) -> None:
    served.rule(call, port=port_of(victim), error=error)
    victim.sendall(b"x")
    ends(victim)
    dropped = 1 if call == "send" else 0
    expect_stats(
        served, connections_closed=1, ended_by_error=1, errors={error: 1}, bytes_dropped=dropped
    )


@pytest.mark.parametrize("error", ["ETIMEDOUT", "EIO", "ENOBUFS", "ENOMEM"])
@pytest.mark.parametrize("call", ["recv", "send"])
def test_echo_that_was_cut_short_never_ends_by_fin(
    served: Served, victim: socket.socket, call: str, error: str
) -> None:
    """A FIN says that everything was echoed. This peer must see that it was not."""
    served.rule(call, port=port_of(victim), error=error)
    victim.sendall(b"never echoed")
    assert is_reset(victim)


def test_error_in_the_middle_of_bulk_ends_that_connection(
    served: Served, victim: socket.socket
) -> None:
    """The second recv of one event: its error is reported once, so it must not be lost."""
    served.rule("recv", port=port_of(victim), limit=40_000, times=1)
    served.rule("recv", port=port_of(victim), error="ETIMEDOUT", times=1)
    with served.paused():
        victim.sendall(pattern(100_000))
    ends(victim)
    expect_stats(
        served,
        ended_by_error=1,
        errors={"ETIMEDOUT": 1},
        bytes_in=40_012,
        bytes_out=40_012,
        bytes_dropped=40_000,
    )


def test_want_of_memory_in_the_middle_of_bulk_is_counted_and_costs_nothing(
    served: Served, victim: socket.socket
) -> None:
    served.rule("recv", port=port_of(victim), limit=40_000, times=1)
    served.rule("recv", port=port_of(victim), error="ENOMEM", times=1)
    with served.paused():
        victim.sendall(pattern(100_000))
    assert same(recv_exactly(victim, 100_000), pattern(100_000))
    expect_stats(served, ended_by_error=0, errors={"ENOMEM": 1})


def test_error_of_a_flush_drops_what_was_pending(served: Served, victim: socket.socket) -> None:
    served.rule("send", port=port_of(victim), limit=10, times=2)
    served.rule("send", port=port_of(victim), error="EHOSTUNREACH")
    victim.sendall(b"x" * 100)
    ends(victim)
    expect_stats(
        served, errors={"EHOSTUNREACH": 1}, bytes_out=112, bytes_dropped=80, bytes_pending=0
    )


@pytest.mark.parametrize("call", ["recv", "send"])
@pytest.mark.parametrize("error", ["EAGAIN", "EINTR"])
def test_call_that_is_to_be_repeated_is_no_error(
    served: Served, victim: socket.socket, call: str, error: str
) -> None:
    served.rule(call, port=port_of(victim), error=error, times=3)
    assert same(exchange(victim, pattern(1000)), pattern(1000))
    victim.shutdown(socket.SHUT_WR)
    assert read_to_eof(victim) == b""
    wait_until(lambda: served.stats().ended_by_peer == 1)
    assert served.stats().errors == {}
    assert served.clear_rules() == 3


def test_calls_that_are_interrupted_again_and_again_lose_nothing(
    served: Served, victim: socket.socket
) -> None:
    for call in ("recv", "send", "epoll_wait"):
        served.rule(call, error="EINTR", times=50)
    data = pattern(200_000)
    assert same(exchange(victim, data), data)
    assert served.stats().errors == {}


def test_spurious_event_is_no_end(served: Served, victim: socket.socket) -> None:
    """Epoll said readable, recv says EAGAIN: nothing was closed, nothing is counted."""
    served.rule("recv", port=port_of(victim), error="EAGAIN", times=20)
    victim.sendall(b"patience")
    assert recv_exactly(victim, 8) == b"patience"
    assert served.stats().errors == {}


MEMORY = ["ENOBUFS", "ENOMEM"]


@pytest.mark.parametrize("error", MEMORY)
@pytest.mark.parametrize("call", ["recv", "send"])
def test_first_refusal_of_memory_is_forgiven_and_counted(
    served: Served, victim: socket.socket, call: str, error: str
) -> None:
    served.rule(call, port=port_of(victim), error=error, times=1)
    assert same(exchange(victim, pattern(1000)), pattern(1000))
    assert served.stats().errors == {error: 1}
    # Success in between makes the next refusal a first one again.
    served.rule(call, port=port_of(victim), error=error, times=1)
    assert same(exchange(victim, pattern(1000)), pattern(1000))
    stats = served.stats()
    assert stats.errors == {error: 2}
    assert stats.connections_closed == 0


@pytest.mark.parametrize("error", MEMORY)
@pytest.mark.parametrize("call", ["recv", "send"])
def test_second_refusal_of_memory_ends_that_connection(
    served: Served, victim: socket.socket, call: str, error: str
) -> None:
    served.rule(call, port=port_of(victim), error=error)
    victim.sendall(b"x")
    ends(victim)
    expect_stats(served, connections_closed=1, ended_by_error=1, errors={error: 2})
    assert served.clear_rules() == 2  # no third try: that would be a busy loop


@pytest.mark.parametrize("error", ["ENOMEM", "ENOSPC"])
def test_newcomer_that_epoll_refuses_is_reset(
    served: Served, neighbour: socket.socket, error: str
) -> None:
    with socket.socket() as sock:
        sock.settimeout(10)
        sock.bind(("127.0.0.1", 0))
        served.rule("epoll_ctl", operation="add", port=port_of(sock), error=error)
        host, _, port = served.address.rpartition(":")
        try:
            sock.connect((host, int(port)))
            assert is_reset(sock)
        except ConnectionResetError:
            pass  # the RST was there before connect had looked
    expect_stats(served, connections_closed=1, ended_by_no_memory=1, errors={error: 1})


@pytest.mark.parametrize("error", ["ENOMEM", "ENOSPC"])
def test_connection_whose_change_epoll_refuses_is_reset(
    served: Served, victim: socket.socket, error: str
) -> None:
    """A short write asks for EPOLLOUT; without it the rest would never be sent."""
    served.rule("send", port=port_of(victim), limit=1, times=1)
    served.rule("epoll_ctl", operation="mod", port=port_of(victim), error=error, times=1)
    victim.sendall(b"xyz")
    assert is_reset(victim)
    expect_stats(served, ended_by_no_memory=1, errors={error: 1}, bytes_dropped=2, bytes_pending=0)


def test_failing_epoll_del_leaves_nothing_behind(served: Served, victim: socket.socket) -> None:
    served.rule("epoll_ctl", operation="del", port=port_of(victim), error="EBADF")
    victim.shutdown(socket.SHUT_WR)
    assert read_to_eof(victim) == b""
    wait_until(lambda: served.stats().ended_by_peer == 1)


@pytest.mark.parametrize("error", ["EBADF", "EINVAL", "EIO"])
def test_failing_epoll_wait_is_counted_and_survived(
    served: Served, neighbour: socket.socket, error: str
) -> None:
    served.rule("epoll_wait", error=error, times=50)
    for _ in range(3):
        assert exchange(neighbour, b"still there") == b"still there"
    assert served.stats().errors == {error: 50}


def test_epoll_wait_that_fails_for_ever_ends_the_worker_and_resets_its_connections(
    serve_shimmed: Serve, join: Join
) -> None:
    served = serve_shimmed(threads=1)
    peers = [join(served.address) for _ in range(3)]
    for peer in peers:
        exchange(peer, b"served")
    served.rule("epoll_wait", error="EBADF")
    peers[0].sendall(b"wakes it")
    assert [is_reset(peer) for peer in peers] == [True] * 3
    wait_until(lambda: "worker 0 cannot go on" in served.errors())
    wait_until(lambda: served.stats().connections_open == 0)
    assert served.stats().ended_by_abort == 3
    with pytest.raises(ConnectionRefusedError):
        connect(served.address)
