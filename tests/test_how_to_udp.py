"""The how-to of echo over UDP is run as it stands: nc, ping, check, socat in between, guards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tutorial_session import follow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "udp.md"
NEEDS = ("bash", "nc", "socat")


@pytest.mark.timeout(120)
@pytest.mark.skipif(not all(map(shutil.which, NEEDS)), reason=f"needs {', '.join(NEEDS)}")
def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
