"""The frame of every page: its head, what a browser may load for it, text that may stand in it.

What lives here: one HTML document around a body. What may not live here: what the body shows
(page.py, model_page.py), how it looks (_style.py).
"""

from __future__ import annotations

import re
from html import escape

from fastecho._version import __version__

from ._style import PAGE

__all__ = ["clean", "document", "escaped"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for the page: nothing."""
FOOTER = "Made by fastecho {}. Percentiles come from whole histograms; none is an average."
# Control characters, lone surrogates and non-characters cannot stand in a file of UTF-8 or XML;
# marks of direction would turn the text around them.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)


def document(title: str, blocks: list[str]) -> str:
    """Return the whole file: HTML that needs no network and no script.

    Args:
        title: text from anywhere.
        blocks: HTML; empty ones are left out.
    """
    footer = f"<footer>{FOOTER.format(escaped(__version__))}</footer>"
    body = "\n".join(block for block in (*blocks, footer) if block)
    return f"""<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width,initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>
<link rel="icon" href="data:,"/>
<title>{escaped(title)} - fastecho</title>
<style>{PAGE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def escaped(value: object) -> str:
    """Return text from anywhere as it may stand in HTML, in attributes too."""
    return escape(clean(str(value)))


def clean(text: str) -> str:
    """Return text without what a file of UTF-8 or XML cannot hold."""
    return _UNPRINTABLE.sub("\ufffd", text)
