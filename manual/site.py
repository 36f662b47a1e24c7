"""The documentation site: the pages that are in the tree, and those made for it, into build/docs.

Lives here: which pages there are, in which order, and what becomes of their links: a page links to
files as they lie in the tree, so that it reads well there; on the site a file that is no page gets
one that shows it, a folder its index. Run as a program, this file writes all to build/pages, has
Sphinx build them (conf.py), and looks at every link of what came out (links.py). Does not live
here: the pages that are made from the package (reference.py).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

from sphinx.cmd.build import build_main

from .links import broken_links
from .reference import COMMAND_LINE, PYTHON, command_pages, python_pages

ROOT = Path(__file__).resolve().parent.parent
PAGES, SITE = ROOT / "build" / "pages", ROOT / "build" / "docs"
START = "index.md"
"""The page that a browser opens first: README.md."""
FENCE = re.compile(r"(^ *(`{3,}).*?^ *\2`*$)", re.M | re.S)
LINK = re.compile(r"(?<=\]\()([^()\s#]+)")
CAPTIONS: dict[str, tuple[str, ...]] = {
    "Learn": ("docs/tutorial/README.md", "docs/tutorial/zh/README.md", "examples/README.md"),
    "How to": ("docs/how-to/*.md",),
    "Reference": ("docs/reference/[!i]*.md", f"{COMMAND_LINE}/index.md", f"{PYTHON}/index.md"),
    "Background": ("docs/reliability.md", "benchmarks/README.md", "docs/decisions/index.md"),
    "Project": ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "README.zh-CN.md"),
}
"""What stands in the margin, by heading; a pattern stands for pages in the order of their names."""
TITLES = {"README.zh-CN.md": "中文"}
"""Of pages whose own title would not do in the margin."""
BELOW = {
    "docs/tutorial/README.md": "docs/tutorial/[0-9]*.md",
    "docs/tutorial/zh/README.md": "docs/tutorial/zh/[0-9]*.md",
    "docs/decisions/index.md": "docs/decisions/[0-9]*.md",
    f"{COMMAND_LINE}/index.md": f"{COMMAND_LINE}/fastecho-*.rst",
    f"{PYTHON}/index.md": f"{PYTHON}/fastecho*.rst",
}
"""Pages with pages below them."""
LANGUAGES = {".py": "python", ".json": "json", ".yaml": "yaml"}
"""Of files that are shown; any other is shown as plain text."""


def sources() -> list[Path]:
    """Return the pages that are in the tree."""
    named = [one for group in CAPTIONS.values() for one in group if not one.startswith("docs/")]
    found = [ROOT / "README.md", *(ROOT / one for one in named), *(ROOT / "docs").rglob("*.md")]
    return sorted(set(found))


def write_pages(folder: Path) -> None:
    """Write every page below a folder, as Sphinx is to read it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "images", folder / "docs" / "images")
    made = {**command_pages(), **python_pages()}
    made["docs/decisions/index.md"] = "# Decisions\n\nWhy it is as it is.\n"
    beside = [*sorted(path.name for path in (ROOT / "docs/reference").glob("*.md"))]
    beside += [f"{Path(one).name}/index.md" for one in (COMMAND_LINE, PYTHON)]
    listed = "".join(f"- [](<{one}>)\n" for one in beside)
    made["docs/reference/index.md"] = f"---\norphan: true\n---\n# Reference\n\n{listed}"
    shown: set[Path] = set()
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        parts = FENCE.split(path.read_text(encoding="utf-8"))
        # Text, then the fenced block and its fence, and so on.
        for number in range(0, len(parts), 3):
            parts[number] = LINK.sub(partial(_target, path, shown), parts[number])
        text = "".join(part for number, part in enumerate(parts) if number % 3 != 2)
        made[START if name == "README.md" else name] = text
    for path in shown:
        made[f"{path.relative_to(ROOT).as_posix()}.md"] = _listing(path)
    for name, text in made.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    for name, pattern in BELOW.items():
        _append(folder, name, sorted(folder.glob(pattern)), "" if "index" in name else ":hidden:\n")
    for caption, patterns in CAPTIONS.items():
        pages = [page for one in patterns for page in sorted(folder.glob(one))]
        _append(folder, START, pages, f":hidden:\n:caption: {caption}\n")
    for path in sorted(shown):  # reached by links alone
        place = folder / f"{path.relative_to(ROOT).as_posix()}.md"
        place.write_text(f"---\norphan: true\n---\n{place.read_text(encoding='utf-8')}")


def _target(page: Path, shown: set[Path], found: re.Match[str]) -> str:
    """Return where a link of a page leads on the site; note the file that it is to show."""
    link = found[1]
    if ":" in link:
        return link
    there = Path(os.path.normpath(page.parent / link))
    if there == ROOT / "README.md":
        return os.path.relpath(ROOT / START, page.parent)
    if there.is_dir():
        return f"{link.rstrip('/')}/{'README.md' if (there / 'README.md').exists() else 'index.md'}"
    if not there.is_file() or there.suffix in {".md", ".svg"}:
        return link
    shown.add(there)
    return f"{link}.md"


def _listing(path: Path) -> str:
    """Return a page that shows a file."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    language = LANGUAGES.get(path.suffix, "text")
    return f"# {name}\n\n``````{language}\n{text}``````\n"


def _append(folder: Path, name: str, pages: list[Path], options: str) -> None:
    """Append to a page the list of those that come after it in the margin."""
    place = folder / name
    lines = []
    for page in pages:
        there, title = page.relative_to(folder).with_suffix("").as_posix(), TITLES.get(page.name)
        lines.append(f"{title} </{there}>\n" if title else f"/{there}\n")
    with place.open("a", encoding="utf-8") as file:
        file.write(f"\n```{{toctree}}\n:maxdepth: 1\n{options}\n{''.join(lines)}```\n")


def main() -> int:
    """Build the site; return 1 if Sphinx warned or a link leads nowhere."""
    os.environ["COLUMNS"] = "100"  # of the usage of commands
    write_pages(PAGES)
    shutil.rmtree(SITE, ignore_errors=True)
    words = ["-q", "-W", "--keep-going", "-n", "-b", "html", "-c", str(ROOT / "manual")]
    cache = ROOT / "build" / "doctrees"
    shutil.rmtree(cache, ignore_errors=True)
    code: int = build_main([*words, "-d", str(cache), str(PAGES), str(SITE)])
    if code:
        return code
    broken = broken_links(SITE)
    print("\n".join(broken), file=sys.stderr) if broken else print(f"{SITE / 'index.html'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
