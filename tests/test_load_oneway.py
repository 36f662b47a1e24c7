"""Load in one direction: uploads to a discard server, downloads from a chargen server.

Every byte is accounted for: what an upload has sent, the server has read; what a download counts
is the pattern. What is no such server, or stops to be one, is told.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment
from commands import run as command
from conftest import MakeServer
from load_servers import exact, hold, serving
from peers import connect, has_ipv6, wait_until
from rfc864 import PERIOD, chargen
from wrong_servers import address_of

import fastecho
from fastecho import ConfigError, StartError
from fastecho._load import Load
from fastecho.measure import Plan, Result, Rule, run
from fastecho.measure.compare import compare, merge


def fine(result: Result) -> None:
    """Assert what holds of every run in which nothing went wrong."""
    assert result.failures == dict.fromkeys(result.failures, 0), result.described
    assert result.bytes > 0
    assert result.messages == result.sent == 0
    assert (result.latency, result.service, result.schedule_error) == (None, None, None)
    assert sum(one.bytes for one in result.intervals) == result.bytes
    assert result.generator.verdict
    assert Result.from_json(result.to_json()).to_json() == result.to_json()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("size", ["1000", "262144"])
def test_an_upload_counts_what_was_acknowledged(
    make_server: MakeServer, host: str, size: str
) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("there is no ::1")
    server = make_server(f"{host}:0", service="discard")
    result = run(
        Plan(server.address, upload=True, size=size, connections=3, duration=0.3, interval=0.1)
    )
    fine(result)
    assert 1 <= len(result.intervals) <= 3
    stats = server.stats()
    # All that was sent was read before the server's FIN came: more than counts in the window.
    assert result.bytes <= stats.bytes_in
    assert stats.ended_by_peer == 3
    assert result.bytes_per_s == pytest.approx(result.bytes / result.elapsed)
    assert 0.3 <= result.elapsed < 0.5


def test_every_byte_that_was_sent_was_read(make_server: MakeServer) -> None:
    server = make_server(service="discard", threads=2)
    host, port = server.address.rsplit(":", 1)
    with Load(
        [(socket.AF_INET, (host, int(port)))], connections=8, mode="upload", size=777
    ) as load:
        for _ in range(2):  # connections are made anew
            load.connect()
            before = server.stats().bytes_in
            found = load.run(0.1)
            assert found["bytes_sent"] == server.stats().bytes_in - before > 0
            assert found["bytes"] <= found["bytes_sent"]
            assert load.connections_open == 0


def test_what_the_warm_up_sent_does_not_count(make_server: MakeServer) -> None:
    server = make_server(service="discard")
    result = run(Plan(server.address, upload=True, connections=1, duration=0.1, warmup=0.3))
    fine(result)
    assert server.stats().bytes_in > 2 * result.bytes


@pytest.mark.parametrize("way", ["upload", "download"])
def test_hundreds_of_connections_end_in_time(make_server: MakeServer, way: str) -> None:
    server = make_server(service="discard" if way == "upload" else "chargen")
    plan = Plan(
        server.address,
        upload=way == "upload",
        download=way == "download",
        size="262144" if way == "upload" else "64",
        connections=600,
        duration=0.2,
    )
    result = run(plan)
    fine(result)
    assert result.elapsed < 1.5  # catching up would have taken seconds


def test_a_download_verifies_every_byte(make_server: MakeServer) -> None:
    server = make_server(service="chargen")
    plan = Plan(server.address, download=True, connections=5, threads=2, duration=0.3, ramp=0.1)
    result = run(plan)
    fine(result)
    assert result.bytes <= server.stats().bytes_out
    wait_until(lambda: server.stats().connections_open == 0)
    stats = server.stats()
    assert stats.ended_by_peer == stats.connections_accepted, stats


def sends(data: bytes) -> Callable[[socket.socket], None]:
    """Return a handler that sends this and keeps the connection."""

    def handler(sock: socket.socket) -> None:
        sock.sendall(data)
        hold(sock)

    return handler


@pytest.mark.parametrize("line", [0, 1, 2, 50, 94])
def test_a_download_may_begin_by_any_line(line: int) -> None:
    with serving(sends(chargen(100_000, 74 * line))) as served:
        result = run(Plan(address_of(served), download=True, connections=2, duration=0.2))
    assert result.failed == 0


def what_is_wrong(served: Any) -> str:
    """Return what a download says of a server that sends something wrong."""
    try:
        result = run(Plan(address_of(served), download=True, connections=1, duration=0.3))
    except StartError as error:  # it all came before the window, and nothing right is left
        return str(error)
    assert result.failures["corrupt"] == result.failed == 1
    return result.described[0]


@pytest.mark.parametrize("at", [0, 1, 74, 7029, 7030, 99_999])
def test_a_wrong_byte_is_told_by_its_offset(at: int) -> None:
    data = bytearray(chargen(100_000))
    data[at] ^= 0x80
    with serving(sends(bytes(data))) as served:
        said = what_is_wrong(served)
    text = f"connection 0: byte {at} is 0x{data[at]:02x}, where the pattern of RFC 864 has 0x"
    assert text in said


def test_a_wrong_byte_amid_a_stream_ends_one_connection() -> None:
    data = PERIOD * 14

    def goes_wrong(sock: socket.socket) -> None:
        for _ in range(2000):
            sock.sendall(data)
        sock.sendall(b"!")

    with serving(goes_wrong) as served:
        result = run(Plan(address_of(served), download=True, connections=1, duration=5))
    assert result.failures["corrupt"] == result.failed == 1
    assert f"byte {len(data) * 2000} is 0x21" in result.described[0]


def test_a_lost_byte_is_a_wrong_one() -> None:
    data = PERIOD * 5
    with serving(sends(data[:20_000] + data[20_001:])) as served:
        assert "byte 20000 is" in what_is_wrong(served)


def test_an_echo_server_is_no_discard_server(server: fastecho.Server) -> None:
    plan = Plan(server.address, upload=True, connections=2, duration=20, size=1000)
    with pytest.raises(StartError, match=r"is no discard server \(.* [0-9]+ bytes came back\)"):
        run(plan)


@pytest.mark.parametrize("service", ["echo", "discard"])
def test_who_sends_nothing_is_no_chargen_server(make_server: MakeServer, service: str) -> None:
    server = make_server(service=service)
    plan = Plan(server.address, download=True, connections=2, timeout=0.1, duration=5)
    with pytest.raises(StartError, match="but sent nothing: no chargen server"):
        run(plan)


def reads_a_little(sock: socket.socket) -> None:
    """Take some bytes, and then none."""
    exact(sock, 100_000)
    sock.recv(1)
    wait_until(lambda: _is_reset(sock))


def _is_reset(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def test_a_discard_server_that_stops_reading_times_out() -> None:
    with serving(reads_a_little) as served:
        plan = Plan(address_of(served), upload=True, connections=1, timeout=0.2, duration=0.6)
        result = run(plan)
    assert result.failures["timed_out"] >= 1
    assert "no byte moved for 0.2 s, after" in result.described[0]


def never_ends(sock: socket.socket) -> None:
    """Read everything, and keep the FIN to oneself."""
    while sock.recv(1 << 20):
        pass
    wait_until(lambda: _is_reset(sock))


def test_a_server_that_does_not_answer_our_fin_is_told() -> None:
    with serving(never_ends) as served:
        plan = Plan(address_of(served), upload=True, connections=1, timeout=0.2, duration=0.2)
        result = run(plan)
    assert result.failures["other"] == 1
    assert "the server did not answer our FIN within 0.2 s" in result.described[0]


def test_lost_connections_come_back(make_server: MakeServer) -> None:
    server = make_server(service="chargen")
    seen: list[object] = []

    def restart(interval: object) -> None:
        seen.append(interval)
        if len(seen) == 2:
            server.abort()
            assert server.wait(5)
            make_server(server.address, service="chargen")

    plan = Plan(server.address, download=True, connections=2, duration=1.5, interval=0.1)
    result = run(plan, restart)
    assert result.reopened == 2
    assert result.failures["reset"] + result.failures["closed"] >= 2
    assert "by the server after" in result.described[0]


def test_behind_proxy_headers(make_server: MakeServer) -> None:
    server = make_server(service="discard", proxy_protocol="required")
    fine(run(Plan(server.address, upload=True, send_proxy="v2", connections=2, duration=0.1)))
    assert server.stats().connections_proxied == 2


# --- beside other options ---------------------------------------------------------------------

MISFITS: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": 100}),
    ("rate", {"rate": 100}),
    ("schedule", {"schedule": "poisson"}),
    ("depth", {"depth": 2}),
    ("frame", {"frame": "line"}),
    ("reconnect", {"reconnect": True}),
    ("idle_connections", {"idle_connections": 1}),
    ("identify", {"identify": True}),
]


@pytest.mark.parametrize(("name", "more"), MISFITS)
@pytest.mark.parametrize("way", ["upload", "download"])
def test_what_needs_messages_is_refused(way: str, name: str, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"does not go together with {way}: ") as caught:
        Plan("localhost:9", **{way: True, **more})
    assert caught.value.option == name


def test_the_size_is_that_of_a_send() -> None:
    with pytest.raises(ConfigError, match="must be one number with upload"):
        Plan("localhost:9", upload=True, size="1:2")
    with pytest.raises(ConfigError, match="has no effect with download"):
        Plan("localhost:9", download=True, size="1")
    with pytest.raises(ConfigError, match="one at a time"):
        Plan("localhost:9", download=True, upload=True)
    for target in ("unix:/tmp/x", "udp://localhost:9"):
        with pytest.raises(ConfigError, match="takes no udp:// and no unix: target"):
            Plan(target, upload=True)


def test_a_plan_in_one_direction_survives_json() -> None:
    for way in ("upload", "download"):
        plan = Plan("localhost:9", upload=way == "upload", download=way == "download")
        assert plan.loop == plan.to_json()["loop"] == way
        assert Plan.from_json(plan.to_json()) == plan
        assert way.title() in str(plan)


def saved(bytes_: int, step: float, **more: Any) -> Result:
    """Return a result of 8 intervals that hold about so many bytes each."""
    from fastecho.measure import Interval

    intervals = [
        Interval(float(n), 1.0, bytes=round(bytes_ * (1 + step * (n % 2)))) for n in range(8)
    ]
    total = sum(one.bytes for one in intervals)
    plan = Plan("localhost:9", download=True, duration=8, **more)
    return Result(plan, elapsed=8.0, bytes=total, intervals=intervals, started_at=1e9)


def test_runs_in_one_direction_are_compared_by_their_bytes() -> None:
    found = compare([saved(10**9, 0.01), saved(2 * 10**9, 0.01)])[0]
    assert [one.name for one in found.figures] == ["throughput"]
    assert found.figures[0].ratio == pytest.approx(2)
    assert found.figures[0].verdict == "more"
    assert list(found.to_json()["figures"]) == ["bytes_per_s"]


def test_a_notebook_shows_bytes_alone() -> None:
    assert str(saved(10**9, 0.0)).startswith("localhost:9, download, 8 s: 1e+03 MB/s\n")


def test_runs_in_one_direction_are_added_up() -> None:
    one, other = saved(10**9, 0.0), saved(10**9, 0.0)
    assert merge([one, other]).bytes_per_s == pytest.approx(2 * 10**9)


@pytest.mark.parametrize("text", ["p99<1ms", "rate<5", "service.p99>1ms"])
def test_rules_about_messages_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not measured with --upload: write throughput"):
        Rule(text).check_plan(Plan("localhost:9", upload=True))


@pytest.mark.parametrize("text", ["throughput<1.1G", "throughput<1,100M/s", "throughput<1100MB/s"])
def test_a_rule_about_bytes(text: str) -> None:
    rule = Rule(text)
    rule.check_plan(Plan("localhost:9", upload=True))
    assert rule.limit == pytest.approx(1.1e9)
    assert rule.fails(saved(10**9, 0.0))
    assert rule.shown(saved(10**9, 0.0)) == "throughput is 1 GB/s"
    assert rule.text_of(4_165_119_660) == "4.165 GB/s"
    assert [rule.text_of(n) for n in (0, 999, 1500, 2e6)] == [
        "0 B/s",
        "999 B/s",
        "1.5 kB/s",
        "2 MB/s",
    ]


# --- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["upload", "download"])
def test_the_command_starts_the_right_server(way: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = command(
        "bench", "--server", f"--{way}", "-d", "0.2", "-c", "2", "--json", str(path),
        "--fail-if", "throughput<1k",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"loop       {way}" in done.stdout
    assert "B/s\n" in done.stdout
    assert "messages" not in done.stdout
    data = json.loads(path.read_text())
    assert data["plan"]["loop"] == way
    assert data["bytes_per_s"] == pytest.approx(data["bytes"] / data["elapsed_s"], rel=1e-6)
    assert data["plan"]["size"] == ("262144" if way == "upload" else "64")
    shown = command("report", str(path), str(path))
    assert shown.returncode == 0
    assert "throughput" in shown.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rate", "5"], "--rate '5' does not go together with --upload: there are no messages"),
        (["--hgrm"], "--hgrm '-' shows messages and their latencies"),
        (["--html", "x.html"], "--html 'x.html' shows messages and their latencies"),
        (["--find-max", "p99<1ms"], "--find-max 'p99<1ms' does not go together with --upload"),
        (["--fail-if", "p99>1ms"], "--fail-if 'p99>1ms' is not measured with --upload"),
    ],
)
def test_the_command_refuses_what_needs_messages(words: list[str], sentence: str) -> None:
    assert_refused(command("bench", "localhost:9", "--upload", *words), 2, sentence)


@pytest.mark.parametrize("way", ["upload", "download"])
def test_a_load_that_slept_divides_by_the_time_that_it_took(
    make_server: MakeServer, way: str
) -> None:
    """What moved by when it woke counts, so the time until then does as well."""
    server = make_server(service="discard" if way == "upload" else "chargen")
    words = ["bench", server.address, f"--{way}", "-c2", "-d0.5", "--interval=0.1", "--jsonl"]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGSTOP)
        past_the_window = time.monotonic() + 0.8
        wait_until(lambda: time.monotonic() > past_the_window)
        process.send_signal(signal.SIGCONT)
        lines += process.communicate(timeout=DEADLINE)[0].splitlines()
    data = json.loads(lines[-1])
    assert data["elapsed_s"] > 0.8
    assert data["bytes_per_s"] == pytest.approx(data["bytes"] / data["elapsed_s"], rel=1e-6)


# --- another server ---------------------------------------------------------------------------

XINETD = """\
defaults
{{
    instances = 10
}}
service chargen
{{
    type = INTERNAL UNLISTED
    id = chargen-stream
    socket_type = stream
    protocol = tcp
    user = {user}
    wait = no
    port = {port}
    bind = 127.0.0.1
}}
"""


@pytest.fixture
def xinetd(tmp_path: Path) -> Iterator[int]:
    """Run the chargen of xinetd; return its port."""
    program = shutil.which("xinetd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("there is no xinetd")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    file = tmp_path / "xinetd.conf"
    file.write_text(XINETD.format(user=os.geteuid(), port=port))
    words = [program, "-dontfork", "-f", str(file), "-pidfile", str(tmp_path / "pid")]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        try:
            connect(("127.0.0.1", port)).close()
        except OSError:
            return False
        return True

    try:
        wait_until(listens)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(5)


def test_the_chargen_of_xinetd_has_another_ring(xinetd: int) -> None:
    result = run(Plan(f"127.0.0.1:{xinetd}", download=True, connections=2, duration=0.2))
    fine(result)
