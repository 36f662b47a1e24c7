"""Processes of a figure: start them pinned, read their CPU and memory, end them; and servers.

What a server is told to do is in _programs.py, what is sent to it in _turns.py.

CPU time is read from the process's own CPU clock (clock_getcpuclockid(3)): the nanoseconds that
the scheduler counts for its threads, the ended ones included, up to the moment of the call. It is
the sum of /proc/PID/task/*/schedstat without the threads that ended in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks._errors import MeasurementError

# the project's directory: servers run with it as their working directory
ROOT = Path(__file__).resolve().parent.parent

# seconds in which a server must say its address, or end
START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0

# seconds in which a server must have obeyed a command, beside a busy loop as well
ANSWER_TIMEOUT = 20.0

# linux/posix-timers.h: the clock id of a process is made of its id and this kind
CPUCLOCK_SCHED = 2

ADDRESS = re.compile(rb"(\d+\.\d+\.\d+\.\d+):(\d+)")


def environment() -> dict[str, str]:
    """Return the environment for a command: this one's without settings meant for fastecho.

    Modules are compiled once and kept, as of every installed package.
    """
    return {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("FASTECHO_") and name != "PYTHONDONTWRITEBYTECODE"
    }


def readable(fd: int, timeout: float) -> bool:
    """Return whether `fd` has something to read within `timeout` seconds; any number will do."""
    poll = select.poll()  # select() takes none above 1023, and the loads hold thousands
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(timeout, 0.0) * 1e3))


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Pin the calling thread to `cores` meanwhile; what it starts inherits that."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def first_in_line() -> Iterator[bool]:
    """Let the calling thread run before every ordinary one meanwhile, where that is permitted.

    Gives whether it is: SCHED_FIFO needs root or CAP_SYS_NICE.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, *before)


class Process:
    """A process of a figure; a context manager that ends it."""

    def __init__(
        self, name: str, command: Sequence[str], cores: Sequence[int], *, obeys: bool = False
    ) -> None:
        """Start `command` pinned to `cores` and wait until it says that it is ready.

        With `obeys`, stdin and stdout are pipes for ask(). It gets a process group of its own,
        so that Ctrl-C reaches the harness alone, which then ends it.
        """
        self.name = name
        self.cores = tuple(cores)
        talk = subprocess.PIPE if obeys else subprocess.DEVNULL
        ready_fd, told_fd = os.pipe()
        try:
            with pinned(cores):
                self.process = subprocess.Popen(
                    [*command, "--ready-fd", str(told_fd)],
                    cwd=ROOT,
                    env=environment(),
                    pass_fds=(told_fd,),
                    stdin=talk,
                    stdout=talk,
                    process_group=0,
                )
        except BaseException:
            os.close(ready_fd)
            raise
        finally:
            os.close(told_fd)
        try:
            self._become_ready(self._await_line(ready_fd))
        except BaseException:
            self.end()
            raise
        finally:
            os.close(ready_fd)

    def _await_line(self, ready_fd: int) -> bytes:
        deadline = time.monotonic() + START_TIMEOUT
        told = b""
        while b"\n" not in told:
            if not readable(ready_fd, deadline - time.monotonic()):
                raise MeasurementError(f"{self.name} was not ready within {START_TIMEOUT:g} s")
            chunk = os.read(ready_fd, 4096)
            if not chunk:
                raise MeasurementError(f"{self.name} ended before it was ready: {told!r}")
            told += chunk
        return told

    def _become_ready(self, told: bytes) -> None:
        """Take what it said when it was ready."""

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def cpu_ns(self) -> int:
        """Return the CPU time of all its threads so far, user and system."""
        return time.clock_gettime_ns((~self.pid << 3) | CPUCLOCK_SCHED)

    def memory(self) -> int:
        """Return its resident memory in bytes, counted exactly (smaps_rollup)."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        for line in rollup.splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise MeasurementError(f"{self.name}: the kernel tells no Rss of process {self.pid}")

    def spread(self, cores: Sequence[int]) -> None:
        """Pin each of its threads but the main one to a core of its own."""
        workers = sorted(int(name) for name in os.listdir(f"/proc/{self.pid}/task"))
        workers.remove(self.pid)
        if len(workers) != len(cores):
            raise MeasurementError(f"{self.name} has {len(workers)} threads beside its main one")
        for worker, core in zip(workers, cores, strict=True):
            os.sched_setaffinity(worker, {core})
        self.cores = tuple(cores)

    def put_first(self) -> None:
        """Let its threads run before every ordinary one; permitted where first_in_line() is."""
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(1))

    def ask(self, command: str) -> Any:
        """Send one line to its stdin and return the JSON that it answers (peers/hosted.py).

        Only for a server that was started with `obeys`.
        """
        self.order(command)
        return self.answer(command)

    def order(self, command: str) -> None:
        """Send one line to its stdin; answer() has what comes back."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(f"{command}\n".encode())
        stdin.flush()

    def answer(self, command: str) -> Any:
        """Return the JSON that it answers to a command."""
        stdout = self.process.stdout
        assert stdout is not None
        # one line for each command: nothing is left in the reader's buffer between two of them
        answer = stdout.readline() if readable(stdout.fileno(), ANSWER_TIMEOUT) else b""
        if not answer:
            raise MeasurementError(f"{self.name} did not answer {command!r}")
        decoded = json.loads(answer)
        if isinstance(decoded, dict) and "error" in decoded:
            raise MeasurementError(f"{self.name}: {decoded['error']}")
        return decoded

    def begin_end(self) -> None:
        """Ask it to end; end() waits for it."""
        if self.process.poll() is None:
            self.process.terminate()

    def end(self) -> None:
        """End it, by force when it does not obey within STOP_TIMEOUT."""
        self.begin_end()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


class Server(Process):
    """One running server process."""

    # where it listens
    address: tuple[str, int]

    def _become_ready(self, told: bytes) -> None:
        found = ADDRESS.search(told)
        if found is None:
            raise MeasurementError(f"{self.name} said no address: {told!r}")
        self.address = found[1].decode(), int(found[2])
