"""Links of a built site: whether each leads somewhere, and nothing is fetched from elsewhere.

Lives here: a reader of HTML that knows what refers and what is referred to. Does not live here: how
the site is built.
"""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {("link", "href"), *((tag, "src") for tag in ("script", "img", "iframe", "source"))}
"""What a browser loads by itself, to show a page."""
CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class _Page(HTMLParser):
    """Collect what a page links to, what it makes a browser fetch, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the attributes of one element."""
        known = dict(attrs)
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag, name) == ("a", "name"):
                self.anchors.add(value)
            elif (tag, name) in FETCHED and known.get("rel") not in ("canonical", "author"):
                self.fetched.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)


def broken_links(site: Path) -> list[str]:
    """Return a sentence about each link that leads nowhere and each fetch from elsewhere."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        found += [f"{where}: fetches {one}" for one in page.fetched if _is_elsewhere(one)]
        for link in [*page.links, *page.fetched]:
            if _is_elsewhere(link):
                continue
            parts = urlsplit(link)
            there = (
                Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            )
            known = pages[there].anchors if there in pages else {""}
            anchor = unquote(parts.fragment) if there.suffix == ".html" else ""
            if not there.is_file() or anchor not in known:
                found.append(f"{where}: {link} leads nowhere")
    for style in sorted(site.rglob("*.css")):
        for one in CSS_URL.findall(style.read_text(encoding="utf-8")):
            if _is_elsewhere("".join(one)) and not one[0].startswith("data:"):
                found.append(f"{style.relative_to(site)}: fetches {''.join(one)}")
    return found


def _is_elsewhere(link: str) -> bool:
    """Tell whether a link leaves the site."""
    parts = urlsplit(link)
    return bool(parts.scheme or parts.netloc)
