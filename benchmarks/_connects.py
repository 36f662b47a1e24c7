"""A thread that connects at a steady rate, echoes one message each time, and closes.

It is the disturbance of one figure, not a load: nothing is timed here. It shares the harness's
core and never waits for one connection before it starts the next.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from types import TracebackType

MESSAGE = b"a message of a connection that is closed as soon as it is echoed"

# seconds in which the last connections must have been served
GRACE = 5.0


class Connects:
    """Connections per second to one server, for as long as it is entered."""

    def __init__(self, address: tuple[str, int], rate: float) -> None:
        self.address = address
        self.rate = rate
        # connections begun, and those whose message came back right
        self.begun = 0
        self.echoed = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._selector = selectors.DefaultSelector()

    def _begin(self) -> None:
        self.begun += 1
        connection = socket.create_connection(self.address, timeout=1.0)
        connection.sendall(MESSAGE)
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, bytearray())

    def _collect(self, timeout: float) -> None:
        """Take what came back within `timeout` seconds."""
        for key, _ in self._selector.select(timeout):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            received: bytearray = key.data
            try:
                chunk = connection.recv(4096)
            except OSError:
                chunk = b""
            received += chunk
            if chunk and len(received) < len(MESSAGE):
                continue
            self.echoed += received == MESSAGE
            self._selector.unregister(connection)
            connection.close()

    def _run(self) -> None:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        due = time.monotonic()
        while not self._stopping.is_set():
            left = due - time.monotonic()
            if left > 0:
                self._collect(left)
            else:
                self._begin()
                due += 1 / self.rate
        deadline = time.monotonic() + GRACE
        while self._selector.get_map() and time.monotonic() < deadline:
            self._collect(0.1)

    def __enter__(self) -> Connects:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()
