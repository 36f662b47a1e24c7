"""accept4 that fails: each errno has its rule, nothing is burnt, and service resumes.

Network errors concern one newcomer. A want of memory makes accepting rest for a moment. A want of
descriptors is answered with the reserve: the newcomer is reset at once instead of hanging in the
queue, and who is connected goes on.
"""

from __future__ import annotations

import contextlib
import errno
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from commands import COMMAND, serving
from conftest import Join, MakeServer, Serve
from peers import (
    connect,
    exchange,
    is_turned_away,
    iterations_at_rest,
    pattern,
    read_to_eof,
    recv_exactly,
    same,
    wait_until,
)
from served import Served

NEXT = [
    "ECONNABORTED",
    "EPERM",
    "EPROTO",
    "ENOPROTOOPT",
    "EOPNOTSUPP",
    "ENETDOWN",
    "ENETUNREACH",
    "ENONET",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "ETIMEDOUT",
]
"""accept(2): what the network has to say about a newcomer; the next one may be fine."""


@pytest.mark.parametrize("error", NEXT)
def test_network_error_of_one_newcomer_is_counted_and_accepting_goes_on(
    served: Served, join: Join, error: str
) -> None:
    served.rule("accept4", error=error, times=3)
    assert exchange(join(served.address), b"served") == b"served"
    stats = served.stats()
    # Two names can have one number (EOPNOTSUPP, ENOTSUP).
    name = errno.errorcode[getattr(errno, error)]
    assert (stats.accept_errors, stats.errors) == (3, {name: 3})
    assert (stats.accept_pauses, stats.shed_no_descriptors) == (0, 0)


@pytest.mark.parametrize("error", ["ENOBUFS", "ENOMEM", "EIO"])
def test_want_of_memory_makes_accepting_rest_and_resume(
    served: Served, join: Join, error: str
) -> None:
    """EIO stands for whatever nobody has foreseen."""
    talking = join(served.address)
    assert exchange(talking, b"served") == b"served"
    served.rule("accept4", error=error, times=2)
    newcomer = join(served.address)
    newcomer.sendall(b"waits in the queue")
    while served.stats().accept_pauses < 2:
        assert exchange(talking, b"goes on") == b"goes on"
    assert recv_exactly(newcomer, 18) == b"waits in the queue"
    stats = served.stats()
    assert (stats.accept_errors, stats.errors, stats.accept_pauses) == (2, {error: 2}, 2)


@pytest.mark.parametrize("error", ["EAGAIN", "EINTR"])
def test_accept_that_is_to_be_repeated_is_no_error(served: Served, join: Join, error: str) -> None:
    served.rule("accept4", error=error, times=5)
    assert exchange(join(served.address), b"served") == b"served"
    stats = served.stats()
    assert (stats.accept_errors, stats.accept_pauses, stats.errors) == (0, 0, {})
    assert served.clear_rules() == 5


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE"])
@pytest.mark.parametrize("served", [{}, {"threads": 2}], ids=["1", "2"], indirect=True)
def test_newcomer_without_a_descriptor_is_reset_by_the_reserve(
    served: Served, join: Join, error: str
) -> None:
    served.rule("accept4", error=error, times=1)
    assert is_turned_away(served.address)
    assert exchange(join(served.address), b"served") == b"served"
    wait_until(lambda: served.stats().shed_no_descriptors == 1)
    stats = served.stats()
    assert stats.accept_pauses == 0
    assert stats.errors == {error: 1}
    assert stats.connections_accepted == 1  # what was shed was never kept


def test_resting_is_given_up_for_good_when_the_server_ends(served: Served) -> None:
    served.rule("accept4", error="ENOMEM")
    with connect(served.address):
        wait_until(lambda: served.stats().accept_pauses)
        assert served.end().connections_open == 0


# --- a process that is really out of descriptors -------------------------------------------


def fill_descriptors(served: Served) -> None:
    """Leave the process not one descriptor more than it has."""
    served.limit_descriptors(served.usage().highest_descriptor + 1)


def test_process_out_of_descriptors_sheds_serves_and_resumes(
    serve_apart: Serve, join: Join
) -> None:
    served = serve_apart()
    inside = [join(served.address) for _ in range(20)]
    for peer in inside:
        assert exchange(peer, b"in") == b"in"
    fill_descriptors(served)
    for _ in range(50):
        assert is_turned_away(served.address)
    # The RST may be here before it is counted; what the worker does next comes after that.
    wait_until(lambda: served.stats().shed_no_descriptors == 50)
    assert exchange(inside[0], b"still in") == b"still in"
    stats = served.stats()
    assert (stats.shed_no_descriptors, stats.accept_pauses) == (50, 0)
    assert stats.errors == {"EMFILE": stats.accept_errors}
    # EMFILE comes before the look at the queue, so some calls fail in vain: a few for each.
    assert stats.accept_errors <= 50 * 4
    for peer in inside:
        assert exchange(peer, b"still in") == b"still in"
    cpu = served.usage().cpu
    assert iterations_at_rest(served, span=0.2) <= 3
    assert served.usage().cpu - cpu < 0.1
    assert served.stats().accept_errors == stats.accept_errors
    served.limit_descriptors(1000)
    for _ in range(20):
        assert exchange(join(served.address), b"again") == b"again"
    assert served.stats().shed_no_descriptors == 50


def test_workers_that_take_each_others_reserve_recover(serve_apart: Serve, join: Join) -> None:
    """One worker's accept may get the descriptor that another has freed to shed with.

    Then that newcomer is served, and the other worker rests until it has a reserve again.
    """
    served = serve_apart(threads=4)
    inside = [join(served.address) for _ in range(20)]
    for peer in inside:
        assert exchange(peer, b"in") == b"in"
    fill_descriptors(served)
    cpu = served.usage().cpu
    crowd: list[socket.socket] = []
    for turn in range(200):
        with contextlib.suppress(ConnectionResetError):
            crowd.append(join(served.address))
        assert exchange(inside[turn % 20], b"still in") == b"still in"
    assert served.usage().cpu - cpu < 1
    served.limit_descriptors(1000)
    # Nobody hangs: who was not reset is served now.
    served_too = 0
    for peer in crowd:
        with contextlib.suppress(ConnectionError):
            peer.sendall(b"x")
            served_too += recv_to_end(peer) == b"x"
    wait_until(lambda: served_too + served.stats().shed_no_descriptors == 200)
    assert served_too == served.stats().connections_accepted - 20
    assert exchange(join(served.address), b"new") == b"new"


def recv_to_end(sock: socket.socket) -> bytes:
    """Half-close, and return what comes until the end."""
    sock.shutdown(socket.SHUT_WR)
    return read_to_eof(sock)


def test_descriptor_that_becomes_free_is_used(serve_apart: Serve, join: Join) -> None:
    served = serve_apart()
    first = join(served.address)
    assert exchange(first, b"in") == b"in"
    fill_descriptors(served)
    assert is_turned_away(served.address)
    first.close()
    wait_until(lambda: served.stats().connections_open == 0)
    assert exchange(join(served.address), b"in") == b"in"
    assert is_turned_away(served.address)


def test_lost_reserve_makes_accepting_rest_instead_of_spinning(
    serve_apart: Serve, join: Join
) -> None:
    """The limit falls below the reserve's own number: it can be closed, but not opened again."""
    served = serve_apart()
    talking = join(served.address)
    assert exchange(talking, b"in") == b"in"
    served.limit_descriptors(3)
    waiting = [join(served.address) for _ in range(3)]
    waiting[0].sendall(b"late")
    wait_until(lambda: served.stats().accept_pauses >= 1)
    before, cpu = served.stats(), served.usage().cpu
    while served.stats().accept_pauses < before.accept_pauses + 3:
        assert exchange(talking, b"goes on") == b"goes on"
    # A pause is 100 ms; a loop that spins fails some 100,000 accepts in it.
    assert served.stats().accept_errors - before.accept_errors <= 4 * 2
    assert served.usage().cpu - cpu < 0.25
    served.limit_descriptors(1000)
    assert recv_exactly(waiting[0], 4) == b"late"
    for peer in (*waiting, talking):
        assert recv_to_end(peer) == b""
    wait_until(lambda: served.stats().connections_open == 0)
    # The reserve is back.
    assert exchange(join(served.address), b"served") == b"served"
    fill_descriptors(served)
    shed = served.stats().shed_no_descriptors
    assert is_turned_away(served.address)
    wait_until(lambda: served.stats().shed_no_descriptors == shed + 1)


def test_listener_that_was_shut_down_by_others_does_not_spin(
    make_server: MakeServer, join: Join
) -> None:
    """An inherited listener belongs to somebody else, who may end it at any time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(f"fd://{listener.fileno()}")
        talking = join(listener.getsockname())
        assert exchange(talking, b"served") == b"served"
        listener.shutdown(socket.SHUT_RD)
        assert exchange(talking, b"go on") == b"go on"
        assert iterations_at_rest(server) <= 3
        assert server.stats().accept_errors == 0
        assert same(exchange(talking, pattern(10_000)), pattern(10_000))


@pytest.mark.parametrize("error", ["EPERM", "ECONNABORTED", "EMFILE", "ENFILE"])
def test_error_that_does_not_end_makes_accepting_rest(
    served: Served, join: Join, error: str
) -> None:
    """A filter of system calls says EPERM for ever, a full file table of the system ENFILE."""
    talking = join(served.address)
    assert exchange(talking, b"served") == b"served"
    served.start_log()
    served.rule("accept4", error=error)
    newcomer = join(served.address)
    newcomer.sendall(b"waits in the queue")

    def has_rested_twice() -> bool:
        assert exchange(talking, b"goes on") == b"goes on"
        return served.stats().accept_pauses >= 2

    wait_until(has_rested_twice, 5.0)
    served.clear_rules()
    assert recv_exactly(newcomer, 18) == b"waits in the queue"
    accepts = [call for call in served.take_log() if call.name == "accept4"]
    # 1 + 2 + 4 + ... + 64 tries, and then a rest.
    assert len(accepts) <= 127 * served.stats().accept_pauses + 2


def test_command_with_64_descriptors_serves_the_first_of_300_peers(join: Join) -> None:
    """The rest is reset, and told in one line a second; when peers leave there is room again."""
    program = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *COMMAND)
    with serving("--drain-idle=0.01", program=program) as server:
        served, turned_away = [], 0
        for _ in range(300):
            try:
                peer = join(server.addresses[0])
                peer.sendall(b"x")
                assert recv_exactly(peer, 1) == b"x"
                served.append(peer)
            except ConnectionError:
                turned_away += 1
        assert 40 <= len(served) < 64
        assert turned_away == 300 - len(served)
        begun, cpu = time.monotonic(), cpu_of(server.process.pid)
        wait_until(lambda: time.monotonic() > begun + 0.5)
        assert cpu_of(server.process.pid) - cpu < 0.05 * (time.monotonic() - begun)
        for peer in served:
            assert exchange(peer, b"still in") == b"still in"
            peer.shutdown(socket.SHUT_WR)
            assert read_to_eof(peer) == b""
        again: list[socket.socket] = []
        until = time.monotonic() + 20
        while len(again) < len(served):  # the FIN is here a moment before the descriptor is free
            assert time.monotonic() < until
            try:
                peer = join(server.addresses[0])
                assert exchange(peer, b"again") == b"again"
                again.append(peer)
            except ConnectionError:
                turned_away += 1
        for peer in again:
            peer.close()
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    lines = [line for line in said if "no descriptor was left" in line]
    told = [
        re.search(r"left: (\d+) newcomers? w.* reset \(the limit is 64\)", line) for line in lines
    ]
    assert sum(int(one[1]) for one in told if one) == turned_away
    assert len(lines) <= 1 + (time.monotonic() - begun) + 2
    assert f"connections refused {turned_away}" in said[-1]


def cpu_of(pid: int) -> float:
    """Return the seconds that a process was on a CPU."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def test_want_of_descriptors_that_lasts_is_told_once_a_second(
    serve_apart: Serve, join: Join
) -> None:
    """Also what came between two lines is told, without another newcomer."""
    served = serve_apart()
    assert exchange(join(served.address), b"in") == b"in"
    fill_descriptors(served)

    def told() -> int:
        return sum(map(int, re.findall(r"(\d+) newcomers? w", served.errors())))

    assert is_turned_away(served.address)
    wait_until(lambda: told() == 1)
    for _ in range(20):
        assert is_turned_away(served.address)
    wait_until(lambda: told() == 21)
    assert served.errors().count("no descriptor was left") <= 4


def test_error_that_lasts_does_not_hold_up_the_end(served: Served, join: Join) -> None:
    """The queue is emptied before the listener is closed, but not by trying for ever."""
    assert exchange(join(served.address), b"served") == b"served"
    served.start_log()
    served.rule("accept4", error="ECONNABORTED")
    stats = served.end(by="stop")
    assert stats.accept_errors <= 2 * 64
