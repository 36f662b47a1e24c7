"""The how-to of connections that time out is run as it stands, with a real gunicorn."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tutorial_session import follow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "connections-time-out.md"


@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "timeout"))), reason="needs bash and GNU coreutils"
)
def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
