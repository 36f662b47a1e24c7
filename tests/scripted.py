"""Servers that do to each connection, in turn, what a test says: for the tests of `fastecho ping`.

Lives here: serving successive connections by successive functions, and these functions. Does not
live here: a server whose connections the test itself uses (driven.py), what must follow from it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from driven import DrivenServer, echo
from peers import DEADLINE, reset

Handler = Callable[..., object]
SIZE = 64


@contextmanager
def scripted(*handlers: Handler) -> Iterator[DrivenServer]:
    """Serve the first connection by the first handler, then the second one by the second.

    A handler that returns closes its connection, and one whose peer closes it has ended. All must
    have come to their end with the block.
    """
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            for handler in handlers:
                with server.accept() as connection, suppress(ConnectionError):
                    handler(connection)
        except BaseException as error:
            errors.append(error)

    with DrivenServer() as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert not errors, errors


def message(connection: socket.socket, size: int = SIZE) -> bytes:
    """Return the next probe."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part, f"the connection ended after {data!r}"
        data += part
    return data


def then(count: int, act: Handler) -> Handler:
    """Return a handler that echoes so many probes, then acts, and closes."""

    def handler(connection: socket.socket) -> None:
        for _ in range(count):
            connection.sendall(message(connection))
        act(connection)

    return handler


def close_at_next(connection: socket.socket) -> None:
    """Take one more probe and answer it by FIN; take what comes later too, lest that reset."""
    message(connection)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(1 << 18):
        pass


def reset_at_next(connection: socket.socket) -> None:
    """Take one more probe and answer it by RST."""
    message(connection)
    reset(connection)


def answer(reply: bytes | Callable[[bytes], bytes]) -> Handler:
    """Return a handler that answers one probe in its own way, and then echoes."""

    def handler(connection: socket.socket) -> None:
        probe = message(connection)
        connection.sendall(reply if isinstance(reply, bytes) else reply(probe))
        echo(connection)

    return handler
