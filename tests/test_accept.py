"""The accept callback: asked once for each newcomer, on a thread of its own, before the first byte.

Whatever it does (say no, raise, take its time, never return) concerns that newcomer, and those
that queue behind it; connections that are open go on.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from peers import (
    DEADLINE,
    connect,
    exchange,
    has_ipv6,
    is_reset,
    is_turned_away,
    iterations_at_rest,
    pattern,
    read_to_eof,
    recv_exactly,
    reset,
    same,
    wait_until,
)

import fastecho


class Gate:
    """An accept callback that notes who came, and waits until it is opened."""

    def __init__(self) -> None:
        self.peers: list[fastecho.Peer] = []
        self._open = threading.Event()

    def __call__(self, peer: fastecho.Peer) -> None:
        self.peers.append(peer)
        self._open.wait()

    def open(self) -> None:
        """Let everybody through from now on."""
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a callback that blocks; at the end it is opened, whatever happened."""
    gate = Gate()
    yield gate
    gate.open()


def refuse(peer: fastecho.Peer) -> bool:
    """Say no."""
    return False


# --- the answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, True])
def test_none_and_true_accept(make_server: MakeServer, join: Join, answer: bool | None) -> None:
    server = make_server(on_accept=lambda peer: answer)
    peer = join(server)
    assert same(exchange(peer, pattern(100_000)), pattern(100_000))
    assert server.stats().ended_by_denial == 0


def test_false_resets(make_server: MakeServer, join: Join) -> None:
    server = make_server(on_accept=refuse)
    for _ in range(20):
        assert is_turned_away(server)
    wait_until(lambda: server.stats().ended_by_denial == 20)
    assert server.stats().bytes_in == 0


def test_exception_is_logged_and_counted_and_resets_that_newcomer_only(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    def fail_first(peer: fastecho.Peer) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ValueError("no room for you")

    server = make_server(on_accept=fail_first)
    with caplog.at_level(logging.ERROR, logger="fastecho"):
        assert is_turned_away(server)
    assert "no room for you" in caplog.text
    assert "fail_first" in caplog.text  # the traceback
    assert exchange(join(server), b"served") == b"served"
    assert server.stats().ended_by_denial == 1
    assert server.stats().callback_errors == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_asks_for_the_end_stops_the_server_in_order(
    make_server: MakeServer, join: Join, error: type[BaseException]
) -> None:
    answers = iter([None, error()])

    def answer(peer: fastecho.Peer) -> None:
        if (problem := next(answers)) is not None:
            raise problem

    server = make_server(on_accept=answer, drain_idle=0.0)
    bystander = join(server)
    assert exchange(bystander, b"served") == b"served"
    assert is_turned_away(server)
    assert read_to_eof(bystander) == b""
    bystander.close()
    assert server.wait(DEADLINE)
    assert server.stats().ended_by_drain == 1
    assert server.stats().callback_errors == 1


def test_on_accept_and_on_close_alone_that_take_long_are_named(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([ValueError(), None])

    def answer(peer: fastecho.Peer) -> None:
        time.sleep(0.06)
        if (problem := next(answers)) is not None:
            raise problem

    server = make_server(
        on_accept=answer, on_close=lambda *_: time.sleep(0.06), slow_callback_duration=0.05
    )
    assert is_turned_away(server)
    with join(server) as peer:
        assert exchange(peer, b"served") == b"served"
    wait_until(lambda: "on_close took " in caplog.text)
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [text.partition(" took ")[0] for text in said] == ["on_accept"] * 2 + ["on_close"]


@pytest.mark.parametrize("answer", [1, 0, "yes", b"", object()])
def test_any_other_answer_is_logged_and_resets(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture, answer: object
) -> None:
    server = make_server(on_accept=lambda peer: answer)
    with caplog.at_level(logging.ERROR, logger="fastecho"):
        assert is_turned_away(server)
    assert f"on_accept must return None, True, False or a Fault, not {answer!r}" in caplog.text
    assert server.stats().callback_errors == 1


def test_callback_that_is_none_of_these_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"^on_accept must be callable, not int$"):
        fastecho.Server(on_accept=3)  # type: ignore[arg-type]


def test_each_newcomer_has_its_own_answer(make_server: MakeServer, join: Join) -> None:
    """Even source ports pass: what the peers see must agree with what the callback saw."""
    server = make_server(
        threads=2, on_accept=lambda peer: peer.port is not None and not peer.port % 2
    )
    for _ in range(60):
        peer = join(server)
        if peer.getsockname()[1] % 2:
            assert is_reset(peer)
        else:
            assert exchange(peer, b"even") == b"even"


# --- before the answer ---------------------------------------------------------------------


def test_nothing_is_served_before_the_answer_and_everything_after(
    make_server: MakeServer, join: Join, gate: Gate
) -> None:
    server = make_server(on_accept=gate)
    peer, data = join(server), pattern(50_000)
    peer.sendall(data)
    wait_until(lambda: gate.peers)
    assert server.stats().bytes_in == 0
    assert (server.stats().connections_open, server.stats().messages) == (1, 0)
    gate.open()
    assert same(recv_exactly(peer, len(data)), data)
    assert exchange(peer, b"more") == b"more"


def test_fin_before_the_answer_is_answered_after_it(
    make_server: MakeServer, join: Join, gate: Gate
) -> None:
    server = make_server(on_accept=gate)
    peer = join(server)
    peer.sendall(b"all of it")
    peer.shutdown(socket.SHUT_WR)
    wait_until(lambda: gate.peers)
    gate.open()
    assert read_to_eof(peer) == b"all of it"
    wait_until(lambda: server.stats().ended_by_peer == 1)


def test_newcomer_that_resets_before_its_answer_ends(make_server: MakeServer, gate: Gate) -> None:
    server = make_server(on_accept=gate)
    victims = [connect(server) for _ in range(5)]
    wait_until(lambda: gate.peers)
    for victim in victims:
        reset(victim)
    gate.open()
    wait_until(lambda: server.stats().connections_closed == 5)
    assert server.stats().ended_by_error == 5


def test_waiting_newcomers_cost_no_iterations(
    make_server: MakeServer, join: Join, gate: Gate
) -> None:
    """They are in no epoll set: not even a reset wakes the worker."""
    opened = threading.Event()

    def first_passes(peer: fastecho.Peer) -> None:
        if opened.is_set():
            gate(peer)
        opened.set()

    server = make_server(on_accept=first_passes)
    talking = join(server)
    assert exchange(talking, b"open") == b"open"
    waiting = [connect(server) for _ in range(10)]
    for peer in waiting:
        peer.sendall(b"early")
    wait_until(lambda: server.stats().connections_open == 11)
    for peer in waiting:
        reset(peer)
    assert exchange(talking, b"go on") == b"go on"
    assert iterations_at_rest(server) <= 3


# --- who is asked about, and where ---------------------------------------------------------


def test_peer_tells_who_came_and_where(make_server: MakeServer, join: Join) -> None:
    seen: list[fastecho.Peer] = []
    server = make_server(["127.0.0.1:0", "127.0.0.1:0"], on_accept=seen.append)
    for address in server.addresses:
        sock = join(address)
        exchange(sock, b"x")
        peer = seen.pop()
        assert (peer.host, peer.port) == sock.getsockname()
        assert (peer.family, peer.listener) == (socket.AF_INET, address)
        assert peer.queue_wait is not None
        assert 0 <= peer.queue_wait < 5
        assert repr(peer) == f"<Peer 127.0.0.1:{peer.port} at {address}>"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_peer_of_an_ipv6_listener(make_server: MakeServer, join: Join) -> None:
    seen: list[fastecho.Peer] = []
    server = make_server("[::1]:0", on_accept=seen.append)
    sock = join(server)
    exchange(sock, b"x")
    assert (seen[0].host, seen[0].port) == sock.getsockname()[:2]
    assert (seen[0].family, seen[0].listener) == (socket.AF_INET6, server.address)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv4_peer_of_a_dual_stack_listener_is_written_as_ipv4(
    make_server: MakeServer, join: Join
) -> None:
    seen: list[fastecho.Peer] = []
    server = make_server(":0", on_accept=seen.append)
    assert server.port is not None
    for host in ("127.0.0.1", "::1"):
        exchange(join((host, server.port)), b"x")
    assert [peer.host for peer in seen] == ["127.0.0.1", "::1"]
    assert [peer.family for peer in seen] == [socket.AF_INET6] * 2


def test_peer_of_a_unix_listener_has_no_host(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    seen: list[fastecho.Peer] = []
    server = make_server(f"unix:{tmp_path}/echo", on_accept=seen.append)
    exchange(join(server), b"x")
    peer = seen[0]
    assert (peer.host, peer.port, peer.queue_wait) == (None, None, None)
    assert (peer.family, peer.listener) == (socket.AF_UNIX, server.address)


def test_queue_wait_is_the_time_spent_in_the_accept_queue(
    make_server: MakeServer, join: Join
) -> None:
    seen: list[fastecho.Peer] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock, began = join(listener.getsockname()), time.monotonic()
        wait_until(lambda: time.monotonic() - began > 0.1)  # the wait is what is measured
        make_server(f"fd://{listener.fileno()}", on_accept=seen.append)
        exchange(sock, b"x")
        waited = time.monotonic() - began
    assert seen[0].queue_wait is not None
    assert 0.08 <= seen[0].queue_wait <= waited + 0.02


def test_newcomers_are_asked_about_one_at_a_time_in_order_on_one_thread(
    make_server: MakeServer, join: Join
) -> None:
    busy = threading.Lock()
    seen: list[tuple[int | None, str]] = []

    def ask(peer: fastecho.Peer) -> None:
        assert busy.acquire(blocking=False)
        seen.append((peer.port, threading.current_thread().name))
        busy.release()

    server = make_server(on_accept=ask)
    socks = [join(server) for _ in range(100)]
    for sock in socks:
        exchange(sock, b"x")
    assert [port for port, _ in seen] == [sock.getsockname()[1] for sock in socks]
    assert {name for _, name in seen} == {"fastecho-accept"}


# --- a callback that takes its time --------------------------------------------------------


def test_blocked_callback_stalls_no_open_connection(
    make_server: MakeServer, join: Join, gate: Gate
) -> None:
    passed = 0

    def ask(peer: fastecho.Peer) -> None:
        nonlocal passed
        passed += 1
        if passed > 10:
            gate(peer)

    server = make_server(threads=2, on_accept=ask)
    talking = [join(server) for _ in range(10)]
    for sock in talking:
        exchange(sock, b"open")
    waiting = [join(server) for _ in range(10)]
    wait_until(lambda: gate.peers)
    data = pattern(300_000)
    for sock in talking:
        assert same(exchange(sock, data), data)
    assert len(gate.peers) == 1  # the others wait behind it
    gate.open()
    for sock in waiting:
        assert exchange(sock, b"me too") == b"me too"


def test_callback_that_never_lets_go_of_the_gil_stalls_no_open_connection(
    make_server: MakeServer, join: Join
) -> None:
    ended = threading.Event()
    rounds = 0
    asked: list[int | None] = []

    def ask(peer: fastecho.Peer) -> None:
        nonlocal rounds
        asked.append(peer.port)
        while peer.port != asked[0] and not ended.is_set():  # the first, which talks, may pass
            rounds += 1

    server = make_server(on_accept=ask)
    talking = join(server)
    exchange(talking, b"open")
    try:
        newcomer = join(server)
        newcomer.sendall(b"x")
        wait_until(lambda: rounds > 100)
        for _ in range(10):
            before = rounds
            assert exchange(talking, b"go on") == b"go on"
            wait_until(lambda before=before: rounds > before)  # type: ignore[misc]
    finally:
        ended.set()
    assert recv_exactly(newcomer, 1) == b"x"


def ends_in_time(end: Callable[[], object], limit: float) -> float:
    """Call and hold the time limit; return what it took."""
    began = time.monotonic()
    end()
    took = time.monotonic() - began
    assert took < limit
    return took


def test_stop_keeps_its_deadline_while_a_callback_is_blocked(
    make_server: MakeServer, join: Join, gate: Gate
) -> None:
    server = make_server(on_accept=gate)
    waiting = join(server)
    wait_until(lambda: gate.peers)
    drained: list[bool] = []
    ends_in_time(lambda: drained.append(server.stop(0.3)), 3)
    assert drained == [False]
    assert not server.is_serving()
    assert is_reset(waiting)
    assert server.stats().ended_by_abort == 1


def test_abort_does_not_wait_for_a_blocked_callback(
    make_server: MakeServer, join: Join, gate: Gate
) -> None:
    server = make_server(on_accept=gate)
    waiting = join(server)
    wait_until(lambda: gate.peers)
    ends_in_time(server.abort, 3)
    assert is_reset(waiting)
    gate.open()  # the late answer is for nobody


def test_stop_called_in_the_callback_only_signals(make_server: MakeServer, join: Join) -> None:
    errors: list[BaseException] = []
    server: fastecho.Server

    def ask(peer: fastecho.Peer) -> None:
        server.stop(0.5)
        try:
            server.wait()
        except RuntimeError as error:
            errors.append(error)

    server = make_server(on_accept=ask, drain_idle=0)
    sock = join(server)
    assert not is_reset(sock)  # it was accepted, was quiet, and ended in order
    sock.close()
    assert server.wait(5)
    assert "wait() in a callback" in str(errors[0])


# --- limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_newcomers_above_max_connections_are_reset(
    make_server: MakeServer, join: Join, threads: int
) -> None:
    server = make_server(max_connections=3, threads=threads)
    inside = [join(server) for _ in range(3)]
    for sock in inside:
        exchange(sock, b"in")
    for _ in range(10):
        assert is_turned_away(server)
    wait_until(lambda: server.stats().shed_max_connections == 10)
    assert server.stats().connections_accepted == 3
    for sock in inside:
        assert exchange(sock, b"still in") == b"still in"


def test_place_that_is_left_is_given_to_the_next(make_server: MakeServer, join: Join) -> None:
    server = make_server(max_connections=2)
    first, second = join(server), join(server)
    exchange(first, b"x")
    exchange(second, b"x")
    reset(first)
    wait_until(lambda: server.stats().connections_open == 1)
    assert exchange(join(server), b"third") == b"third"
    assert is_turned_away(server)


def test_newcomers_that_wait_for_an_answer_take_places(
    make_server: MakeServer, join: Join, gate: Gate
) -> None:
    server = make_server(max_connections=2, on_accept=gate)
    waiting = [join(server) for _ in range(2)]
    wait_until(lambda: server.stats().connections_open == 2)
    assert is_turned_away(server)
    gate.open()
    for sock in waiting:
        assert exchange(sock, b"x") == b"x"


def test_denied_newcomers_give_their_places_back(make_server: MakeServer, join: Join) -> None:
    server = make_server(max_connections=2, on_accept=refuse)
    for _ in range(20):
        assert is_turned_away(server)
    wait_until(lambda: server.stats().ended_by_denial == 20)
    assert server.stats().shed_max_connections == 0


def test_queue_longer_than_the_limit_is_served_up_to_it(
    make_server: MakeServer, join: Join
) -> None:
    """All newcomers stand in the queue before the workers look at it."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        socks = [join(listener.getsockname()) for _ in range(150)]
        server = make_server(f"fd://{listener.fileno()}", max_connections=50, threads=4)
        wait_until(lambda: server.stats().shed_max_connections == 100)
        served = 0
        for sock in socks:
            try:
                served += exchange(sock, b"x") == b"x"
            except ConnectionError:
                pass
        assert served == server.stats().connections_accepted == 50
