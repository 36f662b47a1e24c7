"""`make scale` holds many connections, finds what is wrong with them, and leaves nothing behind.

The command runs as it is, with few connections. What it is there to find, it finds: a wrong byte, a
lost connection, a server that ends, a process that stays. However it ends, all that it has started
ends with it.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stage
from namespaces import can_unshare
from peers import wait_until
from plan import Plan
from shimmed import compiler, has_compiler

TESTS = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-W", "error", str(TESTS / "scale" / "scale.py")]
DEADLINE = 30.0
NOTHING = "left behind    no process, no network namespace"
LONG = ["--one=20", "--connections=0", "--idle=60"]
"""It rests once it has said what a connection costs."""

needs_namespaces = pytest.mark.skipif(
    not can_unshare("--net"), reason="needs namespaces of the network"
)


class Running:
    """The command while it runs. What it starts is known by a mark in the environment."""

    def __init__(self, *options: str, **environment: str) -> None:
        self.mark = f"MARK={secrets.token_hex(8)}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [*COMMAND, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": f"{TESTS}:{TESTS.parent}",  # of this tree, wherever it is
                name: value,
                **environment,
            },
        )

    def started(self) -> list[int]:
        """Return the ids of the processes that it has started and that live."""
        found = []
        for pid in stage.processes():
            try:
                if self.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
            except OSError:
                pass  # it has ended, or is not ours
        return [pid for pid in found if pid != self.process.pid]

    def servers(self) -> list[int]:
        """Return the ids of those that serve."""
        return [
            pid
            for pid in self.started()
            if b"served.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    def wait_for_rest(self) -> set[str]:
        """Return when its connections are held; the namespaces that it has made."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().startswith("kernel memory"):
                break
        else:
            raise AssertionError("it has ended")
        own = stage.namespace_of(os.getpid())
        return {stage.namespace_of(pid) for pid in self.started()} - {own, ""}

    def end(self) -> tuple[int, str]:
        """Wait for its end; return the exit status and the rest of what it said."""
        said = self.process.communicate(timeout=DEADLINE)[0]
        return self.process.returncode, said

    def close(self) -> None:
        """End it, and what should have ended with it."""
        self.process.kill()
        self.process.communicate()
        for pid in self.started():
            os.kill(pid, signal.SIGKILL)


Run = Callable[..., Running]


@pytest.fixture
def run() -> Iterator[Run]:
    """Start the command; at the end everything that it has started must have ended."""
    commands: list[Running] = []

    def start(*options: str, **environment: str) -> Running:
        commands.append(Running(*options, **environment))
        return commands[-1]

    yield start
    try:
        assert [one.started() for one in commands] == [[] for _ in commands]
    finally:
        for one in commands:
            one.close()


@needs_namespaces
def test_every_connection_is_held_and_echoed(run: Run) -> None:
    status, said = run("--one=0", "--connections=400", "--each=200", "--idle=0.1").end()
    assert status == 0, said
    assert said.startswith("connections to 2 processes: 400\n")
    assert "connected      400 in " in said
    assert "echoed         400 of 400 right, " in said
    assert "closed         400 accepted = 400 closed, " in said
    assert said.count(NOTHING) == 1
    assert "\nall held, " in said


def test_one_process_is_tried_where_namespaces_are_not_allowed(run: Run) -> None:
    status, said = run("--one=20", "--connections=400", "--idle=0", PATH="/nowhere").end()
    assert status == 0, said
    assert said.startswith("many processes: left out, because this process may not make network")
    assert "echoed         20 of 20 right, " in said
    assert said.count(NOTHING) == 1


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the libraries to load first: one of them makes servers lie."""
    if not has_compiler():
        pytest.skip("the liar needs a C compiler")
    library = tmp_path_factory.mktemp("liar") / "liar.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    source = str(TESTS / "scale" / "liar.c")
    subprocess.run([*compiler(), *flags, "-o", str(library), source, "-ldl"], check=True)
    return f"{os.environ.get('LD_PRELOAD', '')}:{library}".strip(":")


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ("byte", "99 of 100 echoed right, 100 are open afterwards: connection "),
        ("connection", "it holds 199 connections, not 200 (server 1 of 1)"),
    ],
)
def test_one_lie_is_found(run: Run, liar: str, lie: str, says: str) -> None:
    """The two processes that connect have a hundred connections each: only the server lies."""
    status, said = run("--one=200", "--connections=0", "--idle=0", LD_PRELOAD=liar, LIAR=lie).end()
    assert f"FAILED         {says}" in said
    assert NOTHING in said
    assert "\nNOT all held, " in said
    assert status == 1


def test_server_that_ends_is_found(run: Run) -> None:
    command = run(*LONG)
    command.wait_for_rest()
    (server,) = command.servers()
    os.kill(server, signal.SIGKILL)
    status, said = command.end()
    # It may have been asked for something just then.
    ends = rf"(processes have ended: \[{server}\]|process has ended: .*\(server 1 of 1\))"
    assert re.search(rf"^  FAILED  .* {ends}$", said, re.M), said
    assert NOTHING in said
    assert status == 1


def test_deadline_ends_it(run: Run) -> None:
    status, said = run(*LONG, "--deadline=0.5").end()
    assert "FAILED         not done within 0.5 s" in said
    assert NOTHING in said
    assert status == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_signal_ends_it_and_all_that_it_has_started(run: Run, number: signal.Signals) -> None:
    """Its processes end, and so does the namespace, even where nobody is left to see to it."""
    command = run(*LONG)
    made = command.wait_for_rest()
    assert len(made) == can_unshare("--net")
    assert len(command.started()) == 4
    command.process.send_signal(number)
    status, said = command.end()
    if number == signal.SIGKILL:
        assert status == -number
        wait_until(lambda: not command.started())
        # A process that ends has lost its environment before it leaves its namespace.
        wait_until(lambda: not made & {stage.namespace_of(pid) for pid in stage.processes()})
    else:
        assert status == 130
        assert NOTHING in said
        assert not made & {stage.namespace_of(pid) for pid in stage.processes()}


LEAVER = """
import subprocess
subprocess.Popen(["sleep", "60"])
"""


def test_process_that_is_left_behind_is_told_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "leaver.py"
    program.write_text(LEAVER)
    monkeypatch.setattr(stage, "PROGRAM", program)
    is_apart = can_unshare("--net")
    one = stage.Stage(Plan(1, 1, 1, 0.0, is_apart))
    assert one.wait(DEADLINE) == 0
    left = one.end()
    assert left.startswith("process ")
    assert "(sleep)" in left
    assert ("namespace net:[" in left) == is_apart
    assert one.end() == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--one=2_000_000_000"], "--one 2,000,000,000 is more than the "),
        (["--one=0", "--connections=1_000_000_000"], "1,000,000,000 connections over "),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    run: Run, options: list[str], says: str
) -> None:
    if "--one=0" in options and not can_unshare("--net"):
        pytest.skip("needs namespaces of the network")
    status, said = run(*options).end()
    assert said.startswith(f"make scale: {says}")
    assert said.count("\n") == 1
    assert options[-1].partition("=")[0] in said
    assert status == 1
