"""SIGINT at many moments: of each scene, and of the commands.

Lives here: starting what is interrupted, and what must hold of a command. Does not live here: the
scenes (scenes.py) and what must hold of them (player.py), where CPython looks for signals
(moments.py), signals at random (kills.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from commands import DEADLINE, environment, read_ready
from peers import connect, exchange, is_refused, read_to_eof
from programs import ROOT
from terminal import Terminal

import fastecho

HERE = Path(__file__).resolve().parent
PATHS = f"{ROOT}:{HERE.parent}:{HERE}"
SCENE_DEADLINE = 600.0
"""Seconds for all moments of a scene."""
PROMPT = "Enter a message:"
DONE, INTERRUPTED, AT_ONCE = 0, 130, 1
"""Exit codes: it ended in order, it had nothing to end, a second signal stopped it at once."""


class Account(NamedTuple):
    """What was tried, and what was found."""

    tried: int
    """Moments."""
    raised: int
    """Those at which the interruption came through to whoever ran it (a command: 130)."""
    excused: int
    """Those at which something was left, and Python leaves no way to do better."""
    wrong: list[str]
    """What did not hold, each with its place."""


def interrupt_scenes(names: Sequence[str], first: int = 1, step: int = 1) -> dict[str, Account]:
    """Interrupt scenes at every step-th moment, one scene after the other in one process."""
    played = subprocess.run(
        [sys.executable, str(HERE / "player.py"), str(first), str(step), *names],
        capture_output=True,
        text=True,
        timeout=SCENE_DEADLINE,
        env={**os.environ, "PYTHONPATH": PATHS},
    )
    found: dict[str, Account] = {}
    wrong: list[str] = []
    for line in played.stdout.splitlines():
        one = json.loads(line)
        if "scene" in one:
            found[one["scene"]] = Account(one["tried"], one["raised"], one["excused"], wrong)
            wrong = []
        else:
            wrong.append(f"{one['place']} ({one['number']}): {one['wrong']}")
    if played.returncode != 0 or len(found) < len(names):
        why = f"status {played.returncode}: {played.stderr[-3000:]}"
        unseen = [name for name in names if name not in found] or names
        found |= {name: Account(0, 0, 0, [*wrong, why]) for name in unseen}
    return found


# --- commands --------------------------------------------------------------------------------


class Command:
    """A command that is interrupted, until the end of the `with` block."""

    def __init__(self, number: int, place: Place, *arguments: str, ready: int = -1) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "commanded.py"), str(number), str(place.file), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(PYTHONPATH=PATHS),
            pass_fds=() if ready < 0 else (ready,),
            bufsize=0,
        )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self._errors.close()

    def errors(self) -> str:
        """Return what it has written to stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def end(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(DEADLINE)


class Place:
    """Where a command was interrupted, as it tells before that, in a file."""

    def __init__(self, folder: str) -> None:
        self.file = Path(folder) / "place"

    def __str__(self) -> str:
        return self.file.read_text() if self.is_known() else ""

    def is_known(self) -> bool:
        """Tell whether it was interrupted."""
        return self.file.exists()


def check(said: str, code: int, allowed: set[int]) -> None:
    """Hold what is true of every command that was interrupted."""
    assert "Traceback" not in said and "KeyboardInterrupt" not in said, said
    assert code in allowed, f"exit code {code}: {said}"


def interrupt_serve(number: int) -> tuple[str, int]:
    """Interrupt `fastecho serve`; SIGTERM ends it if it does not end by that.

    Returns the place ("" if there is no such moment) and the exit code.
    """
    with tempfile.TemporaryDirectory() as folder:
        place, path = Place(folder), f"{folder}/s"
        reader, writer = os.pipe()
        arguments = [f"--bind=unix:{path}", "--bind=127.0.0.1:0", "--drain-idle=0", "--access-log"]
        with Command(
            number, place, "serve", f"--ready-fd={writer}", *arguments, ready=writer
        ) as command:
            os.close(writer)
            addresses = read_ready(reader)
            os.close(reader)
            allowed = {DONE, INTERRUPTED}
            if addresses and not place.is_known():
                allowed = {DONE, AT_ONCE, INTERRUPTED}
                try:
                    with connect(addresses[0]) as peer:
                        exchange(peer, b"x")
                        peer.shutdown(socket.SHUT_WR)
                        read_to_eof(peer)
                except (OSError, AssertionError):
                    assert place.is_known()
                command.process.send_signal(signal.SIGTERM)
            code = command.end()
            check(command.errors(), code, allowed)
            assert not os.path.exists(path), "the socket's file is left"
            assert all(is_refused(one) for one in addresses[1:]), "somebody still listens"
            return str(place), code


def interrupt_connect(number: int) -> tuple[str, int]:
    """Interrupt `fastecho connect` between pipes: it is given a line, and the end of its input."""
    with (
        tempfile.TemporaryDirectory() as folder,
        fastecho.Server(drain_idle=0.0) as server,
        Command(number, place := Place(folder), "connect", server.address) as command,
    ):
        assert command.process.stdin is not None and command.process.stdout is not None
        try:
            command.process.stdin.write(b"hello\n")
            assert command.process.stdout.read(6) == b"hello\n" or place.is_known()
            command.process.stdin.close()
        except BrokenPipeError:
            assert place.is_known()
        code = command.end()
        check(command.errors(), code, {DONE, INTERRUPTED})
        return str(place), code


def interrupt_ping(number: int) -> tuple[str, int]:
    """Interrupt `fastecho ping`: Ctrl-C between probes, or in one, gives the summary."""
    with (
        tempfile.TemporaryDirectory() as folder,
        fastecho.Server(drain_idle=0.0) as server,
        Command(
            number, place := Place(folder), "ping", server.address, "-c3", "-i0.001", "--json"
        ) as command,
    ):
        code = command.end()
        check(said := command.errors(), code, {DONE, INTERRUPTED})
        assert code != DONE or "0% lost" in said, "there is no summary"
        return str(place), code


def interrupt_bench(number: int) -> tuple[str, int]:
    """Interrupt `fastecho bench`: Ctrl-C ends it early, and what there is is shown."""
    words = ["-c2", "-n200", "--interval=10ms", "--jsonl", "--fail-if=failures>0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        fastecho.Server(drain_idle=0.0) as server,
        Command(number, place := Place(folder), "bench", server.address, *words) as command,
    ):
        code = command.end()
        check(said := command.errors(), code, {DONE, INTERRUPTED})
        assert code != DONE or "failures   none" in said, "there is no summary"
        return str(place), code


def interrupt_check(number: int) -> tuple[str, int]:
    """Interrupt `fastecho check`: Ctrl-C at any moment leaves what was found so far."""
    words = ["--quick", "--only=tiny-writes,mss", "--seed=1"]
    with (
        tempfile.TemporaryDirectory() as folder,
        fastecho.Server(drain_idle=0.0) as server,
        Command(number, place := Place(folder), "check", server.address, *words) as command,
    ):
        code = command.end()
        check(command.errors(), code, {DONE, INTERRUPTED})
        return str(place), code


BEFORE = """
import warnings
from commanded import interrupt
warnings.simplefilter("ignore", ResourceWarning)  # of what an interruption drops
interrupt({number}, {file!r})
"""


def interrupt_terminal(number: int) -> tuple[str, int]:
    """Interrupt `fastecho connect` at a terminal: a line is typed, and `q`."""
    with tempfile.TemporaryDirectory() as folder, fastecho.Server(drain_idle=0.0) as server:
        place = Place(folder)
        with Terminal(
            ["connect", server.address],
            variables={"PYTHONPATH": PATHS},
            before=BEFORE.format(number=number, file=str(place.file)),
        ) as terminal:
            for keys in ("hello\r", "q\r"):
                terminal.wait_for(
                    lambda screen: screen.rows()[-1] == PROMPT or place.is_known(), "prompt"
                )
                with suppress(OSError):  # it is gone
                    terminal.type(keys)
            code = terminal.wait_for_exit()
            check(terminal.screen.text(), code, {DONE, INTERRUPTED})
            assert terminal.is_cooked(), "the terminal is left as readline sets it"
            return str(place), code


COMMANDS: dict[str, Callable[[int], tuple[str, int]]] = {
    "fastecho serve": interrupt_serve,
    "fastecho connect": interrupt_connect,
    "fastecho connect, at a terminal": interrupt_terminal,
    "fastecho ping": interrupt_ping,
    "fastecho bench": interrupt_bench,
    "fastecho check": interrupt_check,
}
FIRST = 2
"""The one before is the entry of main(): nothing of ours has begun, and Python tells its own."""


def interrupt_command(name: str, first: int = FIRST, step: int = 1) -> Account:
    """Interrupt a command at every step-th moment."""
    tried, raised, wrong, number = 0, 0, [], first
    while True:
        try:
            place, code = COMMANDS[name](number)
        except Exception as error:
            wrong.append(f"moment {number}: {type(error).__name__}: {error}")
            place, code = "somewhere", 0
        if not place:
            return Account(tried, raised, 0, wrong)
        tried += 1
        raised += code == INTERRUPTED
        number += step
