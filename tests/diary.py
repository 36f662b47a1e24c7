"""Callbacks that note what they were called with, and how long their tests take."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from peers import DEADLINE

from fastecho import Connection, Reason

LONG = settings.get_current_profile_name() == "fuzz"
"""`make fuzz`: each of these tests takes minutes."""
patient = pytest.mark.timeout(3600 if LONG else 60)
"""Marks them."""


def times(short: int) -> int:
    """Return how often to do something of which an ordinary run does less."""
    return 100_000 if LONG else short


class Gate:
    """Keeps a worker in a callback: what peers send meanwhile is received in one round.

    A Unix socket has what was sent, in order, as soon as send() returns.
    """

    def __init__(self) -> None:
        self._inside, self._opened = threading.Event(), threading.Event()

    def hold(self) -> None:
        """Stay in this callback until the gate is opened."""
        self._inside.set()
        assert self._opened.wait(DEADLINE)

    def wait(self) -> None:
        """Return when a callback is held."""
        assert self._inside.wait(DEADLINE)

    def open(self) -> None:
        """Let the callback return."""
        self._opened.set()


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
