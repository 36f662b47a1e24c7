"""A UDP echo server and what a path does to its replies: by rule, never by chance.

Lives here: one thread that answers datagrams as a rule says, and the rules: lose, double, swap,
change, cut, keep for later. Does not live here: what a load makes of it (test_load_udp.py).
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Rule = Callable[[int, bytes], list[bytes]]
"""Takes the number of a datagram, from 0 on, and its bytes; returns what is sent back now."""


def echo(_number: int, data: bytes) -> list[bytes]:
    """Answer as RFC 862 says."""
    return [data]


def lose(every: int) -> Rule:
    """Lose the first of so many."""
    return lambda number, data: [] if number % every == 0 else [data]


def double(every: int) -> Rule:
    """Answer the first of so many twice."""
    return lambda number, data: [data, data] if number % every == 0 else [data]


def swap(every: int) -> Rule:
    """Answer the first of so many after the second."""
    kept: list[bytes] = []

    def rule(number: int, data: bytes) -> list[bytes]:
        if number % every == 0:
            kept.append(data)
            return []
        return [data, *(kept.pop() for _ in list(kept))]

    return rule


def change(every: int, at: int) -> Rule:
    """Change byte `at` of the first of so many."""

    def rule(number: int, data: bytes) -> list[bytes]:
        if number % every:
            return [data]
        changed = bytearray(data)
        changed[at] ^= 0x10
        return [bytes(changed)]

    return rule


def cut(most: int) -> Rule:
    """Send no more than so many bytes of each."""
    return lambda _number, data: [data[:most]]


def keep(number_kept: int, until: int) -> Rule:
    """Answer one datagram before that of number `until`."""
    kept: list[bytes] = []

    def rule(number: int, data: bytes) -> list[bytes]:
        if number == number_kept:
            kept.append(data)
            return []
        return [*(kept if number == until else []), data]

    return rule


class Answering:
    """A UDP socket on loopback whose datagrams are answered in a thread.

    Attributes:
        asked: datagrams that have come.
        answered: those that were sent back.
    """

    def __init__(self, rule: Rule, host: str, port: int, apart: bool) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.sock.bind((host, port))
        # Answers come from another port if `apart`.
        self._out = socket.socket(family, socket.SOCK_DGRAM) if apart else self.sock
        self._rule = rule
        self.asked = self.answered = 0
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="answering")
        self._thread.start()

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        found: tuple[str, int] = self.sock.getsockname()[:2]
        return found

    def target(self) -> tuple[int, tuple[str, int]]:
        """Return where it is, as a target of a load."""
        return int(self.sock.family), self.place

    def url(self) -> str:
        """Return where it is, as users write it."""
        host, port = self.place
        return f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self.sock.fileno(), self._reader], [], [])
            if self._reader in ready:
                return
            try:
                data, peer = self.sock.recvfrom(65536)
            except ConnectionRefusedError:  # the peer of an answer is gone
                continue
            self.asked += 1
            for one in self._rule(self.asked - 1, data):
                self._out.sendto(one, peer)
                self.answered += 1

    def end(self) -> None:
        """End the thread and close the sockets; idempotent."""
        if self.sock.fileno() < 0:
            return
        os.write(self._writer, b".")
        self._thread.join()
        for one in (self.sock, self._out):
            one.close()
        for fd in (self._reader, self._writer):
            os.close(fd)


@contextmanager
def answering(
    rule: Rule = echo, host: str = "127.0.0.1", port: int = 0, *, apart: bool = False
) -> Iterator[Answering]:
    """Answer datagrams while the block lasts."""
    found = Answering(rule, host, port, apart)
    try:
        yield found
    finally:
        found.end()


def nobody() -> tuple[str, int]:
    """Return a place where no UDP socket is: ICMP says so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        found: tuple[str, int] = sock.getsockname()
        return found
