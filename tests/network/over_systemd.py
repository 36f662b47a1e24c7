"""The units of deploy/systemd under a real systemd, which is PID 1 of its own namespaces.

What stands in the units is in force there: a user of its own, a read-only file system, a filter of
system calls, socket activation, notifications, the watchdog.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from commands import DEADLINE, exchange
from peers import wait_until

from benchmarks._storm import Storm
from benchmarks._systemd import FASTECHO, ROOT, Machine, missing
from benchmarks._units import LOG, SERVICE, SOCKET, install

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

PAGE = ROOT / "docs" / "how-to" / "systemd.md"
HOST = f"127.{64 + os.getpid() % 60}.{os.getpid() // 60 % 250}.7"
"""A loopback address of this process alone: the port of RFC 862 is free there."""
PORT = 7
ADDRESS = f"{HOST}:{PORT}"


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Give a systemd with the units, of which none runs."""
    with Machine() as one:
        yield one


def connected() -> socket.socket:
    """Return a connection to the service."""
    return socket.create_connection((HOST, PORT), DEADLINE)


def main_pid(machine: Machine) -> int:
    """Return the server's process inside; 0 if there is none."""
    return int(machine.shows(SERVICE, "MainPID"))


def status_of(machine: Machine, pid: int) -> dict[str, str]:
    """Return what /proc says of a process inside."""
    lines = machine.read(f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait for something that systemd does."""
    wait_until(lambda: bool(condition()), what=what, timeout=DEADLINE)


# --- what is in force ----------------------------------------------------------------------------


def test_the_first_connection_starts_a_server_without_rights(machine: Machine) -> None:
    install(machine, ADDRESS)
    machine.systemctl("start", SOCKET)
    assert main_pid(machine) == 0
    with connected() as client:
        assert exchange(client, b"hello", 5) == b"hello"
    wait_for(lambda: machine.shows(SERVICE, "ActiveState") == "active", "the service")
    status = status_of(machine, main_pid(machine))
    uid = int(status["Uid"].split()[0])
    assert 61184 <= uid <= 65519  # a dynamic user's
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert machine.shows(SERVICE, "StatusText").startswith(f"listening on {ADDRESS}; ")
    root = machine.root / "proc" / str(main_pid(machine)) / "root"
    mounts = machine.read(f"/proc/{main_pid(machine)}/mountinfo").splitlines()
    at_root = next(line.split() for line in mounts if line.split()[4] == "/")
    assert "ro" in at_root[5].split(",")
    assert not list((root / "root").iterdir())  # ProtectHome: nobody's files


TRY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print("ptrace", libc.ptrace(0, 0, 0, 0), ctypes.get_errno())
open("/etc/x", "w")
"""


def test_a_call_outside_the_filter_fails_and_nothing_can_be_written(machine: Machine) -> None:
    python = machine.read(FASTECHO).replace("-m fastecho", "/opt/fastecho/try.py")
    machine.write("/opt/fastecho/try.py", TRY)
    machine.write("/opt/fastecho/try.sh", python)
    install(machine, ADDRESS, service="Type=exec\nExecStart=\nExecStart=sh /opt/fastecho/try.sh")
    machine.systemctl("start", SERVICE, check=False)
    wait_for(lambda: "Error" in machine.read(LOG), "the end")
    said = machine.read(LOG)
    assert "ptrace -1 1\n" in said  # EPERM; without the filter it is allowed
    assert "Read-only file system: '/etc/x'" in said


# --- telling -------------------------------------------------------------------------------------


def test_start_returns_when_it_serves_and_reload_reads_the_file(machine: Machine) -> None:
    install(machine, ADDRESS)
    machine.systemctl("start", SERVICE)
    assert "listening on" in machine.read(LOG)
    pid = main_pid(machine)
    with connected() as client:
        assert exchange(client, b"hello", 5) == b"hello"
        machine.write("/etc/fastecho.toml", "idle_timeout = 77\n")
        machine.systemctl("reload", SERVICE)
        wait_for(lambda: "idle_timeout 77" in machine.read(LOG), "the reload")
        wait_for(lambda: machine.shows(SERVICE, "SubState") == "running", "the end of the reload")
        assert exchange(client, b"again", 5) == b"again"
    assert main_pid(machine) == pid


def test_a_wrong_setting_is_a_start_that_failed_once(machine: Machine) -> None:
    install(machine, ADDRESS)
    machine.write("/etc/fastecho.toml", "threads = 0\n")
    assert machine.systemctl("start", SERVICE, check=False).returncode
    assert machine.shows(SERVICE, "ExecMainStatus") == "2"
    assert machine.shows(SERVICE, "NRestarts") == "0"
    assert "threads 0 must be a whole number" in machine.read(LOG)


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_a_server_that_dies_or_hangs_is_started_again(machine: Machine, how: str) -> None:
    install(machine, ADDRESS, service="WatchdogSec=1\nRestartSec=50ms\nTimeoutAbortSec=1")
    machine.systemctl("start", SERVICE)
    pid = main_pid(machine)
    machine.run("kill", "-KILL" if how == "killed" else "-STOP", str(pid))
    with connected() as client:  # it waits for the next one
        client.sendall(b"hello")
        with contextlib.suppress(ConnectionResetError):  # the one before may have taken it
            client.recv(5)
    wait_for(lambda: main_pid(machine) not in (0, pid), "the next one")
    wait_for(lambda: machine.shows(SERVICE, "SubState") == "running", "its start")
    assert machine.shows(SERVICE, "NRestarts") == "1"
    with connected() as client:
        assert exchange(client, b"hello", 5) == b"hello"


def test_a_healthy_server_outlives_its_watchdog(machine: Machine) -> None:
    install(machine, ADDRESS, service="WatchdogSec=500ms")
    machine.systemctl("start", SERVICE)
    pid = main_pid(machine)
    until = time.monotonic() + 1.5
    with connected() as client:
        while time.monotonic() < until:
            assert exchange(client, b"hello", 5) == b"hello"
            time.sleep(0.05)
    assert main_pid(machine) == pid


# --- stopping and restarting ---------------------------------------------------------------------


def test_stop_drains_beyond_the_units_own_time(machine: Machine) -> None:
    install(machine, ADDRESS, service="TimeoutStopSec=1")
    machine.write("/etc/fastecho.toml", "drain_idle = 20\n")
    machine.systemctl("start", SERVICE)
    with connected() as client:
        assert exchange(client, b"hello", 5) == b"hello"
        machine.systemctl("stop", "--no-block", SERVICE)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            assert exchange(client, b"still", 5) == b"still"
            time.sleep(0.05)
        state = machine.shows(SERVICE, "SubState")
        said = machine.shows(SERVICE, "StatusText")
    assert state == "stop-sigterm"
    assert said == "draining: 1 connection left"
    wait_for(lambda: main_pid(machine) == 0, "the end")
    assert machine.shows(SERVICE, "Result") == "success"


def has_begun(storm: Storm, count: int) -> bool:
    """Tell whether so many connections have begun."""
    return storm.begun >= count


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_restart_in_a_storm_harms_nobody(machine: Machine, family: str) -> None:
    install(machine, ADDRESS if family == "tcp" else "/run/echo")
    machine.systemctl("start", SERVICE)
    pids = {main_pid(machine)}
    address = ADDRESS if family == "tcp" else f"unix:{machine.root}/run/echo"
    with Storm(address) as storm:
        for _ in range(3):
            machine.systemctl("restart", SERVICE)
            pids.add(main_pid(machine))
            wait_for(partial(has_begun, storm, storm.begun + 200), "more of the storm")
    assert len(pids) == 4
    assert (storm.harmed, storm.seen["echoed"]) == (0, storm.begun)


def test_datagrams_that_come_during_a_restart_are_answered_after_it(machine: Machine) -> None:
    install(machine, ADDRESS, socket=f"ListenDatagram={ADDRESS}")
    machine.systemctl("start", SERVICE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE)
        client.connect((HOST, PORT))
        client.send(b"before")
        assert client.recv(100) == b"before"
        machine.systemctl("stop", SERVICE)
        client.send(b"between")  # and this starts it
        assert client.recv(100) == b"between"
    assert main_pid(machine)


def test_metrics_have_a_socket_unit_of_their_own(machine: Machine, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    install(machine, ADDRESS)
    machine.write("/etc/fastecho.toml", 'metrics = "systemd:metrics"\n')
    machine.write(
        "/run/units/fastecho-metrics.socket",
        f"[Socket]\nListenStream={HOST}:9477\nFileDescriptorName=metrics\nService={SERVICE}\n",
    )
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "fastecho-metrics.socket", SERVICE)
    with socket.create_connection((HOST, 9477), DEADLINE) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b""
        while data := client.recv(65536):
            text += data
    assert b"fastecho_connections_accepted_total 0.0" in text
    assert b"fastecho_accept_queue_limit" in text


# --- what the how-to says ------------------------------------------------------------------------


def test_the_commands_of_the_page_work(machine: Machine) -> None:
    commands = re.findall(r"^(systemctl .*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(commands) == 6
    install(machine, ADDRESS)
    said = {command: machine.run(*command.split()).stdout for command in commands}
    assert f"listening on {ADDRESS}; 0 connections" in said["systemctl status fastecho.service"]
    with connected() as client:
        assert exchange(client, b"hello", 5) == b"hello"


def test_without_the_socket_unit_one_capability_is_enough_for_port_7(machine: Machine) -> None:
    lines = "AmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n"
    install(machine, ADDRESS, service=f"{lines}PrivateUsers=no")
    text = machine.read(f"/run/units/{SERVICE}")
    for line in (f"Requires={SOCKET}\n", f"Also={SOCKET}\n"):
        assert line in text
        text = text.replace(line, "")
    machine.write(f"/run/units/{SERVICE}", text)
    machine.write("/etc/fastecho.toml", f'bind = "{ADDRESS}"\n')
    machine.systemctl("daemon-reload")
    machine.systemctl("start", SERVICE)
    assert machine.shows(SOCKET, "ActiveState") == "inactive"
    with connected() as client:
        assert exchange(client, b"hello", 5) == b"hello"


def test_nothing_is_left_when_it_is_over() -> None:
    with Machine() as one:
        pid = one.pid
        install(one, ADDRESS)
        one.systemctl("start", SERVICE)
    assert not Path(f"/proc/{pid}").exists()
    with contextlib.suppress(ConnectionRefusedError), connected():
        raise AssertionError("somebody still listens")
