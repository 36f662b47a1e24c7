"""Build the two extensions of fastecho, and the files of its command for shells and `man`.

Metadata and the settings of every tool stand in pyproject.toml. This file decides what
cannot be written down there: whether the extensions are built at all, and how; and it
has the package `manual` make the completions and the man page that a wheel holds.

On Linux with CPython they are built, and a failed compile fails the build: a server
that is silently missing is worse than an error. Anywhere else the package is pure
Python. Environment switches (0, empty or unset is off, 1 is on):

    FASTECHO_NO_EXTENSION=1   leave the extensions out: pure Python, client only
    FASTECHO_DEBUG=1          -O0, -g3 and the assertions of src_c
    FASTECHO_SANITIZE=NAMES   address, undefined, or thread; address,undefined together
    FASTECHO_COVERAGE=1       count executed lines for gcov (`make coverage` reads the counts)

Each set of switches has build folders of its own, so that a switch can be turned on
and off without a stale object file. CFLAGS from the environment come last and win.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The first import of setuptools puts its own distutils there.
from distutils.command.install_data import install_data  # isort: skip

ROOT = Path(__file__).resolve().parent
EXTENSIONS = ("_core", "_load")
SANITIZERS = ("address", "undefined", "thread")

# A free-threaded Python has no limited API before 3.15: such builds serve one version.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def switch(name: str) -> bool:
    """Return whether an environment switch is on; end the build at anything but 0 and 1."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"{name} must be 0 or 1, not {value!r}")
    return value == "1"


def sanitizers() -> list[str]:
    """Return the sanitizers that FASTECHO_SANITIZE names, in a fixed order."""
    value = os.environ.get("FASTECHO_SANITIZE", "")
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in SANITIZERS:
            raise SystemExit(
                f"FASTECHO_SANITIZE must name some of {', '.join(SANITIZERS)}, not {name!r}"
            )
    if "thread" in names and "address" in names:
        raise SystemExit("FASTECHO_SANITIZE cannot combine thread with address")
    return [name for name in SANITIZERS if name in names]


def compiler_flags() -> tuple[list[str], list[str], str]:
    """Return compile flags, link flags and the name of this set of switches.

    Python's own flags stand before ours on the command line (they usually hold -O3, -g,
    -DNDEBUG and -fwrapv), so each of ours undoes what it must.
    """
    compile_flags = ["-std=gnu11", "-pthread", "-Wall", "-Wextra"]
    link_flags = ["-pthread"]
    variant = []
    debug, coverage, chosen = switch("FASTECHO_DEBUG"), switch("FASTECHO_COVERAGE"), sanitizers()
    if debug or coverage:
        # Line counts need unoptimized code too.
        compile_flags += ["-O0", "-g3", "-UNDEBUG"]
        variant.append("coverage" if coverage else "debug")
    elif chosen:
        compile_flags += ["-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG"]
    else:
        # -g would make the extensions six times larger.
        compile_flags += ["-O2", "-g0", "-DNDEBUG"]
    if FREE_THREADED:
        # Without the limited API, Cython 3.3's own conversion of an enum ignores a parameter.
        compile_flags.append("-Wno-unused-parameter")
    if coverage:
        # Without atomic counts two threads lose some, and gcov computes others from those.
        compile_flags += ["--coverage", "-fprofile-update=atomic"]
        link_flags.append("--coverage")
    for name in chosen:
        compile_flags.append(f"-fsanitize={name}")
        link_flags.append(f"-fsanitize={name}")
        variant.append(name)
    if "undefined" in chosen:
        # Python's -fwrapv defines signed overflow, which hides it from the sanitizer.
        compile_flags += ["-fno-wrapv", "-fno-sanitize-recover=undefined"]
    compile_flags += shlex.split(os.environ.get("CFLAGS", ""))
    return compile_flags, link_flags, "-".join(variant)


def extensions(compile_flags: list[str], link_flags: list[str]) -> list[Extension]:
    """Return both extensions, as Cython sources."""
    macros: list[tuple[str, str | None]] = []
    if not FREE_THREADED:
        # The stable ABI of 3.11: one build serves 3.11 and every later Python.
        macros.append(("Py_LIMITED_API", "0x030b0000"))
    headers = [*ROOT.glob("src_c/*.h"), *ROOT.glob("fastecho/*.pxd")]
    depends = sorted(str(path.relative_to(ROOT)) for path in headers)
    return [
        Extension(
            f"fastecho.{name}",
            [f"fastecho/{name}.pyx"],
            include_dirs=["src_c"],
            define_macros=macros,
            depends=depends,
            extra_compile_args=compile_flags,
            extra_link_args=link_flags,
            py_limited_api=not FREE_THREADED,
        )
        for name in EXTENSIONS
    ]


class BuildExtensions(build_ext):
    """Translate to C when extensions are really built: metadata and an sdist need no C.

    The C goes to a folder below build, never beside the sources.
    """

    def build_extensions(self) -> None:
        """Translate what has changed, then compile."""
        from Cython.Build import cythonize

        directives: dict[str, Any] = {"language_level": 3}
        if FREE_THREADED:
            directives["freethreading_compatible"] = True
        base = self.get_finalized_command("build").build_base
        translated = cythonize(
            list(self.extensions),
            build_dir=os.path.join(base, "cython-freethreaded" if FREE_THREADED else "cython"),
            compiler_directives=directives,
            force=self.force,
            quiet=not self.distribution.verbose,
        )
        for extension, made in zip(self.extensions, translated, strict=True):
            extension.sources = made.sources
            extension.depends = made.depends
        super().build_extensions()


class InstallShellFiles(install_data):
    """Make the completions and the man page from the commands' own parsers, then install them.

    That needs the package as it lies here, and none of its extensions.
    """

    def run(self) -> None:
        """Make the files below build, each in the folder `share` that it is to have.

        A system on which a command cannot be imported goes without them: the rest installs.
        """
        base = Path(self.get_finalized_command("build").build_base).resolve() / "shell"
        places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        subprocess.run(
            [sys.executable, "-B", "-m", "manual.shell_files", str(base)],
            check=sys.platform == "linux",
            cwd=ROOT,
            env=environment,
        )
        made = sorted(path for path in base.rglob("*") if path.is_file())
        self.data_files = [(str(path.parent.relative_to(base)), [str(path)]) for path in made]
        super().run()


def main() -> None:
    """Run setuptools with the extensions that this machine and the switches ask for."""
    # Without a name here there would be no data to install; InstallShellFiles fills it.
    data: dict[str, Any] = {
        "data_files": [("share", [])],
        "cmdclass": {"install_data": InstallShellFiles},
    }
    supported = sys.platform == "linux" and sys.implementation.name == "cpython"
    if switch("FASTECHO_NO_EXTENSION") or not supported:
        setup(**data)
        return
    compile_flags, link_flags, variant = compiler_flags()
    options: dict[str, dict[str, Any]] = {
        "build": {"build_base": f"build/{variant}" if variant else "build"},
        "build_ext": {"parallel": os.cpu_count() or 1},
    }
    if not FREE_THREADED:
        options["bdist_wheel"] = {"py_limited_api": "cp311"}
    setup(
        ext_modules=extensions(compile_flags, link_flags),
        data_files=data["data_files"],
        cmdclass={"build_ext": BuildExtensions, **data["cmdclass"]},
        options=options,
    )


main()
