"""Peers that mislead a check: those that look alive, look whole, or never end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, repeat
from pathlib import Path as File
from time import monotonic
from types import ModuleType
from xml.etree import ElementTree
from zlib import crc32

import pytest
from checked import answering
from commands import run
from conftest import MakeServer
from peers import DEADLINE

import fastecho
from fastecho.address import parse_target
from fastecho.check import pressure
from fastecho.check.path import Path, Stream
from fastecho.check.pattern import Pattern, Ruler
from fastecho.check.probes import (
    answer,
    connections,
    flows,
    idle,
    keepalive,
    mss,
    order,
    path_mtu,
    reachable,
    server_fin,
    server_first,
    server_half_close,
    server_reset,
    tcp_info,
)
from fastecho.check.probes import bytes as special_bytes
from fastecho.check.verdict import Failed, NotTestable

SILENCE = 0.3
TIMED_OUT = (
    b"HTTP/1.0 408 Request Time-out\r\nConnection: close\r\n\r\n<html><body>Late</body></html>"
)
MAGIC = b"FASTECHO-PROBE/1 "


@contextmanager
def path_to(serve: Callable[[socket.socket], object], **options: object) -> Iterator[Path]:
    """Give the path to a server that does this with each connection."""
    with answering(serve) as address:
        path = Path(parse_target(address), quick=True, **{"timeout": 1.0, **options})  # type: ignore[arg-type]
        try:
            yield path
        finally:
            path.close()


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def echo_until_it_is_late(sock: socket.socket) -> None:
    """Echo; who is silent is told so, in HTTP."""
    sock.settimeout(0.15)
    try:
        echo(sock)
    except TimeoutError:
        sock.sendall(TIMED_OUT)


def test_who_answers_after_an_idle_time_with_something_else_is_not_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keepalive, "QUICK_SECONDS", SILENCE)
    with path_to(echo_until_it_is_late, idle=(SILENCE,)) as path:
        for probe in (idle, keepalive):
            found = probe.run(path)
            assert found.verdict == "failed", found
            assert "an HTTP response, 'HTTP/1.0 408 Request Time-out'" in found.evidence


def test_an_echo_with_a_changed_byte_is_still_alive() -> None:
    def changes(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            sock.sendall(b"#" + data[1:])

    with path_to(changes, idle=(0.01,)) as path:
        assert idle.run(path).verdict == "passed"


def test_flows_of_which_most_are_silent_have_not_all_echoed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flows, "FIRST_SECONDS", SILENCE)
    monkeypatch.setattr(flows, "THEN_SECONDS", SILENCE)
    numbers = count()

    def every_third(sock: socket.socket) -> None:
        if next(numbers) % 3 == 0:
            echo(sock)
        while sock.recv(1 << 16):
            pass

    with path_to(every_third) as path, pytest.raises(NotTestable, match=r"42 of 64 flows did not"):
        flows.run(path)


def test_flows_have_odd_ports_and_even_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "FIRST_SECONDS", DEADLINE)
    ports = set()

    def notes(sock: socket.socket) -> None:
        ports.add(sock.getpeername()[1])
        echo(sock)

    with path_to(notes) as path:
        assert flows.run(path).verdict == "passed"
    assert {port % 2 for port in ports} == {0, 1}


def test_where_most_flows_end_none_is_worse_than_most() -> None:
    numbers = count()

    def every_third(sock: socket.socket) -> None:
        if next(numbers) % 3 == 0:
            echo(sock)

    with path_to(every_third) as path, pytest.raises(NotTestable, match=r"42 of 64 flows fail, so"):
        flows.run(path)


def test_bytes_of_another_connection_are_named() -> None:
    waiting: list[socket.socket] = []
    both = threading.Condition()

    def swaps(sock: socket.socket) -> None:
        """Echo to one of the others, and wait for what comes from another."""
        data = sock.recv(1 << 16)
        with both:
            waiting.append(sock)
            both.notify_all()
            both.wait_for(lambda: len(waiting) == 4, DEADLINE)
        waiting[waiting.index(sock) - 1].sendall(data)
        sock.recv(1)

    with path_to(swaps, connections=4) as path:
        found = connections.run(path)
    assert found.evidence == ("0 of 4 connections echoed; 4 times bytes of another connection came")


@pytest.mark.parametrize(("share", "is_lossy"), [(1, True), (4, False)])
def test_a_flow_is_lossy_that_stands_out_twice(
    monkeypatch: pytest.MonkeyPatch, share: int, is_lossy: bool
) -> None:
    chosen: list[flows.Flow] = []

    def lost(flow: flows.Flow) -> int:
        """As if all of one flow's messages, or every so-manieth, had been sent again."""
        chosen[:] = chosen or [flow]
        messages = flow.talk.sent // flows.SIZE
        return max(messages // share, flows.SUSPECT) if flow is chosen[0] else 0

    monkeypatch.setattr(flows, "FIRST_SECONDS", DEADLINE)
    monkeypatch.setattr(flows, "THEN_SECONDS", DEADLINE)
    monkeypatch.setattr(flows.Flow, "retransmissions", property(lost))
    with path_to(echo) as path:
        found = flows.run(path)
    assert found.values["lossy_ports"] == ([chosen[0].port] if is_lossy else [])
    assert found.verdict == ("failed" if is_lossy else "passed")


# Idle, and full


def test_idle_times_are_a_ladder_in_whatever_order_they_are_given() -> None:
    with path_to(echo, idle=(0.1, 0.0)) as path:
        assert idle.run(path).values["survived_s"] == [0.0, 0.1]


@pytest.mark.parametrize("unanswered", [3, 4])
def test_keepalives_without_an_answer_are_a_failure_if_there_are_many(
    monkeypatch: pytest.MonkeyPatch, unanswered: int
) -> None:
    monkeypatch.setattr(keepalive, "QUICK_SECONDS", 0.0)
    told = {"keepalive_probes": unanswered, "last_ack_recv_ms": 1}
    monkeypatch.setattr(keepalive, "tcp_info", lambda sock: told)
    with path_to(echo) as path:
        if unanswered == 3:
            with pytest.raises(NotTestable, match="the last 3 had no answer"):
                keepalive.run(path)
        else:
            assert keepalive.run(path).verdict == "failed"


def test_what_our_own_kernel_still_holds_was_not_taken_by_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pressure, "STALL_SECONDS", SILENCE)
    ended = threading.Event()
    with path_to(lambda sock: ended.wait(DEADLINE)) as path, path.open() as stream:
        source = Pattern(1, 1, 1 << 28)
        filled = pressure.fill(path, stream, source, monotonic() + DEADLINE)
        ended.set()
    assert filled.pushed_back
    assert 0 < filled.taken < filled.sent - (1 << 16)


def test_deadlines_rest_on_the_round_trip_that_answer_has_measured() -> None:
    def waits(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            threading.Event().wait(0.02)
            sock.sendall(data)

    with path_to(waits) as path:
        assert answer.run(path).verdict == "passed"
        assert path.rtt >= 0.02


@pytest.mark.parametrize(("again", "verdict"), [(8, "passed"), (9, "failed")])
def test_a_path_on_which_most_is_sent_again_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, again: int, verdict: str
) -> None:
    told = {"total_retrans": again, "data_segs_out": 16, "rtt_us": 1, "rttvar_us": 1}
    monkeypatch.setattr(tcp_info, "tcp_info", lambda sock: told)
    with path_to(echo) as path:
        assert tcp_info.run(path).verdict == verdict


# Whole segments


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_mtu, "WHOLE_SECONDS", SILENCE)
    monkeypatch.setattr(path_mtu, "TRY_SECONDS", SILENCE)


@pytest.mark.usefixtures("hurried")
def test_a_server_that_stood_still_once_is_no_black_hole() -> None:
    once = threading.Lock()

    def stands_still(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            if len(data) > 1000 and once.acquire(blocking=False):
                while sock.recv(1 << 16):
                    pass
            sock.sendall(data)

    with path_to(stands_still) as path:
        found = path_mtu.run(path)
        assert found.verdict == "passed", found
        assert path.mss == 0


@pytest.mark.usefixtures("hurried")
def test_a_connection_that_carries_only_so_much_is_no_black_hole() -> None:
    def carries(sock: socket.socket) -> None:
        left = 1 << 16
        while data := sock.recv(1 << 16):
            sock.sendall(data[:left])
            left -= min(left, len(data))

    with path_to(carries) as path:
        with pytest.raises(NotTestable, match="their size is not the matter"):
            path_mtu.run(path)
        assert path.mss == 0


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(("piece", "passes"), [(1 << 14, True), (100, False)])
def test_a_slow_path_does_not_keep_the_gate_for_long(piece: int, passes: bool) -> None:
    stop = threading.Event()

    def slowly(sock: socket.socket) -> None:
        sock.sendall(sock.recv(40))
        waits = 0.0
        while data := sock.recv(piece):
            stop.wait(waits)
            waits = 0.05
            sock.sendall(data)

    with path_to(slowly) as path:
        try:
            if passes:
                assert "passed each way, then the time was over" in path_mtu.run(path).evidence
            else:
                with pytest.raises(NotTestable, match="the path is too slow"):
                    path_mtu.run(path)
        finally:
            stop.set()


def test_the_segment_size_is_the_ends_own_not_that_of_our_clamp() -> None:
    with path_to(echo) as path:
        path.mss = 300
        found = mss.run(path)
    assert found.verdict == "passed"
    assert found.values["send_mss_bytes"] > 1000


def test_tiny_segments_are_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 200)
        host, port = listener.getsockname()
        path = Path(parse_target(f"{host}:{port}"), timeout=0.2, quick=True)
        found = mss.run(path)
        path.close()
    assert found.verdict == "failed"
    assert found.values["send_mss_bytes"] <= 200


# Answers to orders


def ordered(sock: socket.socket) -> list[bytes]:
    """Acknowledge an order; return its words."""
    words = sock.makefile("rb").readline()[len(MAGIC) :].split()
    sock.sendall(MAGIC + b"ok " + words[0] + b"\n")
    return words


def half_closing(reports: Iterator[bytes]) -> Callable[[socket.socket], None]:
    """Return what obeys half-close, and reports this about it."""

    def serve(sock: socket.socket) -> None:
        words = ordered(sock)
        if words[0] == b"half-close":
            sock.sendall(Ruler(int(words[2])).take(0, int(words[2])))
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.sendall(next(reports) + b"\n")
        while sock.recv(1 << 16):
            pass

    return serve


@pytest.mark.parametrize(
    "report",
    [
        b'{"eof":true,"bytes":Infinity}', b'{"eof":true,"bytes":NaN}', b'{"eof":true,"bytes":-1}',
        b'{"eof":true,"bytes":1' + b"0" * 400 + b"}", b'{"eof":true,"bytes":"1"}', b"[1]", b"5",
        b"[" * 500, b'{"eof":true}', b"\xff\x1b[31m",
    ],
)  # fmt: skip
def test_a_report_that_is_none_is_a_failure_in_a_short_sentence(report: bytes) -> None:
    with path_to(half_closing(iter([report]))) as path:
        with pytest.raises(Failed, match="the server's report cannot be read") as raised:
            server_half_close.run(path)
        assert len(str(raised.value)) < 300


def test_what_a_slow_path_still_carries_is_waited_for() -> None:
    sent = Pattern(1, 151, server_half_close.THEN).take(0, server_half_close.THEN)

    def reports() -> Iterator[bytes]:
        for some in range(0, len(sent), len(sent) // 8):
            yield json.dumps({"bytes": some, "eof": False}).encode()
        yield json.dumps({"bytes": len(sent), "eof": True, "crc32": crc32(sent)}).encode()

    with path_to(half_closing(reports()), timeout=0.12) as path:
        assert server_half_close.run(path).verdict == "passed"


def test_an_answer_without_an_end_is_given_up() -> None:
    def goes_on(sock: socket.socket) -> None:
        sock.sendall(bytes(600))
        echo(sock)

    with path_to(goes_on) as path, pytest.raises(Failed, match="an answer without an end"):
        server_reset.run(path)


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ({"eof": False, "bytes": 100_000}, "100,000 arrived, but not our FIN"),
        ({"eof": True, "bytes": 100_000, "crc32": 1}, "100,000 arrived, but not the same"),
        ({"eof": True, "bytes": 99_999}, "100,000 bytes were sent, 99,999 arrived"),
        ({"eof": True, "bytes": 100_000}, "100,000 arrived, and our FIN"),
    ],
)
def test_what_the_server_got_is_compared(report: dict[str, object], says: str) -> None:
    line = json.dumps(report).encode()
    with path_to(half_closing(repeat(line)), timeout=0.1) as path:
        found = server_half_close.run(path)
    assert found.evidence.endswith(says)
    assert (found.verdict == "passed") == says.endswith("and our FIN")


def test_control_characters_of_a_refusal_reach_neither_a_terminal_nor_xml(tmp_path: File) -> None:
    def refuses(sock: socket.socket) -> None:
        data = sock.recv(1 << 16)
        bad = MAGIC + b"error \x1b[31m\x00\xff]]>&<\x9b\r\n"
        sock.sendall(bad if data.startswith(MAGIC) else data)
        echo(sock)

    junit = tmp_path / "check.xml"
    with answering(refuses) as address:
        done = run("check", address, "--quick", "--only=server-fin", f"--junit={junit}")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"the server refused the order 'close 0': \x1b[31m\x00" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()
    said = [one.attrib["message"] for one in ElementTree.parse(junit).iter("skipped")]
    assert said[0].startswith(r"the server refused the order 'close 0': \x1b[31m\x00")


@pytest.mark.parametrize(
    ("probe", "says"), [(server_fin, "no end (FIN)"), (server_first, "nothing")]
)
def test_an_order_that_is_not_done_is_a_failure(probe: ModuleType, says: str) -> None:
    def only_acknowledges(sock: socket.socket) -> None:
        ordered(sock)
        echo(sock)

    with path_to(only_acknowledges, timeout=0.1) as path:
        found = probe.run(path)
    assert found.verdict == "failed"
    assert f"due: {says}" in found.evidence


def test_something_in_place_of_a_reset_is_no_fin() -> None:
    def answers(sock: socket.socket) -> None:
        size = int(ordered(sock)[1])
        sock.sendall(Ruler(size).take(0, size))
        echo(sock)

    with path_to(answers) as path:
        found = server_reset.run(path)
    assert found.verdict == "failed"
    assert found.evidence.startswith("in place of the server's RST something came: 1 byte too many")


# What comes late, or never ends


def test_a_message_whose_check_is_wrong_did_not_come_back_whole() -> None:
    came = order.record(1, 0) + b"<00000001000000>" + order.record(1, 2)
    assert order.Found(1, 3, came).words() == (
        "1 of 3 messages did not come back whole; 16 bytes came that are no message"
    )


def test_messages_without_an_end_are_not_kept() -> None:
    def floods(sock: socket.socket) -> None:
        while True:
            sock.sendall(bytes(1 << 20))

    with path_to(floods) as path:
        found = order.run(path)
    assert found.verdict == "failed"
    assert found.evidence.endswith("without an end")
    assert int(found.evidence.split()[5].replace(",", "")) < 4 << 20


def test_line_ends_that_are_changed_late_in_a_stream_are_seen() -> None:
    def changes_late(sock: socket.socket) -> None:
        came = 0
        while data := sock.recv(1 << 12):
            came += len(data)
            sock.sendall(data if came < 1 << 16 else data.replace(b"\r\n", b"\n"))

    with path_to(changes_late) as path:
        found = special_bytes.run(path)
    assert found.values["wrong"] == ["special bytes behind 64 KiB"], found


# What nobody accepts


def test_a_limit_of_connections_is_told_with_how_many_were_refused(make_server: MakeServer) -> None:
    server = make_server(max_per_ip=8)
    path = Path(parse_target(server.address), timeout=1.0, quick=True)
    found = connections.run(path)
    path.close()
    assert (found.values["echoed"], found.values["refused"]) == (8, 42)


def test_a_name_of_many_dead_addresses_is_a_failure_in_the_time_of_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack, path_to(echo) as alive:
        holes = [stack.enter_context(fastecho.black_hole()) for _ in range(3)]
        dead = [(socket.AF_INET, (hole.host, hole.port)) for hole in holes]
        monkeypatch.setattr(reachable, "SPARE_SECONDS", 0.2)
        end = monotonic() + 1.0
        path = alive.until(end)
        monkeypatch.setattr(Path, "places", lambda self: dead)
        found = reachable.run(path)
        assert (found.verdict, found.ends_all) == ("failed", True)
        assert monotonic() < end
        last = alive.place
        monkeypatch.setattr(Path, "places", lambda self: [*dead, last])
        assert reachable.run(alive.until(monotonic() + 1.0)).verdict == "passed"


def test_a_unix_socket_without_room_is_not_reached_until_there_is_some(tmp_path: File) -> None:
    name = str(tmp_path / "echo.sock")
    path = Path(parse_target(f"unix:{name}"), timeout=0.2)
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(name)
        listener.listen(0)
        while True:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            try:
                sock.connect(name)
            except BlockingIOError:
                break
        (failure,) = path.connect_all([path.place], patience=0.1)
        assert isinstance(failure, OSError)
        assert failure.strerror == "Connection timed out"
        listener.settimeout(DEADLINE)
        accepting = threading.Thread(target=lambda: stack.enter_context(listener.accept()[0]))
        accepting.start()
        with path.open() as stream:
            assert isinstance(stream, Stream)
            stream.sock.send(b"x")
        accepting.join(DEADLINE)
    path.close()
