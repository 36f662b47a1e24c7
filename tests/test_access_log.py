"""The access log: one line for each connection, true to the byte, and never in anybody's way.

Who writes the log down may be slow or stand still; workers go on, and what is left out is counted.
Nothing that a peer chooses can make a second line or act on a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import COMMAND, full_pipe, run, serving
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    expect_stats,
    fill,
    has_ipv6,
    is_reset,
    is_turned_away,
    pattern,
    plenty,
    port_of,
    read_to_eof,
    reset,
    wait_until,
)

import fastecho
from fastecho import reporter
from fastecho._load import Load
from fastecho.logs import Entry

ACCESS = logging.getLogger("fastecho.access")


class Lines(logging.Handler):
    """Keeps what the loggers were given: lines and entries of the access log, and warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.entries: list[Entry] = []
        self.warnings: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.go_on.wait(60)
        if record.name == ACCESS.name:
            self.texts.append(record.getMessage())
            self.entries.append(record.entry)  # type: ignore[attr-defined]
        else:
            self.warnings.append(record.getMessage())

    def by_number(self) -> dict[int | None, Entry]:
        return {entry.number: entry for entry in self.entries}


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, log = Lines(), logging.getLogger("fastecho")
    log.addHandler(handler)
    before = ACCESS.level, log.propagate
    ACCESS.setLevel(logging.INFO)
    log.propagate = False
    yield handler
    handler.go_on.set()
    log.removeHandler(handler)
    ACCESS.level, log.propagate = before


def fin(peer: socket.socket, server: fastecho.Server) -> None:
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""


def rst(peer: socket.socket, server: fastecho.Server) -> None:
    reset(peer)


def silence(peer: socket.socket, server: fastecho.Server) -> None:
    server.set_limits(idle_timeout=0.001)
    assert read_to_eof(peer) == b""
    peer.close()


def too_long(peer: socket.socket, server: fastecho.Server) -> None:
    peer.sendall(bytes(2000))
    assert read_to_eof(peer) == b""
    peer.close()


def drain(peer: socket.socket, server: fastecho.Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(server.stop)
        assert read_to_eof(peer) == b""
        peer.close()
        assert ended.result(20)


def abort(peer: socket.socket, server: fastecho.Server) -> None:
    server.abort()
    assert is_reset(peer)


ENDS: dict[str, tuple[Callable[[socket.socket, fastecho.Server], None], int, str | None]] = {
    "peer": (fin, 6, None),
    "error": (rst, 6, "ECONNRESET"),
    "idle_timeout": (silence, 6, None),
    "frame_too_long": (too_long, 2006, None),
    "drain": (drain, 6, None),
    "abort": (abort, 6, None),
}


@pytest.mark.parametrize("ended_by", ENDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_line_says_who_how_much_and_how_it_ended(
    make_server: MakeServer, join: Join, lines: Lines, ended_by: str, threads: int
) -> None:
    end, received, error = ENDS[ended_by]
    server = make_server(
        access_log=True, threads=threads, frame="line", prefix="<", max_frame=1000, drain_idle=0.01
    )
    peer = join(server)
    assert exchange(peer, b"hello\n", 7) == b"<hello\n"
    name = f"127.0.0.1:{port_of(peer)}"
    end(peer, server)
    wait_until(lambda: lines.entries)
    (entry,) = lines.entries
    assert (entry.number, entry.peer, entry.listener) == (1, name, server.address)
    assert (entry.bytes_in, entry.bytes_out) == (received, 7)
    assert (entry.ended_by, entry.error) == (ended_by, error)
    assert 0 < entry.duration < 20
    how = f"ended by {ended_by}{f' {error}' if error else ''}"
    pattern_ = (
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ {name} to {server.address}: \d+\.\d{{6}} s"
    )
    counts = rf"queued \d+\.\d{{3}} s, bytes in {received}, bytes out 7"
    assert re.fullmatch(f"{pattern_}, {counts}, {how}", lines.texts[0])


def test_connection_that_was_denied_or_silent_has_a_line(
    make_server: MakeServer, lines: Lines
) -> None:
    denying = make_server(access_log=True, on_accept=lambda peer: False)
    assert is_turned_away(denying)
    waiting = make_server(access_log=True, first_byte_timeout=0.01)
    with connect(waiting) as peer:
        assert read_to_eof(peer) == b""
    wait_until(lambda: len(lines.entries) == 2)
    ends = {entry.listener: (entry.ended_by, entry.number) for entry in lines.entries}
    assert ends == {denying.address: ("denial", 1), waiting.address: ("first_byte_timeout", 1)}


@pytest.mark.parametrize("limit", ["max_connections", "max_per_ip", "accept_rate"])
def test_refused_newcomer_has_a_line_without_a_number(
    make_server: MakeServer, join: Join, lines: Lines, limit: str
) -> None:
    server = make_server(access_log=True, **{limit: 1})
    assert exchange(join(server), b"x") == b"x"
    assert is_turned_away(server)
    wait_until(lambda: lines.entries)
    (entry,) = lines.entries
    assert (entry.number, entry.ended_by, entry.bytes_in) == (None, limit, 0)
    assert entry.peer.startswith("127.0.0.1:")
    assert lines.texts[0].endswith(f"refused by {limit}")


@pytest.mark.parametrize("frame", ["recv", "line"])
def test_bytes_of_all_lines_sum_up_to_the_statistics(
    make_server: MakeServer, lines: Lines, frame: str
) -> None:
    """Also of connections that were cut with replies pending: those were not given out."""
    server = make_server(access_log=True, threads=2, frame=frame, prefix="ab" if frame else "")
    data = b"\n".join(pattern(n).hex().encode() for n in range(50)) + b"\n"
    for turn in range(20):
        with connect(server) as peer:
            peer.sendall(data * (turn + 1))
            if turn % 3 == 0:
                reset(peer)
            elif turn % 3 == 1:
                peer.shutdown(socket.SHUT_WR)
                assert read_to_eof(peer)
    blocked = connect(server)
    fill(blocked, plenty(), lambda: server.stats().bytes_pending)
    server.abort()
    blocked.close()
    stats = server.stats()
    assert len(lines.entries) == 21  # stop() and abort() return when the lines are written
    assert sum(entry.bytes_in for entry in lines.entries) == stats.bytes_in
    assert sum(entry.bytes_out for entry in lines.entries) == stats.bytes_out - stats.bytes_dropped
    assert stats.bytes_dropped > 0


def test_sample_takes_the_first_and_every_nth(make_server: MakeServer, lines: Lines) -> None:
    server = make_server(access_log=True, access_log_sample=3)
    for _ in range(10):
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
    assert server.stop()
    assert [entry.number for entry in lines.entries] == [1, 4, 7, 10]
    assert server.stats().access_log_dropped == 0


def test_lines_above_the_rate_are_counted_and_told(make_server: MakeServer, lines: Lines) -> None:
    server = make_server(access_log=True, access_log_rate=1)
    for _ in range(20):
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
    assert server.stop()
    dropped = server.stats().access_log_dropped
    assert 0 < dropped < 20
    assert len(lines.entries) + dropped == 20
    told = [
        re.fullmatch(r"(\d+) connections? \w+ not in the access log", one) for one in lines.warnings
    ]
    assert sum(int(one[1]) for one in told if one) == dropped
    assert len(told) <= dropped


def test_what_is_left_out_is_told_though_nothing_comes_after(
    make_server: MakeServer, lines: Lines
) -> None:
    """A second line within a second has to wait; it is told when that is over."""
    server = make_server(access_log=True, access_log_rate=1)

    def told() -> int:
        found = (re.match(r"(\d+) connections? ", one) for one in lines.warnings)
        return sum(int(one[1]) for one in found if one)

    while not told():
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
    for _ in range(50):
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
    wait_until(lambda: told() == server.stats().access_log_dropped >= 40, 5.0)


def test_the_writing_thread_is_woken_once_a_second_for_what_is_left_out(
    make_server: MakeServer, lines: Lines
) -> None:
    """However many are left out; each of these comes by itself."""
    server = make_server(access_log=True, access_log_rate=1)
    (thread,) = [one for one in threading.enumerate() if one.name == "fastecho-log"]
    status = Path(f"/proc/self/task/{thread.native_id}/status")

    def wakings() -> int:
        (count,) = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M)
        return int(count)

    began, before = time.monotonic(), wakings()
    for _ in range(200):
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
            reset(peer)
    expect_stats(server, connections_closed=200)
    passed = time.monotonic() - began
    assert wakings() - before <= 20 + 10 * passed
    assert server.stats().access_log_dropped > 100


def test_what_may_last_is_told_once_a_minute_if_nothing_else_is_new(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(reporter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    trouble = reporter._Trouble()

    def tell(shed: int, pauses: int, rate: int = 0) -> int:
        return trouble.tell((shed, pauses, 0, 0, 0, 0, 0, rate, 0, 0))

    assert tell(0, 1) == 1000
    for pauses in (2, 3):
        now[0] += 29
        assert tell(0, pauses) == pytest.approx((1060 - now[0]) * 1000, abs=2)
    forbidden = "no descriptors or memory, or the system forbids it"
    assert lines.warnings == [f"accepting rested 1 time: {forbidden}"]
    now[0] += 3
    tell(0, 3)
    assert lines.warnings[1:] == [f"accepting rested 2 times: {forbidden}"]
    now[0] += 2
    tell(1, 4)  # a newcomer that was reset does not wait for that
    assert len(lines.warnings) == 4
    now[0] += 59
    tell(1, 4, rate=7)  # a flood of datagrams does
    assert len(lines.warnings) == 4
    now[0] += 2
    tell(1, 4, rate=9)
    assert lines.warnings[4:] == ["9 datagrams were not answered, by guard: rate 9"]


def test_lines_that_come_faster_than_they_are_written_are_told(
    make_server: MakeServer, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while there is no end of lines to write."""
    emit = Lines.emit

    def write_slowly(self: Lines, record: logging.LogRecord) -> None:
        if record.name == ACCESS.name:
            time.sleep(0.001)
        emit(self, record)

    monkeypatch.setattr(Lines, "emit", write_slowly)
    server = make_server(access_log=True)
    assert server.port is not None
    address = ("127.0.0.1", server.port)
    with Load([(socket.AF_INET, address)], mode="reconnect", close="reset") as load:
        until = time.monotonic() + 20
        while not lines.warnings and time.monotonic() < until:
            load.run(0.1)
            if server.stats().access_log_dropped == 0:
                continue
            assert lines.entries  # it writes all the time
        assert "not in the access log" in lines.warnings[0]


def test_log_that_nobody_writes_down_holds_nobody_up(make_server: MakeServer, lines: Lines) -> None:
    """The writing thread stands still; connections come and go, and the books balance."""
    server = make_server(access_log=True)
    lines.go_on.clear()
    assert server.port is not None
    load = Load([(socket.AF_INET, ("127.0.0.1", server.port))], mode="reconnect", close="reset")
    with load:
        while server.stats().access_log_dropped < 100:
            result = load.run(0.05)
            assert result["failures"] == []
    lines.go_on.set()
    assert server.stop()
    stats = server.stats()
    wait_until(lambda: len(lines.entries) + stats.access_log_dropped == stats.connections_closed)
    numbers = [entry.number for entry in lines.entries]
    assert numbers == sorted(set(numbers), key=lambda number: number or 0)


def test_handler_that_raises_costs_its_line_and_no_other(
    make_server: MakeServer, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit = Lines.emit

    def fail_at_first(self: Lines, record: logging.LogRecord) -> None:
        if record.name == ACCESS.name and record.entry.number in (1, 3):  # type: ignore[attr-defined]
            raise RuntimeError("no room")
        emit(self, record)

    monkeypatch.setattr(Lines, "emit", fail_at_first)
    server = make_server(access_log=True)
    for _ in range(5):
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
    assert server.stop()
    assert [entry.number for entry in lines.entries] == [2, 4, 5]
    told = [re.search(r"failed at (\d+) lines? .*no room", text) for text in lines.warnings]
    assert sum(int(one[1]) for one in told if one) == 2


def test_without_the_access_log_there_is_no_line(make_server: MakeServer, lines: Lines) -> None:
    server = make_server()
    with connect(server) as peer:
        assert exchange(peer, b"x") == b"x"
    assert server.stop()
    assert (lines.texts, lines.warnings) == ([], [])


def test_addresses_of_each_family_read_as_they_are_written(
    make_server: MakeServer, lines: Lines, tmp_path: Path
) -> None:
    binds = ["127.0.0.1:0", f"unix:{tmp_path}/s"]
    if has_ipv6():
        binds += ["[::1]:0", ":0"]
    server = make_server(binds, access_log=True)
    wanted = []
    for address in server.addresses:
        with connect(address) as peer:
            assert exchange(peer, b"x") == b"x"
            name = peer.getsockname()
            host = f"[{name[0]}]" if len(name) == 4 else name[0] if name else ""
            wanted.append((f"{host}:{name[1]}" if name else "unix:", address))
    assert server.stop()
    assert sorted((entry.peer, entry.listener) for entry in lines.entries) == sorted(wanted)


HOSTILE = [
    b"\x1b[31mred\x1b[0m",
    b"line\nlog forged\r\n",
    b"left\xe2\x80\xae thgir",  # right-to-left override
    b"\xe2\x81\xa6isolate\xe2\x80\xa8separator",
    b"broken \xff\xc3\x28 utf-8 \xed\xa0\x80",
    b"bell\x07 backspace\x08 delete\x7f csi\xc2\x9b1m",
    b"\0abstract\0with zeroes\x1b]0;title\x07",
]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("name", HOSTILE)
def test_name_of_a_peer_cannot_forge_a_line(
    make_server: MakeServer, lines: Lines, tmp_path: Path, log_format: str, name: bytes
) -> None:
    server = make_server(f"unix:{tmp_path}/s", access_log=True, log_format=log_format)
    place = name if name.startswith(b"\0") else bytes(tmp_path / "p") + name
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(20)
        peer.bind(place)
        peer.connect(f"{tmp_path}/s")
        assert exchange(peer, b"x") == b"x"
    assert server.stop()
    (text,) = lines.texts
    assert text.isprintable()
    assert lines.entries[0].peer == "unix:" + (
        "@" + place[1:].decode(errors="surrogateescape")
        if name.startswith(b"\0")
        else place.decode(errors="surrogateescape")
    )
    if log_format == "json":
        assert text.isascii()
        told = json.loads(text)
        told["peer"].encode()  # no lone surrogates
        assert (told["event"], told["connection"], told["ended_by"]) == ("access", 1, "peer")


def test_json_has_the_documented_keys(make_server: MakeServer, lines: Lines) -> None:
    server = make_server(access_log=True, log_format="json")
    with connect(server) as peer:
        assert exchange(peer, b"hello") == b"hello"
        reset(peer)
    expect_stats(server, connections_closed=1)
    assert server.stop()
    told = json.loads(lines.texts[0])
    reference = Path(__file__).resolve().parent.parent / "docs" / "reference" / "access-log.md"
    keys = reference.read_text().partition("| key |")[2].partition("| `ended_by` | what")[0]
    assert list(told) == re.findall(r"^\| `(\w+)` \|", keys, re.M)
    assert told["duration_ms"] == round(lines.entries[0].duration * 1000, 3)
    assert (told["bytes_in"], told["bytes_out"], told["error"]) == (5, 5, "ECONNRESET")


def test_duration_and_time_are_those_of_the_connection(
    make_server: MakeServer, lines: Lines
) -> None:
    server = make_server(access_log=True)
    with connect(server) as peer:
        assert exchange(peer, b"x") == b"x"
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 0.2)
        before = time.time()
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
        after = time.time()
    assert server.stop()
    (entry,) = lines.entries
    assert 0.2 <= entry.duration < 20
    assert before - 0.01 <= entry.ended_at <= after + 0.01


# --- the command -----------------------------------------------------------------------------


def test_serve_writes_text_on_stderr() -> None:
    with serving("--access-log", "--drain-idle=0.01", "--log-level=error") as server:
        with server.connect() as peer:
            assert exchange(peer, b"hello") == b"hello"
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    (line,) = said  # the level is for the other lines
    times = r"\d+\.\d{6} s, queued \d+\.\d{3} s"
    how = f"to {server.addresses[0]}: {times}, bytes in 5, bytes out 5, ended by peer"
    assert re.search(f"{how}$", line)


def test_serve_writes_nothing_but_json_if_asked() -> None:
    with serving("--access-log", "--log-format=json", "--drain-idle=0.01") as server:
        with server.connect() as peer:
            assert exchange(peer, b"hello") == b"hello"
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    told = [json.loads(line) for line in said]
    assert [one["event"] for one in told].count("access") == 1
    assert told[0]["message"].startswith(f"listening on {server.addresses[0]}")
    assert told[-1]["message"] == "drained: connections 1, bytes in 5, bytes out 5"
    assert all(re.fullmatch(r"[-:T0-9]{19}\.\d{3}Z", one["time"]) for one in told)


def test_serve_goes_on_and_ends_while_nobody_reads_its_log() -> None:
    """The thread that writes hangs in a full pipe until the process is gone."""
    with full_pipe() as (_, writer):
        program = ("sh", "-c", f'exec "$@" 2>/proc/self/fd/{writer}', "sh", *COMMAND)
        options = ("--access-log", "--drain-idle=0.01", "--log-level=error")
        try:
            with serving(*options, program=program, pass_fds=[writer]) as server:
                for _ in range(100):
                    with server.connect() as peer:
                        assert exchange(peer, b"hello") == b"hello"
                server.process.send_signal(signal.SIGTERM)
                assert server.process.wait(20) == 0
        finally:
            os.close(writer)


def test_wrong_options_of_the_log_are_named() -> None:
    for options, sentence in (
        (["--access-log-sample=0"], "--access-log-sample '0' must be a whole number from 1 to"),
        (["--access-log-rate=x"], "--access-log-rate 'x' must be a whole number from 1 to"),
        (["--log-format=xml"], "--log-format 'xml' must be one of text, json"),
    ):
        done = run("serve", *options)
        assert done.returncode == 2
        assert sentence in done.stderr
