"""The how-to of checking a path is run as it stands: through HAProxy, nginx, socat, ssh."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tutorial_session import follow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "check-a-path.md"
NEEDS = ("bash", "haproxy", "nginx", "socat", "ssh", "ssh-keygen", "/usr/sbin/sshd")


@pytest.mark.timeout(240)
@pytest.mark.skipif(not all(map(shutil.which, NEEDS)), reason=f"needs {', '.join(NEEDS)}")
def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
