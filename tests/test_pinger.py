"""Probes over a path that behaves: their bytes, their schedule, where they go and come from.

What goes wrong is in test_pinger_losses.py, the command in test_cli_ping.py.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeServer
from driven import echo
from peers import DEADLINE, has_ipv6, wait_until
from scripted import message, scripted

from fastecho import ConfigError
from fastecho.measure import channel, pinger
from fastecho.measure.ping_events import Event, Failure, Opened, Reply
from fastecho.measure.ping_result import PingResult
from fastecho.measure.pinger import Pinger
from fastecho.measure.probes import PERIOD, Probes

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")


def run(address: str, **options: Any) -> tuple[list[Event], PingResult]:
    """Run probes to their end; none takes longer than a test may."""
    made = Pinger(address, **{"interval": 0, "timeout": DEADLINE, **options})
    watch = threading.Timer(DEADLINE, made.stop)
    watch.start()
    try:
        events = list(made)
    finally:
        watch.cancel()
        watch.join()
    return events, made.result()


def test_every_probe_has_its_reply(make_server: MakeServer) -> None:
    events, result = run(make_server().address, count=100)
    assert [type(one) for one in events] == [Opened] + [Reply] * 100
    assert [one.number for one in events if isinstance(one, Reply)] == list(range(1, 101))
    assert (result.probes, result.transmitted, result.received) == (100, 100, 100)
    assert (result.lost, result.unanswered, result.is_clean) == (0, 0, True)
    assert result.timings.count == 100
    assert 0 < result.timings.min_ns <= result.timings.max_ns < result.elapsed_ns


@pytest.mark.parametrize("size", [1, 2, 64, 16384, 16385, 1 << 20])
def test_probes_of_any_size_come_back(make_server: MakeServer, size: int) -> None:
    server = make_server(send_buffer=8192, receive_buffer=8192)
    _, result = run(server.address, count=5, size=size)
    assert (result.received, result.is_clean) == (5, True)
    assert server.stats().bytes_in == 5 * size


def test_probes_differ_and_only_their_last_byte_is_a_newline() -> None:
    probes = Probes(64)
    made = [probes.bytes_of(number) for number in range(PERIOD)]
    assert len(set(made)) == PERIOD
    assert all(one.index(b"\n") == 63 for one in made)
    assert set(b"".join(made)) == set(range(256))


def test_probes_of_a_few_bytes_are_alike_by_chance_only() -> None:
    """What docs/reference/ping.md says of them."""
    for size, most in ((1, PERIOD / 200), (2, PERIOD / 200), (3, PERIOD / 10000), (8, 0)):
        probes = Probes(size)
        made = [probes.bytes_of(number) for number in range(PERIOD)]
        alike = sum(one == other for one, other in pairwise(made))
        assert alike <= most
    assert len(set(made)) == PERIOD


def test_a_server_that_echoes_lines_answers_as_well(make_server: MakeServer) -> None:
    _, result = run(make_server(frame="line").address, count=10)
    assert (result.received, result.is_clean) == (10, True)


def test_a_usual_probe_is_two_system_calls(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No poll(2), and no change of the socket's mode."""

    def refused(*_: object) -> None:
        raise AssertionError("select was called")

    server = make_server()
    made = iter(Pinger(server.address, interval=0, count=200, timeout=DEADLINE))
    next(made)
    monkeypatch.setattr(select, "select", refused)
    monkeypatch.setattr(channel.Channel, "_block", refused)
    assert sum(isinstance(next(made), Reply) for _ in range(199)) == 199
    monkeypatch.undo()
    assert isinstance(next(made), Reply)
    assert list(made) == []


def test_a_reply_in_pieces_is_one_reply() -> None:
    def in_pieces(connection: socket.socket) -> None:
        for _ in range(3):
            data = message(connection)
            for piece in (data[:1], data[1:40], data[40:]):
                connection.sendall(piece)
                time.sleep(0.005)
        echo(connection)

    with scripted(in_pieces) as server:
        events, result = run(server.address, count=3)
    assert (result.received, result.is_clean) == (3, True)
    replies = [one for one in events if isinstance(one, Reply)]
    assert all(one.time_ns >= 10_000_000 for one in replies)


def test_a_late_reply_does_not_hold_back_the_next_probes() -> None:
    """Probe 2 is answered when probe 4 has come: 2 and 3 wait, and none is late by itself."""

    def hold_back(connection: socket.socket) -> None:
        connection.sendall(message(connection))
        connection.sendall(b"".join(message(connection) for _ in range(3)))
        echo(connection)

    with scripted(hold_back) as server:
        events, result = run(server.address, count=6, interval=0.05)
    assert (result.received, result.is_clean) == (6, True)
    times = [one.time_ns / 1e6 for one in events if isinstance(one, Reply)]
    assert times[1] > times[2] > times[3]
    assert 250 <= result.elapsed_ns / 1e6


def test_probes_keep_to_their_schedule(make_server: MakeServer) -> None:
    before = time.perf_counter()
    _, result = run(make_server().address, count=21, interval=0.01)
    assert 0.2 <= time.perf_counter() - before
    assert (result.received, result.is_clean) == (21, True)


@pytest.mark.parametrize("new_connection", [False, True])
def test_a_program_that_was_stopped_does_not_make_up_for_it(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch, new_connection: bool
) -> None:
    monkeypatch.setattr(pinger, "PATIENCE_NS", 1_000_000)
    made = Pinger(
        make_server().address,
        interval=0.05,
        count=4,
        timeout=DEADLINE,
        new_connection=new_connection,
    )
    events = iter(made)
    next(events)
    next(events)
    time.sleep(0.5)  # as if it had been stopped: ten probes would have been due
    before = time.perf_counter()
    assert len(list(events)) == 3
    assert time.perf_counter() - before >= 0.1
    assert (made.result().received, made.result().is_clean) == (4, True)


def test_stop_ends_it_from_another_thread(make_server: MakeServer) -> None:
    made = Pinger(make_server().address, interval=10, timeout=DEADLINE)
    seen: list[Event] = []
    thread = threading.Thread(target=lambda: seen.extend(made))
    thread.start()
    wait_until(lambda: made.result().received == 1)
    made.stop()
    thread.join(DEADLINE)
    assert [type(one) for one in seen] == [Opened, Reply]
    assert made.result().probes == 1


def test_leaving_the_loop_closes_the_connection(make_server: MakeServer) -> None:
    server = make_server()
    for _ in Pinger(server.address, interval=10, timeout=DEADLINE):
        break
    wait_until(lambda: server.stats().connections_closed == 1)


def test_each_probe_has_its_own_connection(make_server: MakeServer) -> None:
    server = make_server()
    events, result = run(server.address, count=20, new_connection=True)
    wait_until(lambda: server.stats().connections_closed == 20)
    assert (result.received, result.is_clean) == (20, True)
    assert result.connect_timings.count == 20
    replies = [one for one in events if isinstance(one, Reply)]
    assert len({one.connect_ns for one in replies}) > 1
    assert all(one.connect_ns > 0 for one in replies)


def test_kernel_shows_its_own_times_and_retransmissions(make_server: MakeServer) -> None:
    _, result = run(make_server().address, count=50)
    assert result.retransmissions == 0
    assert result.tcp_rtt_ns is not None
    assert 0 < result.tcp_rtt_ns < 1e9
    shown = result.to_json()["tcp_info"]
    assert set(shown) == {"rtt_us", "rttvar_us", "retransmissions"}


def test_unix_sockets_work_and_have_no_tcp_info(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(f"unix:{tmp_path / 'echo'}")
    _, result = run(server.address, count=10)
    assert (result.received, result.is_clean, result.retransmissions) == (10, True, None)
    assert (result.peer, result.local) == (f"unix:{tmp_path / 'echo'}", "")
    assert result.to_json()["tcp_info"] is None


@needs_ipv6
def test_ipv6_works(make_server: MakeServer) -> None:
    _, result = run(make_server("[::1]:0").address, count=10, tos=0x10)
    assert (result.received, result.is_clean) == (10, True)
    assert result.local.startswith("[::1]:")


def test_a_name_is_taken_in_the_family_that_was_asked_for(make_server: MakeServer) -> None:
    server = make_server()
    _, result = run(f"localhost:{server.port}", count=1, family=socket.AF_INET)
    assert result.peer == server.address
    with pytest.raises(OSError, match=r"cannot resolve 127\.0\.0\.1 to an IPv6 address: "):
        run(server.address, family=socket.AF_INET6)


@pytest.mark.parametrize(
    ("source", "local"), [("127.0.0.9", "127.0.0.9:"), ("127.0.0.9:0", "127.0.0.9:")]
)
def test_source_address_is_ours(make_server: MakeServer, source: str, local: str) -> None:
    _, result = run(make_server().address, count=1, source=source)
    assert result.local.startswith(local)


@pytest.mark.parametrize("new_connection", [False, True])
def test_source_port_is_ours_again_and_again(make_server: MakeServer, new_connection: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.8", 0))  # where no server takes it
        port = taken.getsockname()[1]
    source = f"127.0.0.8:{port}"
    _, result = run(make_server().address, count=10, source=source, new_connection=new_connection)
    assert (result.received, result.local) == (10, source)


def test_source_port_in_use_is_one_sentence(make_server: MakeServer) -> None:
    server = make_server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        source = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"^.*cannot use the source {source}: .*in use$"):
            run(server.address, source=source)


@pytest.mark.parametrize("address", ["127.0.0.1:0", pytest.param("[::1]:0", marks=needs_ipv6)])
def test_type_of_service_is_set_before_connecting(make_server: MakeServer, address: str) -> None:
    made = Pinger(make_server(address).address, tos=0x48, count=1, timeout=DEADLINE)
    events = iter(made)
    opened = next(events)
    assert isinstance(opened, Opened)
    sock = opened.line.sock
    if sock.family == socket.AF_INET:
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x48
    else:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0x48
    list(events)


def test_descriptors_above_1023_work(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What select(2) cannot take, poll(2) can."""
    server = make_server()
    monkeypatch.setattr(channel, "SELECT_LIMIT", 0)
    monkeypatch.setattr(select, "select", None)
    _, result = run(server.address, count=5, interval=0.01)
    _, large = run(server.address, count=5, size=1 << 20)
    assert (result.received, large.received) == (5, 5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 0}, "size 0 must be a whole number from 1 to 1048576"),
        ({"size": 1 << 21}, "size 2097152 must be a whole number from 1 to 1048576"),
        ({"count": 0}, "count 0 must be a whole number from 1"),
        ({"interval": -1}, "interval -1 must be 0, or from 0.001 to 86400 seconds"),
        ({"interval": 0.0001}, "interval 0.0001 must be 0, or from"),
        ({"interval": float("nan")}, "interval nan must be"),
        ({"timeout": 0}, "timeout 0 must be from 0.001 to 86400 seconds"),
        ({"timeout": float("inf")}, "timeout inf must be"),
        ({"tos": 256}, "tos 256 must be a whole number from 0 to 255"),
        ({"source": "nobody"}, "source 'nobody' must be an address"),
        ({"source": "localhost:1"}, "source 'localhost:1' must have an address, not a name"),
        ({"source": "127.0.0.1:x"}, "has a port that is not a whole number"),
        ({"source": "unix:/x"}, "must be an address of this machine"),
        ({"source": "::1", "family": socket.AF_INET}, "source '::1' is no IPv4 address"),
        ({"address": "unix:/x", "tos": 1}, "tos 1 has no effect on unix:/x"),
        ({"address": "unix:/x", "source": "::1"}, "source '::1' has no effect on unix:/x"),
        ({"address": "127.0.0.1"}, "has no port"),
    ],
)
def test_bad_values_are_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pinger(**{"address": "127.0.0.1:7", **options})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_failures_are_events_of_one_kind() -> None:
    assert str(Failure("lost", [3], "gone")) == "seq=3: gone"
    assert str(Failure("lost", [3, 4, 5], "gone")) == "seq=3..5: gone"
    assert str(Failure("closed", [], "gone")) == "gone"
    shown = repr(Reply(3, 1000, False, 99))
    assert shown == (
        "<Reply behind=0, connect_ns=99, identity=None, late=False, number=3, time_ns=1000, "
        "waited_ns=0>"
    )
