"""Compile the C peers into a directory that goes away with the run.

Only the compiler's call lives here; what the programs do is in peers/*.c.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks._errors import SetupError

PEERS = Path(__file__).resolve().parent / "peers"

# warnings are errors: a peer that compiles with a warning is not written as well as we can
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True, slots=True)
class Variant:
    """One program made of peers/echo.c."""

    name: str
    # bytes that one recv asks for, and one send takes
    buffer_size: int
    # bytes of a recv that marks bulk; 0: always one recv
    bulk_mark: int
    # microseconds that it wastes between a bulk recv and its send: no peer to compare with, but
    # it shows what being late alone does to a figure
    idle_us: int = 0


VARIANTS = (
    Variant("C 64K", 64 * 1024, 0),
    Variant("C 256K", 256 * 1024, 0),
    Variant("C drain 256K", 256 * 1024, 32 * 1024),
    Variant("C drain 512K", 512 * 1024, 32 * 1024),
)
LATE = Variant("C 256K, 20 us late", 256 * 1024, 0, idle_us=20)


def compiler() -> str:
    """Return the path of gcc, or of what stands for it."""
    for name in ("gcc", "cc"):
        if path := shutil.which(name):
            return path
    raise SetupError("no C compiler is installed: install gcc to measure against the C peers")


def compiler_version() -> str:
    """Return the compiler's own first line."""
    shown = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()[0]


def compile_source(source: str, program: Path, *defines: str) -> Path:
    """Compile a file of peers/ to `program`, and return that."""
    command = [compiler(), *FLAGS, *defines, str(PEERS / source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{compiler()} could not compile {source}: {done.stderr.strip()}")
    return program


def build(directory: Path) -> dict[str, Path]:
    """Compile every variant into `directory`; return the program of each name."""
    programs: dict[str, Path] = {}
    for variant in (*VARIANTS, LATE):
        program = directory / variant.name.replace(" ", "-").replace(",", "").lower()
        programs[variant.name] = compile_source(
            "echo.c",
            program,
            f"-DBUFFER_SIZE={variant.buffer_size}",
            f"-DBULK_MARK={variant.bulk_mark}",
            f"-DIDLE_US={variant.idle_us}",
        )
    return programs
