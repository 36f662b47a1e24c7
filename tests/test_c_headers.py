"""The headers of src_c pass their own tests, in plain C, without Python.

Each tests/c/test_*.c is a program that returns 0 when every check held. It is built twice: as
it is shipped (optimized), and under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = sorted((ROOT / "tests" / "c").glob("test_*.c"))
HEADERS = sorted((ROOT / "src_c").glob("*.h"))

COMPILER = shlex.split(os.environ.get("CC", "gcc"))
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'src_c'}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
BUILDS = {"optimized": ["-O2"], "sanitized": ["-O1", "-g", "-fno-omit-frame-pointer", *SANITIZERS]}


def compile_c(source: Path, output: Path, flags: list[str]) -> subprocess.CompletedProcess[str]:
    """Compile and link one C file; the result holds what the compiler said."""
    command = [*COMPILER, *STRICT, *flags, str(source), "-o", str(output), "-lm", "-pthread"]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


@cache
def can_sanitize(folder: Path) -> bool:
    """Tell whether this compiler can link the sanitizers: musl systems come without."""
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    return compile_c(probe, folder / "probe", SANITIZERS).returncode == 0


def run_program(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a built test. Only what the sanitizers need is taken from the environment."""
    environment = {"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=1"}
    command = [str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("source", PROGRAMS, ids=lambda path: path.stem)
def test_c_program_passes(
    source: Path, build: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if build == "sanitized" and not can_sanitize(tmp_path_factory.getbasetemp()):
        pytest.skip(f"{COMPILER[0]} cannot link {SANITIZERS[0]}")
    compiled = compile_c(source, tmp_path / "program", BUILDS[build])
    assert (compiled.returncode, compiled.stderr) == (0, "")
    result = run_program(tmp_path / "program")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_header_compiles_alone(header: Path, tmp_path: Path) -> None:
    """It includes what it needs, and twice is as good as once."""
    source = tmp_path / "alone.c"
    source.write_text(f'#include "{header.name}"\n#include "{header.name}"\nint unused;\n')
    result = compile_c(source, tmp_path / "alone.o", ["-c", "-O1"])
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_header_has_tests_in_c(header: Path) -> None:
    included = [
        name
        for program in PROGRAMS
        for name in re.findall(r'#\s*include\s*"([^"]+)"', program.read_text())
    ]
    assert header.name in included


@pytest.mark.parametrize(
    "body",
    [
        "return 1;",
        "volatile int most = 2147483647; return most + 1 == 0;",
        "char *volatile p = malloc(1); return p[1] == 7;",
    ],
    ids=["failed-check", "undefined", "overrun"],
)
def test_failing_c_program_is_noticed(
    body: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sanitized = can_sanitize(tmp_path_factory.getbasetemp())
    if body != "return 1;" and not sanitized:
        pytest.skip(f"{COMPILER[0]} cannot link {SANITIZERS[0]}")
    source = tmp_path / "wrong.c"
    source.write_text(f"#include <stdlib.h>\nint main(void)\n{{\n    {body}\n}}\n")
    flags = BUILDS["sanitized" if sanitized else "optimized"]
    compiled = compile_c(source, tmp_path / "program", flags)
    assert (compiled.returncode, compiled.stderr) == (0, "")
    assert run_program(tmp_path / "program").returncode != 0
