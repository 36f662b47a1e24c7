"""As many idle connections as descriptors allow in one process, then a million: `make scale`.

    make scale ARGS='--connections 100000'    fewer over many processes
    make scale ARGS='--connections 0'         one process only

Lives here: the command, its options, what it prints beside the phases. Does not live here: what a
phase does (hold.py), the processes and the namespace that it runs in (stage.py).
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from footprint import available, bytes_as_text, tcp_sockets_everywhere
from hold import ROW
from namespaces import can_unshare
from plan import MOST, SPARE, Plan, most_descriptors, refusal
from stage import Stage

INTERRUPTED = 130


def count(text: str) -> int:
    """Read a number of connections, >= 0."""
    value = int(text.replace(",", "").replace("_", ""))
    if value < 0:
        raise ValueError(text)
    return value


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--one", type=count, help="connections of the only process; default: all it can; 0: none")
    add("--connections", type=count, default=1_000_000, help="over many processes; 0: none")
    add("--each", type=count, help=f"of one of many processes at most; default: {MOST:,} or less")
    add("--idle", type=float, default=5.0, help="seconds without a byte")
    add("--deadline", type=float, default=900.0, help="seconds for a phase")
    return parser.parse_args()


def one_process(options: argparse.Namespace, is_apart: bool) -> Plan:
    """Return the plan of one server, to which two processes connect: it takes all of one's own."""
    return Plan(1, 2, options.one or 0, options.idle, is_apart)


def many_processes(options: argparse.Namespace) -> Plan:
    """Return the plan of many servers, each with a process that connects."""
    each = options.each or min(MOST, most_descriptors()) - SPARE
    pairs = -(-options.connections // each)
    return Plan(pairs, pairs, options.connections, options.idle, True)


def refuse(sentence: str) -> None:
    """End the command before anything was started."""
    raise SystemExit(f"make scale: {sentence}")


def run(title: str, plan: Plan, deadline: float) -> bool:
    """Go through one phase and print what is left of it; True if everything held."""
    print(title, flush=True)
    sockets, memory = tcp_sockets_everywhere(), available()
    stage = Stage(plan)
    status = None
    try:
        status = stage.wait(deadline)
        if status is None:
            print(ROW.format("FAILED", f"not done within {deadline:g} s"))
    finally:
        left = stage.end()
        print(ROW.format("left behind", left or "no process, no network namespace"))
        print(
            ROW.format(
                "the machine",
                f"{bytes_as_text(memory)} of memory available before,"
                f" {bytes_as_text(available())} now; TCP sockets of every program"
                f" {sockets:,} before, {tcp_sockets_everywhere():,} now\n",
            ),
            flush=True,
        )
    return status == 0 and not left


def main() -> int:
    """Run both phases; the exit status is 1 if anything did not hold."""
    options = read_options()
    is_apart = can_unshare("--net")
    room = most_descriptors() - SPARE
    one, many = one_process(options, is_apart), many_processes(options)
    phases = []
    if options.one != 0:
        what = f"{one.connections:,}" if one.connections else "all that its descriptors allow"
        phases.append((f"connections to one process: {what}", one, "--one"))
    if many.servers and is_apart:
        title = f"connections to {many.servers} processes: {many.connections:,}"
        phases.append((title, many, "--connections"))
    for wanted, option in ((options.one, "--one"), (options.each, "--each")):
        if wanted and wanted > room:
            refuse(f"{option} {wanted:,} is more than the {room:,} that a process may have")
    for _, plan, option in phases:
        if sentence := refusal(plan, option):
            refuse(sentence)
    if many.servers and not is_apart:
        print("many processes: left out, because this process may not make network namespaces")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        held = [run(title, plan, options.deadline) for title, plan, _ in phases]
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"{'all held' if all(held) else 'NOT all held'}, {time.monotonic() - began:.0f} s")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
