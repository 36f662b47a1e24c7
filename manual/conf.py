"""Settings of Sphinx, which reads this file by its name; site.py runs it.

Also here: what becomes of a docstring's sections. Napoleon knows Args, Returns, Raises and
Attributes; Thread, Cost and Source, which may share a line, become fields beside them.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import TextLexer

from fastecho._version import __version__
from manual.reference import text

ROOT = Path(__file__).resolve().parent.parent

project = "fastecho"
author = project_copyright = "fastecho contributors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
language = "en"
# The other one, and how the names of its pages begin.
CHINESE = "zh-CN", re.compile(r"docs/tutorial/zh/|README\.zh-CN$")
highlight_language = "text"
html_theme = "furo"
html_title = f"fastecho {version}"
html_copy_source = False
html_show_sphinx = False
# As GitHub makes them, so that a link to a heading works in both places.
myst_heading_anchors = 4
smartquotes = False
python_use_unqualified_type_names = True
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    # All but what these have given.
    "inherited-members": "Server,object,BaseException,Exception,OSError,ValueError,Enum,str,int",
}
autodoc_inherit_docstrings = True
# Types in signatures: those of other projects, and names that are no part of the interface.
nitpick_ignore_regex = [("py:(class|obj|data|exc)", ".*")]

FIELD = re.compile(r"^(\s*)(Thread|Cost|Source): (.*)$")
SECTION = re.compile(r"\s*[A-Z][a-z]+:(\s|$)")
NEXT_FIELD = re.compile(r"(?<=\S) {2,}(?=(?:Thread|Cost|Source): )")


def translate(lines: list[str]) -> list[str]:
    """Return a docstring in the project's form as one that Napoleon reads."""
    found = []
    # Spaces before the field that goes on, if one does.
    inside: str | None = None
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        if inside is not None and indent == inside and line.strip() and not SECTION.match(line):
            line = f"    {line}"
        for number, part in enumerate(NEXT_FIELD.split(line)):
            part = indent + part if number else part
            field = FIELD.match(part)
            if field:
                inside = field[1]
                found += ["", f"{inside}:{field[2]}: {text(field[3])}"]
            else:
                inside = inside if line.strip() and not SECTION.match(line) else None
                found.append(text(part))
    return found


def stub_signatures() -> dict[str, tuple[str, str | None]]:
    """Return arguments and result of the methods of compiled classes, from their stub."""
    tree = ast.parse((ROOT / "fastecho" / "_core.pyi").read_text(encoding="utf-8"))
    return {
        f"fastecho.{one.name}.{method.name}": (
            f"({ast.unparse(method.args).removeprefix('self').removeprefix(', ')})",
            ast.unparse(method.returns) if method.returns else None,
        )
        for one in tree.body
        if isinstance(one, ast.ClassDef)
        for method in one.body
        if isinstance(method, ast.FunctionDef)
    }


def setup(app: Any) -> None:
    """Translate before Napoleon, which has the usual priority."""
    stubs = stub_signatures()

    def process(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
        # Of an attribute Napoleon takes what stands before a colon for the type, so that the first
        # line is an empty comment.
        first = ["..", ""] if what in ("attribute", "data", "property") else []
        lines[:] = first + translate(lines)

    def sign(app: Any, what: str, name: str, *_: Any) -> tuple[str, str | None] | None:
        return stubs.get(name) if what == "method" else None

    def dash(app: Any, page: nodes.document, name: str) -> None:
        # Sphinx leaves this to smartquotes, which would make dashes of options too.
        for one in page.findall(nodes.Text):
            if one == " -- ":
                one.parent.replace(one, nodes.Text(" \N{EN DASH} "))

    def speak(app: Any, name: str, template: str, context: dict[str, Any], *_: Any) -> None:
        tag, pages = CHINESE
        if pages.match(name):
            context["language"] = tag

    app.add_lexer("haproxy", TextLexer)
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-process-signature", sign)
    app.connect("doctree-resolved", dash)
    app.connect("html-page-context", speak)
