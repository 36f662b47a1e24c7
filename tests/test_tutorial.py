"""The tutorial's commands are run, in both languages, and say what the chapters say they do.

Lives here: what a chapter is made of (tutorial_session.py runs it). Each chapter is one session of
bash in a folder of its own: a ```python block whose first line is `# NAME.py` becomes that file,
a ```console block holds commands (`$ `) and what they print.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tutorial_session import Command, differs, follow, steps

from fastecho import models

ROOT = Path(__file__).resolve().parent.parent
ENGLISH = ROOT / "docs" / "tutorial"
CHINESE = ENGLISH / "zh"
CHAPTERS = sorted(path.name for path in ENGLISH.glob("[0-9]*.md"))
LANGUAGES = {"en": (ENGLISH, "C.UTF-8"), "zh": (CHINESE, "zh_CN.UTF-8")}


@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "timeout", "ss"))),
    reason="needs bash, GNU coreutils and iproute2",
)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_prints_what_it_shows(chapter: str, language: str, tmp_path: Path) -> None:
    folder, locale = LANGUAGES[language]
    follow(folder / chapter, tmp_path, locale)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_both_languages_run_the_same(chapter: str) -> None:
    found = [
        [
            step.text if isinstance(step, Command) else (step.name, step.text)
            for step in steps((folder / chapter).read_text(encoding="utf-8"))
        ]
        for folder, _ in LANGUAGES.values()
    ]
    assert found[0] == found[1]
    assert any(isinstance(one, str) for one in found[0])


def test_the_index_names_every_chapter_and_every_model_with_its_file() -> None:
    for folder, _ in LANGUAGES.values():
        assert sorted(path.name for path in folder.glob("[0-9]*.md")) == CHAPTERS
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert set(CHAPTERS) == set(re.findall(r"\]\((\d\d-[\w-]+\.md)\)", text))
        for name, module in models.FILES.items():
            assert f"`{name}`" in text
            assert f"fastecho/models/{module}.py)" in text


@pytest.mark.parametrize(
    "path", [*ENGLISH.rglob("*.md")], ids=lambda path: str(path.relative_to(ENGLISH))
)
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["a ... c"], "a b c\n", True),
        (["a ... c"], "a b d\n", False),
        (["first", "...", "last"], "first\n1\n2\nlast\n", True),
        (["first", "...", "last"], "first\nlast\n", True),
        (["peer (ip: 127.0.0.1, port: 1) sent: x"], "peer (ip: 127.0.0.1, port: 22) sent: x", True),
        (["took 0.5 s"], "took 12.25 s", True),
        (["took 0.5 s"], "took long", False),
        (["queue 6"], "queue 7", False),
        (["Recv-Q   Send-Q"], "Recv-Q Send-Q", True),
        ([], "more", False),
        (["more"], "", False),
    ],
    ids=str,
)
def test_what_may_differ(shown: list[str], printed: str, same: bool) -> None:
    assert differs(shown, printed) is not same
