"""`fastecho report`: show runs that were saved, compare them, add them up.

What lives here: the command's options, the order of things, the table of a comparison. What may not
live here: reading files (fastecho.measure.saved), the text of one result (_summary.py), how sure a
difference is (fastecho.measure.compare), adding up (fastecho.measure.merge).
"""

from __future__ import annotations

import os
import sys

from fastecho.cli import complain
from fastecho.errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import TextIO

    from fastecho.cli._summary import Paint
    from fastecho.measure.compare import Comparison, Figure
    from fastecho.measure.result import Result
    from fastecho.measure.rules import Rule

__all__ = ["add_arguments", "comparison_text", "run"]

NAME = "fastecho report"
EXIT_DONE, EXIT_THRESHOLD = 0, 3

DESCRIPTION = """\
Show what `fastecho bench --json FILE` (or --jsonl) has saved. Of two files or more, the
first is the baseline that each of the others is compared with: ratio, and where it lies
with a confidence of 99 %, as far as the intervals of the runs can tell. A difference that
chance explains is called noise.

With --merge all files are parts of one run, such as one from each of several machines:
counts and histograms are added up, percentiles are never averaged.

Exit code 0 also if a saved run has failures; 1 if an output cannot be written; 2 for a
wrong option, a file that is no result, or results that cannot be added up; 3 if a
--fail-if came true; 4 if --html lacks fastecho[report], or --json or --hgrm find
standard output closed."""

EXAMPLE = """\
examples:
  fastecho report run.json
  fastecho report before.json after.json
  fastecho report --merge node-*.json --json all.json
  fastecho report after.json --baseline before.json --fail-if 'p99>2ms' --html page.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="a saved result; - is standard input"
    )
    parser.add_argument(
        "--merge", action="store_true", help="show the sum of all files, as one run"
    )
    parser.add_argument(
        "--baseline",
        metavar="FILE",
        help="compare with this result (default: the first FILE, if there are several)",
    )
    parser.add_argument("--label", metavar="TEXT", help="name the one result that is shown")
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="RULE",
        help="exit code 3 if this is true of a result (the baseline is not asked); may be "
        "repeated: 'p99>2ms', 'rate<50k', 'failures>0'",
    )
    for flag, what in (
        ("--json", "the result or the comparison as JSON"),
        (
            "--hgrm",
            "the latencies of the one result, in microseconds, as HdrHistogram's tools plot them,",
        ),
    ):
        parser.add_argument(
            flag,
            nargs="?",
            const="-",
            metavar="OUT",
            help=f"write {what} to a file, or to standard output; text for people then goes to "
            "standard error",
        )
    parser.add_argument(
        "--html",
        metavar="OUT",
        help="write one page with charts of all results, for a browser (needs fastecho[report])",
    )
    parser.set_defaults(jsonl=None)


def run(args: argparse.Namespace) -> int:
    """Read, add up, compare, show; return the exit code."""
    from fastecho.cli._outputs import Outputs
    from fastecho.measure import read
    from fastecho.measure.rules import Rule

    _check(args)
    rules = [Rule(text, "--fail-if") for text in args.fail_if]
    paths = list(args.files)
    results = [read(path) for path in paths]
    if args.merge:
        results, paths = [_merged(results, paths)], [" + ".join(paths)]
    if args.label is not None:
        results[0] = _labelled(results, args.label)
    if args.baseline is not None:
        _move_to_front(results, paths, args.baseline)
    judged = list(zip(results, paths, strict=True))[len(results) > 1 :]
    for rule in rules:
        for result, _ in judged:
            rule.check_plan(result.plan)
    if args.hgrm is not None and results[0].latency is None:
        raise ConfigError(
            "--hgrm", args.hgrm, f"has nothing to show: {paths[0]} holds no latencies"
        )
    for result, path in zip(results, paths, strict=True):
        if args.html is not None and result.plan.is_one_way:
            reason = f"shows messages, and {path} has none: it is of bench --{result.plan.loop}"
            raise ConfigError("--html", args.html, reason)
    outputs = Outputs(args)
    stream = sys.stderr if outputs.takes_stdout else sys.stdout
    if len(results) == 1:
        _put(_shown(results[0], stream), stream)
        outputs.result(results[0], None)
    else:
        found = _compared(results, paths)
        _put(_as_text(found, stream), stream)
        outputs.comparison(found, results)
    return _judge(rules, judged)


def _put(text: str, stream: TextIO | None) -> None:
    """Write what people read: before the files, for a disk may be full."""
    if stream is not None:
        stream.write(text)
        stream.flush()


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not fit together, before anything is read or written."""
    files = args.files
    written = {flag: getattr(args, flag) for flag in ("json", "hgrm", "html")}
    if not files:
        for flag, path in written.items():
            if path not in (None, "-"):
                reason = f"was taken for a file to write: name the files to read before --{flag}"
                raise ConfigError(f"--{flag}", path, reason)
        raise ConfigError("FILE", "", "is missing: name a result that bench --json has saved")
    several = len(files) > 1 and not args.merge
    if args.hgrm is not None and (several or args.baseline is not None):
        raise ConfigError("--hgrm", args.hgrm, "is for one result: name one file, or use --merge")
    if args.label is not None and several:
        raise ConfigError("--label", args.label, "names one result: name one file, or use --merge")
    if [*files, args.baseline].count("-") > 1:
        raise ConfigError("FILE", "-", "is standard input, which can be read once")
    for flag, path in written.items():
        if path in (None, "-"):
            continue
        if any(_same(path, one) for one in (*files, args.baseline)):
            raise ConfigError(f"--{flag}", path, "is also a file to read: it would be overwritten")
        if _is_run(path):
            reason = "is a saved run, and would be overwritten: remove it, or name another file"
            raise ConfigError(f"--{flag}", path, reason)


def _is_run(path: str) -> bool:
    """Tell whether a file holds a saved run: `--json A B`, meant to read A, would destroy it.

    A run of a cluster is one as well, and so are the lines of one that was broken off. (Another
    comparison is not.)
    """
    try:
        if not os.path.isfile(path):  # a pipe: who opened it would wait for its writer
            return False
        with open(path, encoding="utf-8", errors="replace") as file:
            start = file.read(4096)
    except (OSError, ValueError):
        return False
    return '"fastecho-bench"' in start or '"event": "' in start


def _same(one: str, other: str | None) -> bool:
    try:
        return other is not None and os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _merged(results: Sequence[Result], paths: Sequence[str]) -> Result:
    from fastecho.measure.merge import copies, merge

    if (found := copies(results)) is not None:
        one, other = (paths[n] for n in found)
        what = "is given twice" if one == other else f"holds the same run as {one}"
        raise ConfigError("--merge", other, f"{what}: it would be counted twice")
    try:
        whole = merge(results)
    except ValueError as error:
        _refuse_damaged(results, paths)
        raise ConfigError("--merge", len(results), f"files cannot be added up: {error}") from None
    if any(one.search is not None for one in results):
        complain(NAME, "--merge leaves out the steps of --find-max: they are not runs of one load")
    return whole


def _refuse_damaged(results: Sequence[Result], paths: Sequence[str]) -> None:
    """Name the file whose intervals cannot be read, if there is one."""
    from fastecho.measure.merge import latencies_of

    for result, path in zip(results, paths, strict=True):
        try:
            latencies_of(result.intervals)
        except ValueError as error:
            raise ConfigError("file", path, f"has a damaged interval: {error}") from None


def _labelled(results: Sequence[Result], label: str) -> Result:
    from fastecho.measure.values import label as checked

    result = results[0]
    result.label = checked(label, "--label")
    return result


def _move_to_front(results: list[Result], paths: list[str], baseline: str) -> None:
    """Make the baseline the first result; it is read if it is not there yet."""
    from fastecho.measure import read

    for n, path in enumerate(paths):
        if _same(path, baseline) or path == baseline:
            if len(paths) == 1:
                raise ConfigError("--baseline", baseline, "is the only result: name another FILE")
            results.insert(0, results.pop(n))
            paths.insert(0, paths.pop(n))
            return
    results.insert(0, read(baseline))
    paths.insert(0, baseline)


def _shown(result: Result, stream: object) -> str:
    from fastecho.cli._summary import look_of, summary

    return summary(result, **look_of(stream))


def _compared(results: list[Result], paths: Sequence[str]) -> list[Comparison]:
    from fastecho.measure.compare import compare

    try:
        return compare(results)
    except ValueError:
        _refuse_damaged(results, paths)
        raise


def _as_text(found: Sequence[Comparison], stream: object) -> str:
    from fastecho.cli._summary import look_of

    color = look_of(stream)["color"]
    return "\n".join(comparison_text(one, color=color) for one in found)


def _judge(rules: Sequence[Rule], judged: Sequence[tuple[Result, str]]) -> int:
    """Say which rules came true; return the exit code."""
    code = EXIT_DONE
    for result, path in judged:
        for rule in rules:
            if rule.fails(result):
                complain(NAME, f"{path}: --fail-if {rule} came true: {rule.shown(result)}")
                code = EXIT_THRESHOLD
    return code


# --- a comparison as text ---------------------------------------------------------------------


def comparison_text(comparison: Comparison, *, color: bool) -> str:
    """Return a table of two runs, lines ended by newlines."""
    from fastecho.cli._summary import Paint
    from fastecho.cli._terminal import printable

    paint = Paint(color=color)
    text = f"baseline   {printable(comparison.baseline)}\n"
    text += f"compared   {printable(comparison.name)}\n\n"
    titles = f"{'':<8}{'baseline':>14}{'compared':>14}{'ratio':>9}   99 % between"
    text += paint(titles, "bold") + "\n"
    text += "".join(_row(figure, paint) for figure in comparison.figures)
    for note in comparison.notes:
        text += paint(f"note: {printable(note)}", "yellow") + "\n"
    return text


def _row(figure: Figure, paint: Paint) -> str:
    from fastecho.cli._summary import bytes_text, count_text, time_text

    tells = {"rate": count_text, "throughput": bytes_text}
    cells = [
        "-"
        if value is None
        else f"{tells[figure.name](value)}/s"
        if figure.name in tells
        else time_text(value)
        for value in (figure.baseline, figure.value)
    ]
    ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
    between = "" if figure.low is None else f"{figure.low:.3f} and {figure.high:.3f}"
    better = figure.verdict == ("more" if figure.name in tells else "less")
    words = _words(figure)
    if figure.verdict in ("more", "less"):
        words = paint(words, "green" if better else "red")
    first = f"{figure.name:<8}{cells[0]:>{22 - max(len(figure.name), 8)}}"
    return f"{first}{cells[1]:>14}{ratio:>9}   {between:<18}  {words}\n"


def _words(figure: Figure) -> str:
    """Return the verdict on a figure in words."""
    if figure.ratio is None:
        return "no replies to compare"
    if figure.low is None:
        return "cannot tell: too few intervals"
    if figure.verdict not in ("more", "less"):
        return figure.verdict
    if figure.ratio >= 2:
        return f"{figure.ratio:.1f} times as much"
    return f"{abs(figure.ratio - 1):.1%} {figure.verdict}".replace("%", " %")
