"""`fastecho queues` as a real process: what it prints, its JSON, its exit codes, who may run it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run
from namespaces import can_unshare
from test_queues import knocked, listen

from fastecho.cli._queues_text import sparkline


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a listener that is full: 4 of 4, and one SYN was dropped."""
    with listen("127.0.0.1", 3) as listener, knocked(listener, 5):
        yield listener.getsockname()[1]


@pytest.fixture
def well() -> Iterator[int]:
    """The port of a listener where nobody waits."""
    with listen("127.0.0.1", 3) as listener:
        yield listener.getsockname()[1]


def queues(*arguments: str) -> dict[str, Any]:
    """Return the JSON of a single look."""
    done = run("queues", "--json", "--interval=0", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# What it says


def test_a_full_queue_is_in_the_table_and_in_words(full: int) -> None:
    done = run("queues", str(full), "--interval=200ms")
    assert (done.returncode, done.stderr) == (0, "")
    head, row, empty, said, *_ = done.stdout.splitlines()
    assert head.split("  ")[0] == "ACCEPT QUEUE"
    name = Path("/proc/self/comm").read_text().strip()
    what = rf" +4 of 4 +4 +1 +0 of 4  127.0.0.1:{full}  {re.escape(name)} \({os.getpid()}\)"
    assert re.fullmatch(what, row)
    assert not empty
    begin = f"127.0.0.1:{full}, {name} ({os.getpid()}): accept queue full (4 of 4); 1 SYN dropped"
    assert said.startswith(begin)
    assert "nothing is wrong" not in done.stdout


def test_nothing_wrong_is_said(well: int) -> None:
    done = run("queues", f"127.0.0.1:{well}", "--interval=200ms")
    assert done.returncode == 0
    assert "nothing is wrong" in done.stdout.splitlines()


def test_without_a_place_all_listeners_are_shown(full: int, well: int) -> None:
    addresses = [one["address"] for one in queues()["listeners"]]
    assert {f"127.0.0.1:{full}", f"127.0.0.1:{well}"} <= set(addresses)


def test_unix_listeners_are_shown_if_somebody_waits_or_all_are_asked_for(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(3)
        address = f"unix:{path}"
        assert address not in [one["address"] for one in queues()["listeners"]]
        assert address in [one["address"] for one in queues("--unix")["listeners"]]
        with knocked(listener, 1):
            (found,) = [one for one in queues()["listeners"] if one["address"] == address]
        assert found["accept_queue"] == {"depth": 1, "limit": 3, "holds": 4, "highest": 1}
        assert "drops" not in found
        assert "syn_queue" not in found
        assert queues(address)["listeners"][0]["address"] == address


def test_a_name_of_a_socket_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    path = f"{tmp_path}/\x1b[2J\u202e"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with knocked(listener, 2):
            done = run("queues", "--interval=0")
    assert "\\x1b[2J\\u202e" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_a_name_cannot_end_its_line_and_is_valid_in_json() -> None:
    name = f"\0fastecho {os.getpid()}\nnothing is wrong\udcff"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name.encode(errors="surrogateescape"))
        listener.listen(0)
        with knocked(listener, 2):
            done = run("queues", "--interval=0")
            found = queues("--unix")
    shown = f"unix:@fastecho {os.getpid()}\\nnothing is wrong\\udcff"
    assert [line for line in done.stdout.splitlines() if shown in line]
    assert not [line for line in done.stdout.splitlines() if line.startswith("nothing is wrong")]
    addresses = [one["address"] for one in found["listeners"]]
    assert f"unix:@fastecho {os.getpid()}\nnothing is wrong\\xff" in addresses


def test_the_json_holds_what_the_table_shows(full: int) -> None:
    found = queues(str(full))
    assert found["format"] == "fastecho-queues"
    (one,) = found["listeners"]
    assert one["accept_queue"] == {"depth": 4, "limit": 3, "holds": 4, "highest": 4}
    assert one["drops"]["since_open"] >= 1
    assert one["syn_queue"]["handshakes"] == 0
    assert os.getpid() in [process["pid"] for process in one["processes"]]
    assert one["verdict"]["kind"] == "accept_queue_full"
    assert one["verdict"]["is_now"] is True
    assert found["namespace"]["counters"]["listen_overflows"] >= 1
    assert set(found["settings"]) == {
        "somaxconn", "tcp_abort_on_overflow", "tcp_max_syn_backlog", "tcp_syncookies",
    }  # fmt: skip
    assert found["missing"] == []


def test_json_to_a_file_leaves_the_text_on_stdout(well: int, tmp_path: Path) -> None:
    file = tmp_path / "queues.json"
    done = run("queues", str(well), "--interval=0", "--json", str(file))
    assert "ACCEPT QUEUE" in done.stdout
    assert json.loads(file.read_text())["listeners"][0]["address"] == f"127.0.0.1:{well}"


def test_explain_shows_the_old_formula_beside_the_rule_and_the_numbers(well: int) -> None:
    done = run("queues", "--explain", str(well))
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    settings = queues()["settings"]
    for part in (
        "most tutorials min(backlog, somaxconn) today min(backlog, somaxconn) + 1",
        "most tutorials max(64, tcp_max_syn_backlog)",
        f"somaxconn = {settings['somaxconn']}",
        f"tcp_syncookies = {settings['tcp_syncookies']}",
    ):
        assert part in text
    row = done.stdout.splitlines()[-2].split()
    assert row[:3] == ["3", "3", "4"]
    assert row[-1] == f"127.0.0.1:{well}"


def test_limits_are_those_of_the_system() -> None:
    done = run("queues", "--limits", "--json")
    found = {one["name"]: one for one in json.loads(done.stdout)["limits"]}
    somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert found["net.core.somaxconn"]["value"] == somaxconn
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = found["net.ipv4.ip_local_port_range"]
    assert ports["value"] == [low, high]
    assert f"{high - low + 1:,} connections from one of its addresses" in ports["meaning"]
    for name in ("RLIMIT_NOFILE", "fs.nr_open", "net.ipv4.tcp_syncookies"):
        assert f"{name}: " in done.stderr
    # The first network namespace alone has it.
    has_memory = Path("/proc/sys/net/ipv4/tcp_mem").exists()
    assert ("net.ipv4.tcp_mem: " in done.stderr) == has_memory
    assert all(one["meaning"] and one["change"] for one in found.values())


# Exit codes


def test_fail_says_by_the_exit_code_that_something_is_wrong(full: int, well: int) -> None:
    assert run("queues", str(full), "--interval=0").returncode == 0
    assert run("queues", str(full), "--interval=0", "--fail").returncode == 3
    assert run("queues", str(well), "--interval=0", "--fail").returncode == 0


def test_drops_that_are_over_do_not_fail() -> None:
    with listen("127.0.0.1", 0) as listener:
        with knocked(listener, 3):
            listener.accept()[0].close()
        done = run("queues", str(listener.getsockname()[1]), "--interval=0", "--fail")
    assert done.returncode == 0
    assert "2 SYNs dropped since the listener opened" in done.stdout


def test_a_place_where_nobody_listens_is_told(well: int) -> None:
    with listen("127.0.0.1", 0) as gone:
        port = gone.getsockname()[1]
    done = run("queues", str(well), str(port), "--interval=0")
    assert done.returncode == 1
    assert done.stderr == f"fastecho queues: nothing listens at {port}\n"
    assert f"127.0.0.1:{well}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["0"], "PORT '0' must be 1 to 65535"),
        (["70000"], "PORT '70000' must be 1 to 65535"),
        (["http"], "PORT 'http' must be a port, HOST:PORT or unix:PATH"),
        (["unix:"], "PORT 'unix:' "),
        (["--interval=soon"], "--interval 'soon' must be a time such as 1, 500ms or 2m"),
        (["--interval=1ms"], "--interval '1ms' must be 0, or 100ms to 1h"),
        (["--watch", "--interval=0"], "--interval '0' must be 100ms to 1h"),
        (["--netns=no-such-name"], "--netns 'no-such-name' is no network namespace"),
        (["--netns=999999999"], "--netns '999999999' is no process"),
        (["--netns=../x"], "--netns '../x' must be the number of a process"),
        (["--demo", "--watch"], "--watch has no effect with --demo"),
        (["--limits", "80"], "PORT '80' has no effect with --limits"),
        (["--explain", "--json=x"], "--json 'x' has no effect with --explain"),
        (["--explain", "--interval=1"], "--interval '1' has no effect with --explain"),
        (["--demo", "--json"], "--json has no effect with --demo"),
        (["--unix", "80"], "--unix has no effect with a PORT"),
        (["--json", "80"], "--json '80' would be a file: write ./80 for that, and a port before"),
        (["no-such-host.invalid:80"], "PORT 'no-such-host.invalid:80' does not resolve: "),
        (["--json=/no/such/folder/x"], "--json '/no/such/folder/x' is in a folder that does not"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert_refused(run("queues", *arguments), 2, sentence)


# Where something is missing


def run_command(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE, env=environment(), check=False
    )


ORDINARY = [] if os.geteuid() else ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all"]
"""What runs a command without the rights of root; its files may be root's. The one right that is
left lets user 0 be user 0 of a new user namespace, as anybody else may be."""
ordinary = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="setpriv is not installed"
)


@ordinary
def test_an_ordinary_user_sees_all_queues_and_is_told_what_is_missing(full: int) -> None:
    done = run_command(*ORDINARY, *COMMAND, "queues", str(full), "--interval=0")
    assert done.returncode == 0
    assert re.search(rf" 4 of 4 +4 +\d+ +0 of 4  127.0.0.1:{full}  -\n", done.stdout)
    told = "they belong to other users (root sees them)"
    if os.geteuid() == 0:
        told = r"\d+ processes? may not be looked into (CAP_SYS_PTRACE is missing)"
    told = re.escape(told).replace(r"\\d\+", r"\d+").replace(r"processes\?", "processes?")
    assert re.search(f"^not seen: processes of 1 listener: {told}$", done.stdout, re.MULTILINE)


@pytest.mark.skipif(not can_unshare("--mount"), reason="needs a mount namespace")
def test_without_proc_it_tells_what_it_can(full: int) -> None:
    script = 'mount -t tmpfs none /proc && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *COMMAND]
    done = run_command(*command, "queues", str(full), "--interval=0")
    assert done.returncode == 0, done.stderr
    assert re.search(rf" 4 of 4 +4 +\d+ +0 of \?  127.0.0.1:{full}  -\n", done.stdout)
    assert "accept queue full (4 of 4)" in done.stdout
    processes = "processes: /proc cannot be read"
    for what in ("counters of the namespace", processes, "somaxconn, tcp_max_syn_backlog"):
        assert f"not seen: {what}" in done.stdout


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    # Without what a sanitizer preloads: LeakSanitizer cannot search a process that is traced.
    command = ["env", "-u", "LD_PRELOAD", "strace", "-o/dev/null", "true"]
    return subprocess.run(command, check=False).returncode == 0


needs_strace = pytest.mark.skipif(not can_trace(), reason="strace is missing, or not allowed")


@needs_strace
def test_without_sock_diag_depths_are_read_from_proc(full: int) -> None:
    inject = "inject=socket:error=EPROTONOSUPPORT"
    command = ["strace", "-f", "-o", "/dev/null", "-e", inject, *COMMAND]
    done = run_command(*command, "queues", str(full), "--interval=0")
    assert done.returncode == 0, done.stderr
    assert re.search(rf" 4 of \? +4 +\? +0 of \?  127.0.0.1:{full}  ", done.stdout)
    assert "not seen: limits and drops: the kernel's sock_diag says Protocol not" in done.stdout
    assert "not seen: Unix listeners: the kernel's unix_diag says Protocol not" in done.stdout


@needs_strace
@pytest.mark.skipif(not can_unshare("--mount"), reason="needs a mount namespace")
def test_with_neither_it_could_not_start() -> None:
    script = 'mount -t tmpfs none /proc && exec "$@"'
    inject = ["strace", "-f", "-o", "/dev/null", "-e", "inject=socket:error=EACCES"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *inject, *COMMAND]
    done = run_command(*command, "queues", "--interval=0")
    assert_refused(done, 4, "the kernel cannot be asked for its listeners: No such file")


LISTENS_APART = """
import socket, sys
from fastecho.diagnose import netns
netns.set_up_loopback("10.66.0.0", 16)
listener = socket.create_server(("127.0.0.1", 7), backlog=9)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def listening_apart(*prefix: str) -> Iterator[int]:
    """A process with a listener on port 7 of a network namespace of its own; its number."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", LISTENS_APART],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process.pid
        process.communicate()


needs_net = pytest.mark.skipif(not can_unshare("--net"), reason="needs a network namespace")


@pytest.mark.skipif(
    shutil.which("ip") is None or not can_unshare("--net"), reason="needs ip and a namespace"
)
def test_a_link_local_address_has_its_interface() -> None:
    program = (
        "import socket, subprocess, sys\n"
        "with socket.socket(socket.AF_INET6) as listener:\n"
        "    listener.bind(('fe80::5', 7, 0, socket.if_nametoindex('lo')))\n"
        "    listener.listen(3)\n"
        "    subprocess.run(sys.argv[1:], check=True)\n"
    )
    script = 'ip link set lo up && ip addr add fe80::5/64 dev lo nodad && exec "$@"'
    command = [*COMMAND, "queues", "[fe80::5%lo]:7", "--json", "--interval=0"]
    done = run_command(
        "unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", program, *command
    )
    (one,) = json.loads(done.stdout)["listeners"]
    assert one["address"] == "[fe80::5%lo]:7"


needs_user = pytest.mark.skipif(
    not can_unshare("--user", "--net"), reason="needs namespaces of users"
)


@needs_net
def test_another_network_namespace_can_be_looked_into() -> None:
    with listening_apart("unshare", "--net") as pid:
        (one,) = queues("--netns", str(pid))["listeners"]
    assert one["address"] == "127.0.0.1:7"
    assert one["accept_queue"]["limit"] == 9
    assert one["processes"][0]["pid"] == pid


@ordinary
@needs_user
def test_a_namespace_of_the_same_user_needs_no_root() -> None:
    apart = [*ORDINARY, "unshare", "--user", "--map-root-user", "--net"]
    with listening_apart(*apart) as pid:
        command = [*ORDINARY, *COMMAND, "queues", "--interval=0", "--netns", str(pid)]
        done = run_command(*command)
    assert done.returncode == 0, done.stderr
    assert "0 of 10" in done.stdout


@ordinary
@needs_net
def test_a_namespace_of_root_is_not_for_others() -> None:
    with listening_apart("unshare", "--net") as pid:
        done = run_command(*ORDINARY, *COMMAND, "queues", "--netns", str(pid))
    assert_refused(done, 4, f"--netns {pid}: permission denied: only root may look into it")


# --demo


@ordinary
def test_demo_shows_both_queues_overflow() -> None:
    done = run_command(*ORDINARY, *COMMAND, "queues", "--demo")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["5", "5", "5", "of", "5", "0"] in rows
    assert ["8", "5", "5", "of", "5", "3"] in rows
    assert "fastecho queues says: accept queue full (5 of 5); 3 SYNs dropped" in done.stdout
    assert done.stdout.count("   a client is connected ") == 3
    if can_unshare("--user", "--net") or can_unshare("--net"):
        assert ["1", "2048", "8", "9", "of", "9", "191", "0"] in rows
        assert ["0", "2048", "8", "9", "of", "9", "0", "191"] in rows
        assert ["0", "64", "128", "49", "of", "49", "0", "151"] in rows
        assert ["2", "2048", "8", "0", "of", "0", "200", "0"] in rows


@needs_strace
def test_demo_without_namespaces_shows_the_first_and_says_so() -> None:
    command = ["strace", "-f", "-o", "/dev/null", "-e", "inject=unshare:error=EPERM", *COMMAND]
    done = run_command(*command, "queues", "--demo")
    assert done.returncode == 0
    assert "accept queue full (5 of 5)" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last == (
        "The SYN queue needs a network namespace of its own, which this machine does not allow: "
        "Operation not permitted."
    )


def test_a_single_look_denies_nothing_that_it_cannot_know(well: int) -> None:
    done = run("queues", str(well), "--interval=0")
    assert (
        "no accept queue is full; what else happens now, a single look cannot tell" in done.stdout
    )
    assert "nothing is wrong" not in done.stdout


def test_a_wildcard_listener_is_found_by_an_address_and_an_abstract_one_by_its_name() -> None:
    name = f"fastecho-test-{os.getpid()}"
    with listen("0.0.0.0", 3) as listener, socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0{name}")
        other.listen(1)
        port = listener.getsockname()[1]
        (one,) = queues(f"127.0.0.1:{port}")["listeners"]
        assert one["address"] == f"0.0.0.0:{port}"
        (one,) = queues(f"unix:@{name}")["listeners"]
        assert one["accept_queue"]["limit"] == 1


BUSY = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0), backlog=50)
print(listener.getsockname()[1], flush=True)
def serve():
    pause = threading.Event()
    while True:
        peer, _ = listener.accept()
        peer.recv(1)
        pause.wait(0.02)
        peer.close()
threading.Thread(target=serve, daemon=True).start()
def come():
    while True:
        try:
            with socket.create_connection(listener.getsockname()) as peer:
                peer.send(b"x")
                peer.recv(1)
        except OSError:
            pass
for _ in range(5):
    threading.Thread(target=come, daemon=True).start()
sys.stdin.read()
"""


def test_a_busy_application_whose_queue_keeps_its_depth_is_well() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        done = run("queues", port, "--fail", "--json")
        process.kill()
    (one,) = json.loads(done.stdout)["listeners"]
    assert one["accept_queue"]["highest"] > 0
    assert (done.returncode, one["verdict"]) == (0, None)


# --watch


@contextmanager
def watching(*arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, "queues", "--watch", "--interval=100ms", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TERM="xterm"),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_watch_prints_a_line_where_something_is_wrong_until_ctrl_c(full: int) -> None:
    with watching(str(full), "--fail") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
    begin = rf"\d\d:\d\d:\d\d 127.0.0.1:{full}, \S+ \(\d+\): 4 of 4, at most 4; accept queue full"
    assert re.match(begin, line)
    assert (process.returncode, said) == (3, "")


def test_watch_sees_a_listener_come_and_fill_up() -> None:
    with listen("127.0.0.1", 1) as listener:
        port = listener.getsockname()[1]
        with watching(str(port), "--json") as process:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            with knocked(listener, 3):
                deadline = time.monotonic() + DEADLINE
                now = first
                while now["listeners"][0]["verdict"] is None:
                    assert time.monotonic() < deadline
                    now = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
    assert first["listeners"][0]["accept_queue"]["depth"] == 0
    assert now["listeners"][0]["accept_queue"]["highest"] == 2
    assert now["interval_s"] == pytest.approx(0.1, abs=0.1)


def test_watch_ends_by_sigterm_as_by_ctrl_c_and_tells_where_nobody_listens(well: int) -> None:
    with listen("127.0.0.1", 0) as gone:
        port = gone.getsockname()[1]
    with watching(str(well), str(port), "--fail") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE)
    assert line[9:] == f"{port}: nothing listens there\n"
    assert (process.returncode, said) == (3, "")


def test_watch_on_a_small_screen_shows_what_is_wrong_first(full: int) -> None:
    pytest.importorskip("rich")
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(listen("127.0.0.1", 8))
        terminal, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("4H", 16, 100, 0, 0))
        screen = stack.enter_context(os.fdopen(terminal, "rb", buffering=0))
        stack.enter_context(watching(stdout=other))
        os.close(other)
        shown, deadline = "", time.monotonic() + DEADLINE
        while "listeners more" not in shown or "accept queue full" not in shown:
            assert time.monotonic() < deadline
            assert select.select([screen], [], [], DEADLINE)[0]
            shown += screen.read(65536).decode()
    table = shown.partition("listeners more")[0]
    assert f"127.0.0.1:{full}" in table.splitlines()[1]
    assert table.count("\n") < 15


def test_watch_draws_a_table_on_a_terminal(full: int) -> None:
    pytest.importorskip("rich")
    terminal, other = pty.openpty()
    with (
        os.fdopen(terminal, "rb", buffering=0) as screen,
        watching(str(full), stdout=other) as process,
    ):
        os.close(other)
        shown, deadline = "", time.monotonic() + DEADLINE
        while shown.count("accept queue full") < 2:
            assert time.monotonic() < deadline
            assert select.select([screen], [], [], DEADLINE)[0]
            shown += screen.read(65536).decode()
        process.send_signal(signal.SIGINT)
        try:
            while data := screen.read(65536):
                shown += data.decode()
        except OSError:
            pass  # nobody has the other end any more
        _, said = process.communicate(timeout=DEADLINE)
    assert (process.returncode, said) == (0, "")
    assert "█" in shown
    left = shown.rpartition("\x1b[?1049l")[2]  # what stays behind when the table is gone
    assert f"127.0.0.1:{full}" in left


@pytest.mark.parametrize(
    ("depths", "holds", "line"),
    [([0, 1, 4, 5], 5, "▁▃▇█"), ([0], 129, "▁"), ([1], 129, "▂"), ([3, 6], None, "▅█")],
)
def test_a_sparkline_shows_any_depth_above_none(
    depths: list[int], holds: int | None, line: str
) -> None:
    assert sparkline(depths, holds, unicode=True) == line
