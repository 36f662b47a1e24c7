"""The load generator against servers that stop, restart, dawdle: nothing is skipped or renamed.

What each kind of failure is called, and how the time from a loss to the new connection shows.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import commands
import pytest
from driven import black_hole
from load_servers import Handler, counted, described, echo, exact, hold, refusing, serving, trickle
from peers import reset, wait_until

from fastecho._load import Load


def dropping(after: int, times: int) -> Handler:
    """Return a handler that ends its connection by RST after so many messages, so many times."""
    turn = iter(range(10**6))

    def drop(sock: socket.socket) -> None:
        if next(turn) < times:
            for _ in range(after):
                sock.sendall(exact(sock, 64))
            exact(sock, 64)
            reset(sock)
        else:
            echo(sock)

    return drop


# Connections that are lost


@pytest.mark.parametrize("settings", [{}, {"mode": "open", "rate": 1000.0}])
def test_a_lost_connection_is_opened_again_and_the_gap_is_told(settings: dict[str, Any]) -> None:
    with serving(dropping(10, 1)) as server, server.load(reopen=True, **settings) as load:
        load.connect()
        result = load.run(0.5)
        assert result["reset"] == 1
        assert result["reopened"] == 1
        # The first attempt was less than 0.1 s ago: the next one waits until then.
        assert 20_000_000 < result["gap_ns"] == result["longest_gap_ns"] < 400_000_000
        assert (result["connects"], result["connections_open"]) == (2, 1)
        assert result["messages"] > 100
        assert result["elapsed_ns"] == 500_000_000


def test_what_is_due_meanwhile_in_an_open_loop_is_lost_and_not_skipped() -> None:
    with (
        serving(dropping(50, 1)) as server,
        server.load(mode="open", rate=1000, reopen=True) as load,
    ):
        load.connect()
        result = load.run(0.5)
        not_given = 500 - result["sent"]
        assert counted(result, not_given) == {"lost": not_given + 1, "reset": 1}
        # About as many as the gap, of 50 ms, is long: one is due every millisecond. Before it, some
        # may have waited for a slow server; at its end, for a load that was held up.
        gap_ms = result["gap_ns"] / 1e6
        assert gap_ms - 20 <= not_given <= gap_ms + 200
        assert described(result) == ["connection 0: reset by the server with 1 message outstanding"]


def test_while_another_connection_is_open_nothing_more_is_lost() -> None:
    with (
        serving(dropping(5, 1)) as server,
        server.load(mode="open", rate=1000, reopen=True, connections=2) as load,
    ):
        load.connect()
        result = load.run(0.3)
        assert counted(result) == {"lost": 1, "reset": 1}
        assert result["sent"] == 300


def test_connects_are_tried_every_tenth_of_a_second() -> None:
    with Load([refusing()], reopen=True, connections=3) as load:
        result = load.run(0.55)
        assert result["sent"] == result["connections_open"] == result["reopened"] == 0
        assert counted(result) == {"refused": result["refused"]}
        # Each at 0.0, 0.1, .. 0.5 s, late by the look for timeouts, every 20 ms.
        assert 3 * 3 <= result["refused"] <= 3 * 6
        assert result["cpu_ns"] < 100_000_000
        assert result["elapsed_ns"] == 550_000_000


def test_a_server_that_ends_every_connection_is_not_stormed() -> None:
    def leave(sock: socket.socket) -> None:
        del sock

    with serving(leave) as server, server.load(reopen=True) as load:
        result = load.run(0.55)
        assert 3 <= result["connects"] <= 6


def test_a_server_that_restarts_is_found_again() -> None:
    with serving(echo) as server:
        port = server.target()[1][1]
        with Load([server.target()], connections=5, reopen=True) as load:
            load.connect()
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(load.run, 1.5)
                wait_until(lambda: load.snapshot()["messages"] > 100, what="messages")
                server.end()
                wait_until(lambda: load.snapshot()["refused"] > 0, what="a refused connect")
                assert load.snapshot()["connections_open"] == 0
                with serving(echo, port=port):
                    result = running.result(20)
        assert result["reopened"] == result["connections_open"] == 5
        assert result["closed"] + result["reset"] == 5
        assert result["longest_gap_ns"] <= result["gap_ns"] <= 5 * result["longest_gap_ns"]
        assert 50_000_000 < result["longest_gap_ns"] < 1_500_000_000


def test_an_idle_connection_is_opened_again() -> None:
    turn = iter(range(100))

    def leave(sock: socket.socket) -> None:
        if next(turn) > 0:
            hold(sock)

    with serving(leave) as server, server.load(mode="idle", reopen=True) as load:
        result = load.run(0.4)
        assert counted(result) == {"closed": 1}
        assert (result["reopened"], result["connections_open"]) == (1, 1)


def test_a_server_that_comes_late_is_found() -> None:
    family, address = refusing()
    with Load([(family, address)], reopen=True, mode="open", rate=500.0) as load:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load.run, 0.8)
            wait_until(lambda: load.snapshot()["lost"] > 50, what="lost messages")
            with serving(echo, port=address[1]):
                result = running.result(20)
        assert result["messages"] + result["lost"] == 400
        assert result["messages"] > 50
        assert result["refused"] >= 1


def test_connects_under_way_at_the_end_are_broken_off() -> None:
    """A run is not prolonged by an attempt to connect again."""
    with black_hole_load(reopen=True, timeout=5.0) as load:
        begin = time.monotonic()
        result = load.run(0.2)
        assert time.monotonic() - begin < 3
        assert counted(result) == {}
        assert (result["connections_open"], result["elapsed_ns"]) == (0, 200_000_000)


def test_a_connect_that_is_not_answered_is_counted_as_that() -> None:
    with black_hole_load(reopen=True, timeout=0.1) as load:
        result = load.run(0.35)
        assert counted(result) == {"connect_timed_out": result["connect_timed_out"]}
        assert 1 <= result["connect_timed_out"] <= 3
        assert described(result)[0] == "connection 0: not connected within 0.1 s"


def black_hole_load(**settings: Any) -> Any:
    """Return a load whose connects are never answered, to be entered."""
    from contextlib import ExitStack, contextmanager

    @contextmanager
    def entered() -> Any:
        with ExitStack() as stack:
            hole = black_hole(stack, socket.AF_INET, ("127.0.0.1", 0))
            yield stack.enter_context(Load([(socket.AF_INET, hole.getsockname())], **settings))

    return entered()


# Slow servers


def test_a_reply_that_trickles_is_late_and_not_given_up() -> None:
    """64 bytes, 5 ms each: three times the timeout, and never silent for it."""
    with serving(trickle(0.005)) as server, server.load(timeout=0.1) as load:
        load.connect()
        result = load.run(0.4)
        late = result["late"]
        assert late >= 1
        # What the end of the window cuts is given up.
        assert counted(result) in ({"late": late}, {"late": late, "timed_out": 1})
        assert "the timeout is 0.1 s" in described(result)[0]
        assert described(result)[0].startswith("connection 0, message 0: the reply took 0.")
        assert load.histogram().count == late
        assert load.histogram().min > 300_000_000


def test_silence_is_given_up_and_the_connection_opened_again() -> None:
    turn = iter(range(100))

    def silent_first(sock: socket.socket) -> None:
        hold(sock) if next(turn) == 0 else echo(sock)

    with serving(silent_first) as server, server.load(timeout=0.1, reopen=True) as load:
        load.connect()
        result = load.run(0.5)
        assert counted(result) == {"timed_out": 1}
        assert result["messages"] > 10
        assert (result["reopened"], result["connections_open"]) == (1, 1)


def test_a_server_that_is_stopped_for_longer_than_the_timeout_loses_its_connections() -> None:
    with commands.serving() as server:
        host, _, port = server.addresses[0].rpartition(":")
        with Load(
            [(socket.AF_INET, (host, int(port)))], connections=3, timeout=0.1, reopen=True
        ) as load:
            load.connect()
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(load.run, 1.0)
                wait_until(lambda: load.snapshot()["messages"] > 100, what="messages")
                os.kill(server.process.pid, signal.SIGSTOP)
                wait_until(lambda: load.snapshot()["timed_out"] >= 3, what="timeouts")
                os.kill(server.process.pid, signal.SIGCONT)
                result = running.result(20)
        assert result["reopened"] >= 3
        assert result["connections_open"] == 3


def test_an_open_loop_shows_a_stall_that_service_times_hide() -> None:
    """At half of what the server can do, it is stopped for 200 ms of 4 s.

    Most messages that are due then wait in the generator, since no connection is free: only
    latency from the intended time shows what a user would have waited.
    """
    with commands.serving() as server:
        host, _, port = server.addresses[0].rpartition(":")
        target = (socket.AF_INET, (host, int(port)))
        with Load([target], connections=32) as load:
            load.connect()
            result = load.run(0.5)
            limit = result["messages_in_window"] / result["elapsed_ns"] * 1e9
        with Load([target], connections=32, mode="open", rate=limit / 2) as load:
            load.connect()
            load.run(0.2)  # warm
            load.reset()
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(load.run, 4.0)
                wait_until(lambda: load.snapshot()["elapsed_ns"] > 10**9, what="a second")
                os.kill(server.process.pid, signal.SIGSTOP)
                time.sleep(0.2)  # the stall
                os.kill(server.process.pid, signal.SIGCONT)
                result = running.result(30)
            latency, service = load.histogram(), load.histogram("service")
            error = load.histogram("schedule_error")
    assert counted(result) == {}
    print(  # shown with -s
        f"limit {limit:.0f}/s, sent {result['sent']}, p99 latency"
        f" {latency.percentile(99) / 1e6:.1f} ms, service {service.percentile(99) / 1e6:.1f} ms,"
        f" schedule error p50 {error.percentile(50) / 1e3:.1f} us"
    )
    assert latency.percentile(99) >= 100_000_000
    assert service.percentile(99) < 50_000_000
    # Both saw the stall itself.
    assert service.max >= 150_000_000


def test_what_waits_when_the_last_connection_is_given_up_is_lost_with_it() -> None:
    release = threading.Event()

    def stuck(sock: socket.socket) -> None:
        sock.sendall(exact(sock, 64))
        release.wait(10)

    with serving(stuck) as server, server.load(mode="open", rate=100, timeout=0.5) as load:
        load.connect()
        result = load.run(0.1)
        release.set()
        # One was answered, one was not, the others waited for it.
        assert counted(result, not_given=8) == {"timed_out": 1, "lost": 8}
        assert (result["messages"], result["unsent"]) == (1, 0)
