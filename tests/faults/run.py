"""The whole campaign, as a table: `make faults`.

    make faults ARGS='--seeds 100 --step 10'    a tenth of it

Lives here: the command and what it prints. Does not live here: what is tried and what must hold
(rounds.py, one_call.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lives import FUNCTIONS, Fault, Lives
from one_call import PAIRS, walk
from rounds import PER_MILLE, Account, Kind, campaign
from shimmed import build_shim

ROW = "{:<48} {:>6} {:>9} {:>7} {:>6} {:>12}  {}"


def attempt(shim: Path, name: str, work: Callable[[Lives, Account], int]) -> Account:
    """Do some work in a process of its own and print its row; an account without rounds failed."""
    account, tried, lives = Account(), 0, Lives(shim)
    try:
        tried = work(lives, account)
        lives.leave()
        result = "ok"
    except Exception as error:
        notes = " | ".join(getattr(error, "__notes__", []))
        result = f"FAILED: {type(error).__name__}: {error} ({notes})"
        account.rounds = 0
    finally:
        lives.kill()
    hits = sum(account.hits.values())
    print(
        ROW.format(name, tried, hits, account.connections, account.hurt, account.verified, result),
        flush=True,
    )
    return account


def random_faults(shim: Path, seeds: int) -> bool:
    """Hit everything at random, and print what each function got; True if all held."""

    def work(lives: Lives, account: Account) -> int:
        campaign(lives, range(seeds), account)
        missed = [name for name in FUNCTIONS if not account.hits[name]]
        assert not missed, f"never hit: {missed}"
        return account.rounds

    account = attempt(shim, f"any, {PER_MILLE / 10:g} % of all calls, by seed", work)
    print(f"\n  {'function':<14} {'calls':>9} {'hits':>9}")
    for name in FUNCTIONS:
        print(f"  {name:<14} {account.calls[name]:>9} {account.hits[name]:>9}")
    print(
        f"  starts that raised: {account.refused_starts} of {account.rounds};"
        f" spared connections: {account.spared}, exact: {account.spared - account.spared_hurt}\n"
    )
    return account.rounds > 0


def numbered_faults(shim: Path, step: int) -> bool:
    """Fail every step-th call, without a proxy and behind one; True if all held."""
    held = True
    for kind, fault in PAIRS:

        def work(lives: Lives, account: Account, kind: Kind = kind, fault: Fault = fault) -> int:
            reached = sum(1 for _ in walk(lives, kind, fault, account, step))
            assert reached, "no call was reached"
            return reached

        name = f"{fault}, proxied" if kind.front else str(fault)
        held = attempt(shim, name, work).rounds > 0 and held
    return held


def main() -> int:
    """Run the campaign; the exit status is 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="rounds at random")
    parser.add_argument("--step", type=int, default=1, help="of the numbers of calls, 1: all")
    options = parser.parse_args()
    began = time.monotonic()
    print(ROW.format("fault", "tried", "hits", "conns", "hurt", "bytes", "result"))
    with tempfile.TemporaryDirectory() as folder:
        shim = build_shim(Path(folder))
        held = random_faults(shim, options.seeds)
        held = numbered_faults(shim, options.step) and held
    print(f"{'all held' if held else 'NOT all held'}, {time.monotonic() - began:.0f} s")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
