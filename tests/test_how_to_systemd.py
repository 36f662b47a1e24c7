"""The how-to of systemd is run as it stands, with systemd-socket-activate; its units elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tutorial_session import follow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "systemd.md"
NEEDS = ("bash", "systemd-socket-activate", "nc")


@pytest.mark.skipif(not all(map(shutil.which, NEEDS)), reason=f"needs {', '.join(NEEDS)}")
def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
