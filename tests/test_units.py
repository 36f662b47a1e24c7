"""The units of deploy/systemd as systemd reads them, without running them: tests/network does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastecho.config import merge

ROOT = Path(__file__).resolve().parent.parent
UNITS = ROOT / "deploy" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
PAGE = ROOT / "docs" / "how-to" / "systemd.md"
MOST = 20
"""Exposure in tenths that may not be passed."""

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Give a copy of the units, whose program is there."""
    for path in UNITS.iterdir():
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace("/opt/fastecho/bin/fastecho", "/bin/true"))
    return tmp_path


def analyze(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, "--no-pager", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"SYSTEMD_COLORS": "0", "SYSTEMD_EMOJI": "0", "LC_ALL": "C.UTF-8"},
    )


@needs_systemd
def test_systemd_has_nothing_to_say_of_the_units(units: Path) -> None:
    done = analyze("verify", "./fastecho.service", "./fastecho.socket", folder=units)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_exposure_is_low_and_the_page_tells_it(units: Path) -> None:
    words = ("security", "--offline=yes", f"--threshold={MOST}", "./fastecho.service")
    done = analyze(*words, folder=units)
    assert done.returncode == 0, done.stdout
    found = re.search(r"Overall exposure level for fastecho.service: ([\d.]+)", done.stdout)
    assert found
    assert float(found[1]) * 10 <= MOST
    # Each version of systemd weighs anew: the page's figure is that of 252.
    told = re.search(r"exposure ([\d.]+)", PAGE.read_text(encoding="utf-8"))
    assert told
    assert abs(float(told[1]) - float(found[1])) <= 0.3


def test_the_settings_are_ones_that_serve_knows() -> None:
    merged = merge({}, {}, str(UNITS / "fastecho.toml"), extra=())
    assert merged.sources["bind"] == "default"
    service = (UNITS / "fastecho.service").read_text(encoding="utf-8")
    found = re.search(r"^TimeoutStopSec=(\d+)$", service, re.M)
    assert found
    assert float(found[1]) > merged.config.graceful_timeout
