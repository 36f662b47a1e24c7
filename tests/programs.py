"""A Python program in a process of its own, for what cannot be shown inside the tests' process.

Lives here: starting it, reading its lines, signals, its end; all with deadlines. Does not live
here: what it does (each test brings its script), a server driven by orders (served.py).

A script talks by print(): each line is read by line(). To be told to go on it reads a line of its
standard input, written by tell(), or all of it, which go_on() ends. Warnings are errors in it, and
what it writes to standard error is kept: a test that expects a clean end looks whether it is empty.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 20.0
"""Seconds until a line must have come, or the process must have ended."""


@contextmanager
def many_descriptors(most: int) -> Iterator[None]:
    """Allow this process, and those started in the block, `most` descriptors; or skip the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < most:
        pytest.skip(f"needs {most} descriptors, and {hard} are allowed")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Program:
    """Run `script` until the block ends; kill it there if it has not ended by itself.

    Args:
        script: Python source; indentation that all lines share is removed.
        arguments: what it finds in sys.argv[1:].
        ignored: signals that are ignored in it from the start.
    """

    def __init__(self, script: str, *arguments: str, ignored: tuple[int, ...] = ()) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        ignore = "".join(f"signal.signal({int(number)}, signal.SIG_IGN)\n" for number in ignored)
        source = f"import signal\n{ignore}{textwrap.dedent(script)}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", source, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            bufsize=0,
        )
        self._buffered = b""

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(DEADLINE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.go_on()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def line(self, timeout: float = DEADLINE) -> str:
        """Return the next line that it prints, without its end."""
        assert self._process.stdout is not None
        pipe, deadline = self._process.stdout.fileno(), time.monotonic() + timeout
        while b"\n" not in self._buffered:
            left = deadline - time.monotonic()
            assert left > 0, f"no line within {timeout} s; its errors: {self.errors()}"
            if select.select([pipe], [], [], left)[0]:
                data = os.read(pipe, 65536)
                assert data, f"it ended without the line; its errors: {self.errors()}"
                self._buffered += data
        line, _, self._buffered = self._buffered.partition(b"\n")
        return line.decode()

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def go_on(self) -> None:
        """End its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block, all its threads stand still; signals wait."""
        self.send(signal.SIGSTOP)
        try:
            # WNOWAIT: what Popen waits for is left alone.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
            yield
        finally:
            self.send(signal.SIGCONT)

    def catches(self, number: int) -> bool:
        """Tell whether it has a handler for a signal, of its own or of Python's."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
        return bool(int(mask, 16) >> (number - 1) & 1)

    def waits_for_signals(self) -> bool:
        """Tell whether it is in serve_forever's wait; true where the kernel does not tell."""
        process = Path(f"/proc/{self.pid}")
        where = (process / "wchan").read_text(encoding="ascii")
        # One that runs waits for nothing, and has a "0" there as well.
        sleeps = (process / "stat").read_text(encoding="ascii").rpartition(") ")[2][0] == "S"
        return sleeps and (where == "0" or where.startswith("unix_stream"))

    def end(self, timeout: float = DEADLINE) -> int:
        """Wait for its end; return its exit status (negative: a signal)."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout} s: {self.errors()}") from None

    def errors(self) -> str:
        """Return what it has written to standard error so far."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")
