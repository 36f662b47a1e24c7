"""Runs against real servers: what is counted, watched and ended, and what is said of a bad one."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from load_servers import echo, exact, framed, hold, serving
from peers import wait_until
from wrong_servers import address_of, flips, repeats, says_more, slams, stops, web_server

import fastecho
from fastecho import ConfigError, StartError
from fastecho.measure import Interval, Plan, Result, run

MakeServer = Callable[..., fastecho.Server]


def complete(result: Result) -> None:
    """Assert what holds of every run without a failure."""
    assert result.failures == dict.fromkeys(result.failures, 0), result.described
    assert result.latency is not None
    assert result.latency.count == result.messages > 0
    # At both ends of the window; in an open loop what a pause of the machine has held, too.
    under_way = result.plan.connections * result.plan.depth + (result.plan.rate or 0) * 0.1
    assert abs(result.messages - result.messages_in_window) <= under_way
    assert sum(one.messages for one in result.intervals) == result.messages_in_window
    assert sum(one.bytes for one in result.intervals) == result.bytes
    lengths = sum(one.elapsed for one in result.intervals)
    assert lengths == pytest.approx(result.elapsed, rel=0.05, abs=0.02)
    assert result.generator.verdict


def test_a_closed_loop_counts_every_message(server: fastecho.Server) -> None:
    result = run(Plan(server.address, connections=4, duration=0.3, size=100))
    complete(result)
    assert result.bytes == result.messages_in_window * 100
    assert 0.3 <= result.elapsed < 0.4
    assert result.messages_per_s == pytest.approx(result.messages / result.elapsed, rel=0.05)
    assert (result.service, result.schedule_error) == (None, None)
    assert result.connect is not None
    assert result.connect.count == result.connects == 4
    assert abs(result.started_at - time.time()) < 20


def test_threads_share_connections_and_messages(make_server: MakeServer) -> None:
    server = make_server(threads=2)
    result = run(Plan(server.address, connections=5, threads=3, messages=1000, depth=4))
    complete(result)
    assert result.messages == result.sent == 1000
    assert server.stats().connections_accepted == 5


def test_an_open_loop_keeps_its_rate_and_tells_service_time(server: fastecho.Server) -> None:
    plan = Plan(server.address, connections=4, threads=2, rate=2000, duration=0.5)
    result = run(plan)
    complete(result)
    assert result.sent == pytest.approx(1000, abs=2)
    assert result.service is not None
    assert result.schedule_error is not None
    assert result.service.count == result.messages
    assert result.schedule_error.count + result.held >= result.messages


def test_a_stopped_server_shows_in_the_latency_and_not_in_the_service_time(
    serve_apart: Callable[..., Any],
) -> None:
    """The figure of open loops: at half of the server's rate, stopped for 200 ms of 2 s."""
    served = serve_apart()
    plan = Plan(served.address, connections=8, duration=0.3)
    most = run(plan).messages_per_s
    stops = 0

    def stop(one: Interval) -> None:
        nonlocal stops
        if one.start > 0.5 and not stops:
            stops += 1
            with served.paused():
                time.sleep(0.2)

    result = run(plan.replace(rate=most / 2, duration=2, interval=0.2), stop)
    assert stops == 1
    assert result.failed == 0
    assert (result.percentile(99) or 0) >= 0.1
    assert (result.percentile(99, "service") or 1) < 0.1
    assert result.held > 0.05 * most / 2


def test_a_gap_lasts_until_the_server_answers_and_not_until_its_kernel_accepts(
    serve_apart: Callable[..., Any],
) -> None:
    served = serve_apart()
    stops = 0

    def stop(one: Interval) -> None:
        nonlocal stops
        if not stops:
            stops += 1
            with served.paused():
                time.sleep(0.8)

    plan = Plan(served.address, connections=2, duration=1.6, timeout=0.1, interval=0.2)
    result = run(plan, stop)
    assert result.reopened == 2
    assert 0.5 < result.longest_gap < 1.2
    assert 2 * result.longest_gap == pytest.approx(result.gap, rel=0.3)


def test_replies_after_the_window_are_in_no_interval() -> None:
    def slowly(sock: socket.socket) -> None:
        while message := sock.recv(64):
            time.sleep(0.01)
            sock.sendall(message)

    with serving(slowly) as served:
        plan = Plan(address_of(served), connections=1, rate=200, duration=0.5, interval=0.1)
        result = run(plan)
    assert result.messages == 100 > result.messages_in_window
    assert sum(one.messages for one in result.intervals) == result.messages_in_window
    assert max(one.messages_per_s for one in result.intervals) < 120
    assert result.latency is not None
    assert result.latency.count == 100


def test_what_was_lost_while_nothing_was_connected_is_why_a_rate_was_not_met(
    make_server: MakeServer,
) -> None:
    server = make_server()
    timer = threading.Timer(0.3, server.abort)
    timer.start()
    result = run(Plan(server.address, connections=2, rate=1000, duration=1, timeout=0.2))
    timer.join()
    assert re.search(
        r"the rate was not met: .*; [\d,]+ messages were lost with connections, or while none was",
        result.generator.verdict,
    )
    assert "waited" not in result.generator.verdict


@pytest.mark.parametrize("schedule", ["fixed", "poisson"])
def test_a_stall_shows_in_the_latency_and_not_in_the_service_time(schedule: Any) -> None:
    stalled = threading.Event()

    def stalling(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            if time.monotonic() > begin + 0.3 and not stalled.is_set():
                stalled.set()
                time.sleep(0.2)
            sock.sendall(data)

    with serving(stalling) as served:
        begin = time.monotonic()
        plan = Plan(address_of(served), connections=1, rate=500, duration=1, schedule=schedule)
        result = run(plan)
    assert stalled.is_set()
    assert result.failed == 0
    assert (result.percentile(95) or 0) > 0.05
    assert (result.percentile(95, "service") or 1) < 0.05
    assert result.held > 50


def test_reconnecting_makes_a_connection_for_each_message(server: fastecho.Server) -> None:
    result = run(Plan(server.address, connections=2, messages=50, reconnect=True))
    complete(result)
    # At the end the other connection may just have come about.
    assert 50 == result.messages <= result.connects <= 51
    assert result.connect is not None
    assert result.connect.count == result.connects


def test_idle_connections_are_held_and_carry_nothing(server: fastecho.Server) -> None:
    most = 0

    def look(_: Interval) -> None:
        nonlocal most
        most = max(most, server.stats().connections_open)

    plan = Plan(server.address, connections=2, idle_connections=20, duration=0.3, interval=0.1)
    complete(run(plan, look))
    assert most == 22


def test_an_idle_connection_that_the_server_ends_is_a_failure() -> None:
    def first_ends(sock: socket.socket) -> None:
        if len(served.peers) > 1:
            echo(sock)

    with serving(first_ends) as served:
        plan = Plan(address_of(served), connections=1, idle_connections=1, duration=0.3)
        result = run(plan)
    assert result.messages > 0
    assert result.failures["closed"] == 1
    assert result.described[0].partition(", ")[2].startswith("idle, connection 0")


@pytest.mark.parametrize("frame", ["line", "length"])
def test_frames_with_what_the_server_adds(frame: Any) -> None:
    with serving(framed(frame, b"<", b">")) as served:
        plan = Plan(
            address_of(served), frame=frame, prefix="<", suffix=">", messages=100, size="2:9"
        )
        complete(run(plan))


def test_several_targets_are_taken_in_turn(make_server: MakeServer, tmp_path: Path) -> None:
    servers = [make_server(), make_server(), make_server(f"unix:{tmp_path}/echo")]
    plan = Plan([one.address for one in servers], connections=6, threads=2, duration=0.2)
    complete(run(plan))
    assert [one.stats().connections_accepted for one in servers] == [2, 2, 2]


def test_a_name_is_resolved_to_the_address_that_answers(server: fastecho.Server) -> None:
    complete(run(Plan(f"localhost:{server.port}", connections=1, messages=10)))


def test_connections_come_from_the_sources(server: fastecho.Server) -> None:
    seen = set()
    with serving(echo) as served:
        plan = Plan(address_of(served), connections=4, messages=40, sources="127.0.0.2,127.0.0.3")
        complete(run(plan))
        seen = {peer[0] for peer in served.peers}
    assert seen == {"127.0.0.2", "127.0.0.3"}


def test_warm_up_is_not_counted(server: fastecho.Server) -> None:
    plan = Plan(server.address, connections=1, rate=1000, warmup=0.3, duration=0.2)
    result = run(plan)
    complete(result)
    assert result.messages == pytest.approx(200, abs=2)
    assert server.stats().bytes_in == pytest.approx(500 * 64, rel=0.05)


def test_a_ramp_opens_connections_over_time(server: fastecho.Server) -> None:
    opened = []
    plan = Plan(server.address, connections=20, ramp=0.4, duration=0.6, interval=0.1)
    complete(run(plan, lambda _: opened.append(server.stats().connections_open)))
    assert 0 < opened[0] < 15
    assert max(opened) == 20


def test_intervals_are_told_while_the_run_lasts(server: fastecho.Server) -> None:
    told: list[tuple[float, Interval]] = []
    begin = time.monotonic()
    plan = Plan(server.address, connections=2, duration=0.55, interval=0.1)
    result = run(plan, lambda one: told.append((time.monotonic() - begin, one)))
    assert [one for _, one in told] == result.intervals
    # The last part, half as long as the others or more, has its own line.
    assert 5 <= len(told) <= 6
    assert told[0][0] < 0.4
    for one in result.intervals:
        assert one.messages > 0
        assert one.p50 is not None
        assert one.p99 is not None
        assert one.max is not None
        assert 0 < one.p50 <= one.p99 <= one.max


def test_a_start_at_a_time_of_day(server: fastecho.Server) -> None:
    begin = time.time() + 0.5
    result = run(Plan(server.address, connections=1, duration=0.1), start_at=begin)
    complete(result)
    assert result.started_at == pytest.approx(begin, abs=0.01)
    assert time.time() > begin + 0.1


@pytest.mark.parametrize(
    ("ahead", "sentence"), [(-5, "is over: it was 5 s ago"), (4000, "at most an hour is possible")]
)
def test_a_start_that_cannot_be_is_refused(
    server: fastecho.Server, ahead: int, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(Plan(server.address), start_at=time.time() + ahead)


def test_a_run_works_in_any_thread(server: fastecho.Server) -> None:
    results: list[Result] = []
    plan = Plan(server.address, messages=50)
    thread = threading.Thread(target=lambda: results.append(run(plan)))
    thread.start()
    thread.join()
    complete(results[0])


# --- the end before its time ----------------------------------------------------------------


def test_ctrl_c_ends_the_window_and_gives_a_result(server: fastecho.Server) -> None:
    def interrupt(one: Interval) -> None:
        if one.start == 0:
            os.kill(os.getpid(), signal.SIGINT)

    begin = time.monotonic()
    result = run(Plan(server.address, connections=2, duration=30, interval=0.1), interrupt)
    complete(result)
    assert time.monotonic() - begin < 10
    assert result.elapsed < 5
    assert result.generator.verdict.startswith("ended early: after ")


def test_ctrl_c_before_anything_came_back_is_an_interrupt() -> None:
    with serving(hold) as served:
        timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            run(Plan(address_of(served), connections=1, duration=30, timeout=1))
        timer.join()


def test_an_exception_of_the_callback_ends_the_run(server: fastecho.Server) -> None:
    def fail(_: Interval) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Plan(server.address, duration=30, interval=0.05), fail)
    wait_until(lambda: server.stats().connections_open == 0)


# --- servers that fail ----------------------------------------------------------------------


def test_a_restarted_server_is_found_again_and_the_gap_is_told(make_server: MakeServer) -> None:
    first = make_server()
    plan = Plan(first.address, connections=3, rate=500, duration=1.2, interval=0.1)
    timer = threading.Timer(0.3, first.abort)
    timer.start()

    def restart(one: Interval) -> None:
        if one.start > 0.5 and len(servers) < 2:
            servers.append(make_server(plan.targets[0], reuse_port=True))

    servers = [first]
    result = run(plan, restart)
    timer.join()
    assert result.messages > 200
    assert result.failures["lost"] > 20
    assert result.failures["reset"] + result.failures["closed"] == 3
    assert result.reopened == 3
    assert 0.1 < result.longest_gap < 1
    assert result.gap >= result.longest_gap
    assert any(one.messages == 0 and one.p99 is None for one in result.intervals)


def test_a_reply_that_never_comes_is_no_part_of_the_rate(make_server: MakeServer) -> None:
    numbers = itertools.count(1)

    def echo_all_but_the_last(sock: socket.socket) -> None:
        while message := sock.recv(64):
            if next(numbers) == 400:
                hold(sock)
            sock.sendall(message)

    with serving(echo_all_but_the_last) as served:
        plan = Plan(address_of(served), messages=400, connections=1, timeout=0.5, interval=0.1)
        result = run(plan)
    assert (result.messages, result.failures["timed_out"]) == (399, 1)
    assert result.elapsed < 0.4
    assert result.messages_per_s == 399 / result.elapsed
    assert math.isclose(sum(one.elapsed for one in result.intervals), result.elapsed)
    assert sum(one.failures for one in result.intervals) == 1
    assert "ended early" not in result.generator.verdict


def test_a_server_that_answered_in_the_warm_up_is_an_echo_server() -> None:
    stopped = threading.Event()

    def stall(sock: socket.socket) -> None:
        begin = time.monotonic()
        while message := sock.recv(64):
            if time.monotonic() - begin > 0.3 and not stopped.is_set():
                stopped.set()
                time.sleep(0.6)
            sock.sendall(message)

    with serving(stall) as served:
        plan = Plan(address_of(served), connections=1, warmup=0.3, duration=1.2, timeout=0.2)
        result = run(plan)
    assert result.failures["timed_out"] >= 1
    assert result.messages > 0
    assert result.elapsed == pytest.approx(1.2)


def test_a_schedule_with_long_pauses_is_waited_for(
    server: fastecho.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastecho.measure import runner

    monkeypatch.setattr(runner, "PATIENCE", 0.1)
    result = run(Plan(server.address, messages=3, rate=2.5, connections=1, timeout=0.05))
    complete(result)
    assert result.messages == 3
    assert result.elapsed == pytest.approx(1.2, abs=0.01)


@pytest.mark.parametrize(("messages", "threads", "rate"), [(9, 8, 90), (5, 4, 20), (51, 2, 200)])
def test_threads_with_more_messages_send_them_faster_so_that_all_end_together(
    server: fastecho.Server, messages: int, threads: int, rate: float
) -> None:
    plan = Plan(server.address, messages=messages, threads=threads, rate=rate, connections=8)
    result = run(plan)
    complete(result)
    assert result.messages == messages
    assert result.elapsed == pytest.approx(messages / rate, rel=0.01)
    assert "not met" not in result.generator.verdict


def test_a_server_that_stops_for_good_ends_a_run_of_messages(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastecho.measure import runner

    monkeypatch.setattr(runner, "PATIENCE", 0.5)
    server = make_server()
    timer = threading.Timer(0.2, server.abort)
    timer.start()
    result = run(Plan(server.address, messages=10**9, timeout=0.2))
    timer.join()
    assert result.messages > 0
    assert result.failed > 0
    assert "of 1,000,000,000 messages" in result.generator.verdict


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (web_server, "answered, but not with what was sent: no echo server"),
        (hold, "took the connection, but nothing came back within 300 ms"),
        (slams, "ended the connections without an answer"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"rate": 100}, {"reconnect": True}], ids=str)
def test_what_is_no_echo_server_is_told_in_one_sentence(
    handler: Callable[[socket.socket], None], sentence: str, more: dict[str, Any]
) -> None:
    with serving(handler) as served:
        begin, where = time.monotonic(), address_of(served)
        with pytest.raises(StartError, match=sentence) as caught:
            run(Plan(address_of(served), connections=3, duration=20, timeout=0.3, **more))
        assert time.monotonic() - begin < 5
    assert str(caught.value).startswith(where)
    assert "\n" not in str(caught.value)


def too_short(sock: socket.socket) -> None:
    """The reply is wrong and never complete: a prefix that is not what was expected."""
    sock.sendall(exact(sock, 64)[::-1][:32])
    hold(sock)


@pytest.mark.parametrize("handler", [web_server, too_short])
@pytest.mark.parametrize("duration", [0.1, 20])
def test_wrong_answers_alone_end_a_run_long_before_the_timeout(
    handler: Callable[[socket.socket], None], duration: float
) -> None:
    with serving(handler) as served:
        begin = time.monotonic()
        with pytest.raises(StartError, match="no echo server"):
            run(Plan(address_of(served), connections=2, duration=duration, timeout=20))
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("handler", "kind", "count", "words"),
    [
        (flips, "corrupt", 1, "connection 0, message 9: byte 5 of the reply"),
        (repeats, "misplaced", 1, "connection 0, message 9"),
        (says_more, "extra_bytes", 7, "connection 0"),
        (stops, "timed_out", 1, "connection 0, message 9"),
    ],
)
def test_what_goes_wrong_among_right_replies_is_counted_and_described(
    handler: Callable[[socket.socket], None], kind: str, count: int, words: str
) -> None:
    with serving(handler) as served:
        result = run(Plan(address_of(served), connections=1, messages=12, timeout=0.3))
    assert result.messages >= 9
    assert result.failures[kind] == count, result.failures
    assert words in result.described[0]


def test_slow_replies_are_late_and_their_latency_counts() -> None:
    def slow(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            # A byte at a time: never silent for long, and slower than the timeout.
            for byte in data:
                time.sleep(0.4)
                sock.sendall(bytes([byte]))

    with serving(slow) as served:
        result = run(Plan(address_of(served), connections=1, size=3, messages=1, timeout=1))
    assert (result.messages, result.failures["late"]) == (0, 1)
    assert (result.percentile(50) or 0) > 1.1


# --- before it starts -----------------------------------------------------------------------


def test_a_port_where_nobody_listens_is_refused_in_one_sentence() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        where, begin = f"127.0.0.1:{sock.getsockname()[1]}", time.monotonic()
        with pytest.raises(StartError, match=f"^{where} refused the connection: nothing listens"):
            run(Plan(where, duration=1))
        with pytest.raises(StartError, match=f"^{where} refused the connection"):
            run(Plan(where, duration=5, reconnect=True))
        with pytest.raises(StartError, match=f"^{where} refused the connection"):
            run(Plan(where, duration=5, ramp=0.1))
        assert time.monotonic() - begin < 4


@pytest.mark.parametrize("threads", [1, 2])
def test_of_several_targets_the_one_that_refused_is_named(
    server: fastecho.Server, threads: int
) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{sock.getsockname()[1]}"
        for targets in ([server.address, dead], [dead, server.address]):
            with pytest.raises(StartError, match=f"^{dead} refused the connection"):
                run(Plan(targets, connections=4, threads=threads))
        with pytest.raises(StartError, match=f"^{dead} refused the connection"):
            run(Plan([server.address, dead], connections=1, idle_connections=2))


@pytest.mark.parametrize(
    ("target", "more", "sentence"),
    [
        ("unix:/nowhere/echo", {}, "^unix:/nowhere/echo does not exist$"),
        ("no.such.name.invalid:7", {}, "^no.such.name.invalid:7 does not resolve: "),
        ("127.0.0.1:7", {"sources": "192.0.2.1"}, "is no address of this machine"),
    ],
)
def test_what_cannot_be_reached_is_told(target: str, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StartError, match=sentence):
        run(Plan(target, **more))


def test_sources_of_another_family_are_a_wrong_option() -> None:
    with pytest.raises(ConfigError, match=r"sources '::1' is of another address family than 127"):
        run(Plan("127.0.0.1:7", sources="::1"))


def test_too_few_descriptors_are_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 2000))
    with pytest.raises(StartError, match=r"1500 connections need \d+ descriptors.*ulimit -n \d+$"):
        run(Plan("127.0.0.1:7", connections=1000, idle_connections=500))
    with pytest.raises(StartError, match=r"ulimit -n \d+ \(as root: the hard limit is 2000\)"):
        run(Plan("127.0.0.1:7", connections=3000))


def test_too_few_ports_are_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastecho.measure import preflight

    monkeypatch.setattr(preflight, "_ephemeral_ports", lambda: 10_000)
    plan = Plan("192.0.2.1:7", connections=25_000, sources="192.0.2.7,192.0.2.8")
    with pytest.raises(StartError, match=r"has 10000 .*: give 3 by --source"):
        preflight.check_ports(plan, preflight.resolve(plan))
    preflight.check_ports(plan.replace(connections=20_000), preflight.resolve(plan))
    loopback = Plan("127.0.0.1:7", connections=25_000)
    preflight.check_ports(loopback, preflight.resolve(loopback))
    assert len(preflight.local_addresses(loopback, preflight.resolve(loopback))) == 4


# --- what a result says of itself -----------------------------------------------------------


def judged(*, in_window: int, schedule: str = "fixed", fastest: int = 1000) -> bool:
    """Tell whether 1,000 messages a second for 10 s were reached."""
    from fastecho._load import Histogram
    from fastecho.measure.verdict import met_rate

    latency = Histogram()
    latency.record(fastest)
    latency.record(2_000_000_000, 100)
    plan = Plan("127.0.0.1:7", rate=1000, schedule=schedule)  # type: ignore[arg-type]
    return met_rate(Result(plan, elapsed=10.0, messages=in_window, latency=latency))


def test_a_rate_is_met_but_for_a_hundredth_and_what_is_under_way() -> None:
    assert judged(in_window=10_000)
    assert judged(in_window=9_890)
    assert judged(in_window=9_880) is False
    # Replies take half a second at least: 500 are under way at the end.
    assert judged(in_window=9_400, fastest=500_000_000)
    assert judged(in_window=9_300, fastest=500_000_000) is False
    assert judged(in_window=9_600, schedule="poisson")
    assert judged(in_window=9_500, schedule="poisson") is False
