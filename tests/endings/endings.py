"""Every way to end, again and again, as a table: `make endings`.

    make endings ARGS='--step 10 --rounds 20 --drains 15 --starts 100'    a tenth of it

Lives here: the command and what it prints. Does not live here: what is tried and what must hold
(interrupted.py, kills.py, starts.py, and storms.py of the tests).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from interrupted import COMMANDS, FIRST, Account, interrupt_command, interrupt_scenes
from kills import Killed, interrupt_twice, kill_at_random, kill_while_it_starts
from scenes import SCENES
from starts import at_once, one_after_the_other
from storms import STORMS, drain_in_a_storm

ROW = "{:<48} {:>6} {:>6}  {}"
THREADS = 100
SEED = 1
SHOWN = 5
"""Failures of one row that are printed in full."""
KILLINGS = {
    "`fastecho serve` under load, signals at random": kill_at_random,
    "`fastecho serve` while it starts, the same": kill_while_it_starts,
    "`fastecho connect`, SIGINT twice": interrupt_twice,
}


class Table:
    """Rows that are printed as they come, and whether all held."""

    def __init__(self) -> None:
        self.held = True
        print(ROW.format("what", "tried", "s", "result"), flush=True)

    def add(self, name: str, work: Callable[..., tuple[int, str]], *arguments: object) -> None:
        """Do some work and print its row."""
        began, tried = time.monotonic(), 0
        try:
            tried, result = work(*arguments)
        except Exception as error:
            result = f"FAILED: {type(error).__name__}: {error}"
        if not tried and not result.startswith("FAILED"):
            result = "FAILED: nothing was tried"
        self.held = self.held and not result.startswith("FAILED")
        print(ROW.format(name, tried, f"{time.monotonic() - began:.0f}", result), flush=True)


def told(account: Account) -> tuple[int, str]:
    """Return how often an interruption was tried, and how that went."""
    if account.wrong:
        lines = "\n    ".join(account.wrong[:SHOWN])
        return account.tried, f"FAILED: at {len(account.wrong)} moments\n    {lines}"
    excused = f", {account.excused} excused (scenes.py)" if account.excused else ""
    return account.tried, f"ok: came through {account.raised}{excused}"


def scene(name: str, step: int) -> tuple[int, str]:
    """Interrupt a scene."""
    return told(interrupt_scenes([name], 1, step)[name])


def command(name: str, step: int) -> tuple[int, str]:
    """Interrupt a command."""
    return told(interrupt_command(name, FIRST, step))


def killing(kill: Callable[[int, int, Path], Killed], rounds: int) -> tuple[int, str]:
    """Send signals at random."""
    with tempfile.TemporaryDirectory() as folder:
        killed = kill(rounds, SEED, Path(folder))
    ways = ", ".join(f"{how} {n}" for how, n in sorted(killed.endings.items()))
    slowest = f"; listened within {killed.slowest:.2f} s" if killed.slowest else ""
    return killed.rounds, f"ok: {ways}{slowest}"


def draining(name: str, drains: int) -> tuple[int, str]:
    """Drain in a connect storm."""
    with tempfile.TemporaryDirectory() as folder:
        results = drain_in_a_storm(name, drains, Path(folder))
    counts = {what: results[what] for what in sorted(results)}
    return drains, f"ok: {', '.join(f'{what} {n}' for what, n in counts.items())}"


def starting(count: int) -> tuple[int, str]:
    """Start and end servers, one after the other."""
    return count, f"ok: memory grew by {one_after_the_other(count) / 1024:.0f} KiB"


def starting_at_once(each: int) -> tuple[int, str]:
    """Start and end servers in many threads."""
    at_once(THREADS, each)
    return THREADS * each, "ok: descriptors and threads as before"


def main() -> int:
    """Run it all; the exit status is 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="make endings", description=__doc__.splitlines()[0])
    parser.add_argument("--step", type=int, default=1, help="of the moments of the library, 1: all")
    parser.add_argument(
        "--command-step", type=int, default=3, help="of the moments of the commands (3)"
    )
    parser.add_argument("--rounds", type=int, default=200, help="processes killed, in each way")
    parser.add_argument("--drains", type=int, default=150, help="in a connect storm")
    parser.add_argument("--starts", type=int, default=1000, help="servers, in each way")
    options = parser.parse_args()
    began = time.monotonic()
    table = Table()
    for name in SCENES:
        table.add(f"SIGINT in {name}", scene, name, options.step)
    for name in COMMANDS:
        table.add(f"SIGINT to `{name}`", command, name, options.command_step)
    for name, kill in KILLINGS.items():
        table.add(name, killing, kill, options.rounds)
    for name in STORMS:
        table.add(
            f"drains in a connect storm, {name}", draining, name, -(-options.drains // len(STORMS))
        )
    table.add("servers, one after the other", starting, options.starts)
    table.add(f"servers, in {THREADS} threads", starting_at_once, -(-options.starts // THREADS))
    print(f"{'all held' if table.held else 'NOT all held'}, {time.monotonic() - began:.0f} s")
    return 0 if table.held else 1


if __name__ == "__main__":
    sys.exit(main())
