"""Signals to `fastecho serve` at random moments, under load; after each it starts again.

Lives here: the load, the signals, and what must hold after each. Does not live here: signals at
chosen moments (interrupted.py), how many rounds (endings.py).
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from commands import COMMAND, DEADLINE, Serving, environment, serving
from peers import connect, exchange, is_refused

import fastecho

PEERS = 50
"""Connections at the moment of the signal."""
BUSY = 30
"""Those of them that send all the time."""
DELAY = 0.05
"""Seconds at the most from the last connection to the signal."""
AGAIN = 1.0
"""Seconds within which it listens again, from the start of the process on."""
STARTING = 0.2
"""Seconds at the most from the start of the process to a signal that does not wait for it."""
LEAVING = 0.015
"""Seconds at the most between two of Ctrl-C: so long a command may need to its end."""
OURS = re.compile(r'cli/__init__\.py", line \d+, in (?!<module>)')
"""A traceback in which our main() has begun."""
PYTHON_FAILED = 1
"""Exit code of a Python that is interrupted while it makes itself ready."""
DONE, FAILED, INTERRUPTED = 0, 1, 130

ENDINGS: dict[str, tuple[list[int], set[int]]] = {
    "SIGKILL": ([signal.SIGKILL], {-signal.SIGKILL}),
    "SIGTERM": ([signal.SIGTERM], {DONE, FAILED}),
    "SIGINT": ([signal.SIGINT], {DONE, FAILED}),
    "SIGHUP, SIGTERM": ([signal.SIGHUP, signal.SIGTERM], {DONE, FAILED}),
    "SIGINT twice": ([signal.SIGINT, signal.SIGINT], {DONE, FAILED}),
}
"""Signals and the exit codes that may follow: 1 if a connection had to be reset."""


class Killed(NamedTuple):
    """What the rounds have shown."""

    rounds: int
    endings: Counter[str]
    slowest: float
    """Seconds from the start of a process until it listened."""


@contextmanager
def places(folder: Path) -> Iterator[list[str]]:
    """Reserve a Unix socket's path and a TCP port that nobody else is given."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        yield [f"unix:{folder / 's'}", f"127.0.0.1:{taken.getsockname()[1]}"]


def crowd(server: Serving, stack: ExitStack, over: threading.Event) -> None:
    """Connect to both places; from then on some send and read until `over` or their end."""
    peers = [stack.enter_context(connect(server.addresses[n % 2])) for n in range(PEERS)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"

    def talk(some: list[socket.socket]) -> None:
        while some and not over.is_set():
            for peer in list(some):
                try:
                    peer.sendall(b"y" * 500)
                    if not peer.recv(4096):
                        some.remove(peer)
                except OSError:
                    some.remove(peer)

    for number in range(3):
        thread = threading.Thread(target=talk, args=(peers[number:BUSY:3],))
        thread.start()
        stack.callback(thread.join)
    stack.callback(over.set)


def kill_at_random(rounds: int, seed: int, folder: Path) -> Killed:
    """End it so often, each time in the same places; fail if anything does not hold."""
    chance, endings, slowest = random.Random(seed), Counter[str](), 0.0
    file = folder / "s"
    with places(folder) as binds:
        for number in range(rounds):
            how = chance.choice(list(ENDINGS))
            signals, allowed = ENDINGS[how]
            begun = time.monotonic()
            with (
                ExitStack() as stack,
                serving(
                    *(f"--bind={bind}" for bind in binds),
                    "--drain-idle=0.01", "--graceful-timeout=0.3", "--access-log",
                ) as server,
            ):  # fmt: skip
                slowest = max(slowest, time.monotonic() - begun)
                assert slowest < AGAIN, f"it listened after {slowest:.2f} s only (round {number})"
                stack.callback(drop, server)
                crowd(server, stack, threading.Event())
                time.sleep(chance.uniform(0, DELAY))
                code, said = server.end(*signals)
            text = "\n".join(said)
            assert code in allowed, f"{how}: exit code {code} (round {number}): {text}"
            assert "Traceback" not in text, text
            assert file.exists() == (how == "SIGKILL"), f"{how}: the socket's file"
            assert is_refused(binds[1]), f"{how}: somebody still listens"
            endings[how] += 1
        file.unlink(missing_ok=True)
    return Killed(rounds, endings, slowest)


def drop(server: Serving) -> None:
    """End a server that a failure has left."""
    if server.process.poll() is None:
        server.process.kill()


def errors_of(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for the end of a process; return what it wrote to stderr. It is killed if it hangs."""
    try:
        return process.communicate(timeout=DEADLINE)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        errors = process.communicate()[1].decode(errors="replace")
        raise AssertionError(f"it does not end: {errors}") from None


def kill_while_it_starts(rounds: int, seed: int, folder: Path) -> Killed:
    """SIGINT or SIGTERM at any moment from the start of the process on.

    Until its main() has begun Python itself answers: SIGTERM ends the process, SIGINT does with a
    traceback in which nothing of ours has begun.
    """
    chance, endings = random.Random(seed), Counter[str]()
    with places(folder) as binds:
        command = [*COMMAND, "serve", *(f"--bind={bind}" for bind in binds), "--drain-idle=0"]
        for number in range(rounds):
            chosen = chance.choice([signal.SIGINT, signal.SIGTERM])
            with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as process:
                time.sleep(chance.uniform(0, STARTING))
                process.send_signal(chosen)
                errors = errors_of(process)
            text, code = errors.decode(), process.returncode
            early = code in {-chosen, PYTHON_FAILED} and not OURS.search(text)
            assert early or code in {DONE, INTERRUPTED}, f"exit code {code} ({number}): {text}"
            assert early or "Traceback" not in text, text
            assert os.listdir(folder) == [], "the socket's file is left"
            endings[f"{chosen.name}, {'before main()' if early else f'exit code {code}'}"] += 1
            with contextlib.suppress(ConnectionResetError):
                assert is_refused(binds[1]), "somebody still listens"
    return Killed(rounds, endings, 0.0)


def interrupt_twice(rounds: int, seed: int, folder: Path) -> Killed:
    """Ctrl-C to `fastecho connect`, and again while it goes: by 130, or by the signal itself."""
    chance, endings = random.Random(seed), Counter[str]()
    with fastecho.Server(f"unix:{folder / 's'}", drain_idle=0.0) as server:
        for number in range(rounds):
            with subprocess.Popen(
                [*COMMAND, "connect", server.address],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                bufsize=0,
            ) as process:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(b"x")
                assert process.stdout.read(1) == b"x"
                process.send_signal(signal.SIGINT)
                time.sleep(chance.uniform(0, LEAVING))
                process.send_signal(signal.SIGINT)
                errors = errors_of(process)
            code = process.returncode
            assert errors == b"", errors.decode()
            assert code in {INTERRUPTED, -signal.SIGINT}, f"exit code {code} ({number})"
            endings[f"exit code {code}" if code > 0 else "by the signal"] += 1
    return Killed(rounds, endings, 0.0)
