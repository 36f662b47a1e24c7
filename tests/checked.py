"""Running `fastecho check` and the middle boxes of tests/network/boxes as real processes.

Lives here: a check with its JSON, a box with its address, a server that misbehaves. Does not live
here: what a check should find (test_check_*.py), the boxes.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from commands import COMMAND, DEADLINE, environment

ROOT = Path(__file__).resolve().parent.parent
BOXES = ROOT / "tests" / "network"
LONGEST = 40.0
"""Seconds for a check."""
SHORT = ("--quick", "--idle=0.3", "--seed=1")
"""Options of a check that shall not take long."""


class Checked:
    """What a check has printed, and its JSON.

    Attributes:
        code: the exit code.
        text: the text for people.
        report: the JSON.
    """

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.text = done.stderr
        self.report: dict[str, Any] = json.loads(done.stdout)

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Return what a probe has found."""
        (found,) = [one for one in self.report["probes"] if one["name"] == name]
        return dict(found)

    def of(self, verdict: str) -> set[str]:
        """Return the names of the probes with this verdict."""
        return {one["name"] for one in self.report["probes"] if one["verdict"] == verdict}


def check(address: str, *options: str, **more: str) -> Checked:
    """Check to the end, and read the JSON from standard output."""
    done = subprocess.run(
        [*COMMAND, "check", address, "--json=-", *options],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        env=environment(**more),
        check=False,
    )
    assert done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    return Checked(done)


@contextmanager
def box(name: str, server: str, *options: str) -> Iterator[str]:
    """Start a middle box before a server; give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"boxes.{name}", "--to", server, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=f"{BOXES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"),
    )
    with process:
        try:
            assert process.stdout is not None
            ready = select.select([process.stdout], [], [], DEADLINE)[0]
            address = process.stdout.readline().strip() if ready else ""
            assert address, "the box did not start"
            yield address
        finally:
            process.terminate()
            _, said = process.communicate(timeout=DEADLINE)
    assert said == ""


@contextmanager
def answering(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """Listen, and serve every connection in a thread; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def one(sock: socket.socket) -> None:
            with sock:
                try:
                    serve(sock)
                except OSError:
                    pass

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=one, args=(sock,)))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(DEADLINE)
            for thread in threads:
                thread.join(DEADLINE)
