"""What a service manager is told, by the protocol of sd_notify(3), and what its watchdog hears."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from activated import Manager, manager, passing, said_first
from commands import COMMAND, DEADLINE, assert_refused, environment, exchange, run, serving
from conftest import MakeServer

from fastecho import Server

PING = "WATCHDOG=1"
PINGS_EVERY = 0.1
"""Half of WATCHDOG_USEC in these tests, in seconds."""
WATCHDOG = {"WATCHDOG_USEC": "200000"}


@pytest.fixture
def hears(tmp_path: Path) -> Iterator[Manager]:
    """Give a manager that listens at a path."""
    with manager(tmp_path / "notify") as one:
        yield one


def fields(message: str) -> dict[str, str]:
    """Return a message's lines as a dict."""
    return dict(line.split("=", 1) for line in message.splitlines())


@pytest.mark.parametrize("name", ["path", "abstract"])
def test_it_is_ready_when_it_serves(name: str, tmp_path: Path) -> None:
    where = tmp_path / "notify" if name == "path" else f"@fastecho-test-{os.getpid()}"
    with manager(where) as heard, serving(env={"NOTIFY_SOCKET": heard.address}) as server:
        said = fields(heard.message())
        assert said["READY"] == "1"
        assert said["STATUS"] == f"listening on {server.addresses[0]}; 0 connections"
        with server.connect() as client:
            assert exchange(client, b"hello", 5) == b"hello"
        assert server.end(signal.SIGTERM)[0] == 0
        assert "STOPPING=1" in heard.until("STOPPING")


def test_an_address_that_is_no_text_does_not_keep_it_from_being_ready(
    hears: Manager, tmp_path: Path
) -> None:
    bind = os.fsdecode(os.fsencode(f"--bind=unix:{tmp_path}/") + b"\xff")
    with serving(bind, env={"NOTIFY_SOCKET": hears.address}) as server:
        said = fields(hears.message())
        assert said["READY"] == "1"
        assert f"{tmp_path}/\\udcff; " in said["STATUS"]
        assert server.end(signal.SIGTERM)[0] == 0


def test_many_addresses_make_no_message_that_systemd_ignores(hears: Manager) -> None:
    """Its buffer is NOTIFY_BUFFER_MAX, 4,096 bytes; what is longer is no message."""
    binds = [f"--bind=127.0.0.{i}:0" for i in range(1, 251)]
    with serving(*binds, env={"NOTIFY_SOCKET": hears.address}) as server:
        message = hears.message()
        assert len(message) < 2048
        first, second = server.addresses[:2]
        assert fields(message)["STATUS"].startswith(f"listening on {first}, {second}, ")
        assert fields(message)["STATUS"].endswith(" more; 0 connections")
        assert server.end(signal.SIGTERM)[0] == 0


def test_a_drain_says_how_many_are_left_and_asks_for_time(hears: Manager) -> None:
    # The connection lasts until the client has gone.
    options = ["--graceful-timeout=20", "--drain-idle=20", "--threads=1"]
    with (
        serving(*options, env={"NOTIFY_SOCKET": hears.address}) as server,
        server.connect() as client,
    ):
        assert exchange(client, b"hello", 5) == b"hello"
        hears.until("READY=1")
        server.process.send_signal(signal.SIGTERM)
        said = fields(hears.until("STOPPING=1"))
        assert said["STATUS"] == "draining: 1 connection left"
        hears.until("EXTEND_TIMEOUT_USEC=")
        client.close()
        assert server.end()[0] == 0


def test_a_drain_delay_is_stopping_already(hears: Manager) -> None:
    with serving("--drain-delay=0.5", env={"NOTIFY_SOCKET": hears.address}) as server:
        hears.until("READY=1")
        server.process.send_signal(signal.SIGTERM)
        assert fields(hears.until("STOPPING=1"))["STATUS"] == "about to drain: 0 connections"
        assert server.end()[0] == 0


def test_a_reload_begins_and_ends(hears: Manager, tmp_path: Path) -> None:
    settings = tmp_path / "echo.toml"
    settings.write_text('bind = "127.0.0.1:0"\nidle_timeout = 5\n')
    with serving(f"--config={settings}", env={"NOTIFY_SOCKET": hears.address}) as server:
        hears.until("READY=1")
        for text in ("idle_timeout = 6\n", "="):
            settings.write_text(f'bind = "127.0.0.1:0"\n{text}')
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            server.process.send_signal(signal.SIGHUP)
            said = fields(hears.until("RELOADING=1"))
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert before <= int(said["MONOTONIC_USEC"]) <= after
            assert "READY=1" in hears.until("READY")
        code, lines = server.end(signal.SIGTERM)
    assert code == 0
    assert [line for line in lines if "reloaded: idle_timeout 6" in line]
    assert [line for line in lines if "nothing reloaded" in line]


def test_the_watchdog_hears_twice_in_its_time(hears: Manager) -> None:
    with serving(env={"NOTIFY_SOCKET": hears.address, **WATCHDOG}) as server:
        heard = []
        for _ in range(6):
            hears.until(PING)
            heard.append(time.monotonic())
        gaps = [later - sooner for sooner, later in pairwise(heard[1:])]
        assert min(gaps) < 1.7 * PINGS_EVERY
        server.process.send_signal(signal.SIGSTOP)
        try:
            while not hears.hears_no(PING, 5 * PINGS_EVERY):  # what was sent before comes first
                pass
        finally:
            server.process.send_signal(signal.SIGCONT)
        hears.until(PING)


def test_another_process_is_not_to_answer_its_watchdog(hears: Manager) -> None:
    env = {"NOTIFY_SOCKET": hears.address, **WATCHDOG, "WATCHDOG_PID": "1"}
    with serving(env=env):
        hears.until("READY=1")
        assert hears.hears_no(PING, 5 * PINGS_EVERY)


HANGS = """
import sys, time
from pathlib import Path
from fastecho import cli
from fastecho.probing import Probing

def callbacks(_):
    def hold(connection, data):
        until = time.monotonic() + 60
        while Path(sys.argv[1]).exists() and time.monotonic() < until:
            time.sleep(0.01)
        return data
    return {"on_message": hold}

Probing.callbacks = callbacks
sys.exit(cli.main(["serve", "--probes", "--threads=2", "--bind=127.0.0.1:0", *sys.argv[2:]]))
"""
"""`fastecho serve`, whose callback hangs while a file is there."""


def test_a_worker_that_hangs_silences_the_watchdog(hears: Manager, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(hold)],
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment(NOTIFY_SOCKET=hears.address, **WATCHDOG),
    )
    with process:
        try:
            status = fields(hears.until("READY=1"))["STATUS"]
            host, _, port = status.split()[2].rstrip(";").rpartition(":")
            with socket.create_connection((host, int(port)), DEADLINE) as client:
                client.sendall(b"hello")
                hears.until(" does not answer")
                assert hears.hears_no(PING, 5 * PINGS_EVERY)
                hold.unlink()
                hears.until(PING)
                assert client.recv(5) == b"hello"
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert b" does not answer: the watchdog is not told" in said
    assert b"every worker answers again" in said
    assert process.returncode == 0


def test_a_manager_that_is_not_there_is_said_once_and_costs_nothing(tmp_path: Path) -> None:
    variables = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), **WATCHDOG}
    with socket.create_server(("127.0.0.1", 0)) as tcp, passing(tcp, **variables) as server:
        told = said_first(server.process, "NOTIFY_SOCKET")[-1]
        with server.connect() as client:
            assert exchange(client, b"hello", 5) == b"hello"
        code, said = server.end(signal.SIGTERM)
    assert told.endswith("the service manager is not told: no such file or directory")
    assert code == 0
    assert not [line for line in said if "NOTIFY_SOCKET" in line]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "NOTIFY_SOCKET 'vsock:2:1' is neither a path nor an"),
        (
            {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
            "WATCHDOG_USEC 'soon' must be a whole number of microseconds above 0",
        ),
    ],
)
def test_variables_without_a_valid_form_are_refused(
    variables: dict[str, str], sentence: str
) -> None:
    assert_refused(run("serve", "--bind=127.0.0.1:0", **variables), 2, sentence)


@pytest.mark.parametrize("how", ["--model=poll", "--black-hole"])
def test_a_model_and_a_black_hole_are_ready_as_well(hears: Manager, how: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", how, "--bind=127.0.0.1:0"],
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment(NOTIFY_SOCKET=hears.address),
    )
    with process:
        try:
            hears.until("READY=1")
            assert "on 127.0.0.1:" in said_first(process, "127.0.0.1:")[-1]
        finally:
            process.kill()


def test_nothing_of_it_is_loaded_where_nobody_listens() -> None:
    script = """
import os, signal, sys
from fastecho import cli, server
server.Server.serve_forever = lambda self, _=None: print(sorted(sys.modules)) or self.stop()
sys.exit(cli.main(["serve", "--bind=127.0.0.1:0"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "'fastecho.server'" in done.stdout
    for module in ("notify", "passed", "cli._service_manager"):
        assert f"'fastecho.{module}'" not in done.stdout


# --- the library -------------------------------------------------------------------------------


def test_silent_workers_are_those_that_a_callback_holds(make_server: MakeServer) -> None:
    held, go_on = threading.Semaphore(0), threading.Event()

    def hold(_: object, data: bytes) -> bytes:
        held.release()
        go_on.wait(DEADLINE)
        return data

    server = make_server(on_message=hold, threads=2)
    assert server.port is not None
    assert server.silent_workers() == []
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        client.sendall(b"hello")
        assert held.acquire(timeout=DEADLINE)
        silent = server.silent_workers(0.05)
        assert len(silent) == 1
        go_on.set()
        assert server.silent_workers(DEADLINE) == []
        assert client.recv(5) == b"hello"
    server.stop()
    assert server.silent_workers() == []


def test_silent_workers_cannot_be_asked_for_in_a_callback(make_server: MakeServer) -> None:
    errors: list[str] = []

    def ask(_: object, data: bytes) -> bytes:
        try:
            server.silent_workers()
        except RuntimeError as error:
            errors.append(str(error))
        return data

    server = make_server(on_message=ask)
    assert server.port is not None
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        assert exchange(client, b"x", 1) == b"x"
    assert errors == ["silent_workers() in a callback would wait for itself"]


@pytest.mark.parametrize("end", ["retire", "stop", "abort", "close"])
def test_waiting_for_the_end_to_be_near(make_server: MakeServer, end: str) -> None:
    server: Server = make_server()
    assert not server.wait_retired(0.01)
    waiting = threading.Thread(target=server.wait_retired, daemon=True)
    waiting.start()
    getattr(server, end)()
    waiting.join(DEADLINE)
    assert not waiting.is_alive()
    assert server.wait_retired()
