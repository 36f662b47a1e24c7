"""All that `fastecho serve` does in its life, for those who watch or forbid its system calls.

Lives here: the scenarios, and what strace saw of them. Does not live here: the list that is
promised (docs/reference/system-calls.md), what is compared (test_system_calls.py).
"""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from commands import COMMAND, DEADLINE, Serving, exchange, serving
from peers import fill, is_turned_away, read_to_eof, reset, wait_until

Program = Callable[[str], Sequence[str]]
"""From the name of a scenario to the command that runs `fastecho` in it."""

CALL = re.compile(r"^(?:\d+ +)?([a-z_0-9]+)\(", re.MULTILINE)


WATCHED = """
import os, subprocess, sys, time
output, *command = sys.argv[1:]
watch = ["strace", "-f", "-qq", "-o", output, "-p", str(os.getpid())]
watching = subprocess.Popen(watch, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
deadline = time.monotonic() + 10
while b"TracerPid:\\t0" in open("/proc/self/status", "rb").read():
    if watching.poll() is not None or time.monotonic() > deadline:
        sys.exit("strace does not watch")
    time.sleep(0.01)
os.execvp(command[0], command)
"""
"""strace as a child, so that signals reach the command, and that has no descriptor of it."""


def traced(folder: Path) -> Program:
    """Return programs that strace watches, with all their threads; it writes into `folder`."""

    def program(name: str) -> Sequence[str]:
        return [COMMAND[0], "-c", WATCHED, str(folder / name), *COMMAND]

    return program


def seen_in(folder: Path) -> dict[str, set[str]]:
    """Return the system calls of each scenario; its first process has ended."""
    seen = {}
    for path in folder.iterdir():
        wait_until(partial(has_ended, path), what=f"the end of {path.name}")
        seen[path.name] = set(CALL.findall(path.read_text(errors="replace")))
    return seen


def has_ended(path: Path) -> bool:
    """Tell whether strace has seen the first process end."""
    text = path.read_text(errors="replace")
    first = text.partition(" ")[0]
    return re.search(rf"^{first} +(?:exit_group|\+\+\+)", text, re.MULTILINE) is not None


def everything(program: Program, folder: Path, *, user: str = "") -> None:
    """Let servers live: start, serve, be scraped and reloaded, hand over, drain; and fail to start.

    Args:
        program: how each is run.
        folder: for their files.
        user: whom they become; "": they stay who they are.
    """
    file = folder / "fastecho.toml"
    more = [
        f"--config={file}",
        f"--handover=unix:{folder}/path",
        *([f"--user={user}"] * bool(user)),
    ]
    more += ["--access-log", "--identify", "--threads=2", "--drain-idle=0.05"]
    more += [f"--metrics=unix:{folder}/metrics", "--bind=127.0.0.1:0", f"--bind=unix:{folder}/echo"]
    file.write_text("max_connections = 50\n")
    with serving(*more, program=program("first")) as first:
        meet(first)
        scrape(folder / "metrics")
        file.write_text("max_connections = 1\nmax_per_ip = 5\nidle_timeout = 0.05\n")
        assert first.process.stderr is not None
        first.process.send_signal(signal.SIGHUP)
        assert any(b"reloaded" in one for one in iter(first.process.stderr.readline, b""))
        wait_until(partial(is_let_in, first), what="the end of those before")
        with serving(*more, program=program("second")) as second:
            first.process.communicate(timeout=DEADLINE)
            assert first.process.returncode == 0
            with second.connect() as client:
                assert client.recv(4096)
                second.process.send_signal(signal.SIGTERM)
                read_to_eof(client)
            code, said = second.end()
            assert code == 0, said
            assert not [one for one in said if "warning" in one], said
            left = sorted(one.name for one in folder.iterdir() if one.is_socket())
            assert not left, (left, said)
    ways = ["--bind=[::1]:0", "--reuse-port", "--threads=2", "--spin-us=5", "--keepalive=9"]
    ways += ["--send-buffer=9999", "--user-timeout=5", "--accept-rate=1000000", "--backlog=9"]
    with serving(*ways, program=program("options")) as server:
        meet(server)
        assert server.end(signal.SIGTERM)[0] == 0
    with serving("--bind=udp://127.0.0.1:0", program=program("datagrams")) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(DEADLINE)
            client.connect(("127.0.0.1", int(server.addresses[0].rpartition(":")[2])))
            client.send(b"x")
            assert client.recv(10) == b"x"
        assert server.end(signal.SIGTERM)[0] == 0
    with serving(
        "--prefix=> ", "--frame=line", "--fault=delay=1ms", program=program("fault")
    ) as one:
        with one.connect() as client:
            assert exchange(client, b"x\n", 4) == b"> x\n"
        assert one.end(signal.SIGTERM)[0] == 0


def meet(server: Serving) -> None:
    """Be peers of every kind at each of its addresses."""
    for index in range(len(server.addresses)):
        with server.connect(index) as client:
            client.sendall(b"x" * 100_000)
            client.shutdown(socket.SHUT_WR)
            assert read_to_eof(client).endswith(b"x" * 100_000)
        with server.connect(index) as client:
            fill(client, bytes(1 << 26))  # until nothing goes either way
            reset(client)
        for _ in range(20):
            server.connect(index).close()


def is_let_in(server: Serving) -> bool:
    """Tell whether one is let in by a server that takes one; then another one is turned away."""
    with server.connect() as inside, suppress(ConnectionResetError):
        if inside.recv(4096):
            is_turned_away(server.addresses[0])
            read_to_eof(inside)
            return True
    return False


def scrape(path: Path) -> None:
    """Ask for the metrics at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"fastecho_connections_accepted_total" in read_to_eof(client)
