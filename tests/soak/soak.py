"""A million peers that come and go beside some that stay, as a table: `make soak`.

    make soak ARGS='--cycles 100000 --messages 10000000'    a tenth of it

Lives here: the command and what it prints. Does not live here: what is done and what must hold
(life.py, cycles.py, residents.py, books.py, holdings.py).

Two servers, one after the other, go through as many: raw echo by two workers, and lines with a
prefix. Every choice follows from the seed; which of the peers meet does not.
"""

from __future__ import annotations

import argparse
import sys
import time

from cycles import KINDS, Wire
from life import Life, Part, Sample

CYCLES = 10_000
"""In a round, about."""
WARM_UP = 0.05
"""Rounds of the warm-up, of all rounds."""
PREFIX = "you said: "
ROWS = 10
"""Samples shown, of all that were taken."""
QUIET = 10.0
"""Seconds between two lines about the progress."""


def parts(cycles: int, messages: int) -> list[Part]:
    """Return what is lived through: so many cycles and messages by each server."""
    rounds = max(round(cycles / CYCLES), 1)
    numbers = {
        "rounds": rounds,
        "warm_up": max(round(rounds * WARM_UP), 1),
        "cycles": -(-cycles // rounds),
        "messages": -(-messages // rounds),
    }
    lines = {"frame": "line", "prefix": PREFIX}
    return [
        Part("raw echo, 2 workers", {"threads": 2}, Wire(), **numbers),
        Part("lines with a prefix", lines, Wire("line", PREFIX.encode()), **numbers),
    ]


class Progress:
    """Says once in a while, on standard error, how far a life is."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    def __call__(self, life: Life) -> None:
        """Say it, unless it was said a moment ago."""
        now, last = time.monotonic(), life.samples[-1]
        if now - self._said < QUIET:
            return
        self._said = now
        print(
            f"{now - self._began:4.0f} s  {life.part.name}: {last.when} of {life.part.rounds},"
            f" {last.cycles} cycles, {last.messages} messages, {last.held.private} bytes",
            file=sys.stderr,
            flush=True,
        )


def show(life: Life) -> None:
    """Print what came and went, and what the server held meanwhile."""
    row = "  {:<38} {:>9} {:>14} {:>14} {:>10}"
    print(
        row.format("cycles, warm-up included", "number", "bytes sent", "bytes back", "bytes lost")
    )
    for kind in KINDS:
        done = life.account.by_kind[kind.name]
        lost = done.due - done.received if kind.is_clean else "-"
        print(row.format(kind.name, done.cycles, done.sent, done.received, lost))

    row = "  {:<12} {:>9} {:>11} {:>10} {:>10} {:>11} {:>8}"
    print(
        row.format("at rest", *Sample._fields[1:3], "resident", "private", "descriptors", "threads")
    )
    step = max(len(life.samples) // ROWS, 1)
    for when, cycles, messages, held in [
        *life.samples[:2],
        *life.samples[1 + step : -1 : step],
        *life.samples[2:][-1:],
    ]:
        print(row.format(when, cycles, messages, *held.figures()))
    if life.busy:
        most = map(max, zip(*(held.figures() for held in life.busy), strict=True))
        print(row.format("busy, most", "", "", *most))


def summary(life: Life) -> str:
    """Return what a life that held has shown."""
    warm, last, stats = life.samples[1], life.samples[-1], life.stats
    assert stats is not None
    return (
        f"ok after {last.cycles - warm.cycles} cycles and {last.messages - warm.messages} messages"
        f" behind the warm-up; resident {last.held.rss - warm.held.rss:+}, private"
        f" {last.held.private - warm.held.private:+} bytes; of {stats.connections_accepted}"
        f" connections {stats.ended_by_peer} ended by FIN, {stats.ended_by_error} by error;"
        f" {stats.short_writes} short writes"
    )


def main() -> int:
    """Let every server live its life; the exit status is 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cycles", type=int, default=1_000_000, help="that come and go, for each server"
    )
    parser.add_argument(
        "--messages", type=int, default=100_000_000, help="of those who stay, as well"
    )
    parser.add_argument("--seconds", type=float, default=900, help="by which all must be done")
    parser.add_argument("--seed", type=int, default=1, help="decides every choice")
    options = parser.parse_args()
    if options.cycles < 1 or options.messages < 1:
        parser.error("at least one cycle and one message are needed")
    began, held = time.monotonic(), True
    progress = Progress()
    print(f"seed {options.seed}", flush=True)
    for part in parts(options.cycles, options.messages):
        since = time.monotonic()
        life = Life(part, options.seed, began + options.seconds, progress)
        try:
            life.live()
            result = summary(life)
        except Exception as error:
            notes = " | ".join(getattr(error, "__notes__", []))
            result, held = f"FAILED: {type(error).__name__}: {error} ({notes})", False
        print(f"\n{part.name}, {time.monotonic() - since:.0f} s: {result}", flush=True)
        show(life)
    print(f"\n{'all held' if held else 'NOT all held'}, {time.monotonic() - began:.0f} s")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
