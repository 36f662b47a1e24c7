"""A soak of a second holds, and one of a server that does not hold says what is wrong.

`make soak` is the long one. What it is to find is put into servers of spoiled.py: bytes that are
changed or lost, peers that are hurt, what is kept of each connection; and into the books.
"""

from __future__ import annotations

import errno
import random
import subprocess
import sys
import time
from pathlib import Path

import cycling
import life
import pytest
import residents
from books import Account
from cycles import KINDS, Cycle, Wire, choose, noise
from life import Life, Part
from residents import CONNECTIONS, Residents
from spoiled import Spoiled

from fastecho import Stats
from fastecho.stats import QUEUE_WAIT_BOUNDS, WorkerStats

FOLDER = Path(__file__).resolve().parent
SEED = 5
CYCLES = 400


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command; PYTHONPATH is what the Makefile says."""
    return subprocess.run(
        [sys.executable, str(FOLDER / "soak.py"), *arguments],
        env={"PYTHONPATH": f"{FOLDER.parent}:{FOLDER.parent.parent}"},
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_short_soak_goes_through_every_kind_of_end_and_holds() -> None:
    done = soak("--cycles", str(CYCLES), "--messages", "20000", "--seed", str(SEED))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == f"seed {SEED}"
    assert lines[-1].startswith("all held, ")
    for kind in KINDS:
        rows = [line.split() for line in lines if line.startswith(f"  {kind.name} ")]
        assert len(rows) == 2, done.stdout
        assert sum(int(row[-4]) for row in rows) > 0, kind
        for *_, sent, back, lost in rows:
            assert (lost == "0" and int(sent) <= int(back)) if kind.is_clean else lost == "-"


def test_soak_that_runs_out_of_time_fails() -> None:
    done = soak("--cycles", "10", "--messages", "10", "--seconds", "0")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("FAILED: AssertionError: the time is up (seed 1, ") == 2
    assert done.stdout.splitlines()[-1].startswith("NOT all held, ")


def test_choices_follow_from_the_seed() -> None:
    def chosen(seed: int) -> list[tuple[int, str, bytes, list[int]]]:
        cycles = choose(random.Random(seed), 500, 7, noise(seed), Wire())
        return [(one.number, one.kind.name, one.data, one.ends) for one in cycles]

    assert chosen(1) == chosen(1) != chosen(2)
    assert [one[0] for one in chosen(1)] == list(range(7, 507))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("memory", r"private has grown from .* 1000000 are allowed"),
        ("descriptor", r"\d+ descriptors have changed"),
        ("thread", r"\d+ threads have changed"),
        ("change", "what came back is not what was due"),
        ("lose", "what came back is not what was due|FIN after a loss|nothing within"),
        ("reset", "Connection reset by peer"),
        ("reset one who stays", "those who stay were hurt: {.*'reset': 1"),
    ],
)
def test_server_that_does_not_hold_is_found(
    monkeypatch: pytest.MonkeyPatch, fault: str, says: str
) -> None:
    monkeypatch.setattr(life, "SETTLE", 0.2)
    monkeypatch.setattr(cycling, "PATIENCE", 5.0)
    monkeypatch.setattr(residents, "PATIENCE", 5.0)
    part = Part("spoiled", {"fault": fault}, Wire(), 1, 1, CYCLES, 1000)
    with pytest.raises(AssertionError, match=says) as caught:
        Life(part, SEED, time.monotonic() + 50, serve=Spoiled).live()
    assert caught.value.__notes__[-1].startswith(f"seed {SEED}, spoiled, round ")


def complaints(**changed: object) -> list[str]:
    """Return what is said about books that are right but for some counters.

    One peer has ended in order, with 100 bytes both ways; one has left after it had sent 70; those
    who stay have sent 1000.
    """
    by_name = {kind.play.__name__: kind for kind in KINDS}
    account = Account()
    for name, sent, received in (("half_close", 100, 100), ("leave", 70, 0)):
        cycle = Cycle(1, by_name[name], bytes(100), [100], Wire())
        cycle.sent, cycle.received = sent, received
        account.add(cycle)
    staying = Residents("127.0.0.1:9", Wire(), SEED)
    staying.bytes_sent = staying.bytes_received = 1000
    right: dict[str, object] = dict.fromkeys(WorkerStats.__slots__, 0)
    right |= dict.fromkeys(("queue_wait_ms", "busy_ns", "callback_ns", "running_ns"), 0)
    right |= {"queue_waits": [0] * len(QUEUE_WAIT_BOUNDS)}
    right |= {"connections_placed": CONNECTIONS, "connections_accepted": CONNECTIONS + 2}
    right |= {"connections_closed": 2, "ended_by_peer": 1, "ended_by_error": 1}
    right |= {"errnos": {errno.ECONNRESET: 1}, "bytes_in": 1100, "bytes_out": 1150}
    return account.complaints(Stats([right | changed]), staying, CONNECTIONS)


def test_books_have_room_for_what_nobody_can_know() -> None:
    assert complaints() == []
    assert complaints(bytes_in=1170, bytes_out=1100, bytes_dropped=70) == []
    assert complaints(ended_by_peer=2, ended_by_error=0, errnos={}) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"connections_accepted": CONNECTIONS + 3}, "connections_accepted"),
        ({"connections_closed": 1}, "connections_closed"),
        ({"ended_by_peer": 2}, "2 connections were closed"),
        ({"ended_by_peer": 0, "ended_by_idle_timeout": 1}, "ended_by_idle_timeout is 1, not 0"),
        ({"bytes_in": 1099}, "bytes_in is 1099, not 1100 to 1170"),
        ({"bytes_in": 1171}, "bytes_in is 1171, not 1100 to 1170"),
        ({"bytes_out": 1099}, "bytes_out is 1099, not 1100 to 1170"),
        ({"bytes_dropped": 71}, "bytes_dropped"),
        ({"bytes_pending": 1}, "bytes_pending"),
        ({"accept_errors": 1}, "accept_errors"),
        ({"shed_no_descriptors": 1}, "shed_no_descriptors"),
        ({"linger_timeouts": 1}, "linger_timeouts"),
        ({"errnos": {errno.EBADF: 1}}, "EBADF"),
        ({"errnos": {errno.EPIPE: 2}}, "'EPIPE': 2"),
    ],
    ids=str,
)
def test_books_that_say_something_else_are_found(changed: dict[str, object], says: str) -> None:
    assert any(says in one for one in complaints(**changed))
