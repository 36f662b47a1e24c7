"""What the commands of benchmarks/ share: options, order of work, exit codes. No measuring.

Exit codes: 0 every figure was printed, 1 a measurement failed, 2 usage, 3 a bar was not met and
`--strict` asked for it, 4 the machine or the installation cannot do it, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

from benchmarks import _build, _programs, _report
from benchmarks._environment import describe, doubts
from benchmarks._errors import MeasurementError, SetupError
from benchmarks._figures import Figure
from benchmarks._plan import Plan, cores, raise_descriptor_limit
from benchmarks._servers import pinned

FigureMaker = Callable[[Plan], Figure]


def parse(
    arguments: list[str] | None, module: str, about: str, names: list[str], choice: str = "--only"
) -> argparse.Namespace:
    """Return the options of a command that prints the figures `names`; `choice` chooses some."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=about,
        epilog=f"example: python -m {module} {choice} {names[0]} --json figures.json",
    )
    parser.add_argument(
        choice,
        dest="only",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"print this figure only; may be given several times ({', '.join(names)})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: shows that all works, figures are rough"
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the figures as JSON as well; without FILE to stdout, the text then to stderr",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 3 if a bar is not met")
    return parser.parse_args(arguments)


def check_file(path: str) -> None:
    """Raise SetupError if `path` cannot be written: better now than after the measuring."""
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise SetupError(f"--json {path} cannot be written: {error.strerror}") from error


def check_installation() -> None:
    """Raise SetupError unless the compiled parts are there."""
    for module in ("fastecho._core", "fastecho._load"):
        if importlib.util.find_spec(module) is None:
            raise SetupError(f"{module} is not built: run `pip install -e .` in the project first")


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, so that every server is ended too."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(
    module: str,
    about: str,
    makers: Mapping[str, FigureMaker],
    c_peers: bool,
    choice: str = "--only",
) -> int:
    """Measure, print and write what the command line asks for; return the exit code."""
    options = parse(None, module, about, list(makers), choice)
    chosen = options.only or list(makers)
    try:
        with ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="fastecho-peers-") as directory:
            return measure(options, {name: makers[name] for name in chosen}, c_peers, directory)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SetupError as error:
        print(f"{module}: {error}", file=sys.stderr)
        return 4


def measure(
    options: argparse.Namespace, makers: Mapping[str, FigureMaker], c_peers: bool, directory: str
) -> int:
    """Print each figure when it is ready, then the sum; return the exit code."""
    check_installation()
    if options.json and options.json != "-":
        check_file(options.json)
    raise_descriptor_limit()
    server_core, load_core = cores()
    programs = _programs.c_peers(_build.build(Path(directory))) if c_peers else []
    late = tuple(one for one in programs if one.name == _build.LATE.name)
    best = tuple(one for one in programs if one not in late)
    plan = Plan(server_core, load_core, options.quick, best, late)
    out = sys.stderr if options.json == "-" else sys.stdout
    environment, doubtful = describe(plan), doubts(plan)
    _report.print_head(environment, doubtful, out)
    figures: list[Figure] = []
    failed: list[str] = []
    started = time.monotonic()
    with pinned([load_core]):
        for name, make in makers.items():
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            try:
                figures.append(make(plan))
            except (MeasurementError, OSError) as error:
                # one figure that cannot be had does not take the others along
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                failed.append(f"{name}: {error}")
            else:
                _report.print_figure(figures[-1], out)
    _report.print_sum(figures, failed, out)
    print(f"took {time.monotonic() - started:.0f} s", file=out)
    if options.json:
        _report.write_json(environment, doubtful, figures, options.json)
    if failed:
        return 1
    missed = any(one.verdict == "not met" for figure in figures for one in figure.results)
    return 3 if options.strict and missed else 0
