"""`fastecho serve --probes`: a server that does what the first line of a connection orders.

Lives here: the callbacks of such a server: its orders, and the plain echo for everybody else. Does
not live here: the probes that give the orders (fastecho/check), options (cli/serve.py).

The orders, each `FASTECHO-PROBE/1 NAME ARGUMENTS` and a newline, are described for others in
docs/reference/check.md. What a peer can make the server do is bounded: bytes, times, tokens.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from functools import cache
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic
from zlib import crc32

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Connection

__all__ = ["MAGIC", "MOST_BYTES", "MOST_MS", "Probing", "ruler"]

log = logging.getLogger("fastecho")

MAGIC = b"FASTECHO-PROBE/1 "
LONGEST_LINE = 128
MOST_BYTES = 1 << 20
"""That one order sends."""
MOST_MS = 60_000
MOST_TOKENS = 4096
LONGEST_TOKEN = 64
MOST_DUE = 10_000
"""Orders that wait for their moment."""


def ruler(size: int) -> bytes:
    """Return what orders send: 15 digits and a full stop, which say their offset, and so on."""
    return _whole_ruler()[:size]


@cache
def _whole_ruler() -> bytes:
    """Make it once: that takes long enough to be noticed by everybody else."""
    return b"".join(b"%015d." % mark for mark in range(0, MOST_BYTES, 16))


class _Received:
    """What came for a token, after our FIN."""

    __slots__ = ("bytes", "crc32", "eof")

    def __init__(self) -> None:
        self.bytes = self.crc32 = 0
        self.eof = False


class _State:
    """One connection: what it has sent of its first line, and what is to be done with the rest."""

    __slots__ = ("begun", "does", "received")

    def __init__(self) -> None:
        self.begun = b""
        # None: not known yet. Otherwise what becomes of a message.
        self.does: Callable[[Connection, _State, bytes], bytes | None] | None = None
        self.received: _Received | None = None


class _Later:
    """Calls at a moment, on one thread that starts with the first of them."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Connection, Callable[[], object]]] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def call(self, seconds: float, connection: Connection, what: Callable[[], object]) -> bool:
        """Call it after so many seconds, if the connection lives; False: too many wait already."""
        with self._changed:
            if len(self._due) >= MOST_DUE:
                self._due = [one for one in self._due if not one[2].is_closing()]
                heapify(self._due)
            if len(self._due) >= MOST_DUE:
                return False
            heappush(self._due, (monotonic() + seconds, next(self._numbers), connection, what))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="probes", daemon=True)
                self._thread.start()
            self._changed.notify()
        return True

    def end(self) -> None:
        """Forget all."""
        with self._changed:
            self._ended = True
            self._due.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (not self._due or self._due[0][0] > monotonic()):
                    wait = self._due[0][0] - monotonic() if self._due else None
                    self._changed.wait(wait)
                if self._ended:
                    return
                what = heappop(self._due)[3]
            try:
                what()
            except Exception:  # no memory: it costs one its order, and not all others theirs
                log.exception("an order of a peer could not be done")


class Probing:
    """The callbacks of a server that takes orders; `callbacks()` are Server's keywords."""

    def __init__(self) -> None:
        self._later = _Later()
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, _Received] = OrderedDict()
        self._orders: dict[str, Callable[[Connection, _State, list[str]], str]] = {
            "half-close": self._half_close,
            "received": self._report,
            "close": self._close,
            "reset": self._reset,
            "first": self._first,
            "deaf": self._deaf,
        }

    def callbacks(self) -> dict[str, Any]:
        """Return the callbacks by Server's names."""
        return {"on_message": self.on_message, "on_eof": self.on_eof}

    def end(self) -> None:
        """End the thread for what is due later, if there is one."""
        self._later.end()

    def on_message(self, connection: Connection, data: bytes) -> bytes | None:
        """Echo, or obey."""
        state: _State = connection.context
        if state is None:
            if data[: len(MAGIC)] != MAGIC[: len(data)]:  # nearly everybody
                state = connection.context = _State()
                state.does = _echo
                return data
            state = connection.context = _State()
        if state.does is not None:
            return state.does(connection, state, data)
        return self._begin(connection, state, state.begun + data)

    def on_eof(self, connection: Connection) -> None:
        """Echo what only looked like the beginning of an order; note the end for a token."""
        state: _State | None = connection.context
        if state is None:
            return
        if state.does is None and state.begun:
            connection.write(state.begun)
            state.begun = b""
        if state.received is not None:
            with self._lock:
                state.received.eof = True

    def _begin(self, connection: Connection, state: _State, data: bytes) -> bytes | None:
        """Take the first bytes of a connection: wait for more, echo them, or obey."""
        line, newline, rest = data.partition(b"\n")
        is_magic = data[: len(MAGIC)] == MAGIC[: len(data)]
        if is_magic and not newline and len(data) < LONGEST_LINE:
            state.begun = data
            return None
        state.begun = b""
        if not is_magic or not newline or len(line) >= LONGEST_LINE:
            state.does = _echo
            return data
        name, *words = line[len(MAGIC) :].decode("latin-1").split(" ")
        if name not in self._orders:
            wrong = "there is no such order"
        else:
            wrong = self._orders[name](connection, state, words)
        if wrong:
            connection.write(MAGIC + b"error " + wrong.encode() + b"\n")
            connection.close()
            return None
        if rest and state.does is not None:
            return state.does(connection, state, rest)
        return None

    def _acknowledge(self, connection: Connection, name: str) -> None:
        connection.write(MAGIC + b"ok " + name.encode() + b"\n")

    # Each order returns what is wrong with it, or "" and does it.

    def _half_close(self, connection: Connection, state: _State, words: list[str]) -> str:
        if len(words) != 2 or not _is_token(words[0]) or (size := _size(words[1])) is None:
            return f"half-close takes a token and 0 to {MOST_BYTES} bytes"
        received = state.received = _Received()
        with self._lock:
            self._tokens[words[0]] = received
            self._tokens.move_to_end(words[0])
            while len(self._tokens) > MOST_TOKENS:
                self._tokens.popitem(last=False)
        state.does = self._count
        self._acknowledge(connection, "half-close")
        connection.write(ruler(size))
        connection.write_eof()
        return ""

    def _count(self, _connection: Connection, state: _State, data: bytes) -> None:
        received = state.received
        assert received is not None
        with self._lock:
            received.bytes += len(data)
            received.crc32 = crc32(data, received.crc32)

    def _report(self, connection: Connection, state: _State, words: list[str]) -> str:
        with self._lock:
            received = self._tokens.get(words[0]) if len(words) == 1 else None
            if received is None:
                return "received takes a token that half-close was given, not too long ago"
            report = {name: getattr(received, name) for name in _Received.__slots__}
        state.does = _echo
        self._acknowledge(connection, "received")
        connection.write(json.dumps({"token": words[0], **report}).encode() + b"\n")
        return ""

    def _close(self, connection: Connection, state: _State, words: list[str]) -> str:
        if len(words) != 1 or (size := _size(words[0])) is None:
            return f"close takes 0 to {MOST_BYTES} bytes"
        state.does = _drop
        self._acknowledge(connection, "close")
        connection.write(ruler(size))
        connection.close()
        return ""

    def _reset(self, connection: Connection, state: _State, words: list[str]) -> str:
        if len(words) != 1 or (size := _size(words[0])) is None:
            return f"reset takes 0 to {MOST_BYTES} bytes"
        state.does = _abort
        self._acknowledge(connection, "reset")
        connection.write(ruler(size))
        return ""

    def _first(self, connection: Connection, state: _State, words: list[str]) -> str:
        ms = _ms(words[0]) if len(words) == 2 else None
        if ms is None or (size := _size(words[1])) is None:
            return f"first takes 0 to {MOST_MS} ms and 0 to {MOST_BYTES} bytes"
        state.does = _echo
        self._acknowledge(connection, "first")
        if not self._later.call(ms / 1e3, connection, lambda: connection.write(ruler(size))):
            connection.abort()
        return ""

    def _deaf(self, connection: Connection, state: _State, words: list[str]) -> str:
        if len(words) != 1 or (ms := _ms(words[0])) is None:
            return f"deaf takes 0 to {MOST_MS} ms"
        state.does = _echo
        self._acknowledge(connection, "deaf")
        connection.pause_reading()
        if not self._later.call(ms / 1e3, connection, connection.resume_reading):
            connection.abort()
        return ""


def _echo(_connection: Connection, _state: _State, data: bytes) -> bytes:
    return data


def _drop(_connection: Connection, _state: _State, _data: bytes) -> None:
    pass


def _abort(connection: Connection, _state: _State, _data: bytes) -> None:
    connection.abort()


def _number(text: str, most: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    return int(text) if int(text) <= most else None


def _size(text: str) -> int | None:
    return _number(text, MOST_BYTES)


def _ms(text: str) -> int | None:
    return _number(text, MOST_MS)


def _is_token(text: str) -> bool:
    return 1 <= len(text) <= LONGEST_TOKEN and text.isascii() and text.isalnum()
