"""The sanitizers are awake: each kind of fault, made on purpose in C of ours, is found.

The faults are made in a small library that a Python program loads, in the environment in which
the tests themselves run. In an ordinary run only the list of skipped tests is looked at.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sanitize import ANY, LEAKS_OF_PYTHON, NOT_UNDER, QUICK, REPORT, Skip, chosen, reason_in

TESTS = Path(__file__).resolve().parent
NAMES = chosen()

FAULTS = """
#include <pthread.h>
#include "buffer.h"

void a_leak(void)
{
    fe_buffer *lost = NULL;
    for (int i = 0; i < 10; i++) {
        lost = NULL;
        (void)fe_buffer_reserve(&lost, 1);
    }
}

void an_overrun(void)
{
    fe_buffer *b = NULL;
    if (fe_buffer_append(&b, "x", 1) == 0)
        ((volatile unsigned char *)b->data)[b->capacity] = 1;
    fe_buffer_free(&b);
}

void a_use_after_free(void)
{
    fe_buffer *b = NULL, *kept;
    if (fe_buffer_append(&b, "x", 1) == 0) {
        kept = b;
        fe_buffer_free(&b);
        ((volatile unsigned char *)kept->data)[0] = 1;
    }
}

void an_overflow(void)
{
    volatile int most = 2147483647;
    most = most + 1;
}

static unsigned long shared;

static void *count(void *unused)
{
    for (int i = 0; i < 100000; i++)
        shared++;
    return unused;
}

void a_race(void)
{
    pthread_t one, other;
    if (pthread_create(&one, NULL, count, NULL) == 0) {
        if (pthread_create(&other, NULL, count, NULL) == 0)
            pthread_join(other, NULL);
        pthread_join(one, NULL);
    }
}

void nothing(void)
{
    fe_buffer *b = NULL;
    (void)fe_buffer_reserve(&b, 1);
    fe_buffer_free(&b);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the faults with the sanitizers that watch this process, as setup.py builds ours."""
    if not NAMES:
        pytest.skip("no sanitizer watches this process: see make sanitize")
    folder = tmp_path_factory.mktemp("faults")
    (folder / "faults.c").write_text(FAULTS)
    flags = ["-std=gnu11", "-shared", "-fPIC", "-O1", "-g", "-fno-omit-frame-pointer", "-pthread"]
    flags += [*(f"-fsanitize={name}" for name in NAMES), "-fno-sanitize-recover=undefined"]
    command = [*shlex.split(os.environ.get("CC", "gcc")), *flags, f"-I{TESTS.parent / 'src_c'}"]
    built = subprocess.run(
        [*command, str(folder / "faults.c"), "-o", str(folder / "faults.so")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "faults.so"


def said_about(library: Path, fault: str) -> tuple[int, str]:
    """Make a fault in a Python program; return its exit code and what was written about it."""
    reports = library.parent / fault
    reports.mkdir()
    environment = dict(os.environ)
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
        # The last one counts: these reports are wanted, and are no finding of the run.
        environment[name] = f"{environment.get(name, '')}:log_path={reports / 'report'}"
    script = "import ctypes, sys; getattr(ctypes.CDLL(sys.argv[1]), sys.argv[2])()"
    done = subprocess.run(
        [sys.executable, "-c", script, str(library), fault],
        env=environment,
        timeout=60,
        capture_output=True,
        text=True,
    )
    said = [path.read_text() for path in sorted(reports.iterdir())]
    return done.returncode, "".join([*said, done.stderr])


@pytest.mark.parametrize(
    ("fault", "sanitizer", "says"),
    [
        ("a_leak", "address", "LeakSanitizer: detected memory leaks"),
        ("an_overrun", "address", "heap-buffer-overflow"),
        ("a_use_after_free", "address", "heap-use-after-free"),
        ("an_overflow", "undefined", "signed integer overflow"),
        ("a_race", "thread", "data race"),
    ],
)
def test_fault_in_our_code_is_found(library: Path, fault: str, sanitizer: str, says: str) -> None:
    if sanitizer not in NAMES:
        pytest.skip(f"{','.join(NAMES)} does not look for it")
    code, report = said_about(library, fault)
    assert says in report
    assert fault in report or "count" in report, "the report names our function"
    assert code == REPORT or (sanitizer == "undefined" and code != 0)


def test_code_without_a_fault_is_not_reported(library: Path) -> None:
    assert said_about(library, "nothing") == (0, "")


@pytest.mark.parametrize(
    "skip",
    NOT_UNDER + LEAKS_OF_PYTHON,
    ids=lambda skip: f"{skip.where} under {','.join(sorted(skip.under))}",
)
def test_exception_exists_and_says_why(skip: Skip) -> None:
    name, _, function = skip.where.partition("::")
    assert f"def {function or 'test_'}" in (TESTS / name).read_text()
    assert skip.under
    assert skip.under <= ANY
    assert skip.reason


def test_exception_is_for_the_sanitizers_that_it_names() -> None:
    table = (Skip("test_x.py::test_a", frozenset({"thread"}), "why"),)
    assert reason_in(table, "test_x.py::test_a[1]", ["thread"]) == "why"
    assert reason_in(table, "test_x.py::test_a", ["address", "undefined"]) is None
    assert reason_in(table, "test_x.py::test_b", ["thread"]) is None
    assert reason_in(table, "test_x.py::test_a", []) is None


@pytest.mark.parametrize("name", QUICK)
def test_quick_form_names_tests_that_exist(name: str) -> None:
    assert (TESTS / f"{name}.py").is_file()
