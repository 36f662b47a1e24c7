"""Who answers: the line of JSON by which a server says so, read by a client that expects it.

Lives here: where the line ends, what it says, what is said when it does not come. Does not live
here: when it is read (cli/connect.py, measure/pinger.py, measure/runner.py), what a server writes
into it (src_c/identify.h; docs/reference/proxy.md lists the keys).

A server that frames by length sends it as a frame. Which of the two comes is told by the first
byte: a line begins with `{`, the length of a frame with 0, as it is below 65,536.
"""

from __future__ import annotations

import errno
import selectors
import socket
from time import monotonic

from .errors import FastechoError, shown
from .logs import one_line

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .proxy_header import HasDescriptor

__all__ = [
    "LINE_BYTES", "PATIENCE", "Greeting", "Identity", "NotIdentifiedError", "identity_of",
    "read_identity", "silent", "wrong",
]  # fmt: skip

LINE_BYTES = 8192
"""The line, with its newline or without the length before it, is no longer. (Ours has 6,600 bytes
at the most: a name of 255 characters outside ASCII, and all that a PROXY header can tell.)"""

PATIENCE = 5.0
"""Seconds to wait for it where the user has named no timeout."""

SHOWN_BYTES = 40
"""So much of what came instead is shown."""

MEND = "start it with --identify"


class NotIdentifiedError(FastechoError, OSError):
    """The server did not say who answers; the text is the whole sentence."""

    def __str__(self) -> str:
        return str(self.strerror)


class Identity:
    """What a server says of itself and of a connection.

    Attributes:
        instance: the server's name.
        host: the name of its machine; "" if it does not tell.
        connection: the connection's number among all that it has accepted; None: not told.
        seen: whom it sees, HOST:PORT; None on a Unix socket.
        claimed: whom the PROXY header names; None without one.
    """

    __slots__ = ("claimed", "connection", "host", "instance", "seen")

    def __init__(
        self,
        instance: str,
        host: str = "",
        connection: int | None = None,
        seen: str | None = None,
        claimed: str | None = None,
    ) -> None:
        self.instance = instance
        self.host = host
        self.connection = connection
        self.seen = seen
        self.claimed = claimed

    def __str__(self) -> str:
        """Say it in a few words, harmless on a terminal."""
        host = f" ({self.host})" if self.host else ""
        words = f"{self.instance}{host} answers"
        if self.connection is not None:
            words += f", connection {self.connection}"
        if self.seen is not None:
            words += f", sees {self.seen}"
        if self.claimed is not None:
            words += f", is told of {self.claimed}"
        return one_line(words)


class Greeting:
    """What has come of the line so far; feed it until it is whole."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def feed(self, data: bytes) -> int:
        """Take of the data what belongs to the line; return how many bytes did."""
        before = len(self.data)
        self.data += data
        end = self._end()
        del self.data[end:]
        return len(self.data) - before

    @property
    def is_whole(self) -> bool:
        """Whether it has come, or something that can be none: nothing more is taken."""
        return self._is_wrong() or len(self.data) == self._end()

    def identity(self, peer: str) -> Identity:
        """Return what the whole line says, or raise NotIdentifiedError."""
        is_frame = self.data[:1] == b"\0"
        is_ended = not self._is_wrong() and (is_frame or self.data.endswith(b"\n"))
        told = identity_of(bytes(self.data[4:] if is_frame else self.data)) if is_ended else None
        if told is None:
            raise wrong(peer, self.data)
        return told

    def _end(self) -> int:
        """Return how many bytes there have to be in all, as far as is known: then no more."""
        if self.data[:1] == b"\0":
            size = int.from_bytes(self.data[:4], "big") if len(self.data) >= 4 else 0
            return 4 + min(size, LINE_BYTES)
        found = self.data.find(b"\n", 0, LINE_BYTES) + 1
        return found or LINE_BYTES

    def _is_wrong(self) -> bool:
        """Whether what has come cannot become the line."""
        if self.data[:1] == b"\0":
            size = int.from_bytes(self.data[:4], "big")
            return len(self.data) >= 4 and not 1 < size <= LINE_BYTES
        return bool(self.data) and self.data[:1] != b"{"


def identity_of(line: bytes) -> Identity | None:
    """Return what a line says, without its frame; None if it is none of those lines."""
    import json

    try:
        told = json.loads(line.decode("ascii"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    instance, host, number = told.get("instance"), told.get("host"), told.get("connection")
    if not isinstance(instance, str) or not instance:
        return None
    seen, claimed = told.get("seen"), told.get("claimed")
    return Identity(
        instance,
        host if isinstance(host, str) else "",
        number if type(number) is int else None,
        seen if isinstance(seen, str) else None,
        claimed if isinstance(claimed, str) else None,
    )


def _refuse(word: str) -> object:
    """NaN and Infinity are Python's, and no JSON: a load does not take them either."""
    raise ValueError(word)


def read_identity(connection: HasDescriptor, peer: str, patience: float) -> Identity:
    """Receive the line, and no byte more, on a connection that is new: a socket's or a Client's.

    Raises:
        NotIdentifiedError: it did not come within so many seconds, or something else did.
        ConnectionError: it was closed or reset first; the text is the whole sentence.
    """
    greeting, deadline = Greeting(), monotonic() + patience
    with (
        socket.socket(fileno=socket.dup(connection.fileno())) as sock,
        selectors.DefaultSelector() as selector,
    ):
        selector.register(sock, selectors.EVENT_READ)
        while not greeting.is_whole:
            if not selector.select(max(deadline - monotonic(), 0)):
                raise wrong(peer, greeting.data) if greeting.data else silent(peer, patience)
            try:
                data = sock.recv(LINE_BYTES, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                sentence = f"{peer} reset the connection before it said who answers"
                raise ConnectionResetError(errno.ECONNRESET, sentence) from None
            if not data:
                sentence = f"{peer} closed the connection before it said who answers"
                raise ConnectionAbortedError(errno.ECONNABORTED, sentence)
            sock.recv(greeting.feed(data))
    return greeting.identity(peer)


def silent(peer: str, patience: float) -> NotIdentifiedError:
    """Return the error for a server that sent nothing for so many seconds."""
    sentence = f"--identify: {peer} did not say who answers within {patience:g} s: {MEND}"
    return NotIdentifiedError(errno.EPROTO, sentence)


def wrong(peer: str, data: bytes | bytearray) -> NotIdentifiedError:
    """Return the error for a server that sent something else first."""
    start = shown(bytes(data[:SHOWN_BYTES]))
    sentence = f"--identify: {peer} did not say who answers, but sent {start} first: {MEND}"
    return NotIdentifiedError(errno.EPROTO, sentence)
