"""Build the wheels for other processors and C libraries here, and run of them what runs here.

Lives here: the targets, the steps from the sdist to bytes echoed, the table of results. Does not
live here: emulators and foreign files (foreign.py), what a wheel must hold (contents.py), what is
done with it (smoke.py), which is the same as for the wheels of this machine (everywhere.py).

    python tests/wheel/cross.py [TARGET...]

The compiler is zig's, which brings the headers and the start-up files of every C library; it is
told through CPython's own way of being cross-compiled: `_sysconfigdata` says which compiler,
`_PYTHON_HOST_PLATFORM` for which platform. auditwheel judges which tag the outcome deserves. What
this machine lacks is left out and said; what is tried and fails ends the run with exit code 1.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from contents import EXTENSIONS, wheel_complaints
from everywhere import ask, try_on
from foreign import LackError, emulator, python_in, unpacked

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "cross"
PROGRAMS = sorted((ROOT / "tests" / "c").glob("test_*.c"))
STEP = 900.0
"""Seconds for each step. zig first compiles the C library that a static program takes in."""


class Target(NamedTuple):
    """What a wheel is built for."""

    name: str
    """As zig calls it."""
    machine: str
    """As the kernel calls it."""
    architecture: str
    """As Debian calls it."""
    platform: str
    """The tag that it must deserve, or one of an older C library."""

    @property
    def musl(self) -> bool:
        """Tell which C library it is."""
        return self.name.endswith("-musl")


TARGETS = (
    Target("aarch64-linux-gnu.2.28", "aarch64", "arm64", "manylinux_2_28_aarch64"),
    Target("aarch64-linux-musl", "aarch64", "arm64", "musllinux_1_2_aarch64"),
    Target("x86_64-linux-musl", "x86_64", "amd64", "musllinux_1_2_x86_64"),
)


class StepError(Exception):
    """What went wrong in a step that was tried, in one line."""


def run(command: list[str], **environment: str) -> str:
    """Run a command and return what it said; if it fails, print that and raise StepError."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command, cwd=WORK, env={**os.environ, "PATH": path, **environment}, timeout=STEP,
        text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        print(f"{shlex.join(command)}\n{done.stdout}", end="", flush=True)
        said = (done.stdout.strip().splitlines() or [""])[-1]
        raise StepError(f"{Path(command[0]).name} ended with {done.returncode}: {said}")
    return done.stdout


def platform_complaints(name: str, allowed: str) -> list[str]:
    """Return which platforms in a wheel's name say another processor or a newer C library."""
    pattern = re.compile(r"(manylinux|musllinux)_(\d+)_(\d+)_(\w+)")
    most = pattern.fullmatch(allowed)
    assert most
    complaints = []
    for one in name.removesuffix(".whl").split("-")[-1].split("."):
        found = pattern.fullmatch(one)
        if (
            not found
            or (found[1], found[4]) != (most[1], most[4])
            or (int(found[2]), int(found[3])) > (int(most[2]), int(most[3]))
        ):
            complaints.append(f"the tag is {one}, not {allowed}")
    return complaints


def stand_in(names: set[str]) -> str:
    """Return a C program that loads the files it is given, with names that Python would have."""
    variables = "".join(f"char {name}[64];\n" for name in sorted(names))
    return f"""#include <dlfcn.h>
#include <stdio.h>
{variables}int main(int count, char **files)
{{
    for (int i = 1; i < count; i++)
        if (!dlopen(files[i], RTLD_NOW)) {{
            puts(dlerror());
            return 1;
        }}
    return 0;
}}
"""


class Attempt:
    """One target, from the sdist to bytes echoed. Each part returns what the table says of it."""

    def __init__(self, target: Target, sdist: Path) -> None:
        self._target, self._sdist = target, sdist
        self._folder = WORK / target.name
        self._wheel: Path | None = None
        self._root: Path | None = None
        self._compiler = str(self._folder / "cc")

    def parts(self) -> list[tuple[str, Callable[[], str]]]:
        """Return the parts in their order, each with its name."""
        tried: list[tuple[str, Callable[[], str]]] = [
            ("built", self.build), ("checked", self.check), ("tests/c", self.test_c)
        ]  # fmt: skip
        if self._target.musl:
            tried.append(("loaded", self.load))
        return [*tried, ("echoed", self.echo)]

    def _script(self, name: str, text: str) -> str:
        file = self._folder / name
        file.write_text(f"#!/bin/sh\nset -e\n{text}\n")
        file.chmod(0o755)
        return str(file)

    def prepare(self) -> None:
        """Write the compiler, the linker, Python's headers and what Python is told of them."""
        shutil.rmtree(self._folder, ignore_errors=True)
        headers, tools = self._folder / "headers", self._folder / "tools"
        include = Path(sysconfig.get_path("include"))
        shutil.copytree(include, headers)
        # Debian's pyconfig.h sends each processor to a header of its own; all of 64 bits are alike.
        multiarch = str(sysconfig.get_config_var("MULTIARCH"))
        own = include.parent / multiarch / include.name / "pyconfig.h"
        if own.exists():
            shutil.copy(own, headers)
        cache = shlex.quote(str(WORK / "zig"))
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", self._target.name]
        self._script(
            "cc",
            f"export ZIG_GLOBAL_CACHE_DIR={cache} ZIG_LOCAL_CACHE_DIR={cache}\n"
            f'exec {shlex.join([*zig, "-I", str(headers)])} "$@"',
        )
        link = f'{shlex.quote(self._compiler)} -shared "$@"'
        if self._target.musl:
            # musl takes any libc.* for itself; auditwheel knows only the name that Alpine gives it.
            link += (
                '\nwhile [ "$1" != -o ]; do shift; done\n'
                f'patchelf --replace-needed libc.so libc.musl-{self._target.machine}.so.1 "$2"'
            )
        linker = self._script("link", link)
        known = sysconfig.get_config_vars().items()
        told: dict[str, str | int] = {k: v for k, v in known if isinstance(v, str | int)}
        told |= {
            "CC": self._compiler, "CXX": self._compiler, "CFLAGS": "-fwrapv", "OPT": "",
            "CCSHARED": "-fPIC", "LDSHARED": linker, "LDCXXSHARED": linker, "LDFLAGS": "",
        }  # fmt: skip
        tools.mkdir()
        (tools / "_sysconfigdata_cross.py").write_text(f"build_time_vars = {told!r}\n")

    def build(self) -> str:
        """Build the wheel from the sdist, and give it the oldest tag that auditwheel grants."""
        self.prepare()
        built, repaired = self._folder / "built", self._folder / "wheel"
        run(
            [
                *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-cache-dir", "--no-deps"),
                *("--disable-pip-version-check", "--no-build-isolation", "--wheel-dir", str(built)),
                str(self._sdist),
            ],
            PYTHONPATH=str(self._folder / "tools"),
            _PYTHON_SYSCONFIGDATA_NAME="_sysconfigdata_cross",
            _PYTHON_HOST_PLATFORM=f"linux-{self._target.machine}",
        )
        (plain,) = built.glob("*.whl")
        run(["auditwheel", "repair", "--wheel-dir", str(repaired), str(plain)])
        (self._wheel,) = repaired.glob("*.whl")
        return self._wheel.name

    def _built(self) -> Path:
        if self._wheel is None:
            raise LackError("there is no wheel")
        return self._wheel

    def check(self) -> str:
        """Judge the wheel's tag, contents and use of the stable ABI."""
        wheel = self._built()
        complaints = platform_complaints(wheel.name, self._target.platform)
        complaints += wheel_complaints(wheel, ROOT)
        if complaints:
            raise StepError("; ".join(complaints))
        run(["abi3audit", "--strict", "--summary", str(wheel)])
        return "processor, symbols of the C library (auditwheel), contents, stable ABI (abi3audit)"

    def _unpacked(self) -> Path:
        if self._root is None:
            package = "musl" if self._target.musl else "python3"
            self._root = unpacked(package, self._target.architecture, self._folder / "debian")
        return self._root

    def _how(self) -> str:
        return f"under {Path(how[0]).name}" if (how := emulator(self._target.machine)) else "here"

    def test_c(self) -> str:
        """Run tests/c: with musl in the program, or with the glibc of the packages."""
        start = emulator(self._target.machine)
        if not self._target.musl:
            start += ["-L", str(self._unpacked())]
        flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{ROOT / 'src_c'}"]
        flags += ["-static"] if self._target.musl else []
        for source in PROGRAMS:
            program = str(self._folder / source.stem)
            run([self._compiler, *flags, str(source), "-o", program, "-lm", "-pthread"])
            run([*start, program])
        return f"{len(PROGRAMS)} programs, each run {self._how()}"

    def load(self) -> str:
        """Load the extensions by musl's own loader: it must find every name and relocate them."""
        start, wheel = emulator(self._target.machine), self._built()
        loader = str(self._unpacked() / f"lib/ld-musl-{self._target.machine}.so.1")
        with zipfile.ZipFile(wheel) as archive:
            files = [f"fastecho/{name}.abi3.so" for name in EXTENSIONS]
            paths = [archive.extract(file, self._folder) for file in files]
        symbols = run(["readelf", "--dyn-syms", "--wide", *paths], LC_ALL="C")
        names = set(re.findall(r" UND (_?Py\w+)$", symbols, re.M))
        source, program = self._folder / "load.c", str(self._folder / "load")
        source.write_text(stand_in(names))
        flags = ["-O2", "-dynamic", "-rdynamic"]  # without -O2 zig adds a library for sanitizers
        run([self._compiler, *flags, str(source), "-o", program])
        run([*start, loader, program, *paths])
        version = subprocess.run([*start, loader], capture_output=True, text=True, timeout=STEP)
        found = re.search(r"Version (\S+)", version.stderr)
        return (
            f"by musl {found[1] if found else '?'} {self._how()};"
            f" {len(names)} names of Python are stand-ins, no function was called"
        )

    def echo(self) -> str:
        """Install the wheel into a fresh environment of a foreign Python and run smoke.py there."""
        start, wheel = emulator(self._target.machine), self._built()
        if self._target.musl:
            raise LackError("no CPython for musl is on PyPI or in Debian (on Alpine: make wheel)")
        python = ask(str(python_in(self._unpacked(), start)))
        if python is None:
            raise StepError("the Python of the packages does not start")
        with tempfile.TemporaryDirectory() as folder:
            said = try_on(python, wheel, Path(folder) / "environment")
        if not said.startswith("fastecho "):
            raise StepError(said.removeprefix("FAILED "))
        return f"{said} ({self._how()})"


def attempt(part: Callable[[], str]) -> tuple[str, str]:
    """Run a part; return how it ended (passed, not tried or FAILED) and what to say of it."""
    try:
        return "passed", part()
    except LackError as reason:
        return "not tried", str(reason)
    except (StepError, subprocess.SubprocessError, OSError) as error:
        return "FAILED", str(error)


def make_sdist() -> Path:
    """Build the sdist that every wheel is built from."""
    folder = WORK / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder)]
    run([*command, str(ROOT)])
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def table(attempts: dict[str, Attempt]) -> int:
    """Go through the targets and print the table; return 1 if a part that was tried failed."""
    ends = []
    print(f"{'target':<23} {'part':<8} {'end':<10} what")
    for name, one in attempts.items():
        for label, part in one.parts():
            end, said = attempt(part)
            ends.append(end)
            print(f"{name:<23} {label:<8} {end:<10} {said}", flush=True)
    print(", ".join(f"{ends.count(end)} {end}" for end in ("passed", "not tried", "FAILED")))
    return 1 if "FAILED" in ends or "passed" not in ends else 0


def main(names: list[str]) -> int:
    """Build and try the targets that are named, or all."""
    known = {target.name: target for target in TARGETS}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"cross: the targets are {', '.join(known)}, not {', '.join(unknown)}")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit("cross: made for Linux on x86_64; make wheel builds for the machine it runs on")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        sys.exit("cross: a free-threaded Python has no stable ABI: name another with PYTHON=...")
    try:
        sdist = make_sdist()
    except StepError as error:
        sys.exit(f"cross: {error}")
    return table({name: Attempt(known[name], sdist) for name in names or known})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
