"""`fastecho check`: find out whether the path to an echo server is honest.

Lives here: options, where the report goes, exit codes. Does not live here: probes, the order in
which they run, words (fastecho.check).
"""

from __future__ import annotations

import sys

from fastecho.address import UDP, parse_target
from fastecho.cli import complain, put_line
from fastecho.cli._outputs import STDOUT, check_path, write_text
from fastecho.errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from fastecho.check.catalog import Probe
    from fastecho.check.path import Path
    from fastecho.check.runner import Run
    from fastecho.check.verdict import Finding

__all__ = ["add_arguments", "run"]

NAME = "fastecho check"
EXIT_DONE, EXIT_USAGE, EXIT_FAILED_PROBE, EXIT_INTERRUPTED = 0, 2, 3, 130
QUICK_IDLE, FULL_IDLE = (2.0,), (10.0, 30.0)
QUICK_CONNECTIONS, FULL_CONNECTIONS = 50, 200
MOST_CONNECTIONS = 10_000
QUICK_TIMEOUT, FULL_TIMEOUT = 3.0, 5.0
QUICK_UDP_TIMEOUT, FULL_UDP_TIMEOUT = 1.0, 3.0
"""Nothing is sent again over UDP: what has not come by then does not come."""
SHORTEST, LONGEST = 0.1, 3600.0
LONGEST_IDLE = 86_400.0
MOST_RUNGS = 20
TOO_LONG = "is longer than the quick profile: leave --quick out"
LARGEST_SEED = 2**31 - 1

DESCRIPTION = """\
Find out whether the path to an echo server is honest: whether anything between loses,
changes, reorders, cuts, resets, buffers or answers in the server's place. Each probe
has a verdict (passed, failed, not testable), its evidence, and what a failure means.
It works with any echo server; what the server has to do first is probed if it is a
`fastecho serve --probes`.

Over UDP (udp://HOST:PORT) it sends datagrams of all sizes and a train of them, below
1,000 a second, and tells what is lost, doubled, out of order, changed or answered from
elsewhere.

The quick profile takes 10 s at the most; the full one sends up to 64 MiB and leaves
connections idle. A TIME is seconds, or such as 500ms or 2m. Exit code 0 if no probe
failed, 3 if one did (also if nothing can be reached), 2 for a wrong option, 130 after
Ctrl-C, which prints what was found so far."""

EXAMPLE = """\
examples:
  fastecho check 127.0.0.1:7777 --quick
  fastecho check echo.example.net:7 --idle 60,300,900
  fastecho check balancer:7777 --direct 10.0.0.7:7777
  fastecho check '[::1]:7777' --only half-close,order --json check.json --junit check.xml
  fastecho check udp://echo.example.net:7 --quick
  fastecho check --list"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `check`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    add = parser.add_argument
    add(
        "address",
        nargs="?",
        metavar="HOST:PORT",
        help="the server: HOST:PORT, [IPV6]:PORT, :PORT (this machine), udp://HOST:PORT or "
        "unix:PATH",
    )
    add("-q", "--quick", action="store_true", help="10 s at the most, smaller sizes")
    add(
        "--idle",
        metavar="TIMES",
        help="for how long connections are left idle, with commas: the first that dies is told "
        "(default: 10,30, with --quick 2)",
    )
    add(
        "--only",
        action="append",
        default=[],
        metavar="NAMES",
        help="only these probes or groups, with commas; may be repeated; reachable, answer and "
        "path-mtu always run (over UDP: reachable)",
    )
    add(
        "--skip",
        action="append",
        default=[],
        metavar="NAMES",
        help="all but these probes or groups, with commas; may be repeated; reachable, answer and "
        "path-mtu always run (over UDP: reachable)",
    )
    add("--list", action="store_true", help="list the probes, and end")
    add(
        "--direct",
        metavar="HOST:PORT",
        help="the same server without what lies between: the latency that it adds is told",
    )
    add(
        "--timeout",
        metavar="TIME",
        help="silence after which something counts as lost; never less than 30 round trips "
        "(default: 5, with --quick 3; over UDP 3, with --quick 1)",
    )
    add(
        "--connections",
        metavar="N",
        help="so many are opened at a time (default: 200, with --quick 50)",
    )
    add(
        "--json",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="write the report as JSON to FILE; without FILE to standard output, the text then "
        "to standard error",
    )
    add("--junit", metavar="FILE", help="write the report as JUnit XML to FILE (- for stdout)")
    add("--seed", metavar="N", help="of the bytes that are sent (default: drawn, and told)")


def run(args: argparse.Namespace) -> int:
    """Check, and report; return the exit code."""
    from fastecho.check.catalog import choose, probes
    from fastecho.check.report import listing

    if args.list:
        for line in listing(probes()):
            print(line)
        print(f"\nover UDP ({UDP}HOST:PORT)")
        for line in listing(probes(udp=True)):
            print(line)
        return EXIT_DONE
    if args.address is None:
        taken = "" if args.json in (None, STDOUT) else f" ({args.json} was taken for --json's file)"
        complain(NAME, f"HOST:PORT is missing{taken}: see {NAME} --help")
        return EXIT_USAGE
    every = probes(udp=args.address.startswith(UDP))
    chosen = choose(every, quick=args.quick, only=_names(args.only), skip=_names(args.skip))
    path = _path(args)
    try:
        _check_outputs(args)
        return _check(args, path, chosen)
    finally:
        path.close()


def _check(args: argparse.Namespace, path: Path, chosen: Sequence[Probe]) -> int:
    """Run the probes, print as they end, and write the files."""
    from time import gmtime, strftime

    from fastecho.check.report import Lines
    from fastecho.check.runner import Run
    from fastecho.cli._summary import Paint, look_of

    to_stderr = STDOUT in (args.json, args.junit)
    say: Callable[[str], None] = put_line if to_stderr else _print
    stream = sys.stderr if to_stderr else sys.stdout
    look = look_of(stream)
    _raise_descriptor_limit()
    lines = Lines(is_unicode=_has_signs(stream), paint=Paint(color=look["color"]))

    def tell(finding: Finding) -> None:
        for line in lines.finding(finding):
            say(line)

    started_at = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
    say(lines.head(path))
    one = Run(path, chosen, tell)
    one.run()
    for line in lines.summary(one, len(chosen)):
        say(line)
    _write(args, one, path, started_at)
    if one.interrupted:
        return EXIT_INTERRUPTED
    failed = any(finding.verdict == "failed" for finding in one.findings)
    return EXIT_FAILED_PROBE if failed else EXIT_DONE


def _write(args: argparse.Namespace, one: Run, path: Path, started_at: str) -> None:
    try:
        if args.json is not None:
            import json

            from fastecho.check.report import document

            write_text(args.json, json.dumps(document(one, path, started_at), indent=1) + "\n")
    finally:  # a full disk for one is none for the other
        _write_junit(args, one, path, started_at)


def _write_junit(args: argparse.Namespace, one: Run, path: Path, started_at: str) -> None:
    if args.junit is not None:
        from fastecho.check.junit import junit

        write_text(args.junit, junit(one, path, started_at))


def _print(line: str) -> None:
    """Write a line on stdout now: a probe may take long."""
    print(line, flush=True)


def _has_signs(stream: object) -> bool:
    from fastecho.check.report import SIGNS

    try:
        "".join(sign[0] for sign in SIGNS.values()).encode(getattr(stream, "encoding", "ascii"))
    except (LookupError, UnicodeError, TypeError):
        return False
    return True


def _raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors to the hard one, for many connections."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # what there is must do


# Options


def _path(args: argparse.Namespace) -> Path:
    """Return the path that the options describe, or raise ConfigError."""
    from fastecho.check.path import Path
    from fastecho.check.runner import QUICK_SECONDS
    from fastecho.measure.values import whole

    quick = args.quick
    seed = _seed(args.seed)
    address = parse_target(args.address, "HOST:PORT", udp=True)
    timeout = QUICK_TIMEOUT if quick else FULL_TIMEOUT
    if address.kind == "udp":
        timeout = QUICK_UDP_TIMEOUT if quick else FULL_UDP_TIMEOUT
        for option, value in (("--direct", args.direct), ("--connections", args.connections)):
            if value is not None:
                reason = f"is for connections, which {address} does not have"
                raise ConfigError(option, value, reason)
    if args.timeout is not None:
        timeout = _seconds("--timeout", args.timeout, SHORTEST, LONGEST)
        if quick and timeout >= QUICK_SECONDS:
            raise ConfigError("--timeout", args.timeout, TOO_LONG)
    connections = QUICK_CONNECTIONS if quick else FULL_CONNECTIONS
    if args.connections is not None:
        connections = int(str(whole(1, MOST_CONNECTIONS)(args.connections, "--connections")))
    idle: tuple[float, ...] = QUICK_IDLE if quick else FULL_IDLE
    if args.idle is not None:
        idle = _idle(args.idle, quick=quick)
    other = None if args.direct is None else parse_target(args.direct, "--direct")
    direct = None if other is None else Path(other, timeout=timeout, seed=seed, quick=quick)
    return Path(
        address,
        timeout=timeout,
        seed=seed,
        quick=quick,
        idle=idle,
        connections=connections,
        direct=direct,
    )


def _seed(text: str | None) -> int:
    if text is None:
        from secrets import randbelow

        return randbelow(1_000_000)
    from fastecho.measure.values import whole

    number = whole(0, LARGEST_SEED)(text, "--seed")
    assert isinstance(number, int)
    return number


def _names(texts: Sequence[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",")]


def _seconds(option: str, text: str, least: float, most: float) -> float:
    from fastecho.measure.values import read_seconds, seconds_text

    value = read_seconds(text.strip())
    if value is None:
        raise ConfigError(option, text, "must be a time such as 10, 500ms or 2m")
    if not least <= value <= most:
        raise ConfigError(option, text, f"must be {seconds_text(least)} to {seconds_text(most)}")
    return value


def _idle(text: str, *, quick: bool) -> tuple[float, ...]:
    times = [_seconds("--idle", one, 0.0, LONGEST_IDLE) for one in text.split(",")]
    if len(times) > MOST_RUNGS:
        raise ConfigError("--idle", text, f"names more than {MOST_RUNGS} times")
    from fastecho.check.runner import QUICK_SECONDS

    if quick and max(times) >= QUICK_SECONDS:
        raise ConfigError("--idle", text, TOO_LONG)
    return tuple(times)


def _check_outputs(args: argparse.Namespace) -> None:
    for flag in ("json", "junit"):
        if getattr(args, flag) is not None:
            check_path(flag, getattr(args, flag))
    if args.json is None or args.junit is None:
        return
    if args.json == args.junit == STDOUT:
        raise ConfigError("--junit", STDOUT, "is wanted by --json as well: give one of them a file")
    from os.path import realpath

    if realpath(args.json) == realpath(args.junit):
        raise ConfigError("--junit", args.junit, "is the file of --json as well")
