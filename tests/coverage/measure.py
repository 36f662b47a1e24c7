"""How much of fastecho the tests execute, and every line that they do not: `make coverage`.

    make coverage                                everything
    make coverage ARGS=--headers                 only src_c, in seconds
    make coverage ARGS='tests/test_echo.py'      what these tests execute

Lives here: the bars, what may stay below them and why (EXCLUDED), the command. Does not live here:
how counts are read (counts.py), tests that are no use while lines are counted (../sanitize.py).

src_c: all branches of each header are taken and all functions called by the programs of tests/c,
without Python. A branch counts when any of the programs takes it. fastecho: lines of the .py files
(coverage.py, in every process that ends by itself) and of the .pyx and .pxd files (gcov, both
extensions together). Built and run in a copy of the tree: the ordinary build stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from counts import Headers, Lines, Place, add_cython, add_headers, add_python, add_uncompiled
from sanitize import ROOT, SLOWER, copy_tree
from test_c_headers import HEADERS, PROGRAMS, compile_c, run_program

FOLDER = ROOT / "build" / "coverage"
TREE = FOLDER / "tree"
BAR = 95.0
"""Per cent of the lines of fastecho/ that must be executed. Of src_c it is every branch."""
C_FLAGS = ["-O0", "--coverage", "-fprofile-update=atomic", "-fkeep-inline-functions"]
"""Unused functions are kept: otherwise nobody would see that they are not called."""
GCOV = os.environ.get("GCOV", "gcov")


class Excluded(NamedTuple):
    """A branch in a header that no test can take."""

    header: str
    text: str
    """The line, without its indentation: it stands there once."""
    number: int
    """Of the branch on that line, from 0, as gcov counts."""
    reason: str


EXCLUDED: tuple[Excluded, ...] = ()


def gcov(record: Path, *options: str) -> dict[str, object]:
    """Return what gcov says of one object file, named by its .gcno."""
    command = [GCOV, "--json-format", "--stdout", *options, str(record)]
    said = subprocess.run(command, cwd=record.parent, capture_output=True, text=True)
    if said.returncode or not said.stdout:
        raise SystemExit(f"{GCOV} cannot read {record.name}: {said.stderr.strip()}")
    report: dict[str, object] = json.loads(said.stdout)
    return report


def run_programs(sources: Iterable[Path], headers: Container[str], folder: Path) -> Headers:
    """Build C programs in a new folder and run them; return what they did in the headers."""
    found = Headers({}, {})
    shutil.rmtree(folder, ignore_errors=True)
    for source in sources:
        program = folder / source.stem / "program"
        program.parent.mkdir(parents=True)
        built = compile_c(source, program, C_FLAGS)
        if built.returncode:
            raise SystemExit(built.stderr)
        done = run_program(program)
        if done.returncode:
            raise SystemExit(f"{source.name} failed: {done.stdout}{done.stderr}")
        for record in program.parent.glob("*.gcno"):
            add_headers(found, gcov(record, "--branch-probabilities"), headers)
    return found


def excluded_places(
    excluded: Iterable[Excluded], taken: dict[Place, int], texts: dict[str, list[str]]
) -> Iterator[tuple[Place | None, str]]:
    """Give the place of each exclusion and what is wrong with it, or "" when it is needed."""
    for one in excluded:
        lines = [n for n, line in enumerate(texts[one.header], 1) if line.strip() == one.text]
        place = Place(one.header, lines[0], one.number) if len(lines) == 1 else None
        if place is None:
            complaint = f"stands there {len(lines)} times"
        elif place not in taken:
            complaint = f"has no branch {one.number}"
        else:
            complaint = "is taken: the exclusion is not needed" if taken[place] else ""
        yield place, f"excluded, but {complaint}: {one.header}: {one.text}" if complaint else ""


def judge_headers(
    found: Headers, excluded: Iterable[Excluded], texts: dict[str, list[str]]
) -> list[str]:
    """Print a table of the headers; return what keeps them from the bar."""
    judged = list(excluded_places(excluded, found.branches, texts))
    wrong = [complaint for _, complaint in judged if complaint]
    spared = {place for place, complaint in judged if not complaint}
    print(f"{'src_c':<32} {'branches':>9} {'taken':>9} {'excluded':>9} {'functions':>9}")
    for header, text in texts.items():
        places = sorted(place for place in found.branches if place.header == header)
        missed = [place for place in places if not found.branches[place] and place not in spared]
        functions = {name: n for (where, name), n in found.functions.items() if where == header}
        left_out = sum(place in spared for place in places)
        taken = len(places) - len(missed) - left_out
        print(f"{header:<32} {len(places):>9} {taken:>9} {left_out:>9} {len(functions):>9}")
        for place in missed:
            line = text[place.line - 1].strip()
            wrong.append(f"branch {place.number} never taken: {header}:{place.line}: {line}")
        wrong += [f"never called: {header}: {name}" for name, n in functions.items() if not n]
    return wrong


def spans(numbers: Iterable[int]) -> str:
    """Return line numbers as text: 3, 5-8."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def judge_lines(lines: Lines, bar: float) -> list[str]:
    """Print a table of the files and the lines that were not executed; return what is too low."""
    print(f"\n{'fastecho':<32} {'lines':>9} {'executed':>9} {'%':>9}")
    total = executed = 0
    for file, counts in sorted(lines.items()):
        done = sum(count > 0 for count in counts.values())
        total, executed = total + len(counts), executed + done
        if counts:
            print(f"{file:<32} {len(counts):>9} {done:>9} {100 * done / len(counts):>9.1f}")
    share = 100 * executed / total if total else 0.0
    print(f"{'all':<32} {total:>9} {executed:>9} {share:>9.1f}\n\nnot executed")
    for file, counts in sorted(lines.items()):
        if missed := [number for number, count in counts.items() if count == 0]:
            print(f"{file}: {spans(missed)}")
    return [] if share >= bar else [f"{share:.1f} % of the lines of fastecho, of {bar:g} %"]


def python(*words: str, **more: str) -> int:
    """Run Python in the copied tree; return its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(TREE), **more}
    return subprocess.run([sys.executable, *words], cwd=TREE, env=environment).returncode


def run_suite(arguments: list[str]) -> tuple[Lines, int]:
    """Build the copy and run its tests; return what was executed, and the tests' exit code."""
    copy_tree(TREE)
    # Built anew: objects of another Python would be taken for code that never ran.
    shutil.rmtree(TREE / "build", ignore_errors=True)
    for stale in [*TREE.glob("fastecho/*.so"), *TREE.glob(".coverage*")]:
        stale.unlink()
    if python("setup.py", "--quiet", "build_ext", "--inplace", FASTECHO_COVERAGE="1"):
        raise SystemExit("the extensions do not compile")
    # What gcov's part of a process cannot write, because the test took away files or descriptors,
    # is no business of the process's standard error.
    watched = {"FASTECHO_COVERAGE": "1", "GCOV_ERROR_FILE": str(TREE / "gcov-errors")}
    tests = python(
        "-m", "coverage", "run", "-m", "pytest", "-q", "-rfEs", f"--timeout={60 * SLOWER}",
        *arguments, **watched,
    )  # fmt: skip
    lines: Lines = {}
    python("-m", "coverage", "combine", "--quiet")
    python("-m", "coverage", "json", "--quiet", "-o", "coverage.json")
    add_python(lines, json.loads((TREE / "coverage.json").read_text()))
    for record in (TREE / "build").rglob("*.gcno"):
        (generated,) = TREE.glob(f"build/*/cython*/fastecho/{record.stem}.c")
        add_cython(lines, gcov(record), generated.name, generated.read_text().splitlines())
    for source in sorted((TREE / "fastecho").glob("*.p[yx][xd]")):
        add_uncompiled(lines, f"fastecho/{source.name}", source.read_text())
    return lines, tests


def main() -> int:
    """Measure; the exit status is 1 if a test failed or anything is below its bar."""
    parser = argparse.ArgumentParser(prog="make coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--headers", action="store_true", help="only src_c")
    options, arguments = parser.parse_known_args()
    if shutil.which(GCOV) is None:
        raise SystemExit(f"{GCOV} is missing: it comes with GCC; or name one with GCOV=...")
    texts = {path.name: path.read_text().splitlines() for path in HEADERS}
    headers = run_programs(PROGRAMS, texts, FOLDER / "c")
    lines, tests = None, 0
    if not options.headers:
        lines, tests = run_suite(arguments)
    wrong = judge_headers(headers, EXCLUDED, texts)
    if lines is not None:
        wrong += judge_lines(lines, BAR)
    wrong += [f"tests failed: {tests}"] if tests else []
    print("", *wrong, sep="\n")
    print("coverage:", "below the bar" if wrong else "reached")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
