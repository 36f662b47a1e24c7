"""The server's end of a conversation in datagrams, driven by the test.

Lives here: a UDP socket in a thread that answers as the test says. Does not live here: boxes that
run as processes (tests/network/boxes/udp.py), what the client should count.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from peers import DEADLINE

Send = Callable[[bytes], object]
Answer = Callable[[Send, bytes, int], object]
"""Called with what sends back, what came, and how many have come (from 1 on)."""


def echo(send: Send, data: bytes, _number: int) -> None:
    """Send back what came."""
    send(data)


class DatagramServer:
    """A UDP socket on a port of its own; `address` is for a command, `other` another socket."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind((host, port))
        self.sock.settimeout(DEADLINE)
        self.other = socket.socket(family, socket.SOCK_DGRAM)
        self.other.bind((host, 0))
        self.port = self.sock.getsockname()[1]
        where = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.address = f"udp://{where}"
        self.came: list[bytes] = []
        self.peer: tuple[str, int] | None = None
        self._stopping = threading.Event()

    def serve(self, answer: Answer) -> None:
        """Answer until the end."""
        while True:
            data, place = self.sock.recvfrom(65536)
            if self._stopping.is_set():
                return
            self.came.append(data)
            self.peer = place
            answer(lambda back, to=place: self.sock.sendto(back, to), data, len(self.came))  # type: ignore[misc]

    def stop(self) -> None:
        """End serve()."""
        self._stopping.set()
        self.other.sendto(b"", self.sock.getsockname())


@contextmanager
def answering_datagrams(
    answer: Answer = echo, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[DatagramServer]:
    """Serve in a thread until the block ends."""
    server = DatagramServer(host, port)
    thread = threading.Thread(target=server.serve, args=(answer,))
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(DEADLINE)
        server.sock.close()
        server.other.close()
    assert not thread.is_alive()


def refusing_port() -> int:
    """Return a UDP port of 127.0.0.1 that nothing listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
