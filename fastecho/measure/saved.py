"""Results that were saved: a file as a Result, whatever is in the file.

Lives here: reading JSON and JSON lines, and a sentence for what is neither. Does not live here:
what a result's keys mean (result.py), writing (cli/_outputs.py).
"""

from __future__ import annotations

import json
import os
import sys

from fastecho.errors import ConfigError, shown

from .result import FORMAT, Result

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["read"]

STDIN = "-"
LARGEST = 1 << 30
"""Bytes; six days of intervals of a second, which is the longest run, take 600 MB."""


def read(path: str | os.PathLike[str]) -> Result:
    """Return the result that `fastecho bench --json` or `--jsonl` has saved.

    Args:
        path: a file; "-" is standard input.
    Raises:
        ConfigError: there is no such file, it cannot be read, or it holds no result that this
            version understands; names the file.
    Thread: any.   Cost: some milliseconds.
    """
    name = os.fspath(path)
    data = _result_in(_text(name), name)
    try:
        return Result.from_json(data)
    except ValueError as error:  # a sentence without its subject
        reason = str(error)
        if reason.split(" ", 1)[0] not in ("has", "is"):
            reason = f"is damaged: {reason}"
        raise ConfigError("file", name, reason) from None


def _text(name: str) -> str:
    try:
        if name == STDIN:
            if sys.stdin is None:
                raise ConfigError("file", name, "is standard input, which is closed")
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            reason = f"is no result of fastecho bench: it has more than {LARGEST >> 20} MiB"
            raise ConfigError("file", name, reason)
        return data.decode("utf-8-sig")  # some editors and shells write a mark before the text
    except UnicodeDecodeError:
        raise ConfigError("file", name, "is no JSON: it is not even text") from None
    except MemoryError:
        raise ConfigError("file", name, "cannot be read: it is larger than the memory") from None
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError("file", name, f"cannot be read: {reason}") from None


def _result_in(text: str, name: str) -> dict[str, Any]:
    """Return the JSON object of a result: all of the text, or the last of its lines."""
    if not text.strip():
        raise ConfigError("file", name, "is empty")
    try:
        data = _parsed(text)
    except ValueError:
        data = _last_line(text, name)
    if isinstance(data, dict) and data.get("event") in ("interval", "step"):
        raise ConfigError("file", name, "ends before its result: the run was broken off")
    if not isinstance(data, dict):
        raise ConfigError("file", name, "is JSON, but not a result of fastecho bench")
    if data.get("format") != FORMAT:
        kind = data.get("format")
        what = f"its format is {shown(kind)}" if kind is not None else "it names no format"
        raise ConfigError("file", name, f"is JSON, but not a result of fastecho bench: {what}")
    return data


def _last_line(text: str, name: str) -> Any:
    """Return what the last line of JSON lines holds; a line that is cut is no result."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        first = _parsed(lines[0])
    except ValueError:
        raise ConfigError("file", name, "is no JSON, or is cut") from None
    if len(lines) < 2 or not isinstance(first, dict) or "event" not in first:
        raise ConfigError("file", name, "is no JSON, or is cut")
    try:
        return _parsed(lines[-1])
    except ValueError:
        raise ConfigError("file", name, "is cut: its last line is no JSON") from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
