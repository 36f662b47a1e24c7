"""`fastecho bench udp://...`: what it shows, writes and ends with."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run, serving
from terminal import Terminal
from udp_paths import Rule, answering, change, double, echo, lose, nobody, swap


def bench(*words: str) -> tuple[int, str, str]:
    """Run it; return exit code, standard output and standard error."""
    done = run("bench", *words)
    return done.returncode, done.stdout, done.stderr


def test_a_server_of_its_own_has_no_limit(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    code, out, _ = bench("--server", "udp", "-n5000", "-c2", "-p8", f"--json={file}")
    assert code == 0 and "target     udp://127.0.0.1:" in out
    assert "datagrams  0 % lost: 0 of 5,000 datagrams" in out
    data = json.loads(file.read_text())
    assert data["messages"] == 5000 and data["datagrams"]["lost_percent"] == 0
    assert run("report", str(file)).stdout.count("0 % lost: 0 of 5,000 datagrams") == 1


def test_the_example_of_the_help_loses_nothing() -> None:
    (line,) = [one for one in run("bench", "--help").stdout.splitlines() if " -s 1400 " in one]
    code, out, err = bench(*shlex.split(line)[2:], "-d0.3")
    assert code == 0 and " 0 % lost: " in out, err


def test_a_server_of_its_own_puts_around_what_is_expected() -> None:
    words = ("--server", "udp", "-n50", "--expect-prefix=> ", "--expect-suffix=!", "-s100:200")
    assert bench(*words)[0] == 0


def test_over_ipv6_and_the_largest_datagram() -> None:
    with serving("--bind=udp://[::1]:0") as server:
        code, out, _ = bench(server.addresses[0], "-n20", "-c1", "-s65507")
    assert code == 0 and "20 messages sent" in out and "udp://[::1]:" in out


@pytest.mark.parametrize(
    ("path", "words", "code", "said"),
    [
        (lose(10), (), 0, "10 % lost: 5 of 50 datagrams"),
        (lose(10), ("--fail-if=loss>9%",), 3, "10 % lost: 5 of 50 datagrams"),
        (lose(10), ("--fail-if=loss>10%",), 0, "10 % lost: 5 of 50 datagrams"),
        (double(10), (), 0, "5 duplicates"),
        (double(10), ("--fail-if=duplicates>4",), 3, "5 duplicates"),
        (swap(10), (), 0, "5 reordered"),
        (swap(10), ("--fail-if=reordered>0",), 3, "5 reordered"),
        (change(10, at=30), (), 1, "5 corrupt: other bytes came back"),
        (lose(1), (), 1, "100 % lost: "),
        (echo, ("--fail-if=loss>0",), 0, "failures   none"),
    ],
)
def test_loss_is_a_finding_and_wrong_bytes_or_nothing_a_failure(
    path: Rule, words: tuple[str, ...], code: int, said: str
) -> None:
    with answering(path) as server:
        found, out, err = bench(server.url(), "-n50", "-c1", "-p8", "--timeout=400ms", *words)
    assert (found, said in out) == (code, True), out + err
    if code == 3:
        assert "came true" in err


def test_a_port_where_nobody_listens_is_refused() -> None:
    host, port = nobody()
    code, out, _ = bench(f"udp://{host}:{port}", "-d30")
    assert code == 1 and "refused: ICMP says that nothing listens there" in out
    assert "connects" not in out
    assert "connection 0: refused" in out


def test_lines_tell_of_each_interval_and_a_page_of_all(tmp_path: Path) -> None:
    html, hgrm = tmp_path / "page.html", tmp_path / "times.hgrm"
    with answering(lose(10)) as server:
        words = (server.url(), "-d0.4", "-R500", "-c1", "--interval=0.1", "--timeout=400ms")
        code, out, _ = bench(*words, "--jsonl", f"--html={html}", f"--hgrm={hgrm}")
    assert code == 0
    *intervals, result = (json.loads(line) for line in out.splitlines())
    assert result["datagrams"]["lost"] == sum(one["lost"] for one in intervals) == 20
    assert result["connect_us"] is None and "#[Max" in hgrm.read_text()
    assert "10 % lost: 20 of 200 datagrams." in html.read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["udp://a:1", "--reconnect"], "--reconnect needs a connection, which UDP has not"),
        (["udp://a:1", "--identify"], "--identify needs a connection, which UDP has not"),
        (["udp://a:1", "--send-proxy=v1"], "--send-proxy 'v1' needs a connection"),
        (["udp://a:1", "--frame=line"], "--frame 'line' has no meaning over UDP"),
        (["udp://a:1", "-s8"], "--size '8' is below 16 bytes"),
        (["udp://a:1", "-R50", "-p2"], "--depth '2' has no effect with --rate over UDP"),
        (["udp://a:1", "a:1"], "target 'udp://a:1' is UDP, and another target is not"),
        (["a:1", "--fail-if=loss>0"], "--fail-if 'loss>0' needs datagrams"),
        (["--server", "sctp"], "--server 'sctp' must be tcp or udp, or stand alone"),
        (["--server", "udp", "--frame=line"], "--frame 'line' has no meaning over UDP"),
        (["udp://a:1", "-p2", "--find-max=p99<1ms"], "does not go together with --depth over UDP"),
    ],
)
def test_what_udp_has_not_is_refused_in_a_sentence(words: list[str], sentence: str) -> None:
    assert_refused(run("bench", *words), 2, sentence)


def test_replies_that_our_own_buffers_had_no_room_for_are_told_apart() -> None:
    found: list[subprocess.Popen[str]] = []

    def flood(number: int, data: bytes) -> list[bytes]:
        """Stop the load once, and answer 2,000 times meanwhile."""
        if number != 20:
            return [data]
        os.kill(found[0].pid, signal.SIGSTOP)
        return [data] * 2000

    with answering(flood) as server:
        words = [server.url(), "-R100", "-c1", "-d0.6", "-s9000", "--json"]
        command = [*COMMAND, "bench", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, env=environment(), **pipes) as process:  # type: ignore[call-overload]
            found.append(process)
            while server.answered < 2000 and process.poll() is None:
                os.sched_yield()
            process.send_signal(signal.SIGCONT)
            out, err = process.communicate(timeout=DEADLINE)
    data = json.loads(out)
    assert data["datagrams"]["overflows"] > 0 < data["datagrams"]["duplicates"]
    assert "dropped in our own receive buffers" in " ".join(err.split())


@pytest.mark.parametrize("words", [(), ("--live",)])
def test_a_terminal_shows_what_was_lost_so_far(words: tuple[str, ...]) -> None:
    with answering(lose(10)) as server:
        bench = [
            "bench",
            server.url(),
            "-d1.2",
            "-c1",
            "-p8",
            "--timeout=200ms",
            "--interval=200ms",
        ]
        with Terminal([*bench, *words], columns=100, rows=50) as terminal:
            terminal.screen.feed = lambda text: None  # type: ignore[method-assign]
            assert terminal.wait_for_exit() == 0
            text = terminal.raw.decode()
    assert ("  lost " if not words else "lost") in text.split("started")[0]


def test_a_server_that_is_killed_leaves_its_figures() -> None:
    with serving("--bind=udp://127.0.0.1:0", "--udp-rate=none") as server:
        words = [server.addresses[0], "-c2", "-d1", "--timeout=100ms", "--interval=0.2", "--jsonl"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [*COMMAND, "bench", *words]
        with subprocess.Popen(command, text=True, env=environment(), **pipes) as process:  # type: ignore[call-overload]
            lines = [process.stdout.readline()]
            server.process.kill()
            lines += process.communicate(timeout=DEADLINE)[0].splitlines()
    *intervals, result = (json.loads(line) for line in lines)
    assert process.returncode == 1 and result["messages"] > 0
    assert {name for name, n in result["failures"].items() if n} == {"refused"}
    assert 2 <= result["datagrams"]["lost"] == sum(one["lost"] for one in intervals)
    assert intervals[0]["messages"] > 0 == intervals[-1]["messages"] < intervals[-1]["lost"]
