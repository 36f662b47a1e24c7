"""The how-to of HAProxy is run as it stands, with a real HAProxy, nc and openssl."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tutorial_session import Program, Session, differs, steps

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "behind-haproxy.md"
NEEDS = ("bash", "haproxy", "nc", "openssl")


@pytest.mark.timeout(240)
@pytest.mark.skipif(not all(map(shutil.which, NEEDS)), reason=f"needs {', '.join(NEEDS)}")
def test_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    done = []
    with Session(tmp_path, "C.UTF-8") as session:
        for step in steps(PAGE.read_text(encoding="utf-8")):
            if isinstance(step, Program):
                session.write(step)
                continue
            printed = session.run(step)
            done.append(f"$ {step.text}\n{printed}")
            assert not differs(step.prints, printed), "\n".join(done[-3:])
        assert session.left() == []
