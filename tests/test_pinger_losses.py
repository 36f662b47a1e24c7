"""Probes over a path that does not behave: what is lost and how, and coming back.

The servers do what the test says (scripted.py), or are real ones that are stopped or started anew.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress

import pytest
from conftest import MakeServer, Serve
from driven import DrivenServer, address_of, black_hole, echo, refusing_address
from peers import DEADLINE, reset, wait_until
from scripted import Handler, answer, close_at_next, message, reset_at_next, scripted, then
from test_pinger import run

from fastecho.measure import channel, pinger
from fastecho.measure.ping_events import Back, Event, Failure, Reply
from fastecho.measure.ping_result import PingResult
from fastecho.measure.pinger import Pinger

WEB = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def kinds(events: list[Event]) -> list[str]:
    """Return what happened, in words; the first event is Opened."""
    return [
        f"{one.kind} {list(one.numbers)}" if isinstance(one, Failure) else type(one).__name__
        for one in events[1:]
    ]


def failures(result: PingResult) -> dict[str, int]:
    """Return the failures that there were."""
    return {kind: count for kind, count in result.failures.items() if count}


def only_failure(events: list[Event]) -> str:
    """Return the text of the one failure."""
    (found,) = [str(one) for one in events if isinstance(one, Failure)]
    return found


@pytest.mark.parametrize(
    ("act", "kind", "sentence"),
    [
        (close_at_next, "closed", "seq=3: closed by the peer (FIN)"),
        (reset_at_next, "reset", "seq=3: reset by the peer (RST)"),
    ],
)
def test_a_connection_that_ends_costs_the_probe_under_way(
    act: Handler, kind: str, sentence: str
) -> None:
    with scripted(then(2, act), echo) as server:
        events, result = run(server.address, count=5)
    assert kinds(events) == ["Reply", "Reply", f"{kind} [3]", "Back", "Reply", "Reply"]
    assert only_failure(events) == f"{sentence}; reconnecting"
    assert failures(result) == {"lost": 1, kind: 1}
    assert (result.received, result.lost_percent, result.gaps) == (4, 20.0, 1)
    assert result.described[0].endswith(f" s, {sentence}; reconnecting")


@pytest.mark.parametrize("kind", ["closed", "reset"])
def test_a_connection_that_ends_between_two_probes_is_noticed_then(kind: str) -> None:
    def end(connection: socket.socket) -> None:
        if kind == "reset":
            reset(connection)

    with scripted(then(1, end), echo) as server:
        events, result = run(server.address, count=3, interval=0.2)
    assert kinds(events) == ["Reply", f"{kind} []", "Back", "Reply", "Reply"]
    assert failures(result) == {kind: 1}
    assert (result.received, result.is_clean) == (3, False)
    (back,) = [one for one in events if isinstance(one, Back)]
    assert (back.lost, result.gap_ns) == (0, back.gap_ns)
    assert back.gap_ns < 150_000_000


def test_silence_gives_a_connection_up() -> None:
    def swallow(connection: socket.socket) -> None:
        message(connection)
        assert connection.recv(1) == b""

    with scripted(then(1, swallow), echo) as server:
        events, result = run(server.address, count=4, timeout=0.2)
    assert kinds(events) == ["Reply", "timed_out [2]", "Back", "Reply", "Reply"]
    assert only_failure(events) == "seq=2: no answer for 0.2 s; reconnecting"
    assert failures(result) == {"timed_out": 1}
    (back,) = [one for one in events if isinstance(one, Back)]
    assert 200_000_000 <= back.gap_ns


def test_silence_costs_every_probe_that_is_under_way() -> None:
    def swallow(connection: socket.socket) -> None:
        while connection.recv(100):
            pass

    with scripted(then(1, swallow), echo) as server:
        events, result = run(server.address, count=8, interval=0.05, timeout=0.22)
    (numbers,) = [list(one.numbers) for one in events if isinstance(one, Failure)]
    assert numbers[:4] == [2, 3, 4, 5]
    assert result.failures["timed_out"] == len(numbers)
    assert result.received + result.lost == 8


@pytest.mark.parametrize(
    ("end", "kind", "sentence"),
    [
        (lambda connection: None, "closed", "closed by the peer (FIN), after 30 of 64 bytes"),
        (lambda connection: connection.recv(1), "timed_out", "no answer for 0.2 s, after 30 of"),
    ],
)
def test_an_answer_that_stops_in_the_middle_says_where(
    end: Handler, kind: str, sentence: str
) -> None:
    def half(connection: socket.socket) -> None:
        connection.sendall(message(connection)[:30])
        end(connection)

    with scripted(half, echo) as server:
        events, result = run(server.address, count=2, timeout=0.2)
    assert sentence in only_failure(events)
    assert kinds(events) == [f"{kind} [1]", "Back", "Reply"]
    assert result.received == 1


def test_a_wrong_byte_is_told_and_the_connection_kept() -> None:
    def flip(data: bytes) -> bytes:
        return data[:5] + bytes([data[5] ^ 1]) + data[6:]

    with scripted(answer(flip)) as server:
        events, result = run(server.address, count=3)
    assert kinds(events) == ["corrupt [1]", "Reply", "Reply"]
    assert "seq=1: it answered, but not with what was sent: byte 5 is 0x" in only_failure(events)
    assert failures(result) == {"corrupt": 1}
    assert (result.connect_timings.count, result.lost_percent) == (1, 0.0)


@pytest.mark.parametrize("reply", [WEB, WEB[:20], WEB * 20])
def test_another_protocol_is_recognised_and_its_connection_given_up(reply: bytes) -> None:
    with scripted(answer(reply), echo) as server:
        events, result = run(server.address, count=2)
    assert kinds(events) == ["corrupt [1]", "Back", "Reply"]
    assert "not with what was sent: byte 0 is 0x48, not 0x" in only_failure(events)
    assert "HTTP/1.1 400 Bad" in only_failure(events)
    assert failures(result) == {"corrupt": 1}


def test_the_bytes_of_another_probe_are_recognised() -> None:
    def swap(connection: socket.socket) -> None:
        first, second = message(connection), message(connection)
        connection.sendall(second + first)
        echo(connection)

    with scripted(swap, echo) as server:
        events, result = run(server.address, count=20, interval=0.02)
    assert only_failure(events[:2]) == "seq=1: it answered with the bytes of seq=2"
    assert kinds(events)[1].startswith("lost [2")
    assert kinds(events)[2:4] == ["Back", "Reply"]
    assert (result.failures["misplaced"], result.failures["corrupt"]) == (1, 0)


def test_more_bytes_than_were_sent_are_counted() -> None:
    with scripted(answer(lambda data: data + b"more"), echo) as server:
        events, result = run(server.address, count=3)
    assert "it sent more than it got: 4 more bytes, which begin b'more'" in only_failure(events)
    assert failures(result) == {"extra_bytes": 4}
    assert result.received == 3


def test_bytes_that_nobody_asked_for_are_noticed_between_two_probes() -> None:
    def chatter(connection: socket.socket) -> None:
        connection.sendall(message(connection))
        time.sleep(0.02)
        connection.sendall(b"hello")
        echo(connection)

    with scripted(chatter, echo) as server:
        events, result = run(server.address, count=2, interval=0.2)
    assert kinds(events) == ["Reply", "extra_bytes []", "Back", "Reply"]
    assert failures(result) == {"extra_bytes": 5}


def test_bytes_that_came_with_the_last_reply_are_noticed_at_the_end() -> None:
    with scripted(answer(lambda data: data + b"x")) as server:
        _, result = run(server.address, count=1)
    assert failures(result) == {"extra_bytes": 1}


def test_a_reply_that_takes_longer_than_the_timeout_is_late_not_lost() -> None:
    """It is silence that gives a connection up."""

    def slowly(connection: socket.socket) -> None:
        for byte in message(connection, 8):
            time.sleep(0.05)
            connection.sendall(bytes([byte]))
        echo(connection)

    with scripted(slowly) as server:
        events, result = run(server.address, count=2, size=8, timeout=0.3)
    first = events[1]
    assert isinstance(first, Reply)
    assert first.late
    assert first.time_ns >= 400_000_000
    assert failures(result) == {"late": 1}
    assert (result.received, result.lost) == (2, 0)


def test_a_server_that_starts_anew_ends_the_gap(make_server: MakeServer) -> None:
    server = make_server()
    made = Pinger(server.address, interval=0.02, count=60, timeout=DEADLINE)
    seen: list[Event] = []
    thread = threading.Thread(target=lambda: seen.extend(made))
    thread.start()
    wait_until(lambda: made.result().received >= 5)
    ending = time.perf_counter()
    server.abort()
    server.wait(DEADLINE)
    ended = time.perf_counter()
    wait_until(lambda: made.result().failures["refused"] >= 2)
    starting = time.perf_counter()
    make_server(server.address)
    started = time.perf_counter()
    thread.join(DEADLINE)
    (back,) = [one for one in seen if isinstance(one, Back)]
    gap = back.gap_ns / 1e9
    assert starting - ended <= gap + 0.02
    assert gap <= started - ending + 0.3
    result = made.result()
    assert back.lost == result.failures["lost"] == 60 - result.received
    assert gap / 0.02 - 3 <= back.lost <= gap / 0.02 + 3
    assert result.still_away == ""


def test_a_stopped_program_is_not_back_because_its_kernel_accepts(serve_apart: Serve) -> None:
    served = serve_apart()
    made = Pinger(served.address, interval=0.05, timeout=0.15)
    seen: list[Event] = []
    thread = threading.Thread(target=lambda: seen.extend(made))
    thread.start()
    wait_until(lambda: made.result().received >= 2)
    with served.paused():
        began = time.perf_counter()
        wait_until(lambda: "does not answer" in made.result().still_away)
        wait_until(lambda: made.result().connect_timings.count >= 4)
        paused = time.perf_counter() - began
    wait_until(lambda: any(isinstance(one, Back) for one in seen))
    made.stop()
    thread.join(DEADLINE)
    backs = [one for one in seen if isinstance(one, Back)]
    # The gap began with the first probe that had no answer.
    assert backs[-1].gap_ns / 1e9 >= paused - 0.1
    assert made.result().failures["timed_out"] >= 1
    assert made.result().failures["refused"] == 0


def test_a_stopped_program_makes_replies_late_and_loses_none(serve_apart: Serve) -> None:
    served = serve_apart()
    made = Pinger(served.address, interval=0.05, count=20, timeout=DEADLINE)
    seen: list[Event] = []
    thread = threading.Thread(target=lambda: seen.extend(made))
    thread.start()
    wait_until(lambda: made.result().received >= 2)
    with served.paused():
        before = made.result().transmitted
        wait_until(lambda: made.result().transmitted >= before + 6)
    thread.join(DEADLINE)
    result = made.result()
    assert (result.received, result.is_clean) == (20, True)
    assert result.timings.max_ns >= 200_000_000
    slow = [one for one in seen if isinstance(one, Reply) and one.time_ns >= 50_000_000]
    assert len(slow) >= 4


@pytest.mark.parametrize("interval", [0.05, 0])
def test_probes_end_when_the_server_never_comes_back(interval: float) -> None:
    with scripted(then(1, lambda connection: server._listener.close())) as server:
        events = iter(Pinger(server.address, interval=interval, count=6, timeout=DEADLINE))
        next(events)
        assert isinstance(next(events), Reply)
        rest = list(events)
    told = [one.kind for one in rest if isinstance(one, Failure)]
    assert told[0] in ("closed", "reset")  # by RST if the next probe came before the end
    assert told[1:] == ["refused"]  # told once, though tried again and again


def test_what_was_lost_while_away_is_counted() -> None:
    with scripted(then(1, lambda connection: server._listener.close())) as server:
        made = Pinger(server.address, interval=0.05, count=6, timeout=DEADLINE)
        events = iter(made)
        next(events)
        lost = time.perf_counter_ns()
        list(events)
        passed = time.perf_counter_ns() - lost
    result = made.result()
    assert (result.probes, result.transmitted, result.received, result.lost) == (6, 1, 1, 5)
    assert result.failures["refused"] >= 1
    assert result.still_away == "Connection refused"
    assert result.gaps == 1
    assert result.gap_ns == result.longest_gap_ns == result.still_away_ns
    assert 150_000_000 <= result.gap_ns <= passed


@pytest.mark.parametrize("new_connection", [False, True])
def test_a_gap_lasts_until_somebody_ends_the_probes(new_connection: bool) -> None:
    with scripted(then(1, lambda connection: server._listener.close())) as server:
        made = Pinger(server.address, interval=0.02, new_connection=new_connection)
        thread = threading.Thread(target=lambda: list(made))
        thread.start()
        wait_until(lambda: made.result().failures["refused"] >= 2)
        made.stop()
        thread.join(DEADLINE)
    result = made.result()
    assert (result.gaps, result.still_away) == (1, "Connection refused")
    assert 0 < result.gap_ns == result.still_away_ns <= result.elapsed_ns


def test_silence_until_the_last_probe_is_a_gap_and_the_end_of_its_connection_is_none() -> None:
    with scripted(lambda connection: connection.recv(100) and connection.recv(1)) as server:
        _, silent = run(server.address, count=1, timeout=0.2)
    assert (silent.gaps, silent.still_away) == (1, "no answer for 0.2 s")
    assert 200_000_000 <= silent.gap_ns <= silent.elapsed_ns
    with scripted(close_at_next) as server:
        _, closed = run(server.address, count=1)
    assert (closed.gaps, closed.still_away, closed.still_away_ns) == (0, "", 0)
    assert failures(closed) == {"lost": 1, "closed": 1}


def test_a_reset_or_an_end_while_coming_back_is_counted_as_what_it_is() -> None:
    with scripted(then(1, close_at_next), reset_at_next, close_at_next, echo) as server:
        events, result = run(server.address, count=5)
    told = [str(one) for one in events if isinstance(one, Failure)]
    assert told == [
        "seq=2: closed by the peer (FIN); reconnecting",
        "reset by the peer (RST); trying again",
        "closed by the peer (FIN); trying again",
    ]
    assert failures(result) == {"lost": 3, "reset": 1, "closed": 2}
    assert (result.received, result.gaps) == (2, 1)


def test_a_program_that_was_stopped_while_the_server_is_away_loses_nothing_by_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pinger, "PATIENCE_NS", 300_000_000)
    with scripted(then(1, lambda connection: server._listener.close())) as server:
        made = Pinger(server.address, interval=0.05, count=12, timeout=DEADLINE)
        events = iter(made)
        while not made.result().failures["refused"]:
            next(events)
        before = made.result().lost
        time.sleep(0.6)  # as if it had been stopped: twelve probes would have been due
        woken = time.perf_counter()
        list(events)
        assert time.perf_counter() - woken >= (11 - before - 3) * 0.05
    assert made.result().lost == 11


def late(count: int, after: float, end: Handler = echo) -> Handler:
    """Return a handler that echoes a probe, and sends more bytes a while after it."""

    def handler(connection: socket.socket) -> None:
        connection.sendall(message(connection))
        time.sleep(after)
        connection.sendall(b"x" * count)
        end(connection)

    return handler


@pytest.mark.parametrize("interval", [0, 0.2])
def test_bytes_too_many_after_the_reply_are_noticed_when_each_has_its_own_connection(
    interval: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinger, "LISTEN_NS", (DEADLINE * 10**9,) * 2)  # machines may be slow
    with scripted(late(3, 0.002), late(4, 0.002), echo) as server:
        events, result = run(server.address, count=3, interval=interval, new_connection=True)
    expected = ["Reply", "extra_bytes []", "Reply", "extra_bytes []", "Reply"]
    assert kinds(events) == expected
    assert failures(result) == {"extra_bytes": 7}
    assert (result.received, result.gaps) == (3, 0)


def test_a_peer_that_never_closes_does_not_move_the_schedule() -> None:
    """And the time of a reply is not that of the end of its connection."""
    open_ones: list[socket.socket] = []

    def keep(connection: socket.socket) -> None:
        connection.sendall(message(connection))
        assert connection.recv(1) == b""
        open_ones.append(connection.dup())

    with scripted(*[keep] * 6) as server:
        _, result = run(server.address, count=6, interval=0.03, new_connection=True)
    for one in open_ones:
        one.close()
    assert (result.received, result.is_clean) == (6, True)
    assert 150 <= result.elapsed_ns / 1e6 < 550
    assert result.timings.percentile(50) < 30_000_000


def hold(seconds: float) -> Handler:
    """Return a handler that answers a probe after a while, and then echoes."""

    def handler(connection: socket.socket) -> None:
        data = message(connection)
        time.sleep(seconds)
        connection.sendall(data)
        echo(connection)

    return handler


def test_a_stall_does_not_move_the_schedule_when_each_has_its_own_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And costs every probe that was due in it, as it does on one connection."""
    monkeypatch.setattr(channel, "SLICE_NS", 10_000_000)
    monkeypatch.setattr(pinger, "PATIENCE_NS", 200_000_000)
    with scripted(hold(0.4), *[echo] * 24) as server:
        events, result = run(server.address, count=25, interval=0.02, new_connection=True)
    assert (result.received, result.is_clean) == (25, True)
    assert 480 <= result.elapsed_ns / 1e6 < 700  # moved it would be 840
    replies = [one for one in events if isinstance(one, Reply)]
    assert replies[0].waited_ns == 0
    for number in (2, 11):
        reply = replies[number - 1]
        assert 400 - 20 * (number - 1) <= reply.waited_ns / 1e6 <= reply.time_ns / 1e6


def test_silence_costs_the_probes_due_in_it_when_each_has_its_own_connection(
    serve_apart: Serve,
) -> None:
    served = serve_apart()
    made = Pinger(served.address, interval=0.02, count=35, timeout=0.2, new_connection=True)
    seen: list[Event] = []
    thread = threading.Thread(target=lambda: seen.extend(made))
    thread.start()
    wait_until(lambda: made.result().received >= 2)
    with served.paused():
        wait_until(lambda: made.result().failures["timed_out"] >= 2)
    thread.join(DEADLINE)
    result = made.result()
    (back,) = [one for one in seen if isinstance(one, Back)]
    assert back.lost == result.lost == 35 - result.received
    assert result.lost >= 20


def test_probes_that_wait_when_it_is_stopped_are_unanswered_and_not_lost() -> None:
    with DrivenServer() as server:
        made = Pinger(server.address, interval=0.02, timeout=DEADLINE, new_connection=True)
        thread = threading.Thread(target=lambda: list(made))
        thread.start()
        message(server.accept())
        time.sleep(0.2)  # ten are due
        made.stop()
        thread.join(DEADLINE)
    result = made.result()
    assert (result.transmitted, result.received, result.is_clean) == (1, 0, True)
    assert result.probes == result.unanswered >= 10


def test_a_probe_that_waits_for_longer_than_the_timeout_is_lost() -> None:
    """The server answers each, but cannot keep up with the interval."""
    with scripted(*[hold(0.1)] * 4) as server:
        made = Pinger(server.address, interval=0.02, timeout=0.15, new_connection=True)
        events = iter(made)
        answered = 0
        for event in events:
            answered += isinstance(event, Reply)
            if answered == 4:
                break
            if isinstance(event, Failure):
                assert event.kind == "lost"
                assert event.sentence == "not sent, after waiting 0.15 s for those before"
        events.close()  # type: ignore[attr-defined]
    result = made.result()
    assert result.lost >= 3
    assert result.failures["late"] >= 1


def test_a_storm_of_tries_is_none_when_each_has_its_own_connection() -> None:
    """With interval 0 they come ten times a second."""
    with scripted(*[answer(WEB)] * 3) as server:
        before = time.perf_counter()
        _, result = run(server.address, count=3, new_connection=True)
        assert time.perf_counter() - before >= 0.2
    assert failures(result) == {"corrupt": 3}


def test_a_server_that_is_lost_at_once_again_is_tried_ten_times_a_second() -> None:
    """It echoes what it is tried with, and no more: without a pause that would be a storm."""
    with scripted(*[then(1, close_at_next)] * 4) as server:
        before = time.perf_counter()
        events, _ = run(server.address, count=5)
        assert time.perf_counter() - before >= 0.2
    lost = [f"closed [{number}]" for number in (2, 3, 4, 5)]
    assert kinds(events) == ["Reply", lost[0], "Back", lost[1], "Back", lost[2], "Back", lost[3]]


def test_tries_come_further_apart_while_no_probe_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that closes after each message is back for each try, and gone at once."""
    monkeypatch.setattr(pinger, "TRY_NS", (1_000_000, 1_000_000_000))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with server.accept() as connection, suppress(ConnectionError):
                connection.sendall(connection.recv(100))

    with DrivenServer() as server:
        thread = threading.Thread(target=serve)
        thread.start()
        _, result = run(server.address, count=2, interval=0.5)
        stop.set()
        socket.create_connection(server._listener.getsockname()).close()
        thread.join(DEADLINE)
    assert 10 <= result.gaps <= 100  # by tenths of the time gone by; else 500


def test_a_connection_that_cannot_be_had_costs_one_probe_when_each_has_its_own(
    make_server: MakeServer,
) -> None:
    server = make_server()
    made = Pinger(server.address, interval=0.02, count=40, timeout=DEADLINE, new_connection=True)
    seen: list[Event] = []
    thread = threading.Thread(target=lambda: seen.extend(made))
    thread.start()
    wait_until(lambda: made.result().received >= 5)
    server.abort()
    wait_until(lambda: made.result().failures["refused"] >= 3)
    make_server(server.address)
    thread.join(DEADLINE)
    result = made.result()
    refused = [one for one in seen if isinstance(one, Failure) and one.kind == "refused"]
    assert len(refused) == result.failures["refused"]
    assert refused[-1].sentence == "cannot connect: Connection refused"
    (back,) = [one for one in seen if isinstance(one, Back)]
    assert back.lost == result.lost == 40 - result.received


def test_each_wrong_answer_costs_one_probe_when_each_has_its_own_connection() -> None:
    with scripted(answer(WEB), answer(WEB), echo) as server:
        events, result = run(server.address, count=3, new_connection=True)
    assert kinds(events)[:2] == ["corrupt [1]", "corrupt [2]"]
    assert "Reply" in kinds(events)
    assert failures(result) == {"corrupt": 2}


def test_nobody_there_is_an_error_before_the_first_event() -> None:
    with ExitStack() as stack:
        address = refusing_address(stack)
        for new_connection in (False, True):
            with pytest.raises(OSError, match=f"cannot connect to {address}: .*refused$"):
                run(address, new_connection=new_connection)


def test_an_address_that_never_answers_takes_the_timeout() -> None:
    with ExitStack() as stack:
        hole = black_hole(stack, socket.AF_INET, ("127.0.0.1", 0))
        before = time.perf_counter()
        with pytest.raises(TimeoutError):
            run(address_of(hole), timeout=0.2)
        assert 0.2 <= time.perf_counter() - before < 5
