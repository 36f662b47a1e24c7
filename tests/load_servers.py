"""Servers for the tests of the load generator: one thread a connection, a function each.

Lives here: starting and ending them, handlers that echo, the books of a result. Does not live
here: servers that do wrong (test_load_failures.py), the server under test of all other files
(conftest.py).
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peers import wait_until

from fastecho._load import Load

if TYPE_CHECKING:
    from fastecho._load import RunResult

Handler = Callable[[socket.socket], None]


class Served:
    """A listener whose connections are each served by `handler` in a thread of its own.

    It listens on a port of loopback, the kernel's choice if `port` is 0, or on the Unix socket
    `where`.

    A handler that returns closes its connection. An OSError of a handler is how connections
    end here; anything else is raised when the server is ended.
    """

    def __init__(
        self,
        handler: Handler,
        family: socket.AddressFamily,
        where: str | None,
        backlog: int,
        port: int,
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
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
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

    def stop_listening(self) -> None:
        """Refuse new connections; those that are there stay."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()

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
        """End the listener, then every connection; return when all threads have ended.

        Idempotent.
        """
        if self._listener.fileno() >= 0:
            self.stop_listening()
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
    port: int = 0,
) -> Iterator[Served]:
    """Serve until the block ends."""
    served = Served(handler, family, where, backlog, port)
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


def trickle(pause: float) -> Handler:
    """Return a handler that sends back what comes byte by byte, with pauses between."""

    def slowly(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := sock.recv(1 << 18):
            for i in range(len(data)):
                sock.sendall(data[i : i + 1])
                time.sleep(pause)  # the slowness that is to be seen

    return slowly


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


def refusing() -> tuple[int, tuple[str, int]]:
    """Return an address on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return socket.AF_INET, sock.getsockname()


MESSAGES = ("messages", "late", "corrupt", "misplaced", "lost", "timed_out")
KINDS = (
    *MESSAGES[1:], "extra_bytes", "reset", "closed", "refused", "connect_timed_out", "other",
)  # fmt: skip


def counted(result: RunResult, not_given: int = 0) -> dict[str, int]:
    """Return what went wrong, by kind; the books balance.

    `not_given`: messages that were due while no connection was open.
    """
    numbers: dict[str, Any] = dict(result)
    assert sum(numbers[kind] for kind in MESSAGES) == result["sent"] + not_given
    return {kind: numbers[kind] for kind in KINDS if numbers[kind]}


def described(result: RunResult) -> list[str]:
    """Return the sentences about failures."""
    return [sentence for _, sentence in result["failures"]]
