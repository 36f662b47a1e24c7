"""How often `fastecho check` is wrong: `make alarms`.

    make alarms                               200 runs on honest paths, 20 before each broken box
    make alarms ARGS='--honest 20 --broken 5'

Each run is a process of its own, with a seed of its own, on the quick profile. A run mostly waits,
so some run side by side. A false alarm is a probe that failed where nothing is wrong; a box is
caught if a probe failed that is about what it does. Ends with 1 if there was a false alarm, or a
box was not caught.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from checked import box  # noqa: E402
from commands import COMMAND, environment, serving  # noqa: E402

LONGEST = 60.0
LINE = (sys.executable, "-m", "boxes.line")
BROKEN: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "fin_swallowed": (("fin_swallowed",), {"half-close"}),
    "fin_closes_both": (("fin_closes_both",), {"half-close"}),
    "reorder": (("reorder",), {"order"}),
    "buffers_all": (("buffers_all",), {"slow-reader"}),
    "corrupt": (("corrupt",), {"echo", "order", "in-flight", "slow-reader"}),
    "answers": (("answers",), {"answer"}),
    "resets_at_close": (("resets_at_close",), {"half-close"}),
    "mangles NUL": (("mangles", "--kind=nul"), {"bytes"}),
    "mangles CRLF": (("mangles", "--kind=crlf"), {"bytes"}),
}
"""Name of each broken box: what starts it, and the probes of which one must fail."""
DATAGRAMS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "udp loses 10 %": (("loses",), {"loss"}),
    "udp loses 1 %": (("loses", "--every=100"), {"loss"}),
    "udp doubles": (("doubles",), {"duplicates"}),
    "udp swaps": (("swaps",), {"order"}),
    "udp corrupts": (("corrupts",), {"intact"}),
    "udp truncates": (("truncates",), {"sizes"}),
    "udp drops large ones": (("drops_large", "--size=1450"), {"sizes"}),
    "udp drops empty ones": (("drops_empty",), {"empty"}),
    "udp answers from elsewhere": (("elsewhere",), {"source"}),
    "udp limits the rate": (("limits",), {"rate"}),
    "udp forgets flows": (("forgets",), {"idle"}),
    "udp garbles": (("garbles",), {"bytes"}),
    "udp never answers some ports": (("mutes", "--every=4"), {"flows"}),
}
"""The same over UDP, where nothing but the probe of the fault may fail."""
NARROW = ("--delay-ms=1", "--largest=1400")
LOSSY = ("--delay-ms=20", "--loss=0.01")


class Tally:
    """What some runs have found."""

    def __init__(self) -> None:
        self.runs = self.caught = 0
        self.longest = 0.0
        self.failed: Counter[str] = Counter()
        self.untold: Counter[str] = Counter()

    def add(self, said: str, expected: set[str], took: float) -> None:
        """Count a run by its JSON."""
        verdicts = {one["name"]: one["verdict"] for one in json.loads(said)["probes"]}
        failed = {name for name, verdict in verdicts.items() if verdict == "failed"}
        self.runs += 1
        self.longest = max(self.longest, took)
        self.caught += bool(failed & expected)
        self.failed.update(failed)
        self.untold.update(name for name, one in verdicts.items() if one == "not_testable")

    def told(self) -> str:
        """Return the failures in words."""
        return ", ".join(f"{name} {count}" for name, count in self.failed.most_common()) or "none"


def run_all(
    command: Callable[[int], list[str]], runs: int, at_once: int, expected: set[str]
) -> Tally:
    """Check with the command of each seed; return what was found."""
    tally = Tally()
    with ThreadPoolExecutor(at_once) as pool:
        for said, took in pool.map(lambda seed: run(command(seed)), range(1, runs + 1)):
            tally.add(said, expected, took)
    return tally


def run(command: list[str]) -> tuple[str, float]:
    """Check once; return its JSON and how long it took."""
    began = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LONGEST, check=False,
        env=environment(PYTHONPATH=f"{TESTS / 'network'}{os.pathsep}{TESTS.parent}"),
    )  # fmt: skip
    if not done.stdout:
        raise SystemExit(f"make alarms: no result: {done.stderr}")
    return done.stdout, time.monotonic() - began


def check(address: str, seed: int) -> list[str]:
    """Return the command of a run."""
    return [*COMMAND, "check", address, "--quick", "--json=-", f"--seed={seed}"]


def over_line(line: tuple[str, ...], seed: int) -> list[str]:
    """Return the command of a run over a line of two network namespaces."""
    return [*LINE, *line, "--", *check("10.7.0.2:7777", seed)]


def all_of_udp(honest: int, broken: int, at_once: int) -> bool:
    """Run the honest paths and the boxes of UDP; return whether all is right."""
    right = True
    with serving("--bind=udp://127.0.0.1:0", "--log-level=error") as server:
        (address,) = server.addresses
        tally = run_all(partial(check, address), honest, at_once, set())
        right &= show("udp honest", tally, not tally.failed)
        place = address.removeprefix("udp://")
        for name, (words, expected) in DATAGRAMS.items():
            with box("udp", place, f"--fault={words[0]}", *words[1:]) as at:
                beside = 1 if words[0] == "limits" else at_once  # they would share the limit
                tally = run_all(partial(check, f"udp://{at}"), broken, beside, expected)
            others = set(tally.failed) - expected
            right &= show(name, tally, tally.caught == tally.runs and not others)
    return right


def show(name: str, tally: Tally, right: bool) -> bool:
    """Print what was found; return whether it is right."""
    caught = f"caught {tally.caught}" if tally.caught else ""
    print(
        f"{'ok ' if right else 'BAD'}  {name:<28} {tally.runs:>4} runs  {caught:<10} "
        f"longest {tally.longest:4.1f} s  failed: {tally.told()}",
        flush=True,
    )
    return right


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(prog="make alarms", description=__doc__.splitlines()[0])
    parser.add_argument("--honest", type=int, default=200, help="runs on each honest path")
    parser.add_argument("--broken", type=int, default=20, help="runs before each broken box")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side")
    options = parser.parse_args()
    began, right = time.monotonic(), True
    with serving("--probes", "--log-level=error") as server:
        (address,) = server.addresses
        tally = run_all(partial(check, address), options.honest, options.at_once, set())
        right &= show("honest", tally, not tally.failed)
        for name, (words, expected) in BROKEN.items():
            with box(words[0], address, *words[1:]) as at:
                tally = run_all(partial(check, at), options.broken, options.at_once, expected)
            right &= show(name, tally, tally.caught == tally.runs)
    for name, line, runs, expected in (
        ("1 % loss, 20 ms each way", LOSSY, options.honest, set[str]()),
        ("packets above 1,400 lost", NARROW, options.broken, {"path-mtu"}),
    ):
        tally = run_all(partial(over_line, line), runs, options.at_once, expected)
        caught = tally.caught == tally.runs if expected else not tally.failed
        right &= show(name, tally, caught)
    right &= all_of_udp(options.honest, options.broken, options.at_once)
    print(f"{'all right' if right else 'NOT RIGHT'}, {time.monotonic() - began:.0f} s")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
