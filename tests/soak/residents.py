"""Connections that stay for the whole soak, and go on talking while others come and go.

Lives here: what they send, and what nobody may have done to them. Does not live here: the load
generator that drives them and verifies every byte (fastecho/_load.pyx).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from cycles import Wire

from fastecho._load import Load
from fastecho.measure.result import FAILURES

CONNECTIONS = 8
DEPTH = 32
"""Messages outstanding on each of them."""
SIZE = 64
SLICE = 0.02
"""Seconds that they talk without a look at how far the cycles are."""
PAUSE = 0.002
"""Seconds between two looks while they are ahead."""
PATIENCE = 60.0
"""Seconds until a reply counts as lost."""


class Residents:
    """Connections to one server, all open from connect() to close().

    Args:
        address: "host:port".
        wire: what the server answers.
        seed: decides the bytes.
    """

    def __init__(self, address: str, wire: Wire, seed: int) -> None:
        host, _, port = address.rpartition(":")
        self._load = Load(
            [(socket.AF_INET, (host, int(port)))],
            connections=CONNECTIONS,
            depth=DEPTH,
            size=SIZE,
            frame="line" if wire.frame == "line" else "raw",
            prefix=wire.prefix,
            timeout=PATIENCE,
            seed=seed,
        )
        self.messages = 0
        """Answered, and every byte of the answer compared."""
        self.bytes_sent = 0
        self.bytes_received = 0

    def connect(self) -> None:
        """Open all connections."""
        self._load.connect()

    def talk(self, messages: int, share: Callable[[], float], until: float) -> None:
        """Send at least so many messages, no faster than the cycles go; fail on any loss.

        When it returns, every message is answered.

        Args:
            messages: how many.
            share: tells how much of the round's cycles have ended, 0 to 1.
            until: time.monotonic() when it gives up.
        """
        first = self.messages
        while self.messages - first < messages:
            assert time.monotonic() < until, "the time is up"
            if self.messages - first > messages * share():
                time.sleep(PAUSE)
                continue
            result = self._load.run(SLICE)
            self.messages += result["messages"]
            self.bytes_sent += result["bytes_sent"]
            self.bytes_received += result["bytes_received"]
            wrong = {name: n for name, n in result.items() if name in FAILURES and n}
            assert not wrong, f"those who stay were hurt: {wrong}, {result['failures']}"
            assert result["connections_open"] == CONNECTIONS, result

    def close(self) -> None:
        """Close all of them by FIN."""
        self._load.close()
