"""`fastecho ping` as a real process: its lines, its signals, its exit codes, its JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run
from conftest import MakeServer
from driven import DrivenServer, address_of, black_hole, echo, refusing_address
from peers import wait_until
from scripted import answer, close_at_next, message, reset_at_next, scripted, then

from fastecho.cli.ping import _summary, _times
from fastecho.measure.ping_result import PingResult
from fastecho.measure.timings import Timings

ROOT = Path(__file__).resolve().parent.parent
MS = r"\d+\.\d{3} ms"


@contextmanager
def pinging(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `fastecho ping`; it is ended in any case."""
    process = subprocess.Popen(
        [*COMMAND, "ping", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line of its output."""
    assert process.stdout is not None
    return process.stdout.readline()


def rest(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end; return exit code, output and errors."""
    out, said = process.communicate(timeout=DEADLINE)
    return process.returncode, out, said


def test_lines_are_those_of_ping(make_server: MakeServer) -> None:
    address = make_server().address
    done = run("ping", address, "-c", "3", "-i", "0.01")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    here = r"127\.0\.0\.1:\d+"
    head = rf"PING {address} \({address}\): 64 bytes, connected in {MS} from {here}"
    assert re.fullmatch(head, lines[0])
    for number in (1, 2, 3):
        assert re.fullmatch(rf"64 bytes from {address}: seq={number} time={MS}", lines[number])
    assert lines[4:6] == ["", f"--- {address} ping statistics ---"]
    counts = r"3 probes, 3 transmitted, 3 received, 0% lost, time \d+ ms"
    assert re.fullmatch(counts, lines[6])
    six = "/".join([r"\d+\.\d{3}"] * 6)
    assert re.fullmatch(rf"rtt min/avg/p50/p90/p99/max = {six} ms", lines[7])
    assert re.fullmatch(rf"stddev {MS}, jitter {MS}", lines[8])
    kernel = rf"the kernel's own \(TCP_INFO\): rtt {MS}, rttvar {MS}, 0 retransmissions"
    assert re.fullmatch(kernel, lines[9])
    assert len(lines) == 10


@pytest.mark.parametrize("ns", [0, 37_000, 45_260_000, 994_000_400])
def test_times_have_three_decimals_however_long_they_are(ns: int) -> None:
    times = Timings()
    times.add(ns)
    text = f"{ns / 1e6:.3f}"
    assert _times("rtt", times) == f"rtt min/avg/p50/p90/p99/max = {'/'.join([text] * 6)} ms"


def test_one_of_a_thing_is_no_plural(make_server: MakeServer) -> None:
    done = run("ping", make_server().address, "-i0", "-c1", "-s1")
    head, reply = done.stdout.splitlines()[:2]
    assert ": 1 byte, connected in " in head
    assert reply.startswith("1 byte from ")
    result = PingResult({"target": "here:7", "new_connection": False})
    for number, words in (
        (1, "1 extra byte, 1 connect refused, 1 connect timed out, 1 other error"),
        (2, "2 extra bytes, 2 connects refused, 2 connects timed out, 2 other errors"),
    ):
        for kind in ("extra_bytes", "refused", "connect_timed_out", "other"):
            result.failures[kind] = number
        assert f"failures: {words}" in list(_summary(result))


def test_almost_all_lost_is_not_called_all() -> None:
    result = PingResult({"target": "here:7", "new_connection": False})
    result.probes, result.received, result.failures["lost"] = 5000, 1, 4999
    assert "5000 probes, 0 transmitted, 1 received, 99.98% lost, " in "\n".join(_summary(result))


def test_one_target_has_one_name(make_server: MakeServer) -> None:
    done = run("ping", f":{make_server().port}", "-i0", "-c1", "-q")
    names = re.findall(r"^(?:PING|---) (\S+) ", done.stdout, re.MULTILINE)
    assert len(names) == 2
    assert names[0] == names[1]


def test_quiet_shows_the_first_line_and_the_summary(make_server: MakeServer) -> None:
    done = run("ping", make_server().address, "-qi0", "-c", "100", "-s", "1000")
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 7)
    assert ": 1000 bytes, connected in " in lines[0]
    assert lines[3].startswith("100 probes, 100 transmitted, 100 received, 0% lost")


def test_a_connection_for_each_probe_shows_how_long_it_took(make_server: MakeServer) -> None:
    done = run("ping", make_server().address, "--new-connection", "-i0", "-c2")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert re.search(rf"seq=2 connect={MS} time={MS}$", lines[2])
    assert any(line.startswith("connect min/avg/p50/p90/p99/max = ") for line in lines)


def test_unix_socket(make_server: MakeServer, tmp_path: Path) -> None:
    address = make_server(f"unix:{tmp_path / 'echo'}").address
    done = run("ping", address, "-i0", "-c1")
    assert done.returncode == 0
    assert re.match(rf"PING {address} \({address}\): 64 bytes, connected in {MS}\n", done.stdout)
    assert "TCP_INFO" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_probes_gives_the_summary(
    make_server: MakeServer, number: int
) -> None:
    """And every line is there as soon as it is known, though the output is a pipe."""
    with pinging(make_server().address, "-i", "20") as process:
        assert line_of(process).startswith("PING ")
        assert "seq=1" in line_of(process)
        process.send_signal(number)
        code, out, said = rest(process)
    assert (code, said) == (0, "")
    assert "1 probe, 1 transmitted, 1 received, 0% lost, time " in out


def test_ctrl_c_while_a_reply_is_due_gives_the_summary() -> None:
    """A probe that is under way is not lost."""
    with DrivenServer() as server, pinging(server.address, "-i", "0") as process:
        connection = server.accept()
        connection.sendall(message(connection))
        message(connection)
        process.send_signal(signal.SIGINT)
        code, out, said = rest(process)
    assert (code, said) == (0, "")
    assert "2 probes, 2 transmitted, 1 received, 0% lost, 1 unanswered" in out


def test_ctrl_c_at_full_speed_gives_the_summary(make_server: MakeServer) -> None:
    with pinging(make_server().address, "-i", "0") as process:
        for _ in range(200):
            assert line_of(process)
        process.send_signal(signal.SIGINT)
        code, out, said = rest(process)
    assert (code, said) == (0, "")
    assert ", 0% lost" in out
    assert "rtt min/avg" in out


def test_ctrl_c_before_there_was_a_result_is_130() -> None:
    with DrivenServer() as server, pinging(server.address) as process:
        message(server.accept())
        process.send_signal(signal.SIGINT)
        code, out, said = rest(process)
    assert (code, said) == (130, "")
    assert "1 probe, 1 transmitted, 0 received, 0% lost, 1 unanswered" in out


def test_ctrl_c_while_connecting_is_130_and_silent() -> None:
    with ExitStack() as stack:
        hole = black_hole(stack, socket.AF_INET, ("127.0.0.1", 0))
        port = hole.getsockname()[1]
        process = stack.enter_context(pinging(address_of(hole)))

        def connects() -> bool:
            table = Path(f"/proc/{process.pid}/net/tcp").read_text()
            return f":{port:04X} 02 " in table  # SYN_SENT

        wait_until(connects)
        process.send_signal(signal.SIGINT)
        assert rest(process) == (130, "", "")


def test_ctrl_c_while_the_server_is_away_gives_the_summary() -> None:
    with ExitStack() as stack:
        with scripted(then(1, lambda connection: None)) as server:
            process = stack.enter_context(pinging(server.address, "-i", "0.1"))
        assert line_of(process).startswith("PING ")
        assert "seq=1" in line_of(process)
        assert "closed by the peer (FIN)" in line_of(process)
        process.send_signal(signal.SIGINT)
        code, out, said = rest(process)
    assert (code, said) == (1, "")
    assert "received" in out


@pytest.mark.parametrize(
    ("act", "sentence", "failure"),
    [
        (close_at_next, "seq=3: closed by the peer (FIN); reconnecting", "1 closed by the peer"),
        (reset_at_next, "seq=3: reset by the peer (RST); reconnecting", "1 reset by the peer"),
    ],
)
def test_a_loss_says_how_and_when_it_is_back(act: Any, sentence: str, failure: str) -> None:
    with scripted(then(2, act), echo) as server:
        done = run("ping", server.address, "-i0", "-c9")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[3] == sentence
    assert re.fullmatch(rf"back after {MS}, 1 probe lost", lines[4])
    assert f"failures: 1 lost, {failure}" in lines
    assert any(re.match(rf"1 gap, {MS} in all, the longest {MS}$", line) for line in lines)


def test_a_server_that_never_comes_back_is_told_once_and_its_gap_lasts_to_the_end() -> None:
    with scripted(then(1, lambda connection: server._listener.close())) as server:
        done = run("ping", server.address, "-i", "100ms", "-c", "6", "--json=-")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[2:5] == [
        "closed by the peer (FIN); reconnecting",
        "cannot connect: Connection refused; trying again",
        "",
    ]
    shown = json.loads(done.stdout)
    gap = shown["still_away_ms"]
    assert 300 <= gap <= shown["elapsed_s"] * 1000
    assert (shown["gaps"], shown["gap_ms"], shown["longest_gap_ms"]) == (1, gap, gap)
    assert shown["still_away"] == "Connection refused"
    away = rf"no echo in the last {MS}, to the end: Connection refused"
    assert any(re.fullmatch(away, line) for line in lines)
    assert any(re.fullmatch(rf"1 gap, {MS} in all, the longest {MS}", line) for line in lines)


def test_quiet_says_nothing_of_a_loss_before_the_summary() -> None:
    with scripted(then(1, close_at_next), echo) as server:
        done = run("ping", server.address, "-i0", "-c3", "-q")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[1:3] == ["", f"--- {server.address} ping statistics ---"]


def test_silence_is_told() -> None:
    with scripted(lambda connection: connection.recv(100) and connection.recv(1)) as server:
        done = run("ping", server.address, "-c", "1", "-W", "200ms")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nseq=1: no answer for 0.2 s\n" in done.stdout
    assert "1 probe, 1 transmitted, 0 received, 100% lost" in done.stdout
    assert "failures: 1 timed out\n" in done.stdout


def test_a_web_server_is_told() -> None:
    with scripted(answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        done = run("ping", server.address, "-c", "1")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nseq=1: it answered, but not with what was sent: byte 0 is 0x48, not " in done.stdout
    assert "b'HTTP/1.1 400 Bad Request" in done.stdout
    assert "failures: 1 corrupt\n" in done.stdout


def test_nobody_there_is_one_sentence_and_exit_code_4() -> None:
    with ExitStack() as stack:
        address = refusing_address(stack)
        sentence = f"fastecho ping: cannot connect to {address}: Connection refused"
        assert_refused(run("ping", address), 4, sentence)
        assert_refused(run("ping", address, "--new-connection"), 4, sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nosuch.invalid:7"], "cannot resolve nosuch.invalid: "),
        (["unix:/nosuch/socket"], "cannot connect to unix:/nosuch/socket: No such file"),
        (["127.0.0.1:7", "--source", "192.0.2.1"], "cannot use the source 192.0.2.1: "),
        (["127.0.0.1:7", "-6"], "cannot resolve 127.0.0.1 to an IPv6 address: "),
    ],
)
def test_what_cannot_be_reached_is_one_sentence_and_exit_code_4(
    arguments: list[str], sentence: str
) -> None:
    assert_refused(run("ping", *arguments), 4, f"fastecho ping: {sentence}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "HOST:PORT is missing: see fastecho ping --help"),
        (["--json", "127.0.0.1:7"], "HOST:PORT is missing (127.0.0.1:7 was taken for --json's"),
        (["127.0.0.1"], "HOST:PORT '127.0.0.1' has no port: write HOST:PORT"),
        (["127.0.0.1:7", "-c", "0"], "--count '0' must be a whole number from 1"),
        (["127.0.0.1:7", "-c", "x"], "--count 'x' must be a whole number"),
        (["127.0.0.1:7", "-c", "1_0"], "--count '1_0' must be a whole number from 1 to 9"),
        (["127.0.0.1:7", "--interval=-1"], "--interval '-1' must be a time such as 1, 0.2, 500ms"),
        (["127.0.0.1:7", "-i", "1_0"], "--interval '1_0' must be a time such as 1, 0.2, 500ms"),
        (["127.0.0.1:7", "-i", "100us"], "--interval '100us' must be 0, or from 0.001 to 86400"),
        (["127.0.0.1:7", "-i", "25h"], "--interval '25h' must be 0, or from 0.001 to 86400 sec"),
        (["127.0.0.1:7", "-s", "9" * 9], "--size '999999999' must be a whole number from 1 to"),
        (["127.0.0.1:7", "-s", "6_4"], "--size '6_4' must be a whole number from 1 to 1048576"),
        (["127.0.0.1:7", "-W", "nan"], "--timeout 'nan' must be a time such as 1, 0.2, 500ms"),
        (["127.0.0.1:7", "-W", "1_0ms"], "--timeout '1_0ms' must be a time such as 1, 0.2, 500ms"),
        (["127.0.0.1:7", "-W", "0"], "--timeout '0' must be from 0.001 to 86400 seconds"),
        (["127.0.0.1:7", "--tos", "0x100"], "--tos '0x100' must be a whole number from 0 to 255"),
        (["127.0.0.1:7", "--tos", "0x1_0"], "--tos '0x1_0' must be a whole number from 0 to 255"),
        (["127.0.0.1:7", "--tos", "1_0"], "--tos '1_0' must be a whole number from 0 to 255"),
        (["127.0.0.1:7", "--source", "me"], "--source 'me' must be an address of this machine"),
        (["127.0.0.1:7", "-4", "-6"], "not allowed with argument -4"),
        (["127.0.0.1:7", "-4", "--source", "::1"], "--source '::1' is no IPv4 address"),
        (["unix:/x", "-4"], "-4 'IPv4' has no effect on unix:/x"),
        (["127.0.0.1:7", "--fail-if", "p99"], "--fail-if 'p99' must be METRIC>VALUE"),
        (["127.0.0.1:7", "--fail-if", "rate<9"], "--fail-if 'rate<9' asks for rate, which bench"),
        (["127.0.0.1:7", "--fail-if", "throughput<9"], "asks for throughput, which bench"),
        (["127.0.0.1:7", "--fail-if", "lost>1_0"], "'lost>1_0' has no number to compare with"),
        (["127.0.0.1:7", "--fail-if", "rat<9"], "'rat<9' has no metric 'rat': there are p50 to"),
        (
            ["127.0.0.1:7", "--fail-if", "zzz>9"],
            "there are p50 to p99.99, max, mean, failures, connect.p99\n",
        ),
        (["127.0.0.1:7", "--jsn"], "there is no option '--jsn': did you mean --json?"),
        (
            ["127.0.0.1:7", "--json", "/nosuch/file"],
            "--json '/nosuch/file' is in a folder that does not",
        ),
        (["127.0.0.1:7", "--json="], "--json '' is no file: write its name, or - for stdout"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str
) -> None:
    assert_refused(run("ping", *arguments), 2, sentence)


def test_source_port_in_use_is_one_sentence(make_server: MakeServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        source = address_of(taken)
        done = run("ping", make_server().address, "--source", source)
        assert_refused(done, 4, f"cannot use the source {source}: Address already in use")


def keys(value: dict[str, Any]) -> Iterator[str]:
    """Yield every key of a JSON object, of those inside it too."""
    for key, inner in value.items():
        yield key
        if isinstance(inner, dict):
            yield from keys(inner)


def test_json_on_stdout_leaves_the_text_to_stderr(make_server: MakeServer) -> None:
    address = make_server().address
    done = run("ping", address, "-i0", "-c", "50", "--json")
    assert done.returncode == 0
    assert done.stderr.startswith(f"PING {address} ")
    shown = json.loads(done.stdout)
    assert (shown["format"], shown["version"]) == ("fastecho-ping", 1)
    assert (shown["probes"], shown["received"], shown["connects"]) == (50, 50, 1)
    assert shown["plan"]["target"] == shown["peer"] == address
    assert set(shown["failures"].values()) == {0}
    times = shown["latency_us"]
    assert 0 < times["min"] <= times["p50"] <= times["p99"] <= times["max"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown["started_at"])


def test_every_key_of_the_json_is_documented(make_server: MakeServer) -> None:
    text = (ROOT / "docs" / "reference" / "ping.md").read_text()
    documented = set(re.findall(r"`([a-z0-9_.]+)`", text))
    shown = json.loads(run("ping", make_server().address, "-i0", "-c2", "--json").stdout)
    assert set(keys(shown)) - documented == set()


def test_json_goes_to_a_file_also_when_something_was_lost(tmp_path: Path) -> None:
    file = tmp_path / "ping.json"
    with scripted(then(1, close_at_next), echo) as server:
        done = run("ping", server.address, "-i0", "-c3", f"--json={file}")
    assert done.returncode == 1
    assert done.stdout.startswith("PING ")
    shown = json.loads(file.read_text())
    assert shown["failures"]["lost"] == shown["failures"]["closed"] == 1
    assert shown["described"][0].endswith("s, seq=2: closed by the peer (FIN); reconnecting")
    assert shown["gap_ms"] == shown["longest_gap_ms"] > 0


def test_a_file_stays_as_it_was_until_there_is_a_result(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("kept")
    with ExitStack() as stack:
        address = refusing_address(stack)
        for file in (old, new):
            assert run("ping", address, f"--json={file}").returncode == 4
    assert (old.read_text(), new.exists()) == ("kept", False)


@pytest.mark.parametrize("words", ["ping 127.0.0.1:7", "models"])
def test_json_needs_a_standard_output(words: str) -> None:
    """Told before the first probe."""
    code = f"exec {' '.join(COMMAND)} {words} --json >&-"
    done = subprocess.run(
        ["sh", "-c", code], capture_output=True, text=True, env=environment(), timeout=DEADLINE
    )
    command = words.partition(" ")[0]
    assert_refused(done, 4, f"fastecho {command}: --json: standard output is closed")


def test_json_to_a_full_disk_names_the_file(make_server: MakeServer) -> None:
    done = run("ping", make_server().address, "-i0", "-c1", "--json=/dev/full")
    assert done.returncode == 1
    assert done.stderr == "fastecho ping: /dev/full: No space left on device\n"


def test_a_rule_that_came_true_is_exit_code_3(make_server: MakeServer) -> None:
    address = make_server().address
    done = run("ping", address, "-i0", "-c9", "-q", "--fail-if", "p50>1ns", "--fail-if=max>900s")
    assert done.returncode == 3
    assert re.fullmatch(r"[\w ]+: --fail-if p50>1ns came true: p50 is .* [um]s\n", done.stderr)
    kept = ["--fail-if=lost>0", "--fail-if=connect.p99>900s", "--fail-if=failures>0"]
    done = run("ping", address, "-i0", "-c9", "-q", *kept)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_rule_that_came_true_wins_over_what_was_lost() -> None:
    with scripted(then(1, close_at_next), echo) as server:
        done = run("ping", server.address, "-i0", "-c3", "--fail-if", "lost>0")
    assert done.returncode == 3
    assert "--fail-if lost>0 came true: lost is 1" in done.stderr


def test_a_reader_that_leaves_ends_it_silently(make_server: MakeServer) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "ping", make_server().address, "-i", "0"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    with process:
        os.close(writer)
        assert os.read(reader, 5) == b"PING "
        os.close(reader)
        _, said = process.communicate(timeout=DEADLINE)
    assert (process.returncode, said) == (1, b"")


def test_a_second_signal_does_not_wait_for_a_stuck_reader(make_server: MakeServer) -> None:
    reader, writer = os.pipe()
    server = make_server()
    process = subprocess.Popen(
        [*COMMAND, "ping", server.address, "-i", "0"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    with process:
        os.close(writer)
        blocked = Path(f"/proc/{process.pid}/wchan")
        wait_until(lambda: server.stats().bytes_in > 0 and "pipe" in blocked.read_text())
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=DEADLINE)
        os.close(reader)
    assert (process.returncode, said) == (130, b"")
