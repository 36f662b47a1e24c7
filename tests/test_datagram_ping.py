"""`fastecho ping` over UDP: what is lost, doubled, out of order, late, wrong or foreign is exact.

The server is the test itself, by rule: nothing here is left to chance. No extension is needed.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run
from datagram_peers import DatagramServer, Send, answering_datagrams, refusing_port
from peers import has_ipv6

from fastecho.errors import ConfigError
from fastecho.measure import route
from fastecho.measure.datagram_pinger import HEADER, DatagramPinger
from fastecho.measure.ping_events import Event, Failure, Opened, Reply
from fastecho.measure.ping_result import PingResult

MS = r"\d+\.\d{3} ms"
FEW = 0.01
"""Seconds from one probe to the next."""


def ping(
    address: str, count: int, *, interval: float = FEW, timeout: float = 5.0, size: int = 64
) -> tuple[PingResult, list[Event]]:
    """Ping to the end; return what was counted, and what happened."""
    pinger = DatagramPinger(address, count=count, interval=interval, timeout=timeout, size=size)
    return pinger.result(), list(pinger)


@contextmanager
def pinging(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `fastecho ping`; it is ended in any case."""
    with subprocess.Popen(
        [*COMMAND, "ping", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def counted(result: PingResult) -> dict[str, int]:
    return {kind: n for kind, n in result.failures.items() if n}


def sentences(events: list[Event]) -> list[str]:
    return [str(one) for one in events if isinstance(one, Failure)]


def replies(events: list[Event]) -> list[int]:
    return [one.number for one in events if isinstance(one, Reply)]


def test_lines_are_those_of_ping() -> None:
    with answering_datagrams() as server:
        done = run("ping", server.address, "-c", "3", "-i", "0.01")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    there = server.address.removeprefix("udp://")
    head = rf"PING {server.address} \({there}\): 64 bytes from 127\.0\.0\.1:\d+"
    assert re.fullmatch(head, lines[0])
    for number in (1, 2, 3):
        assert re.fullmatch(rf"64 bytes from {there}: seq={number} time={MS}", lines[number])
    assert lines[4:6] == ["", f"--- {server.address} ping statistics ---"]
    counts = r"3 probes, 3 transmitted, 3 received, 0% lost, time \d+ ms"
    assert re.fullmatch(counts, lines[6])
    assert lines[7].startswith("rtt min/avg/p50/p90/p99/max = ")
    assert len(lines) == 9


@pytest.mark.parametrize("size", [HEADER, HEADER + 1, 64, 1472, 1473, 9000, 65507])
def test_a_probe_of_any_size_comes_back(size: int) -> None:
    with answering_datagrams() as server:
        result, _ = ping(server.address, 2, size=size, interval=0)
    assert (result.received, counted(result)) == (2, {})
    assert {len(data) for data in server.came} == {size}
    assert len(set(server.came)) == 2


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_ipv6() -> None:
    with answering_datagrams(host="::1") as server:
        result, _ = ping(server.address, 3)
    assert (result.received, counted(result)) == (3, {})
    assert result.peer == server.address.removeprefix("udp://")


def test_what_has_no_answer_is_lost_and_stalls_nothing() -> None:
    def every_third_is_lost(send: Send, data: bytes, number: int) -> None:
        if number % 3:
            send(data)

    with answering_datagrams(every_third_is_lost) as server:
        result, events = ping(server.address, 9, timeout=0.2)
    assert replies(events) == [1, 2, 4, 5, 7, 8]
    assert counted(result) == {"lost": 3}
    assert (result.probes, result.transmitted, result.received) == (9, 9, 6)
    assert round(result.lost_percent, 2) == 33.33
    # On a busy machine several are told at once: seq=3..6.
    told = [one for one in sentences(events) if one.endswith(": no answer in 0.2 s")]
    assert told and told[0].startswith("seq=3")
    # All were sent before the first was given up.
    assert events.index(next(one for one in events if isinstance(one, Failure))) >= 7


def test_without_an_interval_a_lost_probe_holds_up_the_next_for_a_moment_only() -> None:
    def second_is_lost(send: Send, data: bytes, number: int) -> None:
        if number != 2:
            send(data)

    with answering_datagrams(second_is_lost) as server:
        result, events = ping(server.address, 4, interval=0, timeout=0.1)
    assert replies(events) == [1, 3, 4]
    assert counted(result) == {"lost": 1}


def test_a_duplicate_is_counted_once_for_each_time_that_it_came_again() -> None:
    def second_comes_three_times(send: Send, data: bytes, number: int) -> None:
        for _ in range(3 if number == 2 else 1):
            send(data)

    with answering_datagrams(second_comes_three_times) as server:
        result, events = ping(server.address, 3)
    assert replies(events) == [1, 2, 3]
    assert counted(result) == {"duplicates": 2}
    assert sentences(events) == ["seq=2: came once more (duplicate)"] * 2


def test_a_duplicate_of_the_last_one_is_seen_as_well() -> None:
    with answering_datagrams(lambda send, data, _: (send(data), send(data))) as server:
        result, _ = ping(server.address, 1)
    assert counted(result) == {"duplicates": 1}


def test_reordered_is_what_comes_after_a_later_one() -> None:
    held: list[bytes] = []

    def first_two_come_behind_the_third(send: Send, data: bytes, number: int) -> None:
        held.append(data)
        if number >= 3:
            for one in (held.pop(), *held):
                send(one)
            held.clear()

    with answering_datagrams(first_two_come_behind_the_third) as server:
        result, events = ping(server.address, 4)
    # RFC 4737: 1 and 2 are smaller than what is expected next (4).
    assert replies(events) == [3, 1, 2, 4]
    assert counted(result) == {"reordered": 2}
    behind = [one.behind for one in events if isinstance(one, Reply)]
    assert behind == [0, 3, 3, 0]


def test_an_answer_after_the_timeout_was_late_and_not_lost() -> None:
    held: list[bytes] = []

    def first_waits_for_the_eighth(send: Send, data: bytes, number: int) -> None:
        if number == 1:
            held.append(data)
            return
        send(data)
        if number == 8:
            send(held[0])

    with answering_datagrams(first_waits_for_the_eighth) as server:
        result, events = ping(server.address, 9, interval=0.02, timeout=0.05)
    assert counted(result) == {"late": 1, "reordered": 1}
    assert (result.received, result.lost_percent) == (9, 0)
    assert "seq=1: no answer in 0.05 s" in sentences(events)
    assert [one.number for one in events if isinstance(one, Reply) and one.late] == [1]


def test_wrong_bytes_and_wrong_sizes_are_corrupt() -> None:
    def spoilt(send: Send, data: bytes, number: int) -> None:
        if number == 1:
            data = data[:20] + bytes([data[20] ^ 0x80]) + data[21:]
        send({2: data[:50], 3: data + b"!!", 4: b"said: " + data}.get(number, data))

    with answering_datagrams(spoilt) as server:
        result, events = ping(server.address, 5)
    assert counted(result) == {"corrupt": 4}
    assert (result.received, result.lost_percent) == (1, 0)
    first, *others = sentences(events)
    assert re.fullmatch(r"seq=1: byte 20 is 0x[0-9a-f]{2}, not 0x[0-9a-f]{2}", first)
    assert others == [
        "seq=2: 50 bytes came back, not 64",
        "seq=3: 66 bytes came back, not 64",
        "seq=4: 70 bytes came back, not 64",
    ]


def test_strangers_are_told_once_and_counted() -> None:
    def with_strangers(send: Send, data: bytes, _number: int) -> None:
        send(b"who is there?")
        send(data)

    with answering_datagrams(with_strangers) as server:
        result, events = ping(server.address, 3)
    assert counted(result) == {"foreign": 3}
    assert result.received == 3
    there = server.address.removeprefix("udp://")
    assert sentences(events) == [
        f"a datagram that answers no probe came from {there}: 13 bytes, b'who is there?'"
    ]


@pytest.mark.skipif(not hasattr(socket, "MSG_ERRQUEUE"), reason="needs Linux's queue of errors")
def test_an_answer_from_another_port_is_no_answer_and_says_where_it_came_from() -> None:
    servers: list[DatagramServer] = []

    def elsewhere(_send: Send, data: bytes, _number: int) -> None:
        servers[0].other.sendto(data, servers[0].peer or ("", 0))

    with answering_datagrams(elsewhere) as server:
        servers.append(server)
        result, events = ping(server.address, 2, timeout=0.1)
        there = f"127.0.0.1:{server.other.getsockname()[1]}"
    assert counted(result) == {"foreign": 2, "lost": 2}
    asked = server.address.removeprefix("udp://")
    assert f"seq=1: the answer came from {there}, not from {asked}" in sentences(events)


def test_a_refusal_is_told_once_and_counted_each_time() -> None:
    result, events = ping(f"udp://127.0.0.1:{refusing_port()}", 3)
    assert counted(result) == {"lost": 3, "refused": 3}
    assert sentences(events) == [
        "seq=1: refused: nothing listens on that port (ICMP port unreachable)"
    ]


def test_a_server_that_starts_later_is_heard() -> None:
    port = refusing_port()
    pinger = DatagramPinger(f"udp://127.0.0.1:{port}", interval=FEW, count=200)
    events = iter(pinger)
    assert isinstance(next(events), Opened)
    assert str(next(events)).startswith("seq=1: refused")
    with answering_datagrams(port=port):
        assert isinstance(next(events), Reply)
        pinger.stop()
        assert [one for one in events if isinstance(one, Failure)] == []
    result = pinger.result()
    assert result.failures["refused"] == result.failures["lost"] > 0


def test_a_refusal_is_told_again_once_something_has_come_back() -> None:
    port = refusing_port()
    pinger = DatagramPinger(f"udp://127.0.0.1:{port}", interval=FEW, count=1000)
    events = iter(pinger)
    assert isinstance(next(events), Opened)
    assert "refused" in str(next(events))
    with answering_datagrams(port=port):
        assert isinstance(next(events), Reply)
    assert "refused" in str(next(one for one in events if isinstance(one, Failure)))
    pinger.stop()
    assert [one for one in events if isinstance(one, Failure)] == []


def test_the_next_address_of_a_name_is_asked_when_the_first_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering_datagrams() as server:
        ports = (refusing_port(), server.port)
        places = [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(route, "resolve", lambda *_: places)
        result, events = ping("udp://two.example:7", 3)
    assert [type(one) for one in events] == [Opened, Opened, Reply, Reply, Reply]
    assert counted(result) == {}


def test_what_was_not_answered_when_it_was_stopped_is_not_lost() -> None:
    with answering_datagrams(lambda send, data, number: None) as server:
        pinger = DatagramPinger(server.address, interval=0.001)
        events = iter(pinger)
        assert isinstance(next(events), Opened)
        threading.Timer(0.05, pinger.stop).start()
        assert list(events) == []
    result = pinger.result()
    assert result.probes == result.unanswered > 0
    assert (counted(result), result.lost_percent) == ({}, 0)


def test_a_large_probe_that_cannot_be_sent_from_here_is_told() -> None:
    # A broadcast address is reached by nobody without SO_BROADCAST.
    done = run("ping", "udp://255.255.255.255:9", "-c1")
    assert (done.returncode, done.stdout) == (4, "")
    sentence = "cannot reach udp://255.255.255.255:9: Permission denied"
    assert done.stderr == f"fastecho ping: {sentence}\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--new-connection"], "--new-connection needs a connection, which udp://"),
        (["--identify"], "--identify needs a connection, which udp://"),
        (["--send-proxy=v2"], "--send-proxy 'v2' needs a connection, which udp://"),
        (["-s", "15"], "--size '15' must be a whole number from 16 to 65507"),
        (["-s", "65508"], "--size '65508' must be a whole number from 16 to 65507"),
        (["--fail-if", "loss>1ms"], "--fail-if 'loss>1ms' takes % or no unit after its number"),
        (["--fail-if", "duplicate>1"], "--fail-if 'duplicate>1' has no metric 'duplicate': did"),
        (["--fail-if", "not_sent>1"], "--fail-if 'not_sent>1' asks for not_sent, which bench kno"),
        (["--source", "::1", "-4"], "--source '::1' is no IPv4 address"),
    ],
)
def test_what_needs_a_connection_is_refused(options: list[str], sentence: str) -> None:
    assert_refused(run("ping", "udp://127.0.0.1:7", *options), 2, sentence)


def test_the_json_and_the_rules_know_what_datagrams_do(tmp_path: Path) -> None:
    def fourth_twice_fifth_never(send: Send, data: bytes, number: int) -> None:
        for _ in range({4: 2, 5: 0}.get(number, 1)):
            send(data)

    out = tmp_path / "ping.json"
    with answering_datagrams(fourth_twice_fifth_never) as server:
        done = run(
            "ping", server.address, "-qc5", "-i0.01", "-W0.1", f"--json={out}",
            "--fail-if=loss>=20%", "--fail-if=duplicates>0", "--fail-if=reordered>0",
        )  # fmt: skip
    assert done.returncode == 3
    assert "5 probes, 5 transmitted, 4 received, 20% lost, time" in done.stdout
    assert "failures: 1 lost, 1 duplicate\n" in done.stdout
    assert done.stderr.splitlines() == [
        "fastecho ping: --fail-if loss>=20% came true: loss is 20%",
        "fastecho ping: --fail-if duplicates>0 came true: duplicates is 1",
    ]
    found = json.loads(out.read_text())
    assert found["plan"]["target"] == server.address
    assert found["lost_percent"] == 20
    assert {kind: n for kind, n in found["failures"].items() if n} == {"lost": 1, "duplicates": 1}
    assert found["connect_us"] is None
    assert found["tcp_info"] is None


def test_interrupt_ends_it_with_the_summary() -> None:
    with answering_datagrams() as server, pinging(server.address, "-i", "0.02") as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=DEADLINE)
    assert (process.returncode, said) == (0, "")
    assert "0% lost" in out


def test_a_source_and_a_type_of_service_are_those_of_the_datagrams() -> None:
    port = refusing_port()
    with answering_datagrams() as server:
        pinger = DatagramPinger(server.address, count=1, source=f"127.0.0.1:{port}", tos=0x10)
        events = list(pinger)
        assert server.peer == ("127.0.0.1", port)
    assert isinstance(events[0], Opened)
    assert events[0].line.local == f"127.0.0.1:{port}"


def test_a_stream_is_no_address_for_datagrams_and_the_other_way_round() -> None:
    from fastecho.measure.pinger import Pinger

    with pytest.raises(ConfigError, match="is UDP, which cannot be used here"):
        Pinger("udp://localhost:7")
