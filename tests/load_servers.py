"""Servers for the tests of the load generator: one thread a connection, a function each.

Lives here: starting and ending them, handlers that echo. Does not live here: servers that do
wrong (test_load_failures.py), the server under test of all other files (conftest.py).
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from peers import wait_until

from fastecho._load import Load

Handler = Callable[[socket.socket], None]


class Served:
    """A listener whose connections are each served by `handler` in a thread of its own.

    It listens on a port of loopback, or on the Unix socket `where`.

    A handler that returns closes its connection. An OSError of a handler is how connections
    end here; anything else is raised when the server is ended.
    """

    def __init__(
        self, handler: Handler, family: socket.AddressFamily, where: str | None, backlog: int
    ) -> None:
        self.handler = handler
        self.peers: list[Any] = []
        self.ended = 0
        self.errors: list[BaseException] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(family)
        if where is not None:
            self._listener.bind(where)
        else:
            self._listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self._listener.listen(backlog)
        self._threads = [threading.Thread(target=self._accept, name="listener")]
        self._threads[0].start()

    def load(self, **settings: Any) -> Load:
        """Return a load that drives this server."""
        return Load([self.target()], **settings)

    def target(self) -> tuple[int, Any]:
        """Return where it listens, as a target of a load."""
        return self._listener.family, self._address()

    def _address(self) -> Any:
        name = self._listener.getsockname()
        return name if isinstance(name, str) else name[:2]

    def wait_for_ends(self, count: int) -> None:
        """Return when that many connections have ended."""
        wait_until(lambda: self.ended >= count, what=f"the end of {count} connections")

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError as error:
                if error.errno == errno.EMFILE:  # a test is about that
                    continue
                return
            thread = threading.Thread(target=self._serve, args=(sock,), name="connection")
            with self._lock:
                self.peers.append(peer)
                self._open.append(sock)
                self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            self.handler(sock)
        except OSError:
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            with self._lock:
                self._open.remove(sock)
                self.ended += 1
            sock.close()

    def end(self) -> None:
        """End the listener, then every connection; return when all threads have ended."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        with self._lock:
            for sock in self._open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


@contextmanager
def serving(
    handler: Handler,
    *,
    family: socket.AddressFamily = socket.AF_INET,
    where: str | None = None,
    backlog: int = 1024,
) -> Iterator[Served]:
    """Serve until the block ends."""
    served = Served(handler, family, where, backlog)
    try:
        yield served
    finally:
        served.end()


def exact(sock: socket.socket, size: int) -> bytes:
    """Return exactly `size` bytes; a connection that ends before is an OSError."""
    data = bytearray()
    while len(data) < size:
        if not (chunk := sock.recv(size - len(data))):
            raise ConnectionError("the peer has ended the connection")
        data += chunk
    return bytes(data)


def echo(sock: socket.socket) -> None:
    """Send back what comes."""
    while data := sock.recv(1 << 18):
        sock.sendall(data)


def hold(sock: socket.socket) -> None:
    """Keep a connection until its peer ends it, and answer nothing."""
    while sock.recv(1 << 18):
        pass


def framed(frame: str, prefix: bytes, suffix: bytes) -> Handler:
    """Return a handler that sends back each frame with what goes around it."""

    def lines(sock: socket.socket) -> None:
        for line in sock.makefile("rb"):
            sock.sendall(prefix + line[:-1] + suffix + b"\n")

    def lengths(sock: socket.socket) -> None:
        while True:
            payload = exact(sock, struct.unpack(">I", exact(sock, 4))[0])
            reply = prefix + payload + suffix
            sock.sendall(struct.pack(">I", len(reply)) + reply)

    return lines if frame == "line" else lengths
