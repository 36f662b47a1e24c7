"""What was executed, in terms of the sources: from what gcov and coverage.py have counted.

Lives here: from the lines of the C that Cython writes to the lines of a .pyx or .pxd, and the sum
over several builds of one source. Does not live here: running anything, bars (measure.py).

Cython could name its own lines to the compiler (emit_linenums), and gcov would then speak of them.
But the code that it puts around ours is counted as well, on lines to which it does not belong:
comments seem to run, and a line that never ran seems to have run. So gcov counts lines of C, and
the comments that Cython writes before each statement say what is ours.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

Report = Mapping[str, Any]
"""What `gcov --json-format` says of one object file."""
Lines = dict[str, dict[int, int]]
"""File, line, how often it was executed."""

STATEMENT = re.compile(r'\s*/\* "([\w/]+\.p[yx][xd])":(\d+)$')
FUNCTION = re.compile(r"\s*(?:cdef|cpdef|def)\b[^=]*?\b(\w+)\(")


class Place(NamedTuple):
    """One branch in a header: one way on from a condition."""

    header: str
    line: int
    number: int
    """Among the branches of that line, from 0, in gcov's order."""


class Headers(NamedTuple):
    """How often each branch was taken, and each function was called, in any of the programs."""

    branches: dict[Place, int]
    functions: dict[tuple[str, str], int]
    """By header and name."""


def places_in(generated: Iterable[str]) -> dict[int, tuple[str, int]]:
    """Return where the lines of a C file that Cython wrote come from; its own are left out."""
    places: dict[int, tuple[str, int]] = {}
    place, in_comment = None, False
    for number, line in enumerate(generated, 1):
        if begins := STATEMENT.match(line):
            place, in_comment = (begins[1], int(begins[2])), True
        elif in_comment:
            in_comment = not line.rstrip().endswith("*/")
        elif line.startswith("}") or line.strip() == "/* function exit code */":
            place = None
        elif place is not None:
            places[number] = place
    return places


def add_cython(lines: Lines, report: Report, name: str, generated: Iterable[str]) -> None:
    """Add the lines of the sources from which the C file `name` was generated."""
    places = places_in(generated)
    for file in report["files"]:
        if not file["file"].endswith(name):
            continue
        for line in file["lines"]:
            if line["line_number"] in places:
                source, number = places[line["line_number"]]
                counts = lines.setdefault(source, {})
                counts[number] = counts.get(number, 0) + line["count"]


def add_uncompiled(lines: Lines, source: str, text: str) -> None:
    """Add the functions of a .pyx or .pxd of which no code was made, because nothing calls them.

    The code of a function that is decorated belongs to the line of its first decorator.
    """
    counts, is_extern, decorator = lines.setdefault(source, {}), False, None
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line[0].isspace():
            is_extern = line.startswith("cdef extern")
        if line.lstrip().startswith("@"):
            decorator = decorator or number
            continue
        if FUNCTION.match(line) and not is_extern:
            counts.setdefault(decorator or number, 0)
        decorator = None


def add_python(lines: Lines, report: Report) -> None:
    """Add what coverage.py says (its JSON). It does not count how often."""
    for source, file in report["files"].items():
        counts = lines.setdefault(source, {})
        counts |= dict.fromkeys(file["executed_lines"], 1) | dict.fromkeys(file["missing_lines"], 0)


def add_headers(into: Headers, report: Report, headers: Container[str]) -> None:
    """Add what one program has done in the headers (by file name).

    A function in a header is compiled in each program that includes it: what one has done counts.
    """
    for file in report["files"]:
        header = file["file"].rpartition("/")[2]
        if header not in headers:
            continue
        for function in file["functions"]:
            key = header, function["name"]
            into.functions[key] = into.functions.get(key, 0) + function["execution_count"]
        for line in file["lines"]:
            for number, branch in enumerate(line["branches"]):
                place = Place(header, line["line_number"], number)
                into.branches[place] = into.branches.get(place, 0) + branch["count"]
