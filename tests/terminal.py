"""A terminal for tests: a pseudo-terminal with a command in it, and the screen that a person sees.

What lives here: enough of a VT100 to tell what stands where after all the control sequences, and
waiting for it with a deadline. What may not live here: anything about a particular command. A
sequence that the screen does not know is an error, so nothing steers a terminal unnoticed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self
from unicodedata import east_asian_width

DEADLINE = 10.0  # seconds: reached only when something hangs
IGNORED = {"h", "l", "m"}  # modes and colours change no text

SEQUENCE = re.compile(r"\x1b(?:\[([?\d;]*)([@-~])|([78DM=>]))")
TAKE_TERMINAL = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
"""Run first in the command: makes its standard input its controlling terminal, for Ctrl-C."""


class Screen:
    """Rows of cells, a cursor, and what control sequences do to them."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        # A wide character takes its own cell and an empty one.
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row = self.column = 0
        self._saved = (0, 0)
        self._rest = ""

    def text(self) -> str:
        """Return what is seen, without empty rows at the end."""
        return "\n".join("".join(row).rstrip() for row in self.cells).rstrip("\n")

    def rows(self) -> list[str]:
        """Return the rows that are seen."""
        return self.text().split("\n")

    def feed(self, text: str) -> None:
        """Take output of the command; a sequence that is cut short waits for its rest."""
        text = self._rest + text
        self._rest = ""
        place = 0
        while place < len(text):
            if text[place] != "\x1b":
                self._character(text[place])
                place += 1
                continue
            found = SEQUENCE.match(text, place)
            if found is None:
                if len(text) - place < 12:
                    self._rest = text[place:]
                    return
                raise AssertionError(f"unknown sequence {text[place : place + 12]!r}")
            self._sequence(found[1] or "", found[2] or f"\x1b{found[3]}")
            place = found.end()

    def _character(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self._down()
        elif character == "\b":
            self.column = max(min(self.column, self.columns - 1) - 1, 0)
        elif character == "\a":
            pass
        else:
            assert character.isprintable(), f"raw {character!r}"
            self._put(character)

    def _put(self, character: str) -> None:
        size = 2 if east_asian_width(character) in "WF" else 1
        if self.column + size > self.columns:
            self.column = 0
            self._down()
        self.cells[self.row][self.column : self.column + size] = [character, ""][:size]
        self.column += size

    def _down(self) -> None:
        if self.row < len(self.cells) - 1:
            self.row += 1
        else:
            self.cells = [*self.cells[1:], [" "] * self.columns]

    def _sequence(self, parameters: str, final: str) -> None:
        if final in IGNORED:
            return
        if not self._move(parameters, final) and not self._edit(parameters, final):
            raise AssertionError(f"unknown sequence {parameters!r} {final!r}")

    def _move(self, parameters: str, final: str) -> bool:
        """Do what moves the cursor; tell whether this sequence is one of those."""
        if parameters and not parameters.isdigit():
            return False
        n = int(parameters or 1)
        column = min(self.column, self.columns - 1)
        if final == "A":
            self.row = max(self.row - n, 0)
        elif final == "B":
            self.row = min(self.row + n, len(self.cells) - 1)
        elif final == "C":
            self.column = min(column + n, self.columns - 1)
        elif final == "D":
            self.column = max(column - n, 0)
        elif final == "\x1b7":
            self._saved = (self.row, self.column)
        elif final == "\x1b8":
            self.row, self.column = self._saved
        elif final == "\x1bD":
            self._down()
        else:
            return final in {"\x1b=", "\x1b>"}  # keypad modes
        return True

    def _edit(self, parameters: str, final: str) -> bool:
        """Do what erases or shifts; tell whether this sequence is one of those."""
        if parameters and not parameters.isdigit():
            return False
        n = int(parameters or 1)
        row = self.cells[self.row]
        column = min(self.column, self.columns - 1)
        rest = self.columns - column
        if final in {"K", "J"} and parameters in {"", "0"}:
            row[column:] = [" "] * rest
            if final == "J":
                for below in self.cells[self.row + 1 :]:
                    below[:] = [" "] * self.columns
        elif final == "P":
            row[column:] = [*row[column + n :], *[" "] * n][:rest]
        elif final == "@":
            row[column:] = [*[" "] * n, *row[column:]][:rest]
        elif final == "L" and n == 1:
            self.cells.insert(self.row, [" "] * self.columns)
            self.cells.pop()
        else:
            return False
        return True


class Terminal:
    """A `fastecho` command in a pseudo-terminal, typed at and looked at.

    Args:
        words: the arguments of `fastecho`.
        variables: changes to the environment; None takes a variable away.
        stdin, stdout: descriptors to use in place of the terminal.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        variables: Mapping[str, str | None] | None = None,
        columns: int = 60,
        rows: int = 12,
        before: str = "",
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> None:
        self.screen = Screen(columns, rows)
        self.raw = b""
        environment: dict[str, str | None] = {
            **os.environ,
            **dict.fromkeys(("LANG", "LC_MESSAGES", "INPUTRC", "COLUMNS", "LINES")),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
            **(variables or {}),
        }
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        take = TAKE_TERMINAL if stdin is None else "import sys; "
        code = f"{take}{before}\nfrom fastecho.cli import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *words],
            stdin=inner if stdin is None else stdin,
            stdout=inner if stdout is None else stdout,
            stderr=inner,
            env={name: value for name, value in environment.items() if value is not None},
            start_new_session=True,
        )
        os.close(inner)
        self._decoded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self._fd)

    def type(self, keys: str) -> None:
        """Press keys; a carriage return is Enter."""
        self.type_bytes(keys.encode())

    def type_bytes(self, data: bytes) -> None:
        """Send bytes as a keyboard would."""
        while data:
            data = data[os.write(self._fd, data) :]

    def is_cooked(self) -> bool:
        """Tell whether the terminal edits lines and echoes by itself, as a shell finds it."""
        flags = termios.tcgetattr(self._fd)[3]
        return bool(flags & termios.ICANON and flags & termios.ECHO)

    def wait_for(self, condition: Callable[[Screen], bool], what: str) -> None:
        """Read output until the screen meets the condition; fail after the deadline."""
        limit = time.monotonic() + DEADLINE
        while not condition(self.screen):
            left = limit - time.monotonic()
            more = left > 0 and self._read(left)
            assert more or condition(self.screen), (
                f"no {what} on this screen:\n{self.screen.text()}"
            )

    def wait_for_rows(self, *rows: str) -> None:
        """Wait until the last rows seen are exactly these."""
        wanted = [row.rstrip() for row in rows]
        self.wait_for(
            lambda screen: screen.rows()[-len(wanted) :] == wanted, "\n".join(["rows", *wanted])
        )

    def wait_for_exit(self) -> int:
        """Read the rest of the output; return the exit code."""
        limit = time.monotonic() + DEADLINE
        while self._read(max(limit - time.monotonic(), 0)):
            pass
        return self.process.wait(DEADLINE)

    def _read(self, seconds: float) -> bool:
        """Feed the screen with more output; False at the end or when there is none in time."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError as error:  # Linux's way to say that nobody holds the other side
            if error.errno != errno.EIO:
                raise
            return False
        self.raw += data
        # Characters may be cut in two: feed the part that is whole.
        whole = self.raw[self._decoded :].decode("utf-8", "ignore")
        self._decoded += len(whole.encode())
        self.screen.feed(whole)
        return bool(data)
