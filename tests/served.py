"""A server in a process of its own, driven line by line: for limits and faults of a process.

Lives here: both ends. `Served` starts the program and talks to it; run as a program, this file
starts a fastecho.Server and does what its standard input says, one JSON object a line. Does not
live here: what a test expects, and the shim itself (shim/shim.c).

The process can be given few descriptors, be stopped and continued (what peers send meanwhile
waits in the kernel, so the server finds it all at once), and its socket calls can be made to fail
by rule when the shim is loaded.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import fastecho

ROOT = Path(__file__).resolve().parent.parent
CALLS = {
    "recv": 0,
    "send": 1,
    "accept4": 2,
    "epoll_ctl": 3,
    "epoll_wait": 4,
    "recvmmsg": 12,
    "sendmmsg": 13,
}
"""Of enum shim_call in shim/shim.h."""
OPERATIONS = {None: 0, "add": 1, "del": 2, "mod": 3}
LOG_MAX = 1 << 18
ANSWER = 20.0
"""Seconds until an answer must have come."""


class Call(NamedTuple):
    """One socket call of the server, as the shim saw it."""

    name: str
    port: int
    """Port of the peer; 0 if there is none."""
    operation: str | None
    """Of epoll_ctl."""
    result: int
    """What the server was given: >= 0, or -errno."""


class Usage(NamedTuple):
    """What the server's process has used so far."""

    cpu: float
    """Seconds on a CPU, all threads that still live."""
    resident: int
    """Bytes."""
    highest_descriptor: int
    """The largest number that is open now."""


class Served:
    """A server in another process.

    Args:
        shim: path of the built shim, or None to run without it.
        config: Server's keywords; bytes are not possible, text is sent as UTF-8.
    """

    program = __file__
    """What runs in the other process."""
    shim_is_first = False
    """Before a sanitizer, which insists on being first: only there are its callers seen."""
    patience = ANSWER
    """Seconds until an answer must have come."""

    def __init__(self, shim: Path | None = None, **config: Any) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        if shim is not None:
            loaded = [environment["LD_PRELOAD"]] if environment.get("LD_PRELOAD") else []
            order = [str(shim), *loaded] if self.shim_is_first else [*loaded, str(shim)]
            environment["LD_PRELOAD"] = ":".join(order)
        if self.shim_is_first:
            checks = environment.get("ASAN_OPTIONS", "")
            environment["ASAN_OPTIONS"] = f"{checks}:verify_asan_link_order=0"
        self._stats: fastecho.Stats | None = None
        self._is_ending = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", self.program, json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            bufsize=0,
        )
        try:
            self.address: str = self._read()["address"]
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Tell whether the process is no more."""
        return self._process.poll() is not None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe, line, deadline = self._process.stdout.fileno(), b"", time.monotonic() + self.patience
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            assert left > 0, f"no answer within {self.patience} s; its errors: {self.errors()}"
            if select.select([pipe], [], [], left)[0]:
                data = os.read(pipe, 1 << 20)
                assert data, f"the server's process has ended: {self.errors()}"
                line += data
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Send one order and return the answer."""
        self.order(do, **more)
        return self._read()

    def order(self, do: str, **more: Any) -> None:
        """Send one order: to a process that stands still, which will obey when it goes on."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        except BrokenPipeError:
            pass  # it has ended: reading says so, and why

    def errors(self) -> str:
        """Return what the process has written to standard error so far."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def stats(self) -> fastecho.Stats:
        """Return the server's statistics."""
        return self._stats or read_stats(self.ask("stats"))

    def usage(self) -> Usage:
        """Return what the process has used; read from outside, it needs no descriptor there."""
        process = Path(f"/proc/{self.pid}")
        # A thread's first number is its time on a CPU, in ns.
        threads = [task.read_text().split() for task in process.glob("task/*/schedstat")]
        resident = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        descriptors = [int(name) for name in os.listdir(process / "fd")]
        return Usage(sum(int(times[0]) for times in threads) / 1e9, resident, max(descriptors))

    def limit_descriptors(self, most: int) -> None:
        """Set the soft limit on descriptors (the hard one stays)."""
        self.ask("limit", descriptors=most)

    def rule(
        self,
        call: str,
        *,
        port: int = 0,
        operation: str | None = None,
        skip: int = 0,
        times: int = -1,
        error: str | None = None,
        limit: int = 0,
        hold: bool = False,
    ) -> None:
        """Change the calls named `call` from now on.

        Args:
            call: recv, send, recvmmsg, sendmmsg, accept4, epoll_ctl or epoll_wait.
            port: only on the connection whose peer has this port; 0: on any.
            operation: only epoll_ctl's add, mod or del.
            skip: calls that pass before.
            times: calls that are changed; -1: all.
            error: name of the errno that they fail with.
            limit: bytes that recv and send, messages that recvmmsg and sendmmsg move at the most;
                negative: 1 to -limit at random.
            hold: the call is made, and does not return before clear_rules().
        """
        number = 0 if error is None else getattr(errno, error)
        rule = [CALLS[call], port, OPERATIONS[operation], skip, times, number, limit, hold]
        self.ask("rule", rule=rule)

    def clear_rules(self) -> int:
        """Forget all rules; return how many calls were changed."""
        changed: int = self.ask("clear")["changed"]
        return changed

    def start_log(self) -> None:
        """Note every call from now on."""
        self.ask("log")

    def take_log(self) -> list[Call]:
        """Return the calls noted, oldest first."""
        operations = {number: name for name, number in OPERATIONS.items()}
        names = {number: name for name, number in CALLS.items()}
        return [
            Call(names[call], port, operations[operation], result)
            for call, port, operation, result in self.ask("take_log")["log"]
        ]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block, all threads of the process stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            # WNOWAIT: what Popen waits for is left alone.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def end(self, *, by: str = "abort") -> fastecho.Stats:
        """End the server by abort() or stop(), and the process; fails if anything went wrong.

        Returns the last statistics.
        """
        if self._stats is None:
            self.begin_end(by)
            self._stats = read_stats(self._read())
            assert self._process.wait(ANSWER) == 0, self.errors()
        return self._stats

    def begin_end(self, by: str) -> None:
        """Order its end, unless that was done; end() waits for it."""
        if not self._is_ending:
            self._is_ending = True
            self.order("end", by=by)

    def kill(self) -> None:
        """End the process, whatever state it is in, and close the pipes."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(ANSWER)
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            pipe.close()


def read_stats(answer: dict[str, Any]) -> fastecho.Stats:
    """Build statistics from what the program has sent."""
    from fastecho import Stats

    workers = [
        {**one, "errnos": {int(number): count for number, count in one["errnos"].items()}}
        for one in answer["workers"]
    ]
    return Stats(workers, datagrams_overflowed=answer["overflowed"])


class Program:
    """The other end: a server, and what each order does."""

    def __init__(self, config: dict[str, Any]) -> None:
        from fastecho import Server

        self.server = Server(**config)
        self.server.start()
        if "shim" in os.environ.get("LD_PRELOAD", ""):
            self.shim = ctypes.CDLL(None)

    def stats(self, order: dict[str, Any]) -> dict[str, Any]:
        core = self.server._core
        assert core is not None
        overflowed = sum(one.drops() for one in self.server.datagram_sockets)
        return {"workers": core.counters(), "overflowed": overflowed}

    def limit(self, order: dict[str, Any]) -> dict[str, Any]:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (order["descriptors"], hard))
        return {}

    def rule(self, order: dict[str, Any]) -> dict[str, Any]:
        if self.shim.shim_add(*order["rule"]) < 0:
            raise RuntimeError("the shim has no room for another rule")
        return {}

    def clear(self, order: dict[str, Any]) -> dict[str, Any]:
        return {"changed": self.shim.shim_clear()}

    def log(self, order: dict[str, Any]) -> dict[str, Any]:
        self.shim.shim_log()
        return {}

    def take_log(self, order: dict[str, Any]) -> dict[str, Any]:
        entries = (ctypes.c_int32 * 4 * LOG_MAX)()
        count = self.shim.shim_log_take(entries, LOG_MAX)
        if count < 0:
            raise RuntimeError("the shim's log was too short")
        return {"log": [list(entries[i]) for i in range(count)]}

    def end(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["by"] == "stop":
            self.server.stop(ANSWER / 2)
        self.server.abort()
        if not self.server.wait(ANSWER / 2):
            raise RuntimeError("the server did not end")
        return self.stats(order)

    def hello(self) -> dict[str, Any]:
        """Return the first line."""
        return {"address": self.server.address}

    def run(self) -> None:
        """Answer every line of standard input; the end of it ends the program."""
        print(json.dumps(self.hello()), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            print(json.dumps(getattr(self, order["do"])(order)), flush=True)
            if order["do"] == "end":
                return


if __name__ == "__main__":
    Program(json.loads(sys.argv[1])).run()
