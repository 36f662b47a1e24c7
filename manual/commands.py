"""The parsers of every command, alone and as one tree, with what each option takes.

Lives here: which values an option offers (`choices`) and which take the name of a file (`complete`,
the attribute that shtab reads). Both are taken from where the command has them: the tables of
settings, what a metavar stands for. No option is named here. Does not live here: any format.
"""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from typing import TYPE_CHECKING

import shtab

from fastecho._version import __version__
from fastecho.check.catalog import probes
from fastecho.cli import COMMANDS
from fastecho.cli._parser import Parser
from fastecho.cli.serve import EXTRA
from fastecho.measure.plan import OPTIONS
from fastecho.models import NAMES
from fastecho.proxy_header import VERSIONS
from fastecho.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

SUMMARY = "An echo server, and tools, for people who test networks and network clients."
FILES = frozenset({"FILE", "FILE.toml", "OUT", "PATH"})
"""Metavars of options that take the name of a file."""


def parsers() -> dict[str, Parser]:
    """Return the parser of each command, by its name, with choices and files marked."""
    found = {}
    for name, (module, _) in COMMANDS.items():
        found[name] = Parser(prog=f"fastecho {name}")
        import_module(module).add_arguments(found[name])
        for action in arguments(found[name]):
            _mark(name, action)
    return found


def tree() -> argparse.ArgumentParser:
    """Return one parser that knows every command, as completions need it: with short help."""
    top = argparse.ArgumentParser(prog="fastecho", description=SUMMARY, allow_abbrev=False)
    top.add_argument("--version", action="version", version=__version__, help="print the version")
    below = top.add_subparsers(metavar="COMMAND")
    for name, parser in parsers().items():
        what = COMMANDS[name][1]
        for action in arguments(parser):
            action.help = short(help_text(parser, action)).replace("%", "%%")
        below.add_parser(
            name, help=what, description=what, parents=[parser], add_help=False, allow_abbrev=False
        )
    return top


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what a parser takes, options and others, in the order of its help."""
    return list(parser._actions)


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield every option of a parser, in every spelling."""
    for action in arguments(parser):
        yield from action.option_strings


def help_text(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return the help of an option as the command shows it, in one line."""
    return parser._get_formatter()._expand_help(action)


def short(text: str) -> str:
    """Return how a help text begins: remarks and what follows a colon are detail."""
    return re.split(r" \(|[:;.] ", text, maxsplit=1)[0]


def _mark(command: str, action: argparse.Action) -> None:
    """Tell an option its choices, or that it takes a file."""
    offered = _offers(command, action)
    if offered:
        action.choices = offered
    elif action.metavar in FILES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]


def _offers(command: str, action: argparse.Action) -> tuple[str, ...]:
    """Return the words that an option takes, or that stand where it takes a word."""
    if command == "serve":
        return next((one.choices for one in (*SETTINGS, *EXTRA) if one.name == action.dest), ())
    if command == "bench":
        checks = [one.check for one in OPTIONS if one.name == action.dest]
        return next((getattr(check, "choices", ()) for check in checks), ())
    if action.metavar == "VERSION":
        return VERSIONS
    if command == "models" and action.metavar == "NAME":
        return NAMES
    if command == "check" and action.metavar == "NAMES":
        every = probes()
        return tuple(dict.fromkeys([*(one.group for one in every), *(one.name for one in every)]))
    return ()
