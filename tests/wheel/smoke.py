"""Echo bytes through the installed fastecho: the test that every wheel must pass where it lands.

Lives here: one run, standard library only, on the Python that it checks. Does not live here: how
the wheel came there (everywhere.py, cibuildwheel), and what the file itself holds (contents.py).

Run as `python -I smoke.py`, from anywhere: a source tree that shadows the installed package is an
error. The last line of a good run says what was echoed; anything else ends with exit code 1.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import select
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import fastecho

DEADLINE = 60.0
"""Seconds for each wait. A foreign processor that is emulated is slow."""

DATA = bytes(range(256)) * 4096
"""1 MiB: more than the sockets' buffers hold, so it needs short writes and EPOLLOUT."""


def check(holds: bool, what: str) -> None:
    """End the run with a sentence unless something holds (an assert could be switched off)."""
    if not holds:
        sys.exit(f"smoke: {what}")


def check_installed() -> None:
    """The package is the installed one, compiled, and the version is that of its metadata."""
    place = Path(fastecho.__file__).resolve()
    check(
        place.is_relative_to(Path(sysconfig.get_path("platlib")).resolve()),
        f"fastecho comes from {place.parent}, which is no installation",
    )
    found = importlib.metadata.version("fastecho")
    check(found == fastecho.__version__, f"metadata says {found}, the code {fastecho.__version__}")
    suffixes = {path.name.partition(".")[2] for path in place.parent.glob("_*.so")}
    check(len(suffixes) == 1, f"the extensions have the suffixes {sorted(suffixes)}")


def check_one_process() -> None:
    """A server and a client in this process: every byte, then the end, and the books balance."""
    with fastecho.Server() as server:
        with fastecho.Client(server.address, timeout=DEADLINE) as client:
            check(client.echo(DATA) == DATA, "the server echoed something else")
            client.shutdown()
            check(client.recv(1) == b"", "after our FIN there was more than an end")
        check(server.stop(DEADLINE), "the server did not end in order")
        stats = server.stats()
    check(stats.bytes_in == stats.bytes_out == len(DATA), f"the counters say {stats}")


def check_command() -> None:
    """`fastecho serve` as a command: it listens, echoes, and SIGTERM ends it with exit code 0."""
    command = Path(sysconfig.get_path("scripts")) / "fastecho"
    ready, ready_to_write = os.pipe()
    words = ["serve", "--access-log", "--bind=127.0.0.1:0", f"--ready-fd={ready_to_write}"]
    with subprocess.Popen(
        [command, *words], pass_fds=[ready_to_write], stderr=subprocess.PIPE
    ) as process:
        try:
            os.close(ready_to_write)
            with fastecho.Client(read_line(ready), timeout=DEADLINE) as client:
                check(client.echo(DATA) == DATA, "the command echoed something else")
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=DEADLINE)[1].decode()
            code = process.returncode
            check(code == 0, f"after SIGTERM the command ended with {code}: {said}")
            check("ended by" in said, f"the access log has no line: {said}")
        finally:
            os.close(ready)
            process.kill()


def read_line(descriptor: int) -> str:
    """Return the first line that comes; end the run if it does not come in time."""
    line, deadline = b"", time.monotonic() + DEADLINE
    while not line.endswith(b"\n"):
        left = max(0.0, deadline - time.monotonic())
        check(bool(select.select([descriptor], [], [], left)[0]), "the command never was ready")
        data = os.read(descriptor, 4096)
        check(data != b"", "the command ended before it was ready")
        line += data
    return line.decode().strip()


def main() -> None:
    """Run every check on this Python."""
    check_installed()
    check_one_process()
    check_command()
    # A free-threaded Python takes the GIL back if it loads an extension that needs it.
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    gil_is_on = getattr(sys, "_is_gil_enabled", lambda: True)()
    check(not (free_threaded and gil_is_on), "loading fastecho switched the GIL on")
    libc = "musl" if "musl" in sysconfig.get_config_var("HOST_GNU_TYPE") else "glibc"
    print(
        f"fastecho {fastecho.__version__} on CPython {platform.python_version()}"
        f"{' free-threaded' if free_threaded else ''}, {platform.machine()}, {libc}:"
        f" {len(DATA)} bytes echoed in one process, {len(DATA)} by the command"
    )


main()
