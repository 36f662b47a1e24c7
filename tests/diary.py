"""Callbacks that note what they were called with, for the tests of message callbacks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from peers import DEADLINE

from fastecho import Connection, Reason


class Diary:
    """Callbacks that note what they were called with, in order, and what they answer."""

    def __init__(self, answer: Callable[[Connection, bytes], object] | None = None) -> None:
        self.answer = answer or (lambda _, data: data)
        self.notes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.threads: set[str] = set()

    def on_message(self, connection: Connection, data: bytes) -> object:
        self.threads.add(threading.current_thread().name)
        self.notes.put(("message", connection, data))
        return self.answer(connection, data)

    def on_eof(self, connection: Connection) -> object:
        self.notes.put(("eof", connection))
        return None

    def on_drain(self, connection: Connection) -> None:
        self.notes.put(("drain", connection))

    def on_close(self, connection: Connection, reason: Reason) -> None:
        self.notes.put(("close", connection, reason))

    def all(self) -> dict[str, Any]:
        """Return every callback, as keywords of Server."""
        names = ("on_message", "on_eof", "on_drain", "on_close")
        return {name: getattr(self, name) for name in names}

    def next(self) -> Any:
        """Return the next note, without its connection."""
        kind, _, *rest = self.notes.get(timeout=DEADLINE)
        return (kind, *rest)
