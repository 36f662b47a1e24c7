"""Building the shim: the library that stands between a process and the C library.

Lives here: the command that compiles it. Does not live here: what it does (shim/), loading it
into a process (served.py).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

SOURCES = [
    Path(__file__).resolve().parent / "shim" / name
    for name in ("shim.c", "campaign.c", "memory.c", "blocks.c")
]


def compiler() -> list[str]:
    """Return the words of the command that compiles C."""
    return shlex.split(os.environ.get("CC", "gcc"))


def has_compiler() -> bool:
    """Tell whether this machine can build it."""
    return shutil.which(compiler()[0]) is not None


def build_shim(folder: Path) -> Path:
    """Compile the shim into a folder; return its path."""
    library = folder / "shim.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command = [*compiler(), *flags, "-o", str(library), *map(str, SOURCES), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (built.returncode, built.stderr) == (0, "")
    return library
