"""A process that holds connections to a server, and sends random bytes on each when it is told to.

Lives here: both ends. `Holder` starts the program and talks to it; run as a program, this file
does what its standard input says, one JSON object a line (served.py has the manner). Does not
live here: the servers, who holds how many (crowd.py).

The connections are those of the load generator, which compares every byte: its shortest run is
one message on each of them. (Python's own sockets are as fast and as small here, measured.)
"""

from __future__ import annotations

import faulthandler
import secrets
import socket
from pathlib import Path
from typing import Any

from plan import MESSAGE
from served import ANSWER, Program, Served

from fastecho._load import Load

SOURCES = 250
"""Addresses to connect from. With one, finding a free port takes 7 times as long."""
LONGEST = 600.0
"""Seconds that one message on each connection may take."""
TIMEOUT = 60.0
"""Seconds for a connect and for a reply."""


class Holder(Served):
    """Connections, in a process of their own.

    Args:
        number: which of the holders it is, from 0 on: decides its addresses.
    """

    program = str(Path(__file__).resolve())
    patience = 4 * TIMEOUT

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__()

    def connect(self, address: str, count: int) -> None:
        """Open so many connections; fails unless all of them are open."""
        answer = self.ask("connect", address=address, count=count, number=self.number)
        is_open = answer["open"]
        assert is_open == count, f"{is_open:,} of {count:,} connections are open: {answer['error']}"

    def echo(self, count: int) -> int:
        """Send random bytes on every connection; fails unless all of them come back, exactly.

        Returns on how many they did.
        """
        result = self.ask("echo", count=count)
        right: int = result["messages"]
        failures = [sentence for _, sentence in result["failures"]]
        assert (right, result["connections_open"], failures) == (count, count, []), (
            f"{right:,} of {count:,} echoed right,"
            f" {result['connections_open']:,} are open afterwards: {'; '.join(failures)}"
        )
        return right

    def disconnect(self) -> None:
        """Close every connection by FIN."""
        self.ask("disconnect")

    def leave(self) -> None:
        """End the process in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(ANSWER) == 0, self.errors()


class Holding(Program):
    """The other end."""

    load: Load

    def __init__(self) -> None:
        pass  # no server

    def connect(self, order: dict[str, Any]) -> dict[str, Any]:
        """Open connections; an error is a part of the answer."""
        host, _, port = order["address"].rpartition(":")
        number = order["number"]
        network = f"127.{1 + number % 250}"
        sources = [f"{network}.{1 + i // 250}.{1 + i % 250}" for i in range(SOURCES)]
        self.load = Load(
            [(socket.AF_INET, (host, int(port)))],
            connections=order["count"],
            # As fast as it goes; whoever has waited longest is next.
            mode="open",
            rate=1e7,
            size=MESSAGE,
            seed=secrets.randbits(64),
            sources=sources,
            timeout=TIMEOUT,
        )
        error = ""
        try:
            self.load.connect()
        except OSError as raised:
            error = str(raised)
        return {"open": self.load.connections_open, "error": error}

    def echo(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send a message on each connection and tell what came back.

        As many messages as connections: each is its first in the queue for one.
        """
        return {**self.load.run(LONGEST, messages=order["count"])}

    def disconnect(self, order: dict[str, Any]) -> dict[str, Any]:
        """Close every connection."""
        self.load.disconnect()
        return {}

    def hello(self) -> dict[str, Any]:
        """Return the first line."""
        return {"address": ""}


if __name__ == "__main__":
    faulthandler.enable()
    Holding().run()
