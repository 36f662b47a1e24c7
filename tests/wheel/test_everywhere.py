"""Which Pythons are found, which wheels are tried on which; a source tree does not pass."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from everywhere import SMOKE, Python, ask, is_for, main, pythons

ROOT = Path(__file__).resolve().parents[2]
ABI3 = Path("fastecho-0.1.0-cp311-abi3-manylinux_2_28_x86_64.whl")
FREE_THREADED = Path("fastecho-0.1.0-cp314-cp314t-manylinux_2_28_x86_64.whl")


@pytest.mark.parametrize(
    ("wheel", "tag", "fits"),
    [
        (ABI3, "cp311", True),
        (ABI3, "cp315", True),
        (ABI3, "cp310", False),
        (ABI3, "cp314t", False),
        (FREE_THREADED, "cp314t", True),
        (FREE_THREADED, "cp314", False),
        (FREE_THREADED, "cp315t", False),
    ],
)
def test_wheel_is_tried_where_its_tags_say(wheel: Path, tag: str, fits: bool) -> None:
    assert is_for(wheel, Python("", tag, "")) is fits


@pytest.mark.timeout(180)
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython is looked for")
def test_python_of_this_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(os.path.realpath(sys.executable)).parent))
    letter = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}{letter}"
    assert (tag, os.path.realpath(sys.executable)) in [(one.tag, one.path) for one in pythons()]


@pytest.mark.parametrize(
    ("says", "status"),
    [
        ('["PyPy", [3, 11], "3.11.9", false, "/p", false]', 0),
        ('["CPython", [3, 10], "3.10.13", false, "/p", false]', 0),
        ('["CPython", [3, 12], "3.12.1", false, "/p", true]', 0),
        ("command not found", 127),
    ],
    ids=["pypy", "too-old", "virtual", "does-not-start"],
)
def test_what_is_no_base_cpython_is_left_out(tmp_path: Path, says: str, status: int) -> None:
    fake = tmp_path / "python3"
    fake.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    fake.chmod(0o755)
    assert ask(str(fake)) is None
    assert ask(str(tmp_path / "missing")) is None


def test_wheel_that_fits_no_python_here_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("everywhere.pythons", lambda: [Python("3.12.1", "cp312", "/p")])
    assert main([str(FREE_THREADED)]) == 1
    assert "not for this Python" in capsys.readouterr().out
    assert main([]) == 1


@pytest.mark.parametrize(
    ("result", "status"), [("fastecho 0.1.0 on CPython", 0), ("FAILED with 1: smoke", 1)]
)
def test_failure_on_one_python_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, result: str, status: int
) -> None:
    here = [Python("3.11.7", "cp311", "/p"), Python("3.12.1", "cp312", "/q")]
    monkeypatch.setattr("everywhere.pythons", lambda: here)
    monkeypatch.setattr(
        "everywhere.try_on",
        lambda python, wheel, folder: result if python.path == "/q" else "fastecho works",
    )
    assert main([str(ABI3)]) == status


def test_source_tree_is_no_installation() -> None:
    done = subprocess.run(
        [sys.executable, str(SMOKE)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    says = f"smoke: fastecho comes from {ROOT / 'fastecho'}, which is no installation\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", says)
