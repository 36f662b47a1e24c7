"""The how-to of echo over UDP is run as it stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tutorial_session import follow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "udp.md"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
