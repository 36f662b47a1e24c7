"""`make` says in one line what a machine lacks, before it makes anything; workflows call it.

Each lack is faked: a Python that calls itself older, one without ensurepip, one whose headers
are elsewhere, a compiler that is not there or finds no C library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUITE = "tests/conformance/test_conformance.py"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder that holds what `make` reads before the first step."""
    folder = tmp_path / "tree"
    (folder / ".ci").mkdir(parents=True)
    for name in ("Makefile", ".ci/missing"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text("")
    for name in ("setup.py", "fastecho/_version.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    return folder


def make(tree: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in the tree, with this test's Python unless another one is named."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *words]
    if not any(word.startswith("PYTHON=") for word in words):
        command.append(f"PYTHON={sys.executable}")
    return subprocess.run(
        command,
        cwd=tree,
        env={**clean, "LC_ALL": "C", **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def targets() -> list[str]:
    """Return the targets that the Makefile offers."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert phony
    return phony[1].split()


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Return make's only line, less its frame."""
    assert result.returncode == 2
    assert result.stdout == ""
    found = re.fullmatch(r"Makefile:\d+: \*\*\* (.*)\.  Stop\.\n", result.stderr)
    assert found, result.stderr
    return found[1]


@pytest.mark.parametrize(
    ("module", "code", "says"),
    [
        (
            "sitecustomize",
            "import sys; sys.version_info = (3, 9, 18)",
            r"is Python 3\.9\.18: fastecho needs 3\.11 or later",
        ),
        ("ensurepip", "raise ImportError('split off')", r"^python3\S*-venv is missing: "),
        (
            "sitecustomize",
            "import sysconfig; sysconfig.get_path = lambda *names: '/nowhere'",
            r"^Python\.h is missing: .*python3\S*-dev",
        ),
    ],
    ids=["too-old", "no-venv", "no-headers"],
)
def test_python_that_will_not_do_is_named_in_one_line(
    tree: Path, tmp_path: Path, module: str, code: str, says: str
) -> None:
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    (fakes / f"{module}.py").write_text(code + "\n")
    assert re.search(says, complaint(make(tree, "serve", PYTHONPATH=str(fakes))))
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize(
    ("compiler", "says"),
    [
        ("no-such-compiler", r"^no-such-compiler is missing: install a C compiler"),
        ("false", r"^false does not find stdlib\.h: install the headers of the C library"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux compiles")
def test_compiler_that_will_not_do_is_named_in_one_line(
    tree: Path, compiler: str, says: str
) -> None:
    assert re.search(says, complaint(make(tree, "test", CC=compiler)))
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize(
    "target",
    [
        "serve",
        "test",
        "lint",
        "docs",
        "bench",
        "faults",
        "endings",
        "scale",
        "soak",
        "debug",
        "sanitize",
        "coverage",
        "sdist",
        "wheel",
        "cross",
    ],
)
def test_missing_python_is_named_in_one_line(tree: Path, target: str) -> None:
    said = complaint(make(tree, target, "PYTHON=no-such-python"))
    assert said.startswith("no-such-python is missing: install Python 3.11 or later")


def test_missing_clang_is_named_in_one_line_before_anything_is_made(tree: Path) -> None:
    said = complaint(make(tree, "fuzz", "CLANG=no-such-clang"))
    assert said.startswith("no-such-clang is missing: install a compiler with libFuzzer")
    assert not (tree / ".venv").exists()


def test_python_that_does_not_start_is_named_in_one_line(tree: Path) -> None:
    assert complaint(make(tree, "serve", "PYTHON=false")).startswith("false does not start")


def test_nothing_is_missing_where_fastecho_was_built(tree: Path) -> None:
    result = subprocess.run(
        [".ci/missing", sys.executable], cwd=tree, capture_output=True, text=True, timeout=30
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_make_alone_lists_every_target(tree: Path) -> None:
    result = make(tree)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.findall(r"^  ([\w-]+)", result.stdout, re.M) == targets()
    assert not (tree / ".venv").exists()


def test_every_test_of_the_models_and_of_the_conformance_suite_is_of_one_target() -> None:
    """`make test` and `make test-models` share them: all of a file's, or by what they run."""
    command = ["make", "-n", f"PYTHON={sys.executable}", "test", "test-models"]
    outer = ("MAKE", "ARGS")
    clean = {name: text for name, text in os.environ.items() if not name.startswith(outer)}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=30)
    said = done.stdout
    test, models = re.findall(r"-m pytest (.*)$", said, re.M)
    places = re.findall(r" (tests/\S+)", models)

    # What is named is collected even if it is ignored.
    left = " ".join(place for place in places if f"--ignore={place}" not in test)
    running = [
        subprocess.Popen(
            f"exec {sys.executable} -m pytest --collect-only -q {words}",
            shell=True,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for words in (f"{test} {left}", models, " ".join(places))
    ]
    first, second, every = (
        [line for line in one.communicate(timeout=60)[0].splitlines() if "::" in line]
        for one in running
    )
    assert sorted(first + second) == sorted(every)
    files = {line.partition("::")[0] for line in second}
    names = ["test_tutorial.py", *(path.name for path in ROOT.glob("tests/test_models*.py"))]
    assert files == {*(f"tests/{name}" for name in names), SUITE}
    assert {line.partition("::")[0] for line in first} == {SUITE}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda path: path.stem
)
def test_workflow_calls_targets_and_awaits_jobs_that_exist(path: Path) -> None:
    text = path.read_text()
    called = set(re.findall(r"^ *(?:- )?run: make (\w+)", text, re.M))
    assert called
    assert called - set(targets()) == set()
    jobs = set(re.findall(r"^  ([\w-]+):$", text[text.index("\njobs:\n") :], re.M))
    awaited = " ".join(re.findall(r"^ +needs: \[?([\w, -]+)", text, re.M))
    assert set(re.findall(r"[\w-]+", awaited)) - jobs == set()
