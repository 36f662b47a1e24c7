"""Sockets that a service manager passes: systemd:NAME, the default, and errors."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from activated import passing, said_first
from commands import COMMAND, DEADLINE, assert_refused, environment, exchange, run
from peers import wait_until

from benchmarks._storm import Storm

ACTIVATE = shutil.which("systemd-socket-activate")


def listening(path: Path | None = None) -> socket.socket:
    """Return a socket that listens: of TCP, or at a path."""
    if path is None:
        return socket.create_server(("127.0.0.1", 0))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def asked(address: Path | str, data: bytes = b"hello") -> bytes:
    """Connect to a path and return what comes back."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(address))
        return exchange(client, data, len(data))


# --- by systemd's own program --------------------------------------------------------------------


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed")
def test_systemd_passes_sockets_of_which_two_share_a_name(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "two", "three")]
    assert ACTIVATE is not None
    command = [ACTIVATE, *(f"--listen={path}" for path in paths), "--fdname=web:web:other"]
    command += [f"--setenv={name}" for name in os.environ if name.startswith(("PYTHON", "LD_"))]
    process = subprocess.Popen(
        [*command, *COMMAND, "serve", "--bind", "systemd:web"],
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment(),
    )
    with process:
        try:
            said_first(process, f"Listening on {paths[-1]}")
            assert [asked(path) for path in paths[:2]] == [b"hello"] * 2
            said = "\n".join(said_first(process))
            process.send_signal(signal.SIGTERM)
            _, last = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0
        finally:
            process.kill()
    assert f"listening on unix:{paths[0]} " in said
    assert f"listening on unix:{paths[1]} " in said
    assert f"listening on unix:{paths[2]} " not in said
    assert "the passed socket other is not used: who connects waits" in said
    assert b"drained: connections 2" in last


# --- by the same protocol ------------------------------------------------------------------------


def test_passed_sockets_are_served_when_nobody_says_where(tmp_path: Path) -> None:
    with listening() as tcp, listening(tmp_path / "echo") as unix, passing(tcp, unix) as server:
        for index in range(2):
            with server.connect(index) as client:
                assert exchange(client, b"hello", 5) == b"hello"
        said = said_first(server.process)
        code, _ = server.end(signal.SIGTERM)
    assert code == 0
    assert [line.split()[3] for line in said if "listening on" in line] == server.addresses
    assert (tmp_path / "echo").exists()  # it is not ours to remove


def test_what_is_said_wins_over_what_was_passed() -> None:
    with listening() as tcp, passing(tcp, arguments=["--bind", "127.0.0.1:0"]) as server:
        first, second, _ = said_first(server.process)
    assert server.addresses[0] not in first
    assert "the passed socket unknown is not used" in second


def test_the_unnamed_take_what_names_leave(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "two", "three")]
    sockets = [listening(path) for path in paths]
    options = ["--bind", "systemd:", "--bind", "systemd:b", "--metrics", "systemd:c"]
    with passing(*sockets, names="a:b:c", arguments=options) as server:
        assert [asked(path) for path in paths[:2]] == [b"hello"] * 2
        with server.connect(2) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.0 200")
        said = said_first(server.process, "metrics on")
        code, _ = server.end(signal.SIGTERM)
    for sock in sockets:
        sock.close()
    assert code == 0
    listened = [line.split()[3] for line in said if "listening on" in line]
    assert listened == [f"unix:{path}" for path in paths[:2]]
    assert not [line for line in said if "not used" in line]


LIBRARY = """
import fcntl, os, sys
import fastecho
with fastecho.Server(bind="systemd:b") as first:
    print(first.address, flush=True)
for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
    assert variable not in os.environ
assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in (3, 4))
with fastecho.Server(bind=["systemd:b", "systemd:a"]) as second:
    print(*second.addresses, flush=True)
    sys.stdin.read()
try:
    fastecho.Server(bind="systemd:c").start()
except fastecho.ConfigError as error:
    print(error)
"""


def test_the_library_serves_passed_sockets_one_server_after_the_other(tmp_path: Path) -> None:
    with (
        listening(tmp_path / "a") as one,
        listening(tmp_path / "b") as two,
        passing(one, two, names="a:b", program=[sys.executable, "-c", LIBRARY]) as program,
    ):
        said, errors = program.process.communicate(timeout=DEADLINE)
    where = [f"unix:{tmp_path / name}" for name in "ab"]
    assert said.decode().splitlines() == [
        where[1],
        f"{where[1]} {where[0]}",
        "bind 'systemd:c' names no passed socket: there are a, b",
    ]
    assert errors == b""


def test_a_datagram_socket_is_served_as_well() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with (
            passing(sock, names="d", arguments=["--bind=systemd:d"]),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(DEADLINE)
            client.connect(sock.getsockname())
            client.send(b"hello")  # it waits in the socket until the process is there
            assert client.recv(100) == b"hello"
        with (
            listening() as tcp,
            passing(tcp, sock, names="t:d", arguments=["--metrics=systemd:d"]) as server,
        ):
            code, said = server.end()
    assert code == 4
    assert said[0].endswith("UDP cannot be used here")


# --- what waits is served by the next -----------------------------------------------------------


def test_who_connects_between_two_processes_is_served_by_the_second() -> None:
    with listening() as tcp:
        with passing(tcp) as server, server.connect() as before:
            assert exchange(before, b"hello", 5) == b"hello"
            code, _ = server.end(signal.SIGTERM)
            assert code == 0
            assert before.recv(1) == b""  # FIN: it was quiet
        with socket.create_connection(tcp.getsockname(), DEADLINE) as between:
            between.sendall(b"are you there?")
            with passing(tcp):
                assert between.recv(100) == b"are you there?"


def test_processes_that_take_turns_at_a_socket_harm_nobody_in_a_storm() -> None:
    with listening() as tcp, ExitStack() as running:
        tcp.listen(4096)  # who comes while Python starts has room
        address = "{}:{}".format(*tcp.getsockname())
        server = running.enter_context(passing(tcp))
        with Storm(address) as storm:
            for turn in range(1, 4):
                said_first(server.process)  # it is there: a signal ends it in order
                wait_until(partial(has_begun, storm, turn * 200), what="the storm")
                assert server.end(signal.SIGTERM)[0] == 0
                server = running.enter_context(passing(tcp))
            wait_until(partial(has_begun, storm, 1000), what="the storm")
        server.end(signal.SIGTERM)
    assert (storm.harmed, storm.seen["echoed"]) == (0, storm.begun)


def has_begun(storm: Storm, count: int) -> bool:
    """Tell whether so many connections have begun."""
    return storm.begun >= count


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variables", "sentence"),
    [
        (
            ["--bind=systemd:"],
            {},
            "finds no passed sockets: this process was not started by socket activation",
        ),
        (
            ["--bind=systemd:web"],
            {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
            "--bind 'systemd:web' finds no passed sockets: they are for process 1 (LISTEN_PID)",
        ),
        ([], {"FASTECHO_BIND": "systemd:web"}, "FASTECHO_BIND 'systemd:web' finds no passed"),
        (["--bind=systemd:a:b"], {}, "--bind 'systemd:a:b' has no valid name: printable ASCII"),
        (["--bind=systemd:é"], {}, "has no valid name: printable ASCII without a colon"),
        (["--metrics=systemd:"], {}, "--metrics 'systemd:' names no socket: write systemd:NAME"),
        (["--black-hole", "--bind=systemd:a"], {}, "must be HOST:PORT with --black-hole"),
        (["--model=poll", "--bind=systemd:a"], {}, "must be HOST:PORT with --model poll"),
    ],
)
def test_a_name_without_a_socket_is_a_wrong_option(
    options: list[str], variables: dict[str, str], sentence: str
) -> None:
    assert_refused(run("serve", *options, **variables), 2, sentence)


@pytest.mark.parametrize(
    ("names", "options", "variables", "sentence"),
    [
        ("a", ["--bind=systemd:b"], {}, "--bind 'systemd:b' names no passed socket: there are a"),
        (
            "a",
            ["--bind=systemd:", "--metrics=systemd:a"],
            {},
            "--bind 'systemd:' leaves no passed socket without a name: there are a",
        ),
        ("a", ["--metrics=systemd:b"], {}, "--metrics 'systemd:b' names no passed socket"),
        ("a:b", [], {}, "LISTEN_FDNAMES has 2 names for 1 sockets"),
        (None, [], {"LISTEN_FDS": "x"}, "LISTEN_FDS 'x' must be a whole number from 0 to 65536"),
        (None, ["--bind=systemd:"], {"LISTEN_FDS": "0"}, "no passed sockets: LISTEN_FDS was 0"),
    ],
)
def test_what_was_passed_does_not_fit(
    names: str | None, options: list[str], variables: dict[str, str], sentence: str
) -> None:
    with listening() as tcp, passing(tcp, names=names, arguments=options, **variables) as server:
        code, said = server.end()
    assert (code, len(said)) == (2, 1)
    assert said[0].startswith("fastecho serve: ")
    assert sentence in said[0]


def test_an_unfit_socket_is_a_start_that_failed(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        passing(datagrams, names="a") as server,
    ):
        assert server.end() == (
            4,
            ["fastecho serve: cannot listen on systemd:a: the socket is not a stream socket"],
        )
    with listening() as tcp, passing(tcp, LISTEN_FDS="40", arguments=["--threads=1"]) as server:
        code, said = server.end()
    assert code == 4
    assert said == ["fastecho serve: LISTEN_FDS is 40, but descriptor 4 is not open"]
