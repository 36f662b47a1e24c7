"""What `make coverage` lets pass and what it does not, on small sources and records.

The figures of fastecho itself are the command's: it runs the whole suite.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from counts import (
    Headers,
    Lines,
    Place,
    add_cython,
    add_headers,
    add_python,
    add_uncompiled,
    places_in,
)
from measure import EXCLUDED, GCOV, Excluded, judge_headers, judge_lines, run_programs, spans
from test_c_headers import COMPILER, HEADERS

GENERATED = """\
static void utility(void) {
  work();
}
  /* "fastecho/_core.pyx":7
 * cdef int f():
 *     a = 1             # <<<<<<<<<<<<<<
*/
  a = 1;
  if (bad) goto error;
  /* "fastecho/_core.pyx":9
 *     b = 2             # <<<<<<<<<<<<<<
*/
  b = 2;

  /* function exit code */
  return 0;
}
static void another_utility(void) {
  work();
""".splitlines()


def gcov_says(file: str, counts: dict[int, int]) -> dict[str, Any]:
    """Return a report as gcov writes it."""
    lines = [{"line_number": number, "count": count} for number, count in counts.items()]
    return {"files": [{"file": file, "lines": lines}]}


# Lines of fastecho


def test_only_the_code_of_a_statement_counts_for_its_line() -> None:
    places = places_in(GENERATED)
    assert {number: line for number, (_, line) in places.items()} == {8: 7, 9: 7, 13: 9, 14: 9}
    assert {file for file, _ in places.values()} == {"fastecho/_core.pyx"}


def test_line_is_executed_when_one_extension_has_executed_it() -> None:
    lines: Lines = {}
    report = gcov_says("build/_core.c", {2: 9, 8: 0, 9: 0, 13: 0, 16: 9})
    add_cython(lines, report, "_core.c", GENERATED)
    add_cython(lines, gcov_says("build/_load.c", {8: 3, 13: 0}), "_load.c", GENERATED)
    assert lines == {"fastecho/_core.pyx": {7: 3, 9: 0}}


def test_counts_of_other_files_are_left_out() -> None:
    lines: Lines = {}
    add_cython(lines, gcov_says("Python.h", {8: 1}), "_core.c", GENERATED)
    assert lines == {}


def test_function_that_nothing_calls_is_a_line_that_is_not_executed() -> None:
    text = (
        'cdef extern from "x.h" nogil:\n'
        "    int theirs(int n)\n"
        "cdef inline int called() noexcept nogil:\n"
        "    return 1\n"
        "cdef inline int *forgotten(int n=1,\n"
        "                           int m=2) noexcept nogil:\n"
        "    cdef int rc = called()\n"
        "    return NULL\n"
        "cdef class C:\n"
        "    @property\n"
        "    def size(self):\n"
        "        return 1\n"
    )
    lines: Lines = {"a.pxd": {3: 5, 4: 5, 10: 5, 12: 5}}
    add_uncompiled(lines, "a.pxd", text)
    assert lines == {"a.pxd": {3: 5, 4: 5, 5: 0, 10: 5, 12: 5}}


def test_python_and_cython_make_one_total(capsys: pytest.CaptureFixture[str]) -> None:
    lines: Lines = {"fastecho/_core.pyx": dict.fromkeys(range(1, 16), 7)}
    files = {"fastecho/a.py": {"executed_lines": [1, 2, 3, 4], "missing_lines": [8]}}
    add_python(lines, {"files": files})
    assert judge_lines(lines, 95.0) == []
    assert capsys.readouterr().out.count(" 95.0\n") == 1


def test_line_that_is_not_executed_is_named_and_fails_below_the_bar(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines: Lines = {"fastecho/a.py": {1: 1, 2: 0, 3: 0, 5: 0, 7: 1}}
    assert judge_lines(lines, 95.0) == ["40.0 % of the lines of fastecho, of 95 %"]
    assert "fastecho/a.py: 2-3, 5\n" in capsys.readouterr().out


def test_nothing_measured_is_below_the_bar() -> None:
    assert judge_lines({}, 95.0)


@pytest.mark.parametrize(
    ("numbers", "text"), [((), ""), ((4,), "4"), ((3, 1, 2), "1-3"), ((1, 3, 4, 9), "1, 3-4, 9")]
)
def test_neighbours_are_written_as_one_span(numbers: tuple[int, ...], text: str) -> None:
    assert spans(numbers) == text


# Branches of src_c

TEXTS = {"x.h": ["int f(int n)", "{", "    if (n)", "        return 1;", "}", "}"]}
TAKEN, MISSED = Place("x.h", 3, 0), Place("x.h", 3, 1)
FOUND = Headers({TAKEN: 5, MISSED: 0}, {("x.h", "f"): 5})


def excluded(text: str = "if (n)", number: int = 1) -> Excluded:
    """Return an exclusion; as it stands, it is needed."""
    return Excluded("x.h", text, number, "the test says so")


def test_branch_that_is_not_taken_fails() -> None:
    assert judge_headers(FOUND, (), TEXTS) == ["branch 1 never taken: x.h:3: if (n)"]


def test_branch_that_cannot_be_taken_may_be_excluded() -> None:
    assert judge_headers(FOUND, (excluded(),), TEXTS) == []


@pytest.mark.parametrize(
    ("exclusion", "says"),
    [
        (excluded(number=0), "is taken: the exclusion is not needed"),
        (excluded(number=2), "has no branch 2"),
        (excluded(text="if (m)"), "stands there 0 times"),
        (excluded(text="}"), "stands there 2 times"),
    ],
    ids=["taken", "no-such-branch", "no-such-line", "ambiguous"],
)
def test_exclusion_that_is_not_needed_or_fits_nothing_fails(exclusion: Excluded, says: str) -> None:
    wrong = judge_headers(FOUND, (excluded(), exclusion), TEXTS)
    assert wrong == [f"excluded, but {says}: x.h: {exclusion.text}"]


def test_function_that_no_program_calls_fails() -> None:
    found = Headers({}, {("x.h", "f"): 0})
    assert judge_headers(found, (), TEXTS) == ["never called: x.h: f"]


def test_each_exclusion_is_of_a_header_and_says_why() -> None:
    assert {one.header for one in EXCLUDED} <= {path.name for path in HEADERS}
    assert all(one.reason for one in EXCLUDED)


def test_branch_counts_when_one_of_the_programs_has_taken_it() -> None:
    found = Headers({}, {})
    for first, second in ((1, 0), (0, 0)):
        branches = [{"count": first}, {"count": second}]
        file = {
            "file": "../src_c/x.h",
            "functions": [{"name": "f", "execution_count": first}],
            "lines": [{"line_number": 3, "branches": branches}],
        }
        add_headers(found, {"files": [file, {**file, "file": "test_x.c"}]}, {"x.h"})
    assert found == Headers({TAKEN: 1, MISSED: 0}, {("x.h", "f"): 1})


@pytest.mark.skipif(
    None in (shutil.which(GCOV), shutil.which(COMPILER[0])), reason="needs a C compiler and gcov"
)
def test_programs_are_built_run_and_counted_by_gcov(tmp_path: Path) -> None:
    (tmp_path / "x.h").write_text(
        "static inline int f(int n) { return n > 5 ? 1 : n > 3 ? 2 : 3; }\n"
        "static inline int unused(int n) { return n; }\n"
    )
    for n in (4, 9):
        program = f'#include "x.h"\nint main(void) {{ return f({n}) > 2; }}\n'
        (tmp_path / f"test_{n}.c").write_text(program)
    found = run_programs(sorted(tmp_path.glob("*.c")), {"x.h"}, tmp_path / "built")
    assert sorted(found.branches.values()) == [0, 1, 1, 1]
    assert found.functions == {("x.h", "f"): 2, ("x.h", "unused"): 0}


def test_program_that_fails_ends_the_measuring(tmp_path: Path) -> None:
    (tmp_path / "test_x.c").write_text("int main(void) { return 3; }\n")
    with pytest.raises(SystemExit, match=r"test_x\.c failed"):
        run_programs([tmp_path / "test_x.c"], set(), tmp_path / "built")
