"""Socket activation in tests: processes that are given listening sockets as a service manager does.

Lives here: passing sockets by the protocol of sd_listen_fds(3), and a socket on which notifications
of sd_notify(3) arrive. Does not live here: what a test expects.

Nobody has to wait until such a process is ready: its sockets listen before it begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from commands import COMMAND, DEADLINE, Serving, environment

LAUNCHER = """
import os, sys
for number, source in enumerate(sys.argv[1].split(","), 3):
    os.dup2(int(source), number)
    os.close(int(source))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
ABOVE = 100
"""Sources have numbers from here on, so that none is in the way."""


@contextmanager
def passing(
    *sockets: socket.socket,
    names: str | None = None,
    program: Sequence[str] = (*COMMAND, "serve"),
    arguments: Sequence[str] = (),
    **variables: str,
) -> Iterator[Serving]:
    """Start a program with the sockets from descriptor 3 on; kill it if it has not ended."""
    copies = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, ABOVE) for one in sockets]
    if names is not None:
        variables["LISTEN_FDNAMES"] = names
    numbers = ",".join(map(str, copies))
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, numbers, *program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=copies,
            bufsize=0,
            env=environment(**{"LISTEN_FDS": str(len(copies)), **variables}),
        )
    finally:
        for one in copies:
            os.close(one)
    addresses = [f"unix:{one.getsockname()}" if one.family == socket.AF_UNIX
                 else "{}:{}".format(*one.getsockname()[:2]) for one in sockets]  # fmt: skip
    with process:
        try:
            yield Serving(process, addresses)
        finally:
            if process.poll() is None:
                process.kill()


def said_first(process: subprocess.Popen[bytes], last: str = "threads:") -> list[str]:
    """Return the lines on stderr up to one with `last` in it; a signal before it would take it.

    Only of a process whose stderr is not buffered here.
    """
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or last not in lines[-1]:
        line = process.stderr.readline()
        assert line, f"it ended after {lines}"
        lines.append(line.decode().rstrip("\n"))
    return lines


class Manager:
    """What a service manager hears: messages of sd_notify, as they were sent."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._socket = sock
        self.address = address
        """For NOTIFY_SOCKET."""
        self.heard: list[str] = []

    def message(self, timeout: float = DEADLINE) -> str:
        """Return the next message."""
        self._socket.settimeout(max(timeout, 0.001))
        data = self._socket.recv(65536).decode()
        self.heard.append(data)
        return data

    def until(self, part: str, timeout: float = DEADLINE) -> str:
        """Return the next message with that in it; others are left out."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.message(deadline - time.monotonic())
            if part in message:
                return message

    def hears_no(self, part: str, seconds: float) -> bool:
        """Tell whether no such message comes for so long."""
        with contextlib.suppress(TimeoutError):
            self.until(part, seconds)
            return False
        return True


@contextmanager
def manager(path: Path | str) -> Iterator[Manager]:
    """Listen for notifications at a path, or at an abstract name: @NAME."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path).replace("@", "\0", 1) if str(path).startswith("@") else str(path))
        yield Manager(sock, str(path))
