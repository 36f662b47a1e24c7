"""`fastecho bench`: measure an echo server with verified load, and judge what was found.

What lives here: the command's options, the order of things, exit codes. What may not live here:
plans, runs and rules (fastecho.measure), the text of a result (_summary.py), what is shown while it
runs (_live.py), where results are written (_outputs.py), a server for the run (_local.py).
"""

from __future__ import annotations

import sys

from fastecho.cli import complain, put_line
from fastecho.errors import ConfigError
from fastecho.measure.plan import OPTIONS, as_written, flag_of, read_options

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from fastecho.cli._live import Shown
    from fastecho.cli._outputs import Outputs
    from fastecho.measure.plan import Plan
    from fastecho.measure.result import Interval, Result
    from fastecho.measure.rules import Rule
    from fastecho.measure.search import Found, Step

__all__ = ["add_arguments", "run"]

NAME = "fastecho bench"
EXIT_DONE, EXIT_FAILED, EXIT_THRESHOLD = 0, 1, 3
EXTRAS = (
    ("--live", "rich", "rich"),
    ("--html", "drawsvg", "report"),
    ("--cluster", "distributed", "distributed"),
)
"""Options that need a package which fastecho itself does not, and the extra that brings it."""
NOBODY = {"tcp": "127.0.0.1:1", "udp": "udp://127.0.0.1:1"}
"""Stands for the server of --server, of either kind, until that has an address."""

DESCRIPTION = """\
Send messages to an echo server, check every byte that comes back, and say how fast and
how late it was. By default each connection sends the next message when the reply is in
(closed loop). With --rate, messages are due on a schedule whatever the server does (open
loop), and latency counts from when each was due: a server that stalls cannot hide it.

Over UDP (udp://HOST:PORT) what is lost, doubled or reordered is counted apart: it is a
finding, not a failure; wrong bytes, and nothing at all, are.

Ctrl-C ends the measurement early and shows what there is. Exit code 0 if every message
came back right, 1 if any did not, 2 for a wrong option, 3 if a --fail-if came true or
--find-max found nothing, 4 if it could not start, 130 if it was interrupted before there
was a result."""

EXAMPLE = """\
examples:
  fastecho bench --server
  fastecho bench 127.0.0.1:7777 -c 64 -d 30s
  fastecho bench 127.0.0.1:7777 -c 64 -R 20k --fail-if 'p99>2ms' --json result.json
  fastecho bench 127.0.0.1:7777 -c 64 -d 5s --find-max 'p99<1ms'
  fastecho bench '[::1]:7777' --reconnect -t 2 -c 32 -n 100000
  fastecho bench balancer:7 --send-proxy v2 --identify
  fastecho bench --server --upload --fail-if 'throughput<1G'
  fastecho bench --server udp -c 4 -p 16 -s 1400 --fail-if 'loss>0.1%'"""

RESULTS = """\
Each is written to FILE; without one, or with -, to standard output, and text for people
then to standard error."""

GROUPS = {"load": "load", "messages": "messages", "connections": "connections", "run": "the run"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="HOST:PORT",
        help="where the server is: HOST:PORT, [IPV6]:PORT, :PORT (this machine) or unix:PATH; "
        "udp://HOST:PORT: over UDP, each message a datagram on one of --connections sockets; "
        "several, side by side, are taken in turn by the connections",
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for one in OPTIONS:
        text = f"{one.help} (default: {_default_text(one.default, one.unset)})".replace("%", "%%")
        names = [*([one.letter] if one.letter else []), one.flag]
        group = groups[one.group]
        if one.default is False:
            group.add_argument(*names, dest=one.name, action="store_true", help=text)
        else:
            action = "append" if one.default == () else "store"
            group.add_argument(*names, dest=one.name, action=action, metavar=one.metavar, help=text)
    _add_run(groups["run"])
    results = parser.add_argument_group("results", RESULTS)
    for flag, what in (
        ("--json", "the result as JSON (docs/reference/measure.md lists its keys)"),
        (
            "--jsonl",
            "a line of JSON for each interval as soon as it is over, the result as the last",
        ),
        ("--hgrm", "the latencies in microseconds, as HdrHistogram's tools plot them"),
    ):
        results.add_argument(flag, nargs="?", const="-", metavar="FILE", help=what)
    results.add_argument(
        "--html",
        metavar="FILE",
        help="one page with charts, which needs no network (needs fastecho[report])",
    )
    results.add_argument(
        "--live",
        action="store_true",
        help="show a table of the last intervals while it runs (needs fastecho[rich])",
    )


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--server",
        nargs="?",
        const="tcp",
        metavar="KIND",
        help="start `fastecho serve` on a free port of 127.0.0.1 for the run, and end it; there is "
        "no HOST:PORT then. KIND is tcp, which is the default, or udp: over UDP, without the limit "
        "for each source address (--udp-rate none). With --upload and --download it has the "
        "service that they need: discard, chargen",
    )
    group.add_argument(
        "--cluster",
        metavar="WHERE",
        help="run it on every worker of a Dask cluster at once (tcp://HOST:PORT of its scheduler), "
        "or on N workers on this machine (local:N); the results are added up (needs "
        "fastecho[distributed])",
    )
    group.add_argument(
        "--start-at",
        metavar="TIME",
        help="begin at this time, the same on several machines: 2026-11-25T07:00:00Z, 07:00:30 "
        "(today, local) or seconds since 1970",
    )
    group.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="RULE",
        help="exit code 3 if this is true at the end; may be repeated: 'p99>2ms', 'max>100ms', "
        "'rate<50k' (with --reconnect, connections a second), 'throughput<100M' (bytes a second), "
        "'failures>0', 'lost>0', 'service.p99>1ms', 'connect.p99>5ms'; over UDP 'loss>0.1%%', "
        "'duplicates>0', 'reordered>0'",
    )
    group.add_argument(
        "--find-max",
        metavar="RULE",
        help="search the highest rate of an open loop at which this holds, such as 'p99<1ms' (over "
        "UDP also 'loss<=0'), and nothing fails; each step lasts --duration, a rate that does not "
        "hold is tried a second time, and --rate is the highest that is tried",
    )


def _default_text(default: object, unset: str) -> str:
    if default is None:
        return unset
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, float):
        return f"{default:g}s"
    return str(default) if default not in (b"", (), "") else "none"


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    from fastecho.cli._outputs import Outputs
    from fastecho.cli._surroundings import let_sigterm_end_it, raise_descriptor_limit

    plan = _plan(args)
    rules, limit = _rules(args, plan)
    start_at = None if args.start_at is None else _time(args.start_at)
    _find_extras(args)
    cluster = _cluster(args)
    outputs = Outputs(args)
    raise_descriptor_limit()
    let_sigterm_end_it()
    bench = _Bench(plan, rules, limit, start_at, outputs, live=args.live)
    bench.cluster = cluster
    try:
        if not args.server:
            return bench.run()
        from fastecho.cli._local import local_server

        with local_server(plan) as address:
            bench.plan = plan.replace(targets=address)
            return bench.run()
    except ConfigError as error:  # it may know the option by its name in Python
        if getattr(args, error.option, None) is None:
            raise
        written = as_written(vars(args), error.option)
        raise ConfigError(flag_of(error.option), written, error.reason) from None


def _cluster(args: argparse.Namespace) -> str | None:
    """Return where --cluster is, if it fits what else is asked for."""
    where: str | None = args.cluster
    if where is not None:
        for flag in ("--find-max", "--start-at"):
            if getattr(args, flag[2:].replace("-", "_")) is not None:
                raise ConfigError("--cluster", where, f"does not go together with {flag}")
        from fastecho.measure.cluster import check_where

        check_where(where)
        if args.server and not where.startswith("local:"):
            raise ConfigError("--cluster", where, "does not reach the server of --server")
    return where


def _find_extras(args: argparse.Namespace) -> None:
    """Raise ExtensionMissingError for what the options need and is not installed."""
    from importlib.util import find_spec

    from fastecho.measure import run as _  # noqa: F401 - the compiled part

    for flag, package, extra in EXTRAS:
        if getattr(args, flag[2:]) and find_spec(package) is None:
            from fastecho.errors import ExtensionMissingError
            from fastecho.measure.words import extra_text

            raise ExtensionMissingError(
                f"{flag} needs {package}, which is not installed: {extra_text(extra)}"
            )


def _plan(args: argparse.Namespace) -> Plan:
    targets = args.targets
    if args.server:
        if ":" in args.server:
            targets = [args.server]
        elif args.server not in NOBODY:
            raise ConfigError("--server", args.server, "must be tcp or udp, or stand alone")
        if targets:
            raise ConfigError("--server", targets[0], "takes no target: it starts its own")
        targets = [NOBODY[args.server]]
    if not targets:
        for flag in ("--json", "--jsonl", "--hgrm", "--html"):
            taken = getattr(args, flag[2:])
            if taken and ":" in taken:
                reason = f"was taken for a file: write the target before {flag}"
                raise ConfigError(flag, taken, reason)
        raise ConfigError("target", "", "is missing: write HOST:PORT, or --server")
    plan = read_options(vars(args), targets)
    if args.schedule is not None and plan.rate is None and args.find_max is None:
        reason = "has no effect without --rate or --find-max"
        raise ConfigError("--schedule", args.schedule, reason)
    for flag in ("--hgrm", "--html") if plan.is_one_way else ():
        if (path := getattr(args, flag[2:])) is not None:
            reason = f"shows messages and their latencies, which --{plan.loop} has not"
            raise ConfigError(flag, path, reason)
    return plan


def _rules(args: argparse.Namespace, plan: Plan) -> tuple[list[Rule], Rule | None]:
    """Return what --fail-if and --find-max say, checked against the plan."""
    from fastecho.measure.rules import Rule

    limit = None
    if args.find_max is not None:
        from fastecho import measure

        _ = measure.find_max  # without the compiled part: one sentence
        from fastecho.measure.search import check_limit

        limit = Rule(args.find_max, "--find-max")
        check_limit(limit, plan)
        if args.start_at is not None:
            raise ConfigError("--start-at", args.start_at, "does not go together with --find-max")
        plan = plan.replace(rate=plan.rate or plan.threads)
    rules = [Rule(text, "--fail-if") for text in args.fail_if]
    for rule in (*rules, *([limit] if limit else [])):
        rule.check_plan(plan)
    return rules, limit


def _time(text: str) -> float:
    """Return seconds since 1970 of a time on the command line."""
    from datetime import datetime

    reason = "must be a time such as 2026-11-25T07:00:00Z, 07:00:30 or seconds since 1970"
    try:
        plain = text.replace(".", "", 1).isdigit()
        found = float(text) if plain else _clock_time(datetime, text)
    except (ValueError, OverflowError):
        raise ConfigError("--start-at", text, reason) from None
    from fastecho.measure.preflight import check_start

    check_start(found, "--start-at", text)
    return found


def _clock_time(datetime: type, text: str) -> float:
    """Return the time of an ISO text, or of a time of today; without a zone it is local."""
    if "T" not in text and " " not in text:
        text = f"{datetime.now().date().isoformat()}T{text}"  # type: ignore[attr-defined]
    moment = datetime.fromisoformat(text)  # type: ignore[attr-defined]
    return float(moment.timestamp())


class _Bench:
    """One run or one search, from the first sentence to the exit code."""

    def __init__(
        self,
        plan: Plan,
        rules: list[Rule],
        limit: Rule | None,
        start_at: float | None,
        outputs: Outputs,
        *,
        live: bool,
    ) -> None:
        self.plan = plan
        self.rules = rules
        self.limit = limit
        self.start_at = start_at
        self.outputs = outputs
        self.live = live
        self.found: Found | None = None
        # Where --cluster is.
        self.cluster: str | None = None

    def run(self) -> int:
        from fastecho import measure

        put_line(f"{self._announced()}")
        shown = self._shown()
        seen = _both(shown.interval, self.outputs.interval)
        try:
            if self.cluster is not None:
                result = self._run_on_cluster(self.cluster, seen, shown)
            elif self.limit is None:
                result = measure.run(self.plan, seen, self.start_at)
            else:

                def step(one: Step) -> None:
                    shown.clear()
                    put_line(f"{one.rate:,.10g} messages/s: {one.why}")
                    self.outputs.step(one)

                self.found = measure.find_max(self.plan, self.limit, step, shown.interval)
                result = self.found.result
        finally:
            shown.close()
        self._print(result)  # first: a disk may be full
        self.outputs.result(result, self.found)
        return self._judge(result)

    def _run_on_cluster(
        self, where: str, seen: Callable[[Interval], object], shown: Shown
    ) -> Result:
        from fastecho.measure.cluster import run_on_cluster

        def lost(sentence: str) -> None:
            shown.clear()
            complain(NAME, sentence)

        return run_on_cluster(self.plan, where, seen, lost)

    def _announced(self) -> str:
        """Return what will be done, in a sentence or two."""
        if self.cluster is not None:
            return f"On every worker of {self.cluster}: {self.plan}"
        if self.limit is None:
            return f"{self.plan}{self._origins()}"
        most = f", at most {self.plan.rate:,.10g}" if self.plan.rate else ""
        first = str(self.plan.replace(rate=None)).partition(" Closed loop")[0]
        times = "" if self.plan.schedule == "fixed" else " at random times (Poisson)"
        return f"{first} Open loop{times}: searches the highest rate with {self.limit}{most}."

    def _origins(self) -> str:
        from fastecho.measure.preflight import come_from_several

        if not come_from_several(self.plan):
            return ""
        return (
            " The server sees several addresses of 127.0.1.0/24, so that ports do not run out "
            "(--source 127.0.0.1: only that)."
        )

    def _shown(self) -> Shown:
        from fastecho.cli import _live

        if sys.stderr is None or not sys.stderr.isatty():
            return _live.Nothing()
        return _live.Table(self.plan) if self.live else _live.Line(self.plan)

    def _print(self, result: Result) -> None:
        """Write the summary where people read it."""
        from fastecho.cli._summary import look_of, summary
        from fastecho.measure.words import found_text

        stream = sys.stderr if self.outputs.takes_stdout else sys.stdout
        if stream is None:
            return
        text = summary(result.to_json(), **look_of(stream))
        if self.found is not None:
            text += f"\n{found_text(self.found.to_json())}\n"
        stream.write(text)
        stream.flush()

    def _judge(self, result: Result) -> int:
        """Return the exit code; say which rules came true."""
        true = [rule for rule in self.rules if rule.fails(result)]
        for rule in true:
            complain(NAME, f"--fail-if {rule} came true: {rule.shown(result)}")
        if self.found is not None and self.found.rate is None:
            complain(NAME, f"no rate held {self.found.rule}")
            return EXIT_THRESHOLD
        if true:
            return EXIT_THRESHOLD
        lost = [part for part in result.parts if "lost" in part]
        if lost:
            complain(
                NAME, f"{len(result.parts) - len(lost)} of {len(result.parts)} workers answered"
            )
        silent = result.plan.udp and not result.messages
        return EXIT_FAILED if result.failed or lost or silent else EXIT_DONE


def _both(
    one: Callable[[Interval], object], other: Callable[[Interval], object]
) -> Callable[[Interval], None]:
    def call(interval: Interval) -> None:
        one(interval)
        other(interval)

    return call
