"""Servers that do not hold: each has one fault that a soak must find.

Lives here: the faults. Does not live here: what a soak says about them (test_soak.py).

What keeps something of every connection is fastecho with an accept callback that does that. What
spoils bytes or hurts others is an echo of its own, plain and blocking, in front of which the
statistics of a fastecho stand that nobody talks to.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from served import Program
from soaked import Soaked, keep_little

KEPT = 4096
"""Bytes of memory kept of each connection."""


class Spoiled(Soaked):
    """A server in another process, with a fault."""

    program = str(Path(__file__).resolve())


class Keeping(Program):
    """Keeps something of each connection."""

    def __init__(self, keep: Callable[[], object], config: dict[str, Any]) -> None:
        kept: list[object] = []
        super().__init__({**config, "on_accept": lambda peer: kept.append(keep())})


class Spoiling(Program):
    """Echoes by itself, and does what the fault says with what comes from some connections.

    Args:
        spoil: given the connection and bytes from it; returns what is sent instead.
        is_spoiled: tells which connections, by their numbers from 1 on.
        config: Server's keywords.
    """

    def __init__(
        self,
        spoil: Callable[[socket.socket, bytes], bytes],
        is_spoiled: Callable[[int], bool],
        config: dict[str, Any],
    ) -> None:
        super().__init__(config)
        self._spoil, self._is_spoiled = spoil, is_spoiled
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def hello(self) -> dict[str, Any]:
        return {"address": f"127.0.0.1:{self._listener.getsockname()[1]}"}

    def _accept(self) -> None:
        number = 0
        while True:
            connection = self._listener.accept()[0]
            number += 1
            threading.Thread(target=self._echo, args=(connection, number), daemon=True).start()

    def _echo(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    if self._is_spoiled(number):
                        data = self._spoil(connection, data)
                    connection.sendall(data)
            except OSError:
                pass  # the peer has not ended in order


def change(connection: socket.socket, data: bytes) -> bytes:
    """Change a byte."""
    return data[:-1] + bytes([data[-1] ^ 1])


def lose(connection: socket.socket, data: bytes) -> bytes:
    """Lose a byte."""
    return data[:-1]


def reset(connection: socket.socket, data: bytes) -> bytes:
    """Reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    return b""


def thread() -> None:
    """Start a thread that stays."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def is_one_of_many(number: int) -> bool:
    """Spoil some of those that come and go."""
    return number % 50 == 0


def is_first(number: int) -> bool:
    """Spoil one of those that stay."""
    return number == 1


FAULTS: dict[str, Callable[[dict[str, Any]], Program]] = {
    "memory": lambda config: Keeping(lambda: bytearray(os.urandom(KEPT)), config),
    "descriptor": lambda config: Keeping(lambda: os.dup(0), config),
    "thread": lambda config: Keeping(thread, config),
    "change": lambda config: Spoiling(change, is_one_of_many, config),
    "lose": lambda config: Spoiling(lose, is_one_of_many, config),
    "reset": lambda config: Spoiling(reset, is_one_of_many, config),
    "reset one who stays": lambda config: Spoiling(reset, is_first, config),
}

if __name__ == "__main__":
    keep_little()
    config = json.loads(sys.argv[1])
    FAULTS[config.pop("fault")](config).run()
