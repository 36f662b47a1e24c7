"""What is built from the sources: sdist, wheels, and the switches of setup.py.

The builds run in copies, with the build tools of this environment and without a network. Where
the extensions themselves do not matter, two empty ones stand in for them: they compile fast.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import fastecho

pytest.importorskip("setuptools", reason="needs the build tools", minversion="77")
pytest.importorskip("Cython", reason="needs the build tools")
pytest.importorskip("shtab", reason="needs the build tools")

from manual.shell_files import files as shell_files

ROOT = Path(__file__).resolve().parent.parent
VERSION = fastecho.__version__
SWITCHES = ("CC", "CFLAGS", "FASTECHO_NO_EXTENSION", "FASTECHO_DEBUG", "FASTECHO_COVERAGE")
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# Compilers on a busy machine are slow.
pytestmark = pytest.mark.timeout(180)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux compiles")


def copy_tree(folder: Path) -> Path:
    """Copy what an sdist could hold, without anything that was built."""
    ignored = shutil.ignore_patterns(
        "*.so", "__pycache__", "build", "dist", "*.egg-info", ".git", ".venv", ".*_cache",
        ".hypothesis",
    )  # fmt: skip
    return Path(shutil.copytree(ROOT, folder / "tree", ignore=ignored))


def setup_py(
    tree: Path, *words: str, check: bool = True, **switches: str
) -> subprocess.CompletedProcess[str]:
    """Run setup.py in a tree, with these environment switches and no others."""
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    environment.pop("FASTECHO_SANITIZE", None)
    result = subprocess.run(
        [sys.executable, "setup.py", *words],
        cwd=tree,
        env={**environment, **switches},
        capture_output=True,
        text=True,
        timeout=150,
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a tree whose two extensions are next to empty."""
    tree = copy_tree(tmp_path)
    for path in (tree / "fastecho").glob("*.p*"):
        if path.suffix in {".pyx", ".pxd", ".pyi"}:
            path.unlink()
    for name in ("_core", "_load"):
        (tree / "fastecho" / f"{name}.pyx").write_text("def answer():\n    return 42\n")
    return tree


def names_in_wheel(tree: Path) -> tuple[str, set[str]]:
    """Return the file name of the only wheel in dist, and the names inside it."""
    (wheel,) = (tree / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel.name, set(archive.namelist())


def test_sdist_holds_the_sources_and_nothing_generated(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    setup_py(tree, "--quiet", "sdist")
    with tarfile.open(tree / "dist" / f"fastecho-{VERSION}.tar.gz") as archive:
        top = f"fastecho-{VERSION}/"
        names = {member.name.removeprefix(top) for member in archive if member.isfile()}
    wanted = {
        path.relative_to(tree).as_posix()
        for folder in ("fastecho", "src_c", "tests", "benchmarks", "docs", "manual")
        for path in (tree / folder).rglob("*")
        if path.suffix in {".py", ".pyi", ".pyx", ".pxd", ".h", ".md"}
        or (path.suffix == ".c" and folder in {"tests", "benchmarks"})
    }
    wanted |= {path.name for path in tree.glob("*.md")}
    wanted |= {
        "LICENSE", "MANIFEST.in", "Makefile", "pyproject.toml", "setup.py", ".ci/run",
        ".ci/missing", ".ci/stubtest-allowed", ".ci/wheel-builds", ".gitignore",
        ".github/zizmor.yml", ".github/workflows/tests.yml", ".github/workflows/release.yml",
        "fastecho/py.typed",
    }  # fmt: skip
    assert wanted - names == set()
    made = {name for name in names if name.startswith(("build/", "dist/")) or name.endswith(".so")}
    assert made | (names & {"fastecho/_core.c", "fastecho/_load.c"}) == set()


def test_no_extension_gives_a_pure_python_wheel(small: Path) -> None:
    setup_py(small, "--quiet", "bdist_wheel", FASTECHO_NO_EXTENSION="1")
    name, inside = names_in_wheel(small)
    assert name == f"fastecho-{VERSION}-py3-none-any.whl"
    assert {"fastecho/__init__.py", "fastecho/client.py", "fastecho/py.typed"} <= inside
    assert not any(path.endswith((".so", ".c", ".pyx", ".pxd", ".h")) for path in inside)


@linux_only
@pytest.mark.skipif(FREE_THREADED, reason="free-threaded Python has no stable ABI")
def test_wheel_serves_every_python_from_3_11(small: Path) -> None:
    setup_py(small, "--quiet", "bdist_wheel")
    name, inside = names_in_wheel(small)
    assert name.startswith(f"fastecho-{VERSION}-cp311-abi3-linux_")
    assert {"fastecho/_core.abi3.so", "fastecho/_load.abi3.so"} <= inside
    packages = {path.split("/")[0] for path in inside}
    assert packages == {"fastecho", f"fastecho-{VERSION}.dist-info", f"fastecho-{VERSION}.data"}


def test_installation_puts_completions_and_man_page_below_its_prefix(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    setup_py(small, "--quiet", "bdist_wheel", FASTECHO_NO_EXTENSION="1")
    (wheel,) = (small / "dist").glob("*.whl")
    prefix = tmp_path / "prefix"
    pip = (sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install")
    where = ("--no-index", "--no-deps", "--ignore-installed", "--no-warn-script-location")
    command = [*pip, "--quiet", *where, "--prefix", str(prefix), str(wheel)]
    subprocess.run(command, check=True, timeout=60)
    there = {
        path.relative_to(prefix).as_posix(): path.read_text()
        for path in (prefix / "share").rglob("*")
        if path.is_file()
    }
    assert there == shell_files()
    assert "2027-01-15" in there["share/man/man1/fastecho.1"]


@linux_only
def test_failed_compile_fails_the_build(small: Path) -> None:
    result = setup_py(small, "build_ext", "--inplace", check=False, CC="false")
    assert result.returncode != 0
    assert list((small / "fastecho").glob("*.so")) == []


def test_missing_source_fails_the_build(small: Path) -> None:
    (small / "fastecho" / "_load.pyx").unlink()
    assert setup_py(small, "build_ext", "--inplace", check=False).returncode != 0


@linux_only
def test_switches_reach_the_compiler_and_keep_their_builds_apart(small: Path) -> None:
    plain = setup_py(small, "build_ext", "--inplace").stdout
    debug = setup_py(small, "build_ext", "--inplace", FASTECHO_DEBUG="1").stdout
    checked = setup_py(small, "build_ext", "--inplace", FASTECHO_SANITIZE="undefined").stdout
    counted = setup_py(small, "build_ext", "--inplace", FASTECHO_COVERAGE="1").stdout
    own = setup_py(small, "build_ext", "--inplace", "--force", CFLAGS="-O3").stdout
    flags = {
        "plain": (plain, " -O2 -g0 -DNDEBUG"),
        "debug": (debug, " -O0 -g3 -UNDEBUG"),
        "checked": (checked, " -fsanitize=undefined -fno-wrapv"),
        "counted": (counted, " --coverage"),
        "own": (own, " -O3\n"),
    }
    assert [name for name, (said, flag) in flags.items() if flag not in said] == []
    folders = {path.parent.name for path in (small / "build").glob("*/cython")}
    assert folders == {"debug", "undefined", "coverage"}
    assert not list((small / "fastecho").glob("*.c"))


@pytest.mark.parametrize(
    ("switch", "value", "says"),
    [
        ("FASTECHO_DEBUG", "yes", "FASTECHO_DEBUG must be 0 or 1, not 'yes'"),
        ("FASTECHO_NO_EXTENSION", "2", "FASTECHO_NO_EXTENSION must be 0 or 1, not '2'"),
        (
            "FASTECHO_SANITIZE",
            "memory",
            "FASTECHO_SANITIZE must name some of address, undefined, thread, not 'memory'",
        ),
        (
            "FASTECHO_SANITIZE",
            "thread,address",
            "FASTECHO_SANITIZE cannot combine thread with address",
        ),
    ],
)
def test_wrong_switch_is_refused_in_one_line(
    small: Path, switch: str, value: str, says: str
) -> None:
    result = setup_py(small, "--version", check=False, **{switch: value})
    assert (result.returncode, result.stderr) == (1, says + "\n")


def test_a_folder_named_like_the_package_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "fastecho").mkdir()  # a checkout, seen from the folder that holds it
    program = "import fastecho; print(fastecho.__version__)"
    said = subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, text=True)
    assert said == f"{VERSION}\n"


def test_every_folder_with_modules_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "fastecho").rglob("*.py")}
    packages = {".".join(folder.parts) for folder in folders}
    assert set(settings["tool"]["setuptools"]["packages"]) == packages
