"""The documentation site that `make docs` has built holds what it must, and no link is dead.

`make docs` runs this file; elsewhere most of it is skipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs what `make docs` installs")
pytest.importorskip("shtab", reason="needs what `make docs` installs")

from test_exports import MEASURE, PUBLIC

from manual.commands import options, parsers
from manual.conf import translate
from manual.links import broken_links
from manual.reference import COMMAND_LINE, MODULES, PYTHON
from manual.site import ROOT, SITE, sources

built = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="`make docs` builds the site")


def ids(page: Path) -> set[str]:
    """Return the anchors of a page."""
    return set(re.findall(r' id="([^"]+)"', page.read_text(encoding="utf-8")))


@built
@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_the_page_of_its_module(module: str) -> None:
    names = set(import_module(module).__all__)
    assert names
    assert {f"{module}.{name}" for name in names} <= ids(SITE / PYTHON / f"{module}.html")


def test_public_modules_are_those_whose_names_are_held() -> None:
    assert {*PUBLIC} == {*import_module("fastecho").__all__}
    assert {*MEASURE} == {*import_module("fastecho.measure").__all__}
    assert {"fastecho", "fastecho.aio", "fastecho.testing", "fastecho.measure"} <= {*MODULES}


@built
@pytest.mark.parametrize(
    ("page", "language"),
    [("index", "en"), ("README.zh-CN", "zh-CN"), ("docs/tutorial/zh/README", "zh-CN")],
)
def test_a_page_says_its_language(page: str, language: str) -> None:
    assert f' lang="{language}"' in (SITE / f"{page}.html").read_text(encoding="utf-8")


@built
def test_a_method_has_the_sections_of_its_docstring() -> None:
    text = re.sub(r"<[^>]+>", "", (SITE / PYTHON / "fastecho.html").read_text(encoding="utf-8"))
    client = text.partition("fastecho.Client")[2]
    for section in ("Parameters", "Raises", "Returns", "Thread", "Cost", "Source"):
        assert f"{section}:" in client, section
    # Inherited, and from the stub of a compiled class.
    assert {"fastecho.Server.set_limits", "fastecho.Connection.write"} <= ids(
        SITE / PYTHON / "fastecho.html"
    )
    assert "write(data: bytes | bytearray | memoryview)" in text


@built
def test_every_option_of_every_command_is_on_its_page() -> None:
    for name, parser in parsers().items():
        anchors = ids(SITE / COMMAND_LINE / f"fastecho-{name}.html")
        wanted = {f"cmdoption-fastecho-{name}-{one.lstrip('-')}" for one in options(parser)}
        assert wanted - anchors == set(), name


@built
def test_every_page_of_the_tree_is_on_the_site() -> None:
    for page in sources():
        name = page.relative_to(ROOT)
        place = Path("index.html") if name == Path("README.md") else name.with_suffix(".html")
        assert (SITE / place).is_file(), name


@built
def test_nothing_leads_nowhere_and_nothing_is_fetched_from_elsewhere() -> None:
    assert broken_links(SITE) == []


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ('<a href="other.html#here">', None),
        ('<a href="#own"><p id="own">', None),
        ('<a href="https://example.org/">', None),
        ('<a href="none.html">', "none.html leads nowhere"),
        ('<a href="other.html#none">', "other.html#none leads nowhere"),
        ('<a href="#none">', "#none leads nowhere"),
        ('<img src="none.svg">', "none.svg leads nowhere"),
        ('<script src="https://example.org/a.js">', "fetches https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "fetches //example.org/a.css"),
    ],
)
def test_a_dead_link_and_a_fetch_are_found(tmp_path: Path, page: str, says: str | None) -> None:
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "other.html").write_text('<p id="here">')
    assert broken_links(tmp_path) == ([f"page.html: {says}"] if says else [])


def test_a_style_that_fetches_is_found(tmp_path: Path) -> None:
    (tmp_path / "own.css").write_text("a {b: url(../c.png); d: url('data:,e')}")
    assert broken_links(tmp_path) == []
    (tmp_path / "font.css").write_text("@import 'https://example.org/font.css';")
    assert broken_links(tmp_path) == ["font.css: fetches https://example.org/font.css"]


@pytest.mark.parametrize("link", ["none.md", "index.md#none", "#none"])
def test_a_page_with_a_dead_link_fails_the_build(tmp_path: Path, link: str) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "-c", str(ROOT / "manual")]
    for text, code in ((f"[dead]({link})", 1), ("[alive](#one)", 0)):
        (pages / "index.md").write_text(f"# One\n\n{text}\n")
        command = [*words, str(pages), str(tmp_path / "site")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert ("none" in done.stderr) == bool(code)


def test_sections_on_one_line_are_fields_of_their_own() -> None:
    given = [
        "Do `it`.", "", "Thread: any, and the *other*.   Cost: O(n).", "rest of it", "",
        "Source: send(2)",
    ]  # fmt: skip
    assert translate(given) == [
        "Do ``it``\\ .", "", "", ":Thread: any, and the \\*other\\*.", "", ":Cost: O(n).",
        "    rest of it", "", "", ":Source: send(2)",
    ]  # fmt: skip
