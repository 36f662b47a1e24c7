"""SIGHUP to `fastecho serve --config FILE`: limits are read again, no connection is touched.

What cannot change while a server runs is said, a file that is wrong changes nothing, and a signal
that comes before the server waits for signals is not lost. (Limits themselves: test_limits.py.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, DEADLINE, Serving, environment, full_pipe, serving
from peers import exchange, is_turned_away, read_to_eof, recv_exactly

BIND = 'bind = "127.0.0.1:0"\n'


def said(server: Serving) -> str:
    """Return the next line of stderr: the server says something after each SIGHUP."""
    assert server.process.stderr is not None
    return server.process.stderr.readline().decode().strip()


def started(server: Serving) -> Serving:
    """Skip what is said at the start."""
    while not said(server).startswith("fastecho: threads"):
        pass
    return server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a configuration file."""
    path = tmp_path / "fastecho.toml"
    path.write_text(BIND)
    return path


def test_limits_are_taken_over_and_nobody_is_touched(file: Path) -> None:
    with serving(f"--config={file}") as server, server.connect() as inside:
        started(server)
        inside.sendall(b"before")
        file.write_text(f"{BIND}max_connections = 1\nidle_timeout = 60\n")
        server.process.send_signal(signal.SIGHUP)
        assert said(server) == "fastecho: reloaded: max_connections 1, idle_timeout 60.0"
        assert recv_exactly(inside, 6) == b"before"
        assert is_turned_away(server.addresses[0])
        file.write_text(BIND)
        server.process.send_signal(signal.SIGHUP)
        assert said(server) == "fastecho: reloaded: max_connections none, idle_timeout none"
        with server.connect() as second:
            assert exchange(second, b"x") == b"x"
        assert exchange(inside, b"after") == b"after"
        inside.shutdown(socket.SHUT_WR)
        assert read_to_eof(inside) == b""
        assert server.end(signal.SIGTERM)[0] == 0


def test_flags_win_over_the_file_again(file: Path) -> None:
    with serving(f"--config={file}", "--max-connections=5") as server:
        started(server)
        file.write_text(f"{BIND}max_connections = 1\n")
        server.process.send_signal(signal.SIGHUP)
        assert said(server) == "fastecho: reloaded: nothing has changed"
        assert server.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_connections = 0\n", "max_connections 0 must be a whole number from 1 to"),
        ("max_conections = 1\n", "is not a setting: did you mean max_connections?"),
        ("max_connections = \n", "is not valid TOML"),
    ],
)
def test_a_wrong_file_changes_nothing(file: Path, text: str, reason: str) -> None:
    file.write_text(f"{BIND}max_connections = 1\n")
    with serving(f"--config={file}") as server, server.connect() as inside:
        started(server)
        assert exchange(inside, b"x") == b"x"
        file.write_text(BIND + text)
        server.process.send_signal(signal.SIGHUP)
        line = said(server)
        assert line.startswith("fastecho: error: nothing reloaded: ")
        assert reason in line
        assert is_turned_away(server.addresses[0])
        assert exchange(inside, b"y") == b"y"
        inside.close()
        assert server.end(signal.SIGTERM)[0] == 0


def test_what_cannot_change_now_is_said(file: Path) -> None:
    with serving(f"--config={file}") as server:
        started(server)
        file.write_text(f'{BIND}threads = 7\nprefix = "x"\ngraceful_timeout = 5\n')
        server.process.send_signal(signal.SIGHUP)
        lines = [said(server) for _ in range(3)]
        assert lines == [
            "fastecho: reloaded: graceful_timeout 5.0",
            "fastecho: warning: threads changes at the next start only",
            "fastecho: warning: prefix changes at the next start only",
        ]
        with server.connect() as client:
            assert exchange(client, b"x") == b"x"
        assert server.end(signal.SIGTERM)[0] == 0


def test_a_fault_that_fits_the_next_start_only_changes_nothing(file: Path) -> None:
    with serving(f"--config={file}") as server:
        started(server)
        changed = 'frame = "line"\nmax_connections = 1\nlog_level = "error"\n'
        file.write_text(f'{BIND}{changed}fault = "duplicate=1"\n')
        server.process.send_signal(signal.SIGHUP)
        assert said(server) == (
            "fastecho: error: nothing reloaded: "
            "fault 'duplicate=1.0' duplicates frames, which frame recv does not have"
        )
        assert said(server) == "fastecho: warning: frame changes at the next start only"
        with server.connect() as inside, server.connect() as second:
            assert exchange(inside, b"x") == b"x"
            assert exchange(second, b"y\n") == b"y\n"
        file.write_text(f'{BIND}fault = "delay=0"\n')
        server.process.send_signal(signal.SIGHUP)
        assert said(server) == "fastecho: reloaded: fault delay=0"
        code, lines = server.end(signal.SIGTERM)
        assert code == 0
        assert lines[-1].startswith("fastecho: drained: connections 2, ")


@pytest.mark.parametrize("next_service", ["chargen", "echo"])
def test_a_limit_that_does_not_fit_the_service_changes_nothing(
    file: Path, next_service: str
) -> None:
    file.write_text(f'{BIND}service = "chargen"\n')
    with serving(f"--config={file}") as server, server.connect() as inside:
        started(server)
        assert said(server) == "fastecho: service: chargen"
        assert recv_exactly(inside, 2) == b" !"
        file.write_text(
            f'{BIND}service = "{next_service}"\nfirst_byte_timeout = 1\nmax_connections = 1\n'
        )
        server.process.send_signal(signal.SIGHUP)
        line = said(server)
        assert line.startswith("fastecho: error: nothing reloaded: ")
        assert "first_byte_timeout 1.0 would end those that only read, which " in line
        if next_service != "chargen":
            text = "fastecho: warning: service changes at the next start only"
            assert said(server) == text
        with server.connect() as second:
            assert recv_exactly(second, 2) == b" !"
        assert recv_exactly(inside, 2) == b'"#'
        inside.close()
        assert server.end(signal.SIGTERM)[0] == 0


def test_the_log_level_is_taken_over(file: Path) -> None:
    with serving(f"--config={file}") as server:
        started(server)
        file.write_text(f'{BIND}log_level = "error"\n')
        server.process.send_signal(signal.SIGHUP)
        with server.connect() as client:
            assert exchange(client, b"x") == b"x"
        code, lines = server.end(signal.SIGTERM)
        # Nothing about the reload, and no totals: unless the signals came in one wake-up, when
        # the reload was done first all the same.
        assert (code, lines) == (0, [])


def test_a_reload_before_the_end_is_done_before_the_end(file: Path) -> None:
    """Both signals come while the process is stopped, somewhere between listening and waiting."""
    for _ in range(8):
        file.write_text(BIND)
        with serving(f"--config={file}") as server:
            server.process.send_signal(signal.SIGSTOP)
            file.write_text(f'{BIND}log_level = "error"\n')
            server.process.send_signal(signal.SIGHUP)
            server.process.send_signal(signal.SIGTERM)
            code, lines = server.end(signal.SIGCONT)
        assert code == 0
        assert not [line for line in lines if "drained" in line or "stopped" in line]


def test_a_drain_ends_it_as_ever_after_a_reload(file: Path) -> None:
    with serving(f"--config={file}", "--drain-idle=0.05") as server, server.connect() as client:
        started(server)
        server.process.send_signal(signal.SIGHUP)
        said(server)
        assert exchange(client, b"x") == b"x"
        code, lines = server.end(signal.SIGTERM)
        assert client.recv(1) == b""
    assert code == 0
    assert lines[-1].startswith("fastecho: drained: connections 1, ")


LATE = """
import os, signal, sys
from fastecho import Server
from fastecho.cli import main

serve_forever, calls = Server.serve_forever, []

def hung_up_before(server, on_hangup):
    calls.append(1)
    if len(calls) <= 2:
        with open(os.environ["FILE"], "a") as file:
            file.write(("max_connections = 1", "idle_timeout = 60")[len(calls) - 1] + "\\n")
        signal.raise_signal(signal.SIGHUP)
    return serve_forever(server, on_hangup)

Server.serve_forever = hung_up_before
sys.exit(main())
"""


def test_a_signal_at_the_last_moment_before_the_server_waits_is_made_up_for(file: Path) -> None:
    program = (sys.executable, "-W", "error", "-c", LATE)
    with serving(f"--config={file}", program=program, env={"FILE": str(file)}) as server:
        started(server)
        assert said(server) == "fastecho: reloaded: max_connections 1"
        assert said(server) == "fastecho: reloaded: idle_timeout 60.0"
        file.write_text(BIND)
        server.process.send_signal(signal.SIGHUP)
        assert said(server) == "fastecho: reloaded: max_connections none, idle_timeout none"
        assert server.end(signal.SIGTERM)[0] == 0


def test_a_signal_before_the_server_waits_for_signals_is_made_up_for(file: Path) -> None:
    """The server is held up between start() and serve_forever() by a pipe that is full."""
    with full_pipe() as (reader, writer):
        command = [*COMMAND, "serve", f"--config={file}", "--ready-fd", str(writer)]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, pass_fds=[writer], env=environment()
        )
        os.close(writer)
        try:
            with process:
                server = started(Serving(process, []))
                file.write_text(f"{BIND}max_connections = 1\n")
                process.send_signal(signal.SIGHUP)
                while os.read(reader, 1 << 20).count(b"\n") == 0:
                    pass
                assert said(server) == "fastecho: reloaded: max_connections 1"
                process.send_signal(signal.SIGTERM)
                assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def test_a_reload_that_comes_while_the_command_ends_does_not_kill_it(tmp_path: Path) -> None:
    file = tmp_path / "fastecho.toml"
    file.write_text("")
    with serving("--bind=127.0.0.1:0", f"--config={file}", "--log-level=error") as server:
        server.process.send_signal(signal.SIGTERM)
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGHUP)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(0.001)
        assert server.process.returncode == 0
