"""Install a wheel on every CPython of this machine, without a compiler, and echo through it.

Lives here: finding the Pythons, a fresh environment for each, the table of results. Does not live
here: what is tested there (smoke.py), what the file holds (contents.py).

Each environment knows one folder of wheels and no registry, and its PATH holds nothing but itself:
what installs there needs no compiler, no network and nothing else of this machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

SMOKE = Path(__file__).resolve().with_name("smoke.py")
OLDEST = (3, 11)
STEP = 180.0
"""Seconds for each step."""

ASK = """
import json, os, platform, sys, sysconfig
print(json.dumps([
    platform.python_implementation(), list(sys.version_info[:2]), platform.python_version(),
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), os.path.realpath(sys.executable),
    sys.prefix != sys.base_prefix,
]))
"""


class Python(NamedTuple):
    """One interpreter of this machine."""

    version: str
    """As it calls itself, such as 3.12.1; free-threaded ones end with t."""
    tag: str
    """Such as cp312, or cp314t."""
    path: str
    """The real file."""


def candidates() -> list[str]:
    """Return every file that may be a Python, on PATH and where pyenv and uv keep theirs."""
    folders = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name]
    folders += [Path("/usr/bin"), Path("/usr/local/bin")]
    for home in (".pyenv/versions", ".local/share/uv/python"):
        folders += sorted((Path.home() / home).glob("*/bin"))
    pattern = re.compile(r"python3(\.\d+t?)?")
    return [
        str(path)
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if pattern.fullmatch(path.name) and os.access(path, os.X_OK)
    ]


def ask(path: str) -> Python | None:
    """Return what a candidate is; None if it does not start, is too old or no base CPython."""
    try:
        done = subprocess.run([path, "-I", "-c", ASK], capture_output=True, timeout=STEP)
    except OSError:
        return None
    if done.returncode:
        return None  # pyenv's stand-in for a version that is not chosen, or too old for -I
    kind, number, version, free_threaded, real, virtual = json.loads(done.stdout)
    if kind != "CPython" or tuple(number) < OLDEST or virtual:
        return None
    letter = "t" if free_threaded else ""
    return Python(f"{version}{letter}", f"cp{number[0]}{number[1]}{letter}", real)


def pythons() -> list[Python]:
    """Return the interpreters of this machine, each once, oldest first."""
    found = {python.path: python for python in map(ask, candidates()) if python}
    return sorted(found.values(), key=lambda one: [int(n) for n in re.findall(r"\d+", one.version)])


def is_for(wheel: Path, python: Python) -> bool:
    """Tell whether a wheel's tags name a Python."""
    _, _, oldest, abi, _ = wheel.stem.split("-")
    if abi == "abi3":
        return not python.tag.endswith("t") and int(oldest[3:]) <= int(python.tag[3:])
    return abi == python.tag


def try_on(python: Python, wheel: Path, folder: Path) -> str:
    """Install the wheel into a fresh environment and run the smoke test there.

    Returns:
        str: the last line of what was said; it starts with "fastecho" if all is well.
    """
    environment = {"PATH": str(folder / "bin"), "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    shutil.copy(wheel, folder.parent)
    inside = str(folder / "bin" / "python")
    install = [
        *(sys.executable, "-m", "pip", "--isolated", "--python", inside, "install", "--quiet"),
        *("--disable-pip-version-check", "--no-index", "--no-cache-dir", "--only-binary=:all:"),
        *("--find-links", str(folder.parent), f"fastecho=={wheel.name.split('-')[1]}"),
    ]
    steps = (
        [python.path, "-I", "-m", "venv", "--without-pip", str(folder)],
        install,
        [inside, "-I", "-W", "error", str(SMOKE)],
    )
    said = ""
    for step in steps:
        done = subprocess.run(
            step, cwd=folder.parent, env=environment, timeout=STEP, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said = (done.stdout.strip().splitlines() or [""])[-1]
        if done.returncode:
            return f"FAILED with {done.returncode}: {said}"
    return said


def main(names: list[str]) -> int:
    """Print the table; return 1 if a wheel fails anywhere or was tried nowhere."""
    found, failures, tried = pythons(), 0, set()
    print(f"{'Python':<12} {'wheel':<58} result")
    for wheel in (Path(name).resolve() for name in names):
        for python in found:
            result = "not for this Python"
            if is_for(wheel, python):
                with tempfile.TemporaryDirectory() as folder:
                    result = try_on(python, wheel, Path(folder) / "environment")
                tried.add(wheel)
                failures += not result.startswith("fastecho ")
            print(f"{python.version:<12} {wheel.name:<58} {result}", flush=True)
    untried = [name for name in names if Path(name).resolve() not in tried]
    if untried or not names:
        print(f"tried nowhere: {', '.join(untried) or 'there is no wheel'}")
    return 1 if failures or untried or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
