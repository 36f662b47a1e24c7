"""Running the command `fastecho` as a real process: helpers of the tests of the command line.

Lives here: starting a command, waiting until it serves, and ending it. Does not live here: what a
command should say or do (test_cli.py, test_cli_serve.py).
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

COMMAND = (sys.executable, "-m", "fastecho")
DEADLINE = 20.0
Argument = str | bytes


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user: no settings of fastecho, quick and final name look-ups."""
    unwanted = ("FASTECHO_", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "RES_OPTIONS": "timeout:1 attempts:1", **more}


def run(*arguments: Argument, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `fastecho` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=DEADLINE,
        env=environment(**more),
        check=False,
    )


def assert_refused(done: subprocess.CompletedProcess[str], code: int, sentence: str) -> None:
    """Assert one sentence on stderr, nothing on stdout, and the exit code."""
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert done.stderr.startswith("fastecho")
    assert done.stderr.strip("\n").isprintable()
    assert len(done.stderr) < 300
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""
    assert done.returncode == code


class Serving:
    """A `fastecho serve` that is ready; `addresses` are what it wrote to --ready-fd."""

    def __init__(self, process: subprocess.Popen[bytes], addresses: list[str]) -> None:
        self.process = process
        self.addresses = addresses

    def connect(self, index: int = 0) -> socket.socket:
        address = self.addresses[index]
        if address.startswith("unix:"):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(DEADLINE)
            client.connect(address.removeprefix("unix:"))
            return client
        host, _, port = address.rpartition(":")
        return socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), DEADLINE)

    def end(self, *signals: int) -> tuple[int, list[str]]:
        """Send signals; return the exit code and the lines of stderr."""
        for number in signals:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, said.decode(errors="surrogateescape").splitlines()


@contextmanager
def serving(
    *arguments: Argument,
    program: Sequence[str] = COMMAND,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """Start `fastecho serve`, wait until it listens, and end it whatever happens."""
    if not any(str(argument).startswith(("--bind", "--config")) for argument in arguments):
        arguments = ("--bind=127.0.0.1:0", *arguments)
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [*program, "serve", f"--ready-fd={writer}", *arguments],
            stderr=subprocess.PIPE,
            pass_fds=[writer, *pass_fds],
            env=environment(**(env or {})),
        )
    finally:
        os.close(writer)
    with process:
        try:
            yield Serving(process, read_ready(reader))
        finally:
            os.close(reader)
            if process.poll() is None:
                process.kill()


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Give the ends of a pipe that takes no byte more; the caller closes the writing one."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, bytes(65536))
        except BlockingIOError:
            os.set_blocking(writer, True)
        yield reader, writer
    finally:
        os.close(reader)


def read_ready(reader: int) -> list[str]:
    """Return the lines that arrive before the other side is closed."""
    data, deadline = b"", time.monotonic() + DEADLINE
    while select.select([reader], [], [], max(deadline - time.monotonic(), 0))[0]:
        chunk = os.read(reader, 65536)
        if not chunk:
            return data.decode(errors="surrogateescape").splitlines()
        data += chunk
    raise AssertionError(f"--ready-fd was not closed in time; it gave {data!r}")


def exchange(client: socket.socket, data: bytes, size: int) -> bytes:
    """Send `data`, return the next `size` bytes."""
    client.sendall(data)
    reply = b""
    while len(reply) < size:
        chunk = client.recv(size - len(reply))
        assert chunk, f"the connection ended after {reply!r}"
        reply += chunk
    return reply
