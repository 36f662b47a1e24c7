"""The man page fastecho(1), from the parsers of the commands, in the language of man(7).

Lives here: how help text becomes roff. A description or epilog is blocks between empty lines: one
whose lines are all indented is shown as it stands, another is filled. Does not live here: what the
commands say of themselves (fastecho/cli).
"""

from __future__ import annotations

import argparse
import os
import re
import time
from textwrap import wrap
from typing import TYPE_CHECKING

from fastecho._version import __version__
from fastecho.cli import COMMANDS

from .commands import SUMMARY, arguments, help_text, parsers

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_CODES = (
    ("0", "done"),
    ("1", "the run failed"),
    ("2", "wrong usage"),
    ("3", "a threshold or a probe failed"),
    ("4", "the server could not start, or ping could not connect"),
    ("130", "interrupted"),
)


def man_page() -> str:
    """Return the page."""
    # A packager who builds the same twice sets SOURCE_DATE_EPOCH, as reproducible-builds.org asks.
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    lines = [
        f'.TH FASTECHO 1 "{date}" "fastecho {__version__}" "User Commands"',
        ".SH NAME",
        r"fastecho \- exact echo server, and tools for people who test networks",
        ".SH SYNOPSIS",
        r".B fastecho",
        r"\fICOMMAND\fR [\fIOPTION\fR] ...",
        ".br",
        r".B fastecho \-\-version",
        ".br",
        r".B fastecho \-\-help",
        ".SH DESCRIPTION",
        *_filled(SUMMARY),
        "The commands, each of which has a section below:",
    ]
    for name, (_, what) in COMMANDS.items():
        lines += [".TP", rf".B {roff(name)}", roff(what)]
    for name, parser in parsers().items():
        lines += _section(name, parser)
    lines.append(".SH EXIT STATUS")
    for code, what in EXIT_CODES:
        lines += [".TP", rf".B {code}", roff(what)]
    lines += [".SH SEE ALSO", ".BR ping (8),", ".BR ss (8),", ".BR listen (2)"]
    return "\n".join(lines) + "\n"


def _section(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a command's section."""
    yield f".SH FASTECHO {roff(name.upper())}"
    yield rf"\fBfastecho {roff(name)}\fR {_usage(parser)}"
    yield ".PP"
    yield from _text(parser.description)
    for group in parser._action_groups:
        if not group._group_actions:
            continue
        yield f'.SS "{roff((group.title or "").capitalize())}"'
        yield from _text(group.description)
        for action in group._group_actions:
            yield ".TP"
            yield _head(action)
            yield from _filled(help_text(parser, action))
    yield '.SS "Examples"'
    yield from _text((parser.epilog or "").partition("\n")[2])


def _usage(parser: argparse.ArgumentParser) -> str:
    """Return what follows the name of a command."""
    words = [r"[\fIOPTION\fR] ..."]
    for action in arguments(parser):
        if not action.option_strings:
            words.append(rf"[\fI{roff(str(action.metavar))}\fR]")
            words += ["..."] if action.nargs == "*" else []
    return " ".join(words)


def _head(action: argparse.Action) -> str:
    """Return the line that names an option and its value."""
    value = rf"\fI{roff(str(action.metavar))}\fR" if action.metavar else ""
    if not action.option_strings:
        return value
    names = ", ".join(rf"\fB{roff(option)}\fR" for option in action.option_strings)
    if action.nargs == 0 or not value:
        return names
    return f"{names} [{value}]" if action.nargs == "?" else f"{names} {value}"


def _text(text: str | None) -> Iterator[str]:
    """Yield blocks of help text, with a paragraph between two."""
    blocks = re.split(r"\n\s*\n", (text or "").strip("\n"))
    for number, block in enumerate(blocks):
        if number:
            yield ".PP"
        lines = block.splitlines()
        if all(line.startswith("  ") for line in lines):
            yield ".nf"
            yield from (roff(line.removeprefix("  ")) for line in lines)
            yield ".fi"
        else:
            yield from _filled(block)


def _filled(text: str) -> Iterator[str]:
    """Yield lines that are as long as they may be in a source, and filled again by roff."""
    yield from map(roff, wrap(text, 64, break_long_words=False, break_on_hyphens=False))


def roff(text: str) -> str:
    r"""Return text that roff prints as it stands: `-` is what a terminal takes for an option."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    text = text.replace("^", r"\(ha").replace("~", r"\(ti").replace("`", r"\(ga")
    return rf"\&{text}" if text.startswith(".") else text
