"""Every exception that fastecho raises on purpose, and nothing else.

The class says whose turn it is: the caller's value (ConfigError), the machine (StartError),
the installation (ExtensionMissingError), a child process (ForkedError). The text of each is one
sentence on one line: a command prints it as it is. Nothing here imports, formats tables or logs.
"""

from __future__ import annotations

__all__ = [
    "NO_VALUE",
    "ConfigError",
    "ExtensionMissingError",
    "FastechoError",
    "ForkedError",
    "StartError",
    "shown",
]

SHOWN_CHARACTERS = 60
NO_VALUE = object()
"""Stands for the value of a flag that has none."""


def shown(value: object) -> str:
    """Return `value` for a message: one line, printable, at most about 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more than 4,300 digits, lists in lists
        text = f"<{type(value).__name__} without a short form>"
    if len(text) > SHOWN_CHARACTERS:
        half = SHOWN_CHARACTERS // 2
        text = f"{text[:half]}...{text[3 - half :]}"
    return text


class FastechoError(Exception):
    """Base of every exception that fastecho raises on purpose."""


class ConfigError(FastechoError, ValueError):
    """A wrong option or value: the caller can mend it. Commands end with exit code 2.

    The text is the sentence "OPTION VALUE REASON".

    Attributes:
        option: the name as the user wrote it: `threads`, `--threads`, `FASTECHO_THREADS`.
        value: what was given; NO_VALUE for a flag that stands alone.
        reason: the rest of the sentence, starting with a verb.
    """

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(option, value, reason)
        self.option = option
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        if self.value is NO_VALUE:
            return f"{self.option} {self.reason}"
        return f"{self.option} {shown(self.value)} {self.reason}"


class StartError(FastechoError, OSError):
    """A server that could not start: the machine said no. Commands end with exit code 4.

    Attributes:
        errno: the system's number; for a name that does not resolve, getaddrinfo's (negative).
        strerror: the whole sentence, with the address; also the text of the exception.
    """

    def __init__(self, errno: int, sentence: str) -> None:
        super().__init__(errno, sentence)

    def __str__(self) -> str:
        return str(self.strerror)


class ExtensionMissingError(FastechoError, ImportError):
    """The compiled core is not there, and what was asked for needs it."""


class ForkedError(FastechoError, RuntimeError):
    """A server was used in a child process; it lives in the process that started it."""
