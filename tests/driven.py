"""The server's end of a connection, driven by the test: every byte and every misbehaviour is meant.

Lives here: a listener whose connections the test accepts and uses itself, addresses that refuse or
never answer, serving in a thread where both ends must move at once. Does not live here: what a
connected socket does next (peers.py), fixtures.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from peers import DEADLINE


def address_of(sock: socket.socket) -> str:
    """Return the address that an internet socket is bound to, as a user writes it."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class DrivenServer:
    """A listener on port 0 of 127.0.0.1, and the connections that the test accepts from it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE)
        self._connections: list[socket.socket] = []
        self.address = address_of(self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self._connections, self._listener):
            sock.close()

    def accept(self) -> socket.socket:
        """Accept a connection; it is closed with the server, if the test does not do it."""
        connection, _ = self._listener.accept()
        connection.settimeout(DEADLINE)
        self._connections.append(connection)
        return connection

    @contextmanager
    def serving(self, serve: Callable[[socket.socket], object]) -> Iterator[None]:
        """Accept one connection and serve it in a thread, which must end by itself."""

        def accept() -> None:
            with self.accept() as connection:
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield
        thread.join(DEADLINE)
        assert not thread.is_alive()


def echo(connection: socket.socket) -> None:
    """Send back what comes until the other side's FIN."""
    while data := connection.recv(1 << 18):
        connection.sendall(data)


def refusing_address(stack: ExitStack) -> str:
    """Return an address that refuses until the stack ends: bound, but never listening."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    return address_of(sock)


def black_hole(stack: ExitStack, family: int, place: object) -> socket.socket:
    """Return a listener whose accept queue is full, so that a connect to it never ends."""
    sock = stack.enter_context(socket.socket(family))
    sock.bind(place)  # type: ignore[arg-type]
    sock.listen(0)
    parked = stack.enter_context(socket.socket(family))
    parked.connect(sock.getsockname())
    return sock
