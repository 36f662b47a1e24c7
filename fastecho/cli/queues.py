"""`fastecho queues`: the accept queue and the SYN queue of every listener, and what is wrong.

Lives here: options, the order of looks, exit codes. Does not live here: looking and judging
(fastecho.diagnose), tables and lines (_queues_text.py).
"""

from __future__ import annotations

import sys
import time

from fastecho.cli import complain, put_line
from fastecho.cli._outputs import STDOUT, check_path, write_text
from fastecho.errors import NO_VALUE, ConfigError, StartError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from fastecho.diagnose.listening import Listening
    from fastecho.diagnose.queues import Watch
    from fastecho.diagnose.report import Report

__all__ = ["add_arguments", "run"]

NAME = "fastecho queues"
EXIT_DONE, EXIT_FAILED, EXIT_THRESHOLD = 0, 1, 3
LOOKS = 10
"""Looks in an interval."""
LONGEST_INTERVAL = 3600.0
SHORTEST_INTERVAL = 0.1
DEFAULT_INTERVAL = 1.0

DESCRIPTION = """\
Show both kernel queues of every listener on this machine, whoever it belongs to, and say
what is wrong. The accept queue holds connections that the kernel has finished and nobody
accepted yet: when it is full, SYNs are dropped and clients hang. It looks for a second,
so that what happens now is told from what is long over. Needs no root; what only root
may see is said to be missing.

A PORT limits it to listeners of this port; also HOST:PORT, which finds who listens on
every address too, or unix:PATH (unix:@NAME of the abstract namespace). Unix listeners are
shown if somebody waits in one, or with --unix. Exit code 0, also if something is
wrong, unless --fail is given: then 3, with --watch if it ever was. 1 if nothing listens
at a PORT, 2 for a wrong option, 4 if the kernel cannot be asked."""

EXAMPLE = """\
examples:
  fastecho queues
  fastecho queues 8000 --watch
  fastecho queues 80 443 --fail --json queues.json
  fastecho queues --explain
  sudo fastecho queues --netns 4711"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `queues`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    add = parser.add_argument
    add("where", nargs="*", metavar="PORT", help="only listeners of this port or address")
    add("--unix", action="store_true", help="all Unix listeners as well")
    add(
        "-w",
        "--watch",
        action="store_true",
        help="go on until Ctrl-C or SIGTERM: a table that changes on a terminal, lines otherwise",
    )
    add(
        "-i",
        "--interval",
        metavar="TIME",
        help="look for this time before telling, ten times; 0: a single look, which can tell a "
        "full queue and nothing else of what happens now (default: 1)",
    )
    add(
        "--json",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="write what was found as JSON to FILE; without FILE to standard output. With "
        "--watch a line for each interval",
    )
    add("--fail", action="store_true", help="exit code 3 if something is wrong")
    add(
        "--explain",
        action="store_true",
        help="how long both queues are: the formula of most tutorials, today's rule, the numbers "
        "of this machine",
    )
    add(
        "--limits",
        action="store_true",
        help="what else limits connections on this machine: descriptors, ports, memory",
    )
    add(
        "--demo",
        action="store_true",
        help="fill both queues of listeners of its own, and show how the kernel behaves; a "
        "minute, no root",
    )
    add(
        "--netns",
        metavar="PID|NAME",
        help="look into another network namespace: of a process, or one of `ip netns` (root)",
    )


def run(args: argparse.Namespace) -> int:
    """Look and tell, once or until somebody ends it; return the exit code."""
    _check(args)
    if args.demo:
        return _demo()
    wanted, interval = Wanted(args.where, every_unix=args.unix), _interval(args)
    if args.json is not None:
        if args.json.isascii() and args.json.isdigit():
            reason = f"would be a file: write ./{args.json} for that, and a port before --json"
            raise ConfigError("--json", args.json, reason)
        check_path("json", args.json)
    if args.netns is not None:
        from fastecho.diagnose.netns import enter

        enter(args.netns, "--netns")
    if args.limits:
        return _limits(args)
    from fastecho.diagnose.queues import Watch

    watch = Watch()
    if args.watch:
        from fastecho.cli._queues_live import run_live

        had_problems = run_live(lambda: observe(watch, interval, wanted), args.json)
        return EXIT_THRESHOLD if args.fail and had_problems else EXIT_DONE
    # What --explain tells does not change in a second.
    report = observe(watch, 0.0 if args.explain else interval, wanted)
    _tell(report, args)
    if report.absent:
        complain(NAME, f"nothing listens at {', '.join(report.absent)}")
        return EXIT_FAILED
    return EXIT_THRESHOLD if args.fail and report.problems else EXIT_DONE


ALONE = {
    "demo": ("watch", "json", "fail", "explain", "limits", "netns", "unix", "interval", "where"),
    "limits": ("watch", "fail", "explain", "unix", "interval", "where"),
    "explain": ("watch", "json", "fail", "interval"),
}
"""What has no effect beside which option."""


def _check(args: argparse.Namespace) -> None:
    """Raise ConfigError for options that do not go together."""
    for flag, others in ALONE.items():
        for other in others:
            given = getattr(args, other)
            if getattr(args, flag) and given not in (None, False, []):
                name = "PORT" if other == "where" else f"--{other}"
                value = given[0] if other == "where" else given
                if given is True or (other == "json" and given == STDOUT):
                    value = NO_VALUE
                raise ConfigError(name, value, f"has no effect with --{flag}")
    if args.unix and args.where:
        raise ConfigError("--unix", NO_VALUE, "has no effect with a PORT: only that is shown")


class Wanted:
    """Which listeners are asked for: called with one, it tells.

    Raises:
        ConfigError: what is no port and no address.
    """

    def __init__(self, where: list[str], *, every_unix: bool) -> None:
        from fastecho.diagnose.places import Place

        self._places = [Place(text) for text in dict.fromkeys(where)]
        self._every_unix = every_unix

    def __call__(self, one: Listening) -> bool:
        if not self._places:
            return one.kind == "tcp" or one.depth > 0 or self._every_unix
        return any(place(one) for place in self._places)

    def missing(self, found: Iterable[Listening]) -> list[str]:
        """Return the places, as they were written, where nobody of these listens."""
        there = list(found)
        return [place.text for place in self._places if not any(map(place, there))]


def _interval(args: argparse.Namespace) -> float:
    from fastecho.measure.values import read_seconds

    if args.interval is None:
        return DEFAULT_INTERVAL
    value = read_seconds(args.interval)
    if value is None:
        reason = "must be a time such as 1, 500ms or 2m"
    elif value == 0 and not args.watch:
        return 0.0
    elif SHORTEST_INTERVAL <= value <= LONGEST_INTERVAL:
        return value
    else:
        reason = f"must be {'' if args.watch else '0, or '}100ms to 1h"
    raise ConfigError("--interval", args.interval, reason)


def observe(watch: Watch, interval: float, wanted: Wanted) -> Report:
    """Look for another interval, and judge; processes are looked for once, at its end."""
    from fastecho.diagnose.queues import look, look_closely, name_processes
    from fastecho.diagnose.report import Report

    watch.begin()
    end = time.monotonic() + interval
    try:
        found = look()
        if interval:
            look_closely(found, wanted)
        watch.add(found)
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, interval / LOOKS))
            found = look()
            if time.monotonic() >= end:
                look_closely(found, wanted)
            watch.add(found)
    except OSError as error:
        sentence = f"the kernel cannot be asked for its listeners: {error.strerror}"
        raise StartError(error.errno or 0, sentence) from None
    assert watch.last is not None
    name_processes(watch.last, wanted)
    return Report(watch, wanted, wanted.missing)


def _tell(report: Report, args: argparse.Namespace) -> None:
    """Print what was found, and write the JSON."""
    from fastecho.cli._queues_text import explained, lines
    from fastecho.cli._summary import Paint, look_of

    paint = Paint(color=look_of(sys.stderr if args.json == STDOUT else sys.stdout)["color"])
    if args.explain:
        import os

        text = explained(report, os.uname().release)
    else:
        text = lines(report, paint)
    _put(text, args.json, report.to_json)


def _limits(args: argparse.Namespace) -> int:
    from fastecho.cli._queues_text import limit_lines
    from fastecho.cli._summary import Paint, look_of
    from fastecho.diagnose.limits import limits

    found = limits()
    look = look_of(sys.stderr if args.json == STDOUT else sys.stdout)
    text = limit_lines(found, Paint(color=look["color"]), look["width"])

    def document() -> dict[str, object]:
        from fastecho._version import __version__

        return {
            "format": "fastecho-limits",
            "version": 1,
            "fastecho": __version__,
            "limits": [one.to_json() for one in found],
        }

    _put(text, args.json, document)
    return EXIT_DONE


def _put(text: Iterable[str], path: str | None, document: Callable[[], object]) -> None:
    """Print the text, on stderr if stdout is for the JSON, and write that."""
    for line in text:
        put_line(line) if path == STDOUT else print(line)
    if path is not None:
        import json

        write_text(path, json.dumps(document(), indent=1) + "\n")


def _demo() -> int:
    """Show both queues overflow; what the machine does not allow is told."""
    from fastecho.diagnose.demo import accept_queue, run_apart, syn_queues

    accept_queue(_print)
    _print("")
    error = run_apart(syn_queues, _print)
    if error is not None:
        _print(
            "The SYN queue needs a network namespace of its own, which this machine does not "
            f"allow: {error.strerror}."
        )
    return EXIT_DONE


def _print(line: str) -> None:
    print(line, flush=True)
