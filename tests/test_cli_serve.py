"""`fastecho serve` as a real process: what it says, what it leaves, and its exit codes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from commands import (
    COMMAND,
    DEADLINE,
    Argument,
    Serving,
    assert_refused,
    environment,
    exchange,
    full_pipe,
    read_ready,
    run,
    serving,
)

from fastecho.cli._cpus import usable_cpus
from fastecho.cli._early_signals import EarlySignals, Stopped

# --- wrong options ----------------------------------------------------------------------------

WRONG: list[tuple[list[Argument], str]] = [
    (["--thread", "2"], "there is no option '--thread': did you mean --threads?"),
    (["--modle", "epoll"], "there is no option '--modle': did you mean --model?"),
    (["--max-frames=5"], "there is no option '--max-frames': did you mean --max-frame?"),
    (["--backl", "5"], "there is no option '--backl': did you mean --backlog?"),
    (["extra"], "unexpected argument 'extra'"),
    (["--bind"], "--bind needs a value"),
    (["--prefix", "-x"], "--prefix needs a value (one that starts with - is written --prefix=-"),
    (["--\x1b[31m"], "there is no option '--\\x1b[31m'"),
    (["--print-config=1"], "--print-config takes no value, and was given '1'"),
    (["--print-config", "--model=poll", "--threads=4"], "--threads '4' is more than --model poll"),
    (["--access-log=yes"], "--access-log takes no value, and was given 'yes'"),
    (["two\nlines"], "unexpected argument 'two\\nlines'"),
    ([b"\xff"], "unexpected argument '\\udcff'"),
    (["--bind", "::1:7"], "--bind '::1:7' is an IPv6 address without brackets: write [::1]:7"),
    (["--bind", "7777"], "--bind '7777' is a port without a host: write 127.0.0.1:7777"),
    (["--bind", ""], "--bind '' is empty"),
    (["--bind", "[]:7"], "--bind '[]:7' has no valid IPv6 address"),
    (["--bind", "localhost:65536"], "has a port that is not a whole number from 0 to 65535"),
    (["--bind", "localhost:-1"], "has a port that is not a whole number from 0 to 65535"),
    (["--bind", "unix:" + "x" * 108], "a path of 108 bytes: a Unix socket takes at most 107"),
    (["--bind", "fd:3"], "--bind 'fd:3' is not a descriptor: write fd://N"),
    (["--bind", "a:7", "--bind", "a:7"], "--bind 'a:7' is given twice"),
    (["--threads", "0"], "--threads '0' must be a whole number from 1 to 1024"),
    (["--threads", "1000000"], "--threads '1000000' must be a whole number from 1 to 1024"),
    (["--threads", "two"], "--threads 'two' must be a whole number from 1 to 1024"),
    (["--threads", ""], "--threads '' must be a whole number from 1 to 1024"),
    (["--backlog", "-1"], "--backlog '-1' must be a whole number from 0 to 2147483647, or none"),
    (["--frame", "lines"], "--frame 'lines' must be one of recv, line, length"),
    (["--prefix", "x" * 4097], "has 4097 bytes: at most 4096"),
    (["--suffix", "é" * 2049], "has 4098 bytes: at most 4096"),
    (["--max-frame", "0"], "--max-frame '0' must be a whole number from 1 to"),
    (["--max-frame", "300000"], "--max-frame 300000 is above the default high_water 262144"),
    (["--max-frame", "9", "--high-water", "8"], "--max-frame 9 is above --high-water 8"),
    (["--low-water", "8", "--high-water", "8"], "--low-water 8 is not below --high-water 8"),
    (["--max-connections", "0"], "--max-connections '0' must be a whole number from 1 to"),
    (["--idle-timeout", "nan"], "--idle-timeout 'nan' must be seconds from 0.001 to 1000000"),
    (["--idle-timeout", "inf"], "--idle-timeout 'inf' must be seconds from 0.001 to 1000000"),
    (["--idle-timeout", "0"], "--idle-timeout '0' must be seconds from 0.001 to 1000000"),
    (["--graceful-timeout=-1"], "--graceful-timeout '-1' must be seconds from 0 to 1000000"),
    (["--drain-idle=-inf"], "--drain-idle '-inf' must be seconds from 0 to 1000000"),
    (["--spin-us", "1.5"], "--spin-us '1.5' must be a whole number from 0 to 100000"),
    (["--log-level", "debug"], "--log-level 'debug' must be one of error, warning, info"),
    (["--config", "missing.toml"], "--config 'missing.toml' cannot be read: No such file or"),
    (["--config", "/"], "--config '/' cannot be read: Is a directory"),
    (["--ready-fd", "99"], "--ready-fd '99' is not open"),
    (["--ready-fd", "one"], "--ready-fd 'one' must be a descriptor number"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=[f"{n}" for n in range(len(WRONG))])
def test_a_wrong_option_is_one_sentence_and_exit_code_2(
    arguments: list[Argument], sentence: str
) -> None:
    done = run("serve", *arguments)
    assert_refused(done, 2, sentence)
    assert done.stderr.startswith("fastecho serve: ")


def test_a_ready_fd_that_cannot_be_written_to_is_refused() -> None:
    with open(os.devnull, "rb") as nothing:
        done = subprocess.run(
            [*COMMAND, "serve", "--ready-fd", str(nothing.fileno())],
            pass_fds=[nothing.fileno()],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert_refused(done, 2, "is not open for writing")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("FASTECHO_THREADS", "many", "FASTECHO_THREADS 'many' must be a whole number"),
        ("FASTECHO_BIND", "127.0.0.1", "FASTECHO_BIND '127.0.0.1' has no port"),
        ("FASTECHO_REUSE_PORT", "perhaps", "FASTECHO_REUSE_PORT 'perhaps' must be yes or no"),
        ("FASTECHO_LOG_LEVEL", "all", "FASTECHO_LOG_LEVEL 'all' must be one of"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, sentence: str) -> None:
    assert_refused(run("serve", **{name: value}), 2, sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('threads = "2"', "fastecho.toml: threads '2' must be a whole number"),
        ("max-frame = 2", "fastecho.toml: key 'max-frame' is not a setting: did you mean max_fra"),
        ("log_level = 1", "fastecho.toml: log_level 1 must be one of"),
        ("threads =", "fastecho.toml' is not valid TOML"),
    ],
)
def test_a_wrong_file_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "fastecho.toml"
    file.write_text(text)
    assert_refused(run("serve", "--config", str(file)), 2, sentence)


# --- what the machine refuses -----------------------------------------------------------------


def test_a_port_in_use_is_exit_code_4_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run("serve", "--bind", f"unix:{path}", "--bind", address)
    assert_refused(done, 4, f"cannot listen on {address}: the address is in use")
    assert not path.exists()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("192.0.2.1:7", "cannot listen on 192.0.2.1:7: it is not an address of this machine"),
        ("no-such-name.invalid:7", "'no-such-name.invalid' does not resolve ("),
        ("unix:/missing/s", "cannot listen on unix:/missing/s: no such file or directory"),
        ("fd://99", "cannot listen on fd://99: the descriptor is not open"),
        ("fd://0", "cannot listen on fd://0: the descriptor is not a socket"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_exit_code_4(address: str, sentence: str) -> None:
    assert_refused(run("serve", "--bind", address), 4, sentence)


def test_a_descriptor_that_is_no_listener_is_exit_code_4() -> None:
    with socket.socket() as unbound:
        done = subprocess.run(
            [*COMMAND, "serve", "--bind", f"fd://{unbound.fileno()}"],
            pass_fds=[unbound.fileno()],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert_refused(done, 4, "the socket does not listen")


def first_free_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


@pytest.mark.skipif(first_free_port() < 2, reason="every port is free for everybody here")
def test_a_port_without_right_is_exit_code_4() -> None:
    """The child gives the capability up for good before it starts the command."""
    drop = (
        "import ctypes, os, sys\n"
        "PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE = 24, 10\n"
        "ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE, 0, 0, 0)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'fastecho', *sys.argv[1:]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", drop, "serve", "--bind", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert_refused(done, 4, "cannot listen on 127.0.0.1:1: no right to a port below 1024")


def test_a_missing_core_is_exit_code_4() -> None:
    code = (
        "import sys; sys.modules['fastecho._core'] = None\n"
        "from fastecho.cli import main; sys.exit(main(['serve', '--model', 'native']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert_refused(done, 4, "needs the compiled core")


# --- starting ---------------------------------------------------------------------------------


def test_ready_fd_gets_the_real_addresses_and_is_closed(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/s"
    with serving("--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--bind", path) as server:
        assert len(server.addresses) == 3
        assert server.addresses[2] == path
        assert len(set(server.addresses)) == 3
        for index in range(3):
            with server.connect(index) as client:
                assert exchange(client, b"hello", 5) == b"hello"


def test_ready_fd_may_be_standard_output() -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--bind", "127.0.0.1:0", "--ready-fd", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    with process:
        try:
            assert process.stdout is not None
            [address] = read_ready(process.stdout.fileno())
            with Serving(process, [address]).connect() as client:
                assert exchange(client, b"x", 1) == b"x"
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def test_a_ready_fd_that_nobody_reads_is_a_warning() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [*COMMAND, "serve", "--bind", "127.0.0.1:0", "--ready-fd", str(writer)],
        stderr=subprocess.PIPE,
        pass_fds=[writer],
        env=environment(),
    )
    os.close(writer)
    with process:
        try:
            assert process.stderr is not None
            said = [process.stderr.readline().decode() for _ in range(3)]
            assert f"warning: --ready-fd {writer} cannot be written to: Broken pipe" in said[-1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def test_the_banner_tells_address_backlog_and_threads() -> None:
    somaxconn = Path("/proc/sys/net/core/somaxconn").read_text().strip()
    with serving("--threads=3", "--backlog=5") as server:
        [address] = server.addresses
        _, said = server.end(signal.SIGTERM)
    assert said[:2] == [
        f"fastecho: listening on {address} (backlog: asked 5, somaxconn {somaxconn}, in force 5)",
        "fastecho: threads: 3",
    ]


def test_threads_default_to_the_cpus_of_the_process() -> None:
    with serving() as server:
        _, said = server.end(signal.SIGTERM)
    assert f"fastecho: threads: {usable_cpus()}" in said
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


def test_one_cpu_gives_one_thread() -> None:
    cpu = min(os.sched_getaffinity(0))
    pinned = (
        "import os, sys\n"
        f"os.sched_setaffinity(0, [{cpu}])\n"
        "from fastecho.cli import main\nsys.exit(main())"
    )
    with serving(program=(sys.executable, "-c", pinned)) as server:
        _, said = server.end(signal.SIGTERM)
    assert "fastecho: threads: 1" in said


@pytest.mark.parametrize("bind", ["0.0.0.0:0", ":0"])
def test_an_address_that_others_can_reach_is_a_warning(bind: str) -> None:
    with serving("--bind", bind) as server:
        [address] = server.addresses
        _, said = server.end(signal.SIGTERM)
    assert f"fastecho: warning: {address} can be reached from other machines" in said


def test_an_address_of_this_machine_only_is_no_warning(tmp_path: Path) -> None:
    binds = ("--bind=127.0.0.1:0", "--bind=127.3.2.1:0", f"--bind=unix:{tmp_path}/s")
    with serving(*binds) as server:
        _, said = server.end(signal.SIGTERM)
    assert not any("warning" in line for line in said)


def test_more_connections_than_descriptors_is_a_warning() -> None:
    program = ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh", *COMMAND]
    words = (
        "fastecho: warning: max_connections 300 needs more than the 300 descriptors of ulimit -n"
    )
    for most, expected in ((300, [words]), (299, [])):
        with serving(f"--max-connections={most}", program=program) as server:
            _, said = server.end(signal.SIGTERM)
        assert [line for line in said if "warning" in line] == expected


def test_the_log_level_chooses_what_is_said() -> None:
    said = {}
    for level in ("info", "warning", "error"):
        with serving("--bind=0.0.0.0:0", f"--log-level={level}") as server:
            _, said[level] = server.end(signal.SIGTERM)
    assert [len(said[level]) for level in said] == [4, 1, 0]
    assert "warning" in said["warning"][0]


def test_reuse_port_is_one_address_for_all_threads() -> None:
    with serving("--reuse-port", "--threads=3") as server:
        assert len(server.addresses) == 1
        with server.connect() as client:
            assert exchange(client, b"hello", 5) == b"hello"
        code, said = server.end(signal.SIGTERM)
    assert (code, len(said)) == (0, 3)


def test_an_inherited_listener_is_served_and_left_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as parent:
        descriptor = parent.fileno()
        with serving("--bind", f"fd://{descriptor}", pass_fds=[descriptor]) as server:
            assert server.addresses == [f"127.0.0.1:{parent.getsockname()[1]}"]
            with server.connect() as client:
                assert exchange(client, b"hello", 5) == b"hello"
            assert server.end(signal.SIGTERM)[0] == 0
        with server.connect():  # nobody shut it down
            parent.settimeout(DEADLINE)
            parent.accept()[0].close()


def test_the_descriptor_limit_is_raised_to_the_hard_one() -> None:
    shell = ("sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh", *COMMAND)
    with serving(program=shell) as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text().splitlines()
        [line] = [line for line in limits if line.startswith("Max open files")]
        soft, hard = line.split()[3:5]
        assert soft == hard != "64"


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["UTF-8", "C", "ASCII"],
)
def test_a_prefix_arrives_byte_for_byte(locale: dict[str, str]) -> None:
    """Also one that is not UTF-8; and nothing of what a peer sends is printed."""
    prefix = "服务端收到: ".encode() + b"\xff\xfe\x1b[31m"
    with serving("--frame=line", b"--prefix=" + prefix, b"--suffix=\x80", env=locale) as server:
        with server.connect() as client:
            line = b"\x1b]0;title\x07"
            expected = prefix + line + b"\x80\n"
            assert exchange(client, line + b"\n", len(expected)) == expected
        _, said = server.end(signal.SIGTERM)
    assert all(one.isprintable() for one in said)
    assert not any("title" in one for one in said)


def test_settings_come_from_flags_then_variables_then_the_file(tmp_path: Path) -> None:
    file = tmp_path / "fastecho.toml"
    file.write_text('bind = "127.0.0.1:0"\nframe = "line"\nprefix = "file "\nsuffix = " file"\n')
    variables = {"FASTECHO_PREFIX": "variable ", "FASTECHO_SUFFIX": " variable"}
    arguments = (f"--config={file}", "--prefix=flag ")
    with serving(*arguments, env=variables) as server, server.connect() as client:
        expected = b"flag hello variable\n"
        assert exchange(client, b"hello\n", len(expected)) == expected


def test_print_config_shows_values_and_sources_and_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "fastecho.toml"
    file.write_text("drain_idle = 0.25\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ("--bind", address, "--config", str(file), b"--prefix=\xff")
        done = run("serve", "--print-config", *arguments, FASTECHO_SPIN_US="7")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert f'bind = ["{address}"]  # --bind' in lines
    assert "prefix = [255]  # --prefix" in lines
    assert "spin_us = 7  # FASTECHO_SPIN_US" in lines
    assert f"drain_idle = 0.25  # {file}" in lines
    assert 'frame = "recv"  # default' in lines
    assert tomllib.loads(done.stdout)["threads"] == usable_cpus()


def test_the_printed_config_works_as_a_file(tmp_path: Path) -> None:
    first = run("serve", "--print-config", "--reuse-port", "--suffix", 'a"\\\n', "--threads=7")
    file = tmp_path / "again.toml"
    file.write_text(first.stdout)
    again = run("serve", "--print-config", "--config", str(file))
    assert again.returncode == 0
    assert tomllib.loads(again.stdout) == tomllib.loads(first.stdout)


def test_a_flag_can_take_back_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "fastecho.toml"
    file.write_text("reuse_port = true\nidle_timeout = 5\nbacklog = 7\n")
    done = run(
        "serve", "--print-config", f"--config={file}", "--no-reuse-port", "--backlog=none",
        FASTECHO_IDLE_TIMEOUT="none",
    )  # fmt: skip
    assert "reuse_port = false  # --reuse-port" in done.stdout
    assert "# backlog is not set: somaxconn  # --backlog" in done.stdout
    assert "# idle_timeout is not set: no limit  # FASTECHO_IDLE_TIMEOUT" in done.stdout


# --- ending -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_and_exits_0_with_the_totals(number: int, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving("--bind", f"unix:{path}", "--drain-idle=0.05") as server:
        with server.connect() as client:
            assert exchange(client, b"hello", 5) == b"hello"
            server.process.send_signal(number)
            assert client.recv(1) == b""  # FIN, no reset
        code, said = server.end()
    assert code == 0
    assert said[-1] == "fastecho: drained: connections 1, bytes in 5, bytes out 5"
    assert not path.exists()


def test_a_drain_that_runs_out_of_time_exits_1() -> None:
    arguments = ("--graceful-timeout=0.3", "--drain-idle=60")
    with serving(*arguments) as server, server.connect() as client:
        assert exchange(client, b"hello", 5) == b"hello"
        code, said = server.end(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert code == 1
    assert said[-1] == (
        "fastecho: stopped: connections 1, bytes in 5, bytes out 5, connections reset 1"
    )


def refuses(server: Serving) -> bool:
    """Tell whether the server has stopped accepting, within the deadline."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass
        select.select([], [], [], 0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_stops_at_once(number: int) -> None:
    arguments = ("--graceful-timeout=600", "--drain-idle=600")
    with serving(*arguments) as server, server.connect() as client:
        assert exchange(client, b"hello", 5) == b"hello"
        server.process.send_signal(signal.SIGTERM)
        assert refuses(server)
        assert exchange(client, b"still", 5) == b"still"
        code, said = server.end(number)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert code == 1
    assert said[-1].startswith("fastecho: stopped: ")


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """As under nohup."""
    shell = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND)
    with serving(program=shell) as server:
        server.process.send_signal(signal.SIGHUP)
        with server.connect() as client:
            assert exchange(client, b"hello", 5) == b"hello"
        assert server.end(signal.SIGTERM)[0] == 0


def test_a_signal_before_serve_forever_drains_too(tmp_path: Path) -> None:
    """The server is held up between start() and serve_forever() by a pipe that is full."""
    path = tmp_path / "s"
    with full_pipe() as (_, writer):
        command = [*COMMAND, "serve", "--bind", f"unix:{path}", "--ready-fd", str(writer)]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, pass_fds=[writer], env=environment()
        )
        os.close(writer)
        with process:
            try:
                assert process.stderr is not None
                for _ in range(2):
                    process.stderr.readline()
                assert path.exists()
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=DEADLINE)
            finally:
                process.kill()
    assert process.returncode == 0
    assert said.startswith(b"fastecho: drained: connections 0, ")
    assert b"Traceback" not in said
    assert not path.exists()


def test_signals_are_held_back_while_the_server_starts() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        early = EarlySignals(hangup_ends=True)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            early.release()
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGHUP)
        early.held = True
        signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("most", range(6, 16))
def test_too_few_descriptors_to_serve_is_one_sentence(most: int) -> None:
    """Wherever they run out; with enough of them it serves."""
    program = ["sh", "-c", f'ulimit -n {most}; exec "$@"', "sh", *COMMAND]
    process = subprocess.Popen(
        [*program, "serve", "--bind=127.0.0.1:0", "--threads=2"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        try:
            assert process.stderr is not None
            said = [process.stderr.readline()]
            if said[0].startswith("fastecho: listening"):
                said += [process.stderr.readline() for _ in range(1)]
                process.send_signal(signal.SIGTERM)
            said += process.communicate(timeout=DEADLINE)[1].splitlines()
        finally:
            process.kill()
    assert not any("Traceback" in line for line in said)
    assert process.returncode in (0, 4), said
    if process.returncode == 4:
        assert "too many open files" in said[-1]
