"""Pages of the site that are made from the package: its commands, and its public names.

Lives here: reStructuredText from the parsers, and which modules are public. Does not live here:
what Sphinx makes of a docstring (conf.py).
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING

from fastecho.cli import COMMANDS

from .commands import help_text, parsers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

COMMAND_LINE, PYTHON = "docs/reference/command-line", "docs/reference/python"
MODULES = {
    "fastecho": "the server, the client, and what they tell",
    "fastecho.aio": "the client of an event loop",
    "fastecho.testing": "a server for tests of a network client",
    "fastecho.pytest_plugin": "fixtures for pytest",
    "fastecho.measure": "measurements",
    "fastecho.metrics": "metrics for Prometheus",
    "fastecho.proxy_header": "PROXY headers for any client",
}
"""The modules that programs import."""
ESCAPED = re.compile(r"([*_|\\])")


def text(line: str) -> str:
    """Return a line as reStructuredText: `so` is code, and nothing else means anything."""
    parts = line.split("`")
    if len(parts) % 2 == 0:  # a backtick alone
        return ESCAPED.sub(r"\\\1", line).replace("`", r"\`")
    # Code ends at a word's end only: behind an escaped space, anything may follow.
    return "".join(
        f"``{part}``\\ " if number % 2 else ESCAPED.sub(r"\\\1", part)
        for number, part in enumerate(parts)
    )


def command_pages() -> dict[str, str]:
    """Return a page for each command, by name, and their index."""
    pages = {f"{COMMAND_LINE}/index.md": "# Command line\n\nWhat `--help` says of each command.\n"}
    for name, parser in parsers().items():
        pages[f"{COMMAND_LINE}/fastecho-{name}.rst"] = "\n".join(_command(name, parser)) + "\n"
    return pages


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines of a command's page."""
    title = f"fastecho {name}"
    yield from (title, "=" * len(title), "", f"{text(COMMANDS[name][1]).capitalize()}.", "")
    yield from (f".. program:: {title}", "", "::", "")
    yield from (f"    {line}" for line in parser.format_usage().splitlines())
    yield ""
    yield from _blocks(parser.description)
    for group in parser._action_groups:
        if group._group_actions:
            heading = (group.title or "").capitalize()
            yield from (heading, "-" * len(heading), "")
            yield from _blocks(group.description)
        for action in group._group_actions:
            value = str(action.metavar) if action.metavar and action.nargs != 0 else ""
            value = f"[{value}]" if action.nargs == "?" else value
            names = ", ".join(f"{one} {value}".rstrip() for one in action.option_strings) or value
            yield from (f".. option:: {names}", "", f"   {text(help_text(parser, action))}", "")
    yield from ("Examples", "-" * len("Examples"), "", "::", "")
    yield from (f"    {line}" for line in (parser.epilog or "").splitlines()[1:])


def _blocks(words: str | None) -> Iterator[str]:
    """Yield help text; a block whose lines are all indented is shown as it stands."""
    for block in re.split(r"\n\s*\n", (words or "").strip("\n")):
        lines = block.splitlines()
        if lines and all(line.startswith("  ") for line in lines):
            yield from ("::", "", *(f"    {line}" for line in lines), "")
        else:
            yield from (*text("\n".join(lines)).splitlines(), "")


def python_pages() -> dict[str, str]:
    """Return a page for each public module, by name, and their index."""
    pages = {f"{PYTHON}/index.md": "# Python\n\nWhat the docstrings of public names say.\n"}
    for name, what in MODULES.items():
        pages[f"{PYTHON}/{name}.rst"] = "\n".join(_module(name, what)) + "\n"
    return pages


def _module(name: str, what: str) -> Iterator[str]:
    """Yield the lines of a module's page."""
    yield from (name, "=" * len(name), "", f"{what.capitalize()}.", "", f".. module:: {name}", "")
    module = import_module(name)
    for public in module.__all__:
        kind = _kind(getattr(module, public))
        yield from (f".. {kind}:: {name}.{public}", "")


def _kind(value: object) -> str:
    """Return the directive of autodoc that shows a value."""
    if isinstance(value, type):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if callable(value) else "autodata"
