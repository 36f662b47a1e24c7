"""Ctrl-C at any moment, kills at random, servers started and ended many times: nothing is left.

A part of what `make endings` tries. What it is to find, it finds: that is tested as well.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from conftest import open_descriptors
from endings import Table, told
from interrupted import COMMANDS, Account, interrupt_command, interrupt_scenes
from kills import Killed, interrupt_twice, kill_at_random, kill_while_it_starts
from moments import Interruption
from player import HANDLERS, Belongings, changed_handlers
from scenes import SCENES
from starts import at_once, one_after_the_other

# A prime, so that it does not fall into step with a loop.
STEP = 29
COMMAND_STEPS = {
    "fastecho serve": 331,
    "fastecho connect": 29,
    "fastecho connect, at a terminal": 37,
    "fastecho ping": 31,
    "fastecho bench": 331,
    "fastecho check": 127,
}
ROUNDS = 5


@cache
def every_account() -> dict[str, Account]:
    """Interrupt every scene, once for all tests."""
    return interrupt_scenes(list(SCENES), 1, STEP)


@pytest.fixture
def accounts() -> dict[str, Account]:
    """Return what became of every scene. Of this scope, since leaks_of_python has to come first."""
    return every_account()


@pytest.mark.parametrize("name", SCENES)
def test_ctrl_c_leaves_nothing_wherever_it_comes(name: str, accounts: dict[str, Account]) -> None:
    account = accounts[name]
    assert account.wrong == []
    assert account.tried > 0
    assert account.raised > 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_answers_ctrl_c_without_a_traceback_wherever_it_comes(name: str) -> None:
    account = interrupt_command(name, 7, COMMAND_STEPS[name])
    assert account.wrong == []
    assert account.tried > 4
    assert account.raised > 0


@pytest.mark.parametrize("kill", [kill_at_random, kill_while_it_starts, interrupt_twice])
def test_signals_at_random_leave_nothing_in_the_way(
    kill: Callable[[int, int, Path], Killed], tmp_path: Path
) -> None:
    killed = kill(ROUNDS, 1, tmp_path)
    assert killed.endings.total() == killed.rounds == ROUNDS
    assert list(tmp_path.iterdir()) == []


def test_many_servers_one_after_the_other_leave_nothing() -> None:
    one_after_the_other(100)


def test_a_hundred_threads_may_start_and_end_servers_at_once() -> None:
    at_once(100, 1)


# --- the judgement -----------------------------------------------------------------------------


@pytest.fixture
def handlers() -> Iterator[None]:
    """Have the handlers that Python starts with, also where signals were ignored; put all back."""
    before = {number: signal.getsignal(number) for number in HANDLERS}
    changed_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted(act: Callable[[], object], number: int) -> str:
    """Interrupt a function at a moment; return the place."""
    with suppress(KeyboardInterrupt), Interruption(number) as interruption:
        act()
    return interruption.place


def places(act: Callable[[], object]) -> list[str]:
    """Return where a function can be interrupted, moment by moment, without file and line."""
    found: list[str] = []
    while place := interrupted(act, len(found) + 1):
        found.append(place.rpartition(", ")[2])
    return found


def sample() -> None:
    """Have moments of each kind: a call of C, a call of Python, a loop."""
    abs(-1)
    for _ in "ab":
        pass
    called()


def called() -> None:
    """Have one moment: its entry."""


def test_moments_are_where_cpython_looks_for_signals(handlers: None) -> None:
    """On entering, behind the call of C, where the loop goes back twice; not behind called()."""
    found = places(sample)
    assert found == ["entry of sample", *["sample"] * 3, "entry of called"]
    assert places(sample) == found


def lose() -> None:
    """Have a moment between a descriptor and its name."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)


def test_a_descriptor_that_is_lost_at_one_moment_is_found(handlers: None, tmp_path: Path) -> None:
    before, known, lost = Belongings(tmp_path / "s"), set(open_descriptors()), 0
    number = 1
    while interrupted(lose, number):
        for descriptor in set(open_descriptors()) - known:
            assert before.left() == "descriptors ['/dev/null']"
            os.close(descriptor)
            lost += 1
        assert before.left() == ""
        number += 1
    assert lost == 1


def test_a_file_and_a_handler_that_are_left_are_found(handlers: None, tmp_path: Path) -> None:
    before = Belongings(tmp_path / "s")
    (tmp_path / "s").touch()
    assert before.left() == "file True"
    signal.signal(signal.SIGHUP, lambda *_: None)
    assert changed_handlers() == "handlers of SIGHUP"
    assert changed_handlers() == ""


def test_a_row_that_failed_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    table.add("held", lambda: told(Account(3, 3, 0, [])))
    assert table.held
    table.add("did not hold", lambda: told(Account(3, 3, 0, ["a place: a thread is left"])))
    assert not table.held
    for nothing in (Table(), Table()):
        nothing.add("nothing", lambda: (0, "ok"))
        assert not nothing.held
    assert "a place: a thread is left" in capsys.readouterr().out
