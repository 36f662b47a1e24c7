"""The process of a phase with all that it starts: in a namespace of its own, and its end.

Lives here: starting it, waiting for it with a deadline, ending it, the proof that nothing is left.
Does not live here: what it does (hold.py).

All of it is one session, by which its processes are known however they have been started. The
namespace has no name and no file: it lasts as long as a process that is in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from footprint import PROC
from peers import wait_until
from plan import Plan

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).resolve().parent / "hold.py"
LASTING = 60.0
"""Seconds that processes may take to end after SIGKILL: each closes thousands of sockets."""


def namespace_of(pid: int) -> str:
    """Return the name of a process's namespace of the network; '' when it has ended."""
    try:
        return os.readlink(PROC / str(pid) / "ns" / "net")
    except OSError:
        return ""


def processes() -> list[int]:
    """Return the ids of all processes that can be seen."""
    return [int(name) for name in os.listdir(PROC) if name.isdecimal()]


def session_of(pid: int) -> int:
    """Return the id of a process's session; 0 when it has ended, and only waits for its parent."""
    try:
        state, _, _, session, *_ = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state == "Z" else int(session)


def name_of(pid: int) -> str:
    """Return the name of a process's program."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "ended"


class Stage:
    """A phase that runs; whoever starts one calls end(), whatever happens."""

    def __init__(self, plan: Plan) -> None:
        program = [sys.executable, "-W", "error", str(PROGRAM), json.dumps(plan)]
        self._namespaces: set[str] = set()
        self._process = subprocess.Popen(
            ["unshare", "--net", *program] if plan.is_apart else program,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )

    def wait(self, seconds: float) -> int | None:
        """Return the exit status, or None when the phase has not ended after so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._namespaces.add(namespace_of(self._process.pid))
            try:
                return self._process.wait(0.1)
            except subprocess.TimeoutExpired:
                pass
        return None

    def end(self) -> str:
        """End what still runs; return what is left all the same, '' for nothing.

        A phase that has ended by itself should have left nothing: that is looked at first, and
        then ended as well.
        """
        found = ""
        if self._process.poll() is not None:
            found = self._left()
        try:
            wait_until(lambda: not self._kill(), LASTING)
        except AssertionError:
            pass
        self._process.wait(LASTING)
        return found or self._left()

    def _members(self) -> list[int]:
        """Return the ids of the processes that live."""
        return [pid for pid in processes() if session_of(pid) == self._process.pid]

    def _kill(self) -> list[int]:
        """Kill the processes that live; return their ids."""
        members = self._members()
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return members

    def _left(self) -> str:
        """Return what there is: processes, and whatever keeps the namespace."""
        members = self._members()
        self._namespaces |= {namespace_of(pid) for pid in members}
        left = [f"process {pid} ({name_of(pid)})" for pid in members]
        used = {namespace_of(pid) for pid in processes()}
        mounts = (PROC / "self" / "mountinfo").read_text()
        made = self._namespaces - {namespace_of(os.getpid()), ""}
        left += [f"namespace {name}" for name in made if name in used or name in mounts]
        return ", ".join(left)
