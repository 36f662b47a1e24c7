"""`fastecho check` as a command: options, outputs, exit codes, Ctrl-C, what is no echo server."""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import pytest
from checked import SHORT, answering, check
from commands import COMMAND, DEADLINE, assert_refused, environment, run, serving
from conftest import MakeServer
from driven import refusing_address
from peers import has_ipv6, wait_until

import fastecho
from fastecho.check import catalog, probes
from fastecho.check.pattern import Ruler

BRIEF = ("--quick", "--only=tiny-writes,order", "--seed=1")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "HOST:PORT is missing: see fastecho check --help"),
        (["--json", "localhost:7"], "HOST:PORT is missing (localhost:7 was taken for --json's"),
        (["localhost"], "HOST:PORT 'localhost' "),
        (["localhost:7", "--direct", "nowhere"], "--direct 'nowhere' "),
        (["localhost:7", "--only", "ordre"], "--only 'ordre' is no probe and no group: did you"),
        (["localhost:7", "--skip=zzz"], "--skip 'zzz' is no probe and no group: see --list"),
        (["localhost:7", "--only=order", "--skip=order"], "--skip 'order' leaves no probe"),
        (["localhost:7", "--idle=1,x"], "--idle 'x' must be a time such as 10, 500ms or 2m"),
        (["localhost:7", "--idle=2d"], "--idle '2d' must be a time"),
        (["localhost:7", "--idle=90000"], "--idle '90000' must be 0 s to 1,440 min"),
        (["localhost:7", "--quick", "--idle=60"], "is longer than the quick profile"),
        (["localhost:7", "--quick", "--timeout=9"], "--timeout '9' is longer than the quick pro"),
        (["localhost:7", "--timeout=0"], "--timeout '0' must be 100 ms to 60 min"),
        (["localhost:7", "--connections=0"], "--connections '0' must be a whole number from 1"),
        (["localhost:7", "--seed=-1"], "--seed '-1' must be a whole number from 0"),
        (["localhost:7", "--junit", "/no/such/x.xml"], "--junit '/no/such/x.xml' is in a folder"),
        (["localhost:7", "--json=-", "--junit=-"], "--junit '-' is wanted by --json as well"),
        (["localhost:7", "--jsno"], "there is no option '--jsno': did you mean --json?"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str
) -> None:
    assert_refused(run("check", *arguments), 2, sentence)


def test_list_names_every_probe_and_what_it_needs() -> None:
    done = run("check", "--list")
    assert (done.returncode, done.stderr) == (0, "")
    names = [one.name for one in catalog.probes()]
    assert len(names) >= 28
    names += [one.name for one in catalog.probes(udp=True)]
    lines = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert lines == names
    assert "server-reset" in done.stdout
    assert "(needs a server with --probes)" in done.stdout
    assert "(needs --direct)" in done.stdout


def test_a_probe_that_lies_in_the_folder_is_listed_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: fastecho.Server
) -> None:
    (tmp_path / "always_blue.py").write_text(
        "from fastecho.check.verdict import failed\n"
        "TITLE, GROUP, QUICK, PHASE, NEEDS = 'it is blue', 'colours', True, 'beside', ()\n"
        "PASSED, FAILED = 'It is.', 'It is red: somebody painted it.'\n"
        "def run(path):\n"
        "    return failed('it is red', shade=3)\n"
    )
    code = (
        "import sys; from fastecho.check import probes\n"
        f"probes.__path__.append({str(tmp_path)!r})\n"
        "from fastecho.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, "check", *arguments],
            capture_output=True, text=True, timeout=DEADLINE, env=environment(), check=False,
        )  # fmt: skip

    assert "  always-blue " in ask("--list").stdout
    done = ask(server.address, "--quick", "--only=colours", "--json=-")
    assert done.returncode == 3
    last = json.loads(done.stdout)["probes"][-1]
    assert (last["name"], last["verdict"], last["values"]) == (
        "always-blue",
        "failed",
        {"shade": 3},
    )
    assert "It is red: somebody painted it." in done.stderr


def test_every_probe_has_all_that_it_needs_to_say() -> None:
    files = [one.name for one in pkgutil.iter_modules(probes.__path__)]
    found = catalog.probes()
    assert sorted(one.name.replace("-", "_") for one in found) == sorted(files)
    for one in found:
        assert one.group in catalog.GROUPS
        assert one.phase in catalog.PHASES
        assert set(one.needs) <= {"tcp", "direct", "probes"}
        assert one.passed.endswith(".")
        assert one.failed.endswith(".")
        assert len(one.name) <= 18


def test_the_json_has_the_documented_keys(server: fastecho.Server) -> None:
    found = check(server.address, *BRIEF)
    report = found.report
    assert set(report) == {
        "format", "version", "fastecho", "target", "direct", "profile", "seed", "started_at",
        "elapsed_s", "interrupted", "summary", "probes",
    }  # fmt: skip
    assert report["format"] == "fastecho-check"
    assert report["version"] == 1
    assert report["target"] == server.address
    assert (report["profile"], report["seed"], report["interrupted"]) == ("quick", 1, False)
    assert report["summary"] == {"passed": 5, "failed": 0, "not_testable": 0}
    for one in report["probes"]:
        assert set(one) == {
            "name", "title", "group", "verdict", "evidence", "meaning", "elapsed_ms", "values",
        }  # fmt: skip
        assert one["verdict"] in ("passed", "failed", "not_testable")
        assert one["evidence"]
        assert one["meaning"].endswith(".")
    assert found["tiny-writes"]["values"] == {"sent_bytes": 300}
    # The gates run in any case.
    names = [one["name"] for one in report["probes"]]
    assert names == ["reachable", "answer", "order", "tiny-writes", "path-mtu"]


def test_files_leave_the_text_on_stdout_and_junit_has_a_case_for_each_probe(
    server: fastecho.Server, tmp_path: Path
) -> None:
    report, junit = tmp_path / "check.json", tmp_path / "check.xml"
    done = run(
        "check", server.address, *BRIEF, "--only=server-fin", "--json", str(report),
        f"--junit={junit}",
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    assert "not testable: the server takes no orders" in done.stdout
    found = json.loads(report.read_text())
    root = ElementTree.parse(junit).getroot()
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert suite.attrib["tests"] == str(len(found["probes"]))
    assert (suite.attrib["failures"], suite.attrib["skipped"]) == ("0", "1")
    cases = {case.attrib["name"]: case for case in suite}
    assert list(cases) == [one["name"] for one in found["probes"]]
    skipped = cases["server-fin"].find("skipped")
    assert skipped is not None
    assert skipped.attrib["message"].startswith("the server takes no orders")
    assert cases["order"].attrib["classname"] == "fastecho.check.exact"


def test_a_full_disk_for_one_report_is_none_for_the_other(
    server: fastecho.Server, tmp_path: Path
) -> None:
    junit = tmp_path / "check.xml"
    done = run("check", server.address, *BRIEF, "--json=/dev/full", f"--junit={junit}")
    assert done.returncode == 1
    assert done.stderr == "fastecho check: /dev/full: No space left on device\n"
    assert len(ElementTree.parse(junit).getroot()[0]) == 5


def test_a_failure_is_one_in_junit_and_nothing_of_a_peer_breaks_the_document() -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"\x00\x1b[2J<&]]>\xff\r\n")

    with answering(serve) as address:
        done = run("check", address, "--quick", "--junit=-")
    assert done.returncode == 3
    root = ElementTree.fromstring(done.stdout)
    (case,) = [one for one in root.iter("testcase") if one.attrib["name"] == "answer"]
    failure = case.find("failure")
    assert failure is not None
    assert r"'\x00\x1b[2J<&]]>\xff\r\n'" in failure.attrib["message"]
    assert "\x1b" not in done.stderr


def test_a_server_that_is_not_there_fails_one_probe_and_leaves_the_others_untested() -> None:
    with ExitStack() as stack:
        address = refusing_address(stack)
        found = check(address, "--quick")
    assert found.code == 3
    assert found.of("failed") == {"reachable"}
    assert found.of("passed") == set()
    assert found["reachable"]["evidence"] == f"cannot connect to {address}: Connection refused"
    assert found["echo"]["evidence"].startswith("the probe 'reachable' failed: cannot connect")


def test_a_name_that_does_not_resolve_fails_one_probe() -> None:
    found = check("no-such-host.invalid:7", "--quick", "--only=echo")
    assert found.code == 3
    assert found.of("failed") == {"reachable"}
    assert "cannot resolve no-such-host.invalid" in found["reachable"]["evidence"]
    assert found["reachable"]["meaning"].startswith("The name has no address here: ")


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP response, 'HTTP/1.1 400 Bad Request'"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "a TLS alert"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the greeting of an SSH server"),
    ],
)
def test_a_peer_that_is_no_echo_server_is_named(reply: bytes, says: str) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(reply)

    with answering(serve) as address:
        found = check(address, "--quick")
    assert found.code == 3
    assert found.of("failed") == {"answer"}
    assert says in found["answer"]["evidence"]


def test_a_peer_that_says_nothing_is_named() -> None:
    with answering(lambda sock: sock.recv(1000) and sock.recv(1000)) as address:
        found = check(address, "--quick", "--timeout=300ms")
    assert found.of("failed") == {"answer"}
    assert "nothing more came for 0.3 s when 0 of " in found["answer"]["evidence"]


def test_a_server_that_echoes_once_is_told_from_one_that_never_does() -> None:
    with answering(lambda sock: sock.sendall(sock.recv(1000))) as address:
        found = check(address, "--quick")
    assert found.of("failed") == {"answer"}
    assert found["answer"]["evidence"].startswith("1 line came back, then a line of ")
    assert found["answer"]["meaning"].startswith("The echo ends while its client still talks: ")


def test_a_prefix_is_no_exact_echo() -> None:
    with serving("--prefix=you said: ", "--log-level=error") as running:
        found = check(running.addresses[0], "--quick", "--only=bytes", "--timeout=500ms")
    assert "the echo came with something more: 'you said: '" in found["answer"]["evidence"]
    assert "bytes" in found.of("failed")


@pytest.mark.parametrize("frame", ["recv", "length"])
def test_a_server_that_says_who_answers_is_no_echo_and_that_is_all_that_is_told(
    make_server: MakeServer, frame: str
) -> None:
    server = make_server(identify=True, instance="pod-7", frame=frame)
    found = check(server.address, "--quick")
    assert found.of("failed") == {"answer"}
    assert found.of("passed") == {"reachable"}
    said = found["answer"]
    assert said["evidence"].startswith("the server says who answers before it echoes: pod-7 (")
    assert "--identify" in said["meaning"]


def test_a_server_of_lines_is_no_echo_of_bytes_and_that_is_all_that_is_told(
    make_server: MakeServer,
) -> None:
    found = check(make_server(frame="line").address, "--quick", "--timeout=300ms")
    assert found.of("failed") == {"answer"}
    assert found.of("passed") == {"reachable"}
    assert found["answer"]["evidence"].endswith("came back only with the end of their line")
    assert "--frame line" in found["answer"]["meaning"]


def test_the_pause_before_unasked_data_counts_from_the_order_on() -> None:
    """Its acknowledgement may come late; then less than the pause lies between it and the data."""

    def serve(sock: socket.socket) -> None:
        line = sock.recv(1000)
        if not line.startswith(b"FASTECHO-PROBE/1 first "):
            while line:
                sock.sendall(line)
                line = sock.recv(1 << 16)
            return
        pause_ms, size = map(int, line.split()[2:])
        threading.Event().wait(pause_ms / 1e3)
        sock.sendall(b"FASTECHO-PROBE/1 ok first\n")
        sock.sendall(Ruler(size).take(0, size))
        sock.recv(1)

    with answering(serve) as address:
        found = check(address, "--quick", "--only=server-first")
    assert found["server-first"]["verdict"] == "passed"
    assert found["server-first"]["values"]["took_ms"] >= 300


def test_an_order_that_does_not_get_through_is_not_what_the_probe_looks_for() -> None:
    def serve(sock: socket.socket) -> None:
        while line := sock.recv(1 << 16):
            if line.startswith(b"FASTECHO-PROBE/1 "):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            sock.sendall(line)

    with answering(serve) as address:
        found = check(address, "--quick", "--only=server-fin")
    assert found.of("failed") == {"server-fin"}
    said = found["server-fin"]
    assert said["evidence"].startswith("the connection was reset (RST) in place of an answer")
    assert said["meaning"].startswith("What this looks for was not seen, because the order")


def test_a_server_of_one_connection_at_a_time_is_not_one_that_reads_bytes_as_text() -> None:
    with serving("--model=blocking", "--log-level=error") as running:
        found = check(running.addresses[0], "--quick", "--only=bytes", "--timeout=300ms")
    assert found.of("failed") == {"bytes"}
    assert found["bytes"]["meaning"].endswith("see what the probe connections says.")


def test_a_connection_that_nobody_served_did_not_die_of_being_idle() -> None:
    def serve(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            if b"fastecho check" in data:
                sock.sendall(data)

    with answering(serve) as address:
        found = check(address, "--quick", "--only=idle,keepalive", "--timeout=300ms")
    for name in ("idle", "keepalive"):
        assert found[name]["evidence"].startswith("before ")
        assert found[name]["meaning"].startswith("What this looks for was not seen, because the")


def test_a_connection_that_is_ended_while_it_is_filled_does_not_mean_unbounded_buffers() -> None:
    def serve(sock: socket.socket) -> None:
        total = 0
        while total < 1 << 20 and (data := sock.recv(1 << 16)):
            total += len(data)
            if total < 1 << 16:
                sock.sendall(data)

    with answering(serve) as address:
        found = check(address, "--quick", "--only=slow-reader", "--timeout=300ms")
    assert "slow-reader" in found.of("failed")
    said = found["slow-reader"]
    assert said["evidence"].startswith("the connection was ended when ")
    assert said["meaning"].startswith("Whether something pushes back was not seen")


def test_what_only_meets_a_suffix_does_not_mean_loss() -> None:
    with serving("--suffix=!", "--log-level=error") as running:
        found = check(
            running.addresses[0], "--quick", "--only=ipv4,latency,tcp-info", "--timeout=300ms"
        )
    meanings = {name: found[name]["meaning"] for name in ("ipv4", "tcp-info", "path-mtu")}
    assert set(meanings) < found.of("failed")
    assert "see what the probes echo and order say" in meanings["ipv4"]
    assert meanings["tcp-info"].startswith("The kernel was not asked, because a small message")
    assert meanings["path-mtu"].startswith("Whole segments were not tried")


def test_a_unix_socket_is_checked_but_for_tcp(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(f"unix:{tmp_path}/echo")
    found = check(server.address, *SHORT)
    assert found.of("failed") == set(), found.text
    untold = {"flows", "ipv4", "ipv6", "keepalive", "mss", "path-mtu", "server-reset", "tcp-info"}
    assert untold <= found.of("not_testable")
    assert found["mss"]["evidence"] == "a Unix socket has no TCP"
    assert {"echo", "half-close", "in-flight", "slow-reader"} <= found.of("passed")


@pytest.mark.skipif(not has_ipv6(), reason="needs ::1")
def test_an_ipv6_literal_is_checked_over_ipv6(make_server: MakeServer) -> None:
    server = make_server("[::1]:0")
    found = check(server.address, "--quick", "--only=reach,mss")
    assert found.of("failed") == set()
    assert found["ipv6"]["verdict"] == "passed"
    assert found["ipv4"]["evidence"] == "::1 is an address of the other family"


def test_the_same_seed_is_told_and_a_drawn_one_too(server: fastecho.Server) -> None:
    assert "(quick profile, seed 1)" in check(server.address, *BRIEF).text
    drawn = check(server.address, "--quick", "--only=tiny-writes")
    assert f"seed {drawn.report['seed']})" in drawn.text


def test_signs_are_ascii_where_the_encoding_has_no_ticks(server: fastecho.Server) -> None:
    done = run("check", server.address, *BRIEF, PYTHONIOENCODING="ascii")
    assert done.stdout.isascii()
    assert "  ok   order " in done.stdout
    done = run("check", server.address, *BRIEF, PYTHONIOENCODING="utf-8")
    assert "  \N{CHECK MARK} order " in done.stdout
    assert "\x1b" not in done.stdout


def test_ctrl_c_prints_what_was_found_so_far(server: fastecho.Server, tmp_path: Path) -> None:
    report = tmp_path / "check.json"
    with subprocess.Popen(
        [*COMMAND, "check", server.address, "--only=idle,mss", "--idle=50", f"--json={report}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        for seen in process.stdout:
            if "answer" in seen:
                break
        # All but the one that is left idle have come and gone.
        wait_until(
            lambda: (
                server.stats().connections_open == 1 and server.stats().connections_accepted >= 11
            )
        )
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert said == ""
    # Those behind the one that was left idle are told as well.
    assert [line.split()[1] for line in out.splitlines() if line.startswith("  ")] == [
        "path-mtu", "mss",
    ]  # fmt: skip
    assert "interrupted: 4 of 5 probes had ended" in out
    found = json.loads(report.read_text())
    assert found["interrupted"] is True
    assert [one["name"] for one in found["probes"]] == ["reachable", "answer", "path-mtu", "mss"]


def test_a_reader_that_has_left_ends_the_check(server: fastecho.Server) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "check", server.address, *BRIEF],
            stdout=writer, stderr=subprocess.PIPE, timeout=DEADLINE, env=environment(), check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_more_connections_than_descriptors_are_not_testable(server: fastecho.Server) -> None:
    words = ["--quick", "--connections=99", "--only=connections,flows", "--json=-"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 60 && exec "$@"', "sh", *COMMAND, "check", server.address, *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=environment(),
        check=False,
    )
    found = {one["name"]: one for one in json.loads(done.stdout)["probes"]}
    assert done.returncode == 0, done.stderr
    says = "of 99: Too many open files; --connections chooses fewer"
    assert says in found["connections"]["evidence"]
    assert found["flows"]["verdict"] == "not_testable"
