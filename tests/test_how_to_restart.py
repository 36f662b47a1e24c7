"""The how-to of restarts is run as it stands, with nc."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tutorial_session import follow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "restart.md"
NEEDS = ("bash", "nc")


@pytest.mark.skipif(not all(map(shutil.which, NEEDS)), reason=f"needs {', '.join(NEEDS)}")
def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
