"""`fastecho ping`: probe an echo server and print what comes back, in the form of ping(8).

Lives here: options, lines, the summary, signals, exit codes. Does not live here: sockets, the
schedule and what counts as what (fastecho.measure.pinger), the keys of the JSON (ping_result).
"""

from __future__ import annotations

import os
import signal
import sys

from fastecho.cli import complain, put_line
from fastecho.cli._outputs import STDOUT, check_path, write_text
from fastecho.errors import NO_VALUE, ConfigError, StartError
from fastecho.logs import one_line

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

    from fastecho.measure.datagram_pinger import DatagramPinger
    from fastecho.measure.ping_events import Event
    from fastecho.measure.ping_result import PingResult
    from fastecho.measure.pinger import Pinger
    from fastecho.measure.rules import Rule
    from fastecho.measure.timings import Timings

__all__ = ["add_arguments", "run"]

NAME = "fastecho ping"
EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_THRESHOLD, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

DESCRIPTION = """\
Send probes to an echo server, verify every byte that comes back, and say how long it
took. One connection carries all probes, on a fixed schedule: a late reply does not move
the next probe. A connection that is lost is opened again, and the gap is told; probes
that are due meanwhile count as lost. Over UDP each probe is a datagram with a number:
what is lost, comes twice, out of order or from elsewhere is counted. A TIME is seconds,
or such as 500ms or 2m.

Ctrl-C ends it and prints the summary. Exit code 0 if nothing went wrong, 1 if anything
was lost, late, wrong or too many or a connection broke, 2 for a wrong option, 3 if a
--fail-if came true, 4 if it could not connect at the start, 130 if it was interrupted
before there was a result."""

EXAMPLE = """\
examples:
  fastecho ping 127.0.0.1:7777
  fastecho ping example.net:7 -c 10 -i 200ms
  fastecho ping '[::1]:7777' -i 0 -c 10000 -q --json=ping.json
  fastecho ping unix:/run/echo.sock --new-connection
  fastecho ping balancer:7 --send-proxy v2 --identify
  fastecho ping udp://127.0.0.1:7777 -s 1400"""

FAILURES = {
    "late": ("late", "late"),
    "corrupt": ("corrupt", "corrupt"),
    "misplaced": ("misplaced", "misplaced"),
    "lost": ("lost", "lost"),
    "timed_out": ("timed out", "timed out"),
    "extra_bytes": ("extra byte", "extra bytes"),
    "reset": ("reset by the peer", "reset by the peer"),
    "closed": ("closed by the peer", "closed by the peer"),
    "refused": ("connect refused", "connects refused"),
    "connect_timed_out": ("connect timed out", "connects timed out"),
    "other": ("other error", "other errors"),
    "duplicates": ("duplicate", "duplicates"),
    "reordered": ("reordered", "reordered"),
    "foreign": ("foreign datagram", "foreign datagrams"),
}
"""Words for the keys of PingResult.failures: for one, and for more."""

BENCH_KNOWS = ("rate", "throughput", "unsent", "not_sent", "service", "schedule")
"""What a rule can ask of bench, and not of ping."""

FLAGS = {
    "address": "HOST:PORT",
    "size": "--size",
    "interval": "--interval",
    "count": "--count",
    "timeout": "--timeout",
    "source": "--source",
    "tos": "--tos",
    "send_proxy": "--send-proxy",
}
"""How the user writes what Pinger calls so; `family` is -4 or -6."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ping`."""
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
    add("-c", "--count", metavar="N", help="end after so many probes (default: go on)")
    add(
        "-i",
        "--interval",
        metavar="TIME",
        default="1",
        help="from one probe to the next; 0: as soon as the reply is here (default: %(default)s)",
    )
    add(
        "-s",
        "--size",
        metavar="BYTES",
        default="64",
        help="bytes of a probe, the last of which is a newline; over UDP 16 to 65507 "
        "(default: %(default)s)",
    )
    add("-q", "--quiet", action="store_true", help="only the first line and the summary")
    add(
        "-W",
        "--timeout",
        metavar="TIME",
        default="5",
        help="give up connecting after this time, and a connection that is silent for so long "
        "while a reply is due; a reply that took longer is late; over UDP a probe without a reply "
        "for so long is lost (default: %(default)s)",
    )
    add(
        "--new-connection",
        action="store_true",
        help="connect anew for each probe, and show how long that took",
    )
    add("--source", metavar="ADDR[:PORT]", help="connect from this address of this machine")
    add(
        "--tos", metavar="N", help="type of service (IPv4) or traffic class (IPv6), 0 to 255, or 0x"
    )
    add(
        "--send-proxy",
        metavar="VERSION",
        help="first on each connection send a PROXY header with its own addresses: v1 or v2",
    )
    add(
        "--identify",
        action="store_true",
        help="expect the line by which a server with --identify says who answers, show it, also "
        "after a reconnect, and count the replies of each instance",
    )
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", dest="ipv4", action="store_true", help="IPv4 addresses only")
    family.add_argument("-6", dest="ipv6", action="store_true", help="IPv6 addresses only")
    add(
        "--json",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="write the result as JSON to FILE; without FILE to standard output, the text then "
        "to standard error",
    )
    add(
        "--fail-if",
        action="append",
        default=[],
        metavar="RULE",
        help="exit code 3 if this is true at the end; may be repeated: 'p99>2ms', 'max>100ms', "
        "'lost>3', 'failures>0', 'connect.p99>5ms', over UDP 'loss>1%%', 'duplicates>0', "
        "'reordered>0'",
    )


def run(args: argparse.Namespace) -> int:
    """Ping until it is over or somebody ends it; return the exit code."""
    if args.address is None:
        taken = "" if args.json in (None, STDOUT) else f" ({args.json} was taken for --json's file)"
        complain(NAME, f"HOST:PORT is missing{taken}: see {NAME} --help")
        return EXIT_USAGE
    pinger, rules = _pinger(args), _rules(args.fail_if)
    from fastecho.identity import NotIdentifiedError

    if args.json is not None:
        check_path("json", args.json)
        if args.json == STDOUT and sys.stdout is None:
            raise StartError(0, "--json: standard output is closed")
    say = put_line if args.json == STDOUT else _print
    with _Ending(pinger) as ending:
        events = iter(pinger)
        try:
            _show(events, say, args, pinger.result().plan)
        except _Ended:
            pass
        except NotIdentifiedError as error:
            complain(NAME, str(error))
            return EXIT_FAILED
        except OSError as error:
            if pinger.result().started_at:
                raise  # nobody takes what is printed
            raise StartError(error.errno or 0, error.strerror or str(error)) from None
        finally:
            events.close()  # type: ignore[attr-defined]
        result = pinger.result()
        if not result.started_at:
            return EXIT_INTERRUPTED
        for line in _summary(result):
            say(line)
        if args.json is not None:
            _write_json(args.json, result)
        if ending.asked and result.is_clean and not result.received:
            return EXIT_INTERRUPTED
        if _came_true(rules, result):
            return EXIT_THRESHOLD
        return EXIT_DONE if result.is_clean else EXIT_FAILED


class _Ended(KeyboardInterrupt):
    """A signal came while nothing but waiting was interrupted."""


class _Ending:
    """SIGINT and SIGTERM end the probes, for the time of a `with` block; a second one, all."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, pinger: Pinger | DatagramPinger) -> None:
        self.asked = False
        self._pinger = pinger
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Ending:
        for number in self.NUMBERS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # as a shell leaves SIGINT for what runs beside it
                self._before[number] = before
                signal.signal(number, self)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            os._exit(EXIT_INTERRUPTED)  # whoever reads the output may be stuck: no last flush
        self.asked = True
        self._pinger.stop()
        if self._pinger.interruptible:
            raise _Ended


def _pinger(args: argparse.Namespace) -> Pinger | DatagramPinger:
    """Return the pinger that the options ask for, or raise ConfigError."""
    from fastecho.measure.pinger import ENDLESS, Pinger
    from fastecho.measure.probes import SIZE_LIMIT

    try:
        if args.address.startswith("udp://"):
            return _datagram_pinger(args)
        return Pinger(
            args.address,
            size=_whole("--size", args.size, SIZE_LIMIT),
            interval=_seconds("--interval", args.interval),
            count=None if args.count is None else _whole("--count", args.count, ENDLESS),
            timeout=_seconds("--timeout", args.timeout),
            new_connection=args.new_connection,
            source=args.source,
            tos=None if args.tos is None else _tos(args.tos),
            family=_family(args),
            send_proxy=args.send_proxy,
            identify=args.identify,
        )
    except ConfigError as error:
        name = FLAGS.get(error.option, error.option)
        if error.option == "family":
            name = "-6" if args.ipv6 else "-4"
        value = getattr(args, error.option, error.value)  # as it was written
        raise ConfigError(name, value, error.reason) from None


def _datagram_pinger(args: argparse.Namespace) -> DatagramPinger:
    """Return the pinger for UDP, or raise ConfigError."""
    from fastecho.datagrams import LARGEST
    from fastecho.measure.datagram_pinger import HEADER, DatagramPinger
    from fastecho.measure.pinger import ENDLESS

    for option, value in (
        ("--new-connection", NO_VALUE if args.new_connection else None),
        ("--send-proxy", args.send_proxy),
        ("--identify", NO_VALUE if args.identify else None),
    ):
        if value is not None:
            raise ConfigError(
                option, value, f"needs a connection, which {args.address} does not have"
            )
    return DatagramPinger(
        args.address,
        size=_whole("--size", args.size, LARGEST, least=HEADER),
        interval=_seconds("--interval", args.interval),
        count=None if args.count is None else _whole("--count", args.count, ENDLESS),
        timeout=_seconds("--timeout", args.timeout),
        source=args.source,
        tos=None if args.tos is None else _tos(args.tos),
        family=_family(args),
    )


def _rules(texts: list[str]) -> list[Rule]:
    """Return the rules that --fail-if names, or raise ConfigError."""
    if not texts:
        return []
    from fastecho.measure.rules import Rule

    rules = [Rule(text, "--fail-if", BENCH_KNOWS) for text in texts]
    for rule in rules:
        if rule.metric.partition(".")[0] in BENCH_KNOWS:
            raise ConfigError("--fail-if", rule.text, f"asks for {rule.metric}, which bench knows")
    return rules


def _came_true(rules: list[Rule], result: Any) -> bool:
    """Say which rules came true; tell whether any did. `result` has what rules ask of a load's."""
    true = [rule for rule in rules if rule.fails(result)]
    for rule in true:
        complain(NAME, f"--fail-if {rule} came true: {rule.shown(result)}")
    return bool(true)


def _family(args: argparse.Namespace) -> int:
    if not args.ipv4 and not args.ipv6:
        return 0
    from fastecho.measure.route import FAMILIES

    return FAMILIES["IPv6" if args.ipv6 else "IPv4"]


def _tos(text: str) -> int:
    """Return the number that --tos stands for: decimal, or hexadecimal after 0x."""
    from string import hexdigits

    digits = text[2:] if text[:2] in ("0x", "0X") else ""
    if digits and not digits.strip(hexdigits) and int(digits, 16) <= 255:
        return int(digits, 16)
    return _whole("--tos", text, 255, least=0)


def _whole(option: str, text: str, most: int, *, least: int = 1) -> int:
    """Return the whole number that an option's text stands for."""
    from fastecho.measure.values import whole

    number = whole(least, most)(text, option)
    assert isinstance(number, int)
    return number


def _seconds(option: str, text: str) -> float:
    """Return the seconds that an option's text stands for; Pinger knows the limits."""
    from fastecho.measure.values import read_seconds

    if (value := read_seconds(text)) is None:
        raise ConfigError(option, text, "must be a time such as 1, 0.2, 500ms or 2m")
    return value


def _print(line: str) -> None:
    """Write a line on stdout now: a reader at the other end of a pipe sees it at once."""
    print(line, flush=True)


def _show(
    events: Iterator[Event],
    say: Callable[[str], None],
    args: argparse.Namespace,
    plan: dict[str, Any],
) -> None:
    """Run, and say what happens."""
    from fastecho.measure.ping_events import Back, Failure, Opened, Reply

    size, peer = _counted(plan["size"], "byte"), ""
    for event in events:
        if isinstance(event, Reply):
            if args.quiet:
                continue
            connect = f"connect={_ms(event.connect_ns)} ms " if args.new_connection else ""
            waited = f" (waited {_ms(event.waited_ns)} ms)" if event.waited_ns else ""
            late = " (late)" if event.late else ""
            late += f" (after seq={event.behind})" if event.behind else ""
            time, by = _ms(event.time_ns), ""
            if args.new_connection and event.identity is not None:
                by = f"instance={one_line(event.identity.instance)} "
            say(f"{size} from {peer}: seq={event.number} {by}{connect}time={time} ms{waited}{late}")
        elif isinstance(event, Opened):
            line, peer = event.line, event.line.peer
            here = f" from {line.local}" if line.local else ""
            how = f", connected in {_ms(line.connect_ns)} ms"
            if plan["target"].startswith("udp://"):
                how = ""
            say(f"PING {plan['target']} ({peer}): {size}{how}{here}")
            if line.identity is not None:
                say(str(line.identity))
        elif args.quiet:
            continue
        elif isinstance(event, Failure):
            say(str(event))
        elif isinstance(event, Back):
            now = "" if event.identity is None else f": {event.identity}"
            say(f"back after {_ms(event.gap_ns)} ms, {_counted(event.lost, 'probe')} lost{now}")


def _summary(result: PingResult) -> Iterator[str]:
    """Yield the lines that stand at the end."""
    yield ""
    yield f"--- {result.plan['target']} ping statistics ---"
    unanswered = f", {result.unanswered} unanswered" if result.unanswered else ""
    yield (
        f"{_counted(result.probes, 'probe')}, {result.transmitted} transmitted, "
        f"{result.received} received, {result.lost_percent:.6g}% lost{unanswered}, "
        f"time {result.elapsed_ns / 1e6:.0f} ms"
    )
    words = FAILURES
    if result.plan["target"].startswith("udp://"):
        words = {**FAILURES, "refused": ("refused", "refused")}
    failures = [_counted(n, *words[kind]) for kind, n in result.failures.items() if n]
    if failures:
        yield f"failures: {', '.join(failures)}"
    for name, tally in result.sorted_instances():
        yield (
            f"{one_line(name) or 'others'} answered {_counted(tally.received, 'probe')} "
            f"on {_counted(tally.connections, 'connection')}"
        )
    if result.gaps:
        yield (
            f"{_counted(result.gaps, 'gap')}, {_ms(result.gap_ns)} ms in all, "
            f"the longest {_ms(result.longest_gap_ns)} ms"
        )
    if result.still_away:
        lasts = f"no echo in the last {_ms(result.still_away_ns)} ms, to the end"
        yield f"{lasts}: {result.still_away}"
    times = result.timings
    if times.count:
        yield _times("rtt", times)
        yield f"stddev {_ms(times.stddev_ns)} ms, jitter {_ms(times.jitter_ns)} ms"
    if result.plan["new_connection"]:
        yield _times("connect", result.connect_timings)
    if result.tcp_rtt_ns is not None and result.tcp_rttvar_ns is not None:
        yield (
            f"the kernel's own (TCP_INFO): rtt {_ms(result.tcp_rtt_ns)} ms, "
            f"rttvar {_ms(result.tcp_rttvar_ns)} ms, "
            f"{_counted(result.retransmissions or 0, 'retransmission')}"
        )


def _times(what: str, times: Timings) -> str:
    middle = times.percentiles_ns(50, 90, 99)
    values = (times.min_ns, times.mean_ns, *middle, times.max_ns)
    return f"{what} min/avg/p50/p90/p99/max = {'/'.join(map(_ms, values))} ms"


def _ms(ns: float) -> str:
    """Return milliseconds to the microsecond: one form for every time, as in ping(8)."""
    return f"{ns / 1e6:.3f}"


def _counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun; no commas, for those who cut such lines at spaces."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def _write_json(path: str, result: PingResult) -> None:
    import json

    write_text(path, json.dumps(result.to_json(), indent=2) + "\n")
