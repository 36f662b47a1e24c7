"""What `fastecho serve` says on stderr, line by line: its own words, and those of the library.

Lives here: levels, the form of a line, the handlers of logging. Does not live here: what is worth
a line (serve.py, fastecho/reporter.py), what an entry of the access log looks like (fastecho/logs).
"""

from __future__ import annotations

import logging
import os
import sys
import time

from fastecho.cli import put_line
from fastecho.logs import LEVELS, message_json, one_line

__all__ = ["Log"]

_LOGGING_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}


class Log:
    """Lines for people or machines, of a level and above.

    Args:
        level: one of LEVELS.
        form: "text" or "json".
    """

    def __init__(self, level: str, form: str) -> None:
        self.level = level
        self._form = form

    def say(self, level: str, message: str) -> None:
        """Write one line if the level asks for it. The main thread."""
        if LEVELS.index(level) <= LEVELS.index(self.level):
            put_line(self.line(level, message))

    def line(self, level: str, message: str) -> str:
        """Return a line as it is written."""
        if self._form == "json":
            return message_json(time.time(), level, message)
        return f"fastecho: {one_line(message if level == 'info' else f'{level}: {message}')}"

    def set_level(self, level: str) -> None:
        """Take another level from now on."""
        self.level = level
        logging.getLogger("fastecho").setLevel(_LOGGING_LEVELS[level])

    def take_over(self) -> None:
        """Make the library's loggers write here; the access log was asked for at any level."""
        for name, handler in (("fastecho", _Messages(self)), ("fastecho.access", _Access())):
            logger = logging.getLogger(name)
            logger.handlers = [handler]
            logger.propagate = False
        logging.getLogger("fastecho.access").setLevel(logging.INFO)
        self.set_level(self.level)


class _Handler(logging.Handler):
    """Writes to the descriptor of stderr, past Python's buffers and without a lock.

    A thread that waits in a full pipe must not hold anything that the exit of the interpreter
    needs: that would wait for ever.
    """

    def createLock(self) -> None:  # noqa: N802 (logging calls it so)
        """Have none: one write, one line."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record. Python 3.13 would enter the lock even if there is none."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a stderr that is closed, full or read by nobody is no error."""
        if sys.stderr is None:
            return
        try:
            data = memoryview(f"{self.text(record)}\n".encode(errors="backslashreplace"))
            while data:
                data = data[os.write(sys.stderr.fileno(), data) :]
        except (OSError, ValueError):
            pass

    def text(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        raise NotImplementedError


class _Messages(_Handler):
    """What the library has to say."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def text(self, record: logging.LogRecord) -> str:
        level = {logging.WARNING: "warning", logging.INFO: "info"}.get(record.levelno, "error")
        return self._log.line(level, record.getMessage())


class _Access(_Handler):
    """Entries of the access log are whole lines already."""

    def text(self, record: logging.LogRecord) -> str:
        return record.getMessage()
