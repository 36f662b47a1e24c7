"""Clocks that jump, turn over, or are very young or old: no timer is early, none is late.

Each clock is given to a process of its own, which measures every timer (timed.py): namespaces of
time move the monotonic clock, and libfaketime makes the clock of the day jump while they run.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from namespaces import can_unshare
from programs import ROOT

LATE = 0.9
"""Seconds that a loaded machine may add; a clock that is believed adds hours, or takes them."""
DEADLINE = 20.0
"""Seconds in which each process must have come to its end; it needs four."""
CENTURY = 36_500 * 86_400
TIMED = Path(__file__).resolve().parent / "timed.py"
TIMERS = {
    "idle_timeout", "idle_timeout, put off", "linger", "first_byte_timeout", "drain_idle",
    "drain deadline", "stop(timeout)", "handshake grace", "accept_rate", "accept pause",
    "wait(timeout)", "Client(timeout)",
}  # fmt: skip


class Clock(NamedTuple):
    """A clock that a process is given."""

    turn_ms: int = 0
    """Milliseconds that go by once more while the timers run; 0: no matter."""
    boots: float | None = None
    """What its monotonic clock begins with, in seconds; None: the machine's own."""
    jumps: bool = False
    """Its clock of the day jumps by hours, to and fro."""


def before_turn(turn_ms: int) -> float:
    """Return a monotonic time that leaves a process some seconds to start."""
    return turn_ms / 1000 - 2.0


CLOCKS = {
    "the clock of the day jumps": Clock(jumps=True),
    "31 bits of milliseconds turn over": Clock(1 << 31, before_turn(1 << 31)),
    "32 bits of milliseconds turn over": Clock(1 << 32, before_turn(1 << 32)),
    "the machine has just booted": Clock(0, 0.0),
    "the machine runs for a century": Clock(0, CENTURY),
}


def lack(clock: Clock) -> str:
    """Return what this machine lacks for a clock, or ''."""
    if clock.jumps and shutil.which("faketime") is None:
        return "needs libfaketime (Debian, Ubuntu: apt install faketime)"
    if clock.boots is not None and not can_unshare("--time", "--fork"):
        return "needs a namespace of time"
    return ""


def start(clock: Clock, shim: Path, offset: Path) -> subprocess.Popen[str]:
    """Start measuring under a clock; `offset` is the file that makes a clock jump."""
    preloaded, command = [str(shim)], []
    if clock.jumps:
        offset.write_text("+0")
        faked = ["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
        library = subprocess.run(faked, capture_output=True, text=True, check=True)
        preloaded.append(library.stdout.strip())
    if clock.boots is not None:
        monotonic = math.floor(clock.boots - time.monotonic())
        if clock.boots == 0:
            monotonic += 1  # there is no time before
        command = ["unshare", "--time", "--monotonic", str(monotonic), "--fork", "--kill-child"]
    return subprocess.Popen(
        [
            *command,
            "env",
            f"LD_PRELOAD={':'.join(preloaded)}",
            f"FAKETIME_TIMESTAMP_FILE={offset}",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "FAKETIME_NO_CACHE=1",
            *(sys.executable, "-W", "error", str(TIMED), str(clock.turn_ms), "shim"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )


def jump(offset: Path, until: Callable[[], object]) -> None:
    """Set another clock of the day every few milliseconds: hours and days, to and fro."""
    chance, fresh = random.Random(1), offset.with_suffix(".new")
    while not until():
        fresh.write_text(f"{chance.uniform(-2 * 86_400, 2 * 86_400):+.3f}")
        fresh.replace(offset)
        time.sleep(0.02)


Ended = tuple[int | None, str, str]
"""Exit status (None: it had to be killed), what it printed, and its errors."""


@pytest.fixture(scope="module")
def ended(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Run all clocks at once; how each process ended, by the clock's name."""
    offset = tmp_path_factory.mktemp("clock") / "offset"
    running = {
        name: start(clock, shim, offset) for name, clock in CLOCKS.items() if not lack(clock)
    }
    deadline = time.monotonic() + DEADLINE

    def is_over() -> bool:
        return time.monotonic() > deadline or all(
            one.poll() is not None for one in running.values()
        )

    try:
        jump(offset, is_over)
    finally:
        status = {name: process.poll() for name, process in running.items()}
        for process in running.values():
            process.kill()
        said = {name: process.communicate() for name, process in running.items()}
    return {name: (status[name], *said[name]) for name in running}


@pytest.fixture(params=CLOCKS)
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of a clock; skip the test if this machine cannot have it."""
    if reason := lack(CLOCKS[request.param]):
        pytest.skip(reason)
    return str(request.param)


def found(ended: dict[str, Ended], name: str) -> dict[str, Any]:
    """Return what a process has found; fail if it did not end in order."""
    status, said, errors = ended[name]
    assert status == 0 and not errors, f"status {status}: {errors}"
    result: dict[str, Any] = json.loads(said)
    return result


def test_no_timer_is_early_or_late(name: str, ended: dict[str, Ended]) -> None:
    timers = found(ended, name)["timers"]
    assert set(timers) == TIMERS
    wrong = {
        timer: (due, took) for timer, (due, took) in timers.items() if not due <= took < due + LATE
    }
    assert wrong == {}


def test_the_clock_was_what_it_was_to_be(name: str, ended: dict[str, Ended]) -> None:
    clock, facts = CLOCKS[name], found(ended, name)
    assert facts["turns"] == (clock.turn_ms != 0)
    assert (facts["jumps"] > 20) == clock.jumps
    if clock.boots is not None:
        assert -1 <= facts["monotonic"] - clock.boots < 10
