"""Testing: a server for the tests of a network client, for pytest and everything else.

Lives here: what a test wants to know of its peer: what came, that it came in time, whether a
callback of the test's own raised. Does not live here: the fixtures (pytest_plugin.py), the server
(server.py).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from fastecho import ConfigError, Fault, Server

from .callbacks import check_callback
from .server import ACCEPT_THREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from fastecho import Connection

    from .config import Bind

__all__ = ["EchoServer"]

CAPTURE = 1048576
"""Bytes that are kept of what peers sent, unless the test asks for another number."""
WAIT = 5.0
"""Seconds of wait_for(): a hundred times what a loaded machine needs."""
END_WAIT = 5.0
"""Seconds that a callback on the accept callback's thread has to return after the end."""


class EchoServer(Server):
    """A Server that tells a test what peers sent, and fails the test when a callback raised.

    Leaving its `with` block ends every connection at once, by RST. It runs in the background, so
    the client under test may block; a test of an event loop calls wait_for() by asyncio.to_thread.

    Args:
        bind: as in Server.
        capture: bytes that `received` keeps; 0 captures nothing, and a server without callbacks
            then echoes without Python. Nothing is captured either with a prefix, a suffix or a
            fault that duplicates frames.
        config: all other arguments of Server.
    Raises:
        AssertionError: on leaving the `with` block: a callback raised (the cause), or hangs.
        ConfigError: capture is no number of bytes.
        Exception: all that Server raises.
    Thread: every method may be called from any thread.
    """

    def __init__(
        self, bind: Bind | Sequence[Bind] = "127.0.0.1:0", *, capture: int = CAPTURE, **config: Any
    ) -> None:
        if type(capture) is not int or capture < 0:
            raise ConfigError("capture", capture, "must be a whole number of bytes, 0 or more")
        if (on_message := config.get("on_message")) is not None:
            check_callback("on_message", on_message)
        self._captured: _Captured | None = None
        # The core refuses them beside a callback: they say what a reply is.
        replies = (config.get("prefix"), config.get("suffix"), _duplicates(config.get("fault")))
        if capture and (on_message or not any(replies)):
            self._captured = _Captured(capture)
            config["on_message"] = self._captured.wrap(on_message or _echo)
        self._captures_echo = self._captured is not None and on_message is None
        super().__init__(bind, **config)

    def _check_fault(self, fault: Fault | None) -> None:
        if fault is not None and fault.duplicate and self._captures_echo:
            reason = "duplicates frames, which needs a server that captures nothing: capture=0"
            raise ConfigError("fault", str(fault), reason)
        super()._check_fault(fault)

    @property
    def host(self) -> str:
        """Host of the first address."""
        host = super().host
        if host is None:
            raise RuntimeError(f"{self.address} has no host")
        return host

    @property
    def port(self) -> int:
        """Port of the first address."""
        port = super().port
        if port is None:
            raise RuntimeError(f"{self.address} has no port")
        return port

    @property
    def url(self) -> str:
        """The first address as a URL: tcp://127.0.0.1:7777, unix:///tmp/echo.sock."""
        if self.address.startswith("unix:"):
            return f"unix://{self.address.removeprefix('unix:')}"
        return f"tcp://{self.address}"

    @property
    def received(self) -> bytes:
        """What peers sent, in the order in which it was read; a peer's is there before its reply.

        With frames it is whole frames, of `length` the payloads.

        Raises:
            AssertionError: it is more than the bytes that are captured.
            RuntimeError: nothing is captured.
        """
        return b"".join(data for _, data in self._all_captured())

    @property
    def received_by(self) -> dict[int, bytes]:
        """The same for each connection that sent anything, by its number: 1 is the first."""
        found: dict[int, bytes] = {}
        for number, data in self._all_captured():
            found[number] = found.get(number, b"") + data
        return dict(sorted(found.items()))

    def _all_captured(self) -> list[tuple[int, bytes]]:
        if self._captured is None:
            raise RuntimeError("nothing is captured with capture=0, prefix, suffix or duplicates")
        return self._captured.all()

    def wait_for(
        self, *, connections: int = 0, bytes: int = 0, closed: int = 0, timeout: float = WAIT
    ) -> None:
        """Wait until so much has happened since the start.

        Args:
            connections: accepted.
            bytes: of `received`; where nothing is captured, all that were received.
            closed: connections that have ended, for whatever reason; on_close has returned.
            timeout: seconds.
        Raises:
            AssertionError: it has not happened in time; the text tells how far it came.
        """
        if not (connections or bytes or closed):
            raise TypeError("wait_for() needs connections, bytes or closed to wait for")
        deadline = time.monotonic() + timeout
        pause = 0.0002
        while True:
            stats = self.stats()
            got = stats.bytes_in if self._captured is None else self._captured.total
            wanted = {
                "connections": (connections, stats.connections_accepted),
                "bytes": (bytes, got),
                "closed": (closed, stats.connections_closed),
            }
            has_happened = all(found >= least for least, found in wanted.values())
            if has_happened and (not closed or self._has_told(deadline)):
                return
            if time.monotonic() >= deadline:
                so_far = ", ".join(
                    f"{found} of {least} {name}" for name, (least, found) in wanted.items() if least
                )
                but = ", but on_close has not returned" if has_happened else ""
                raise AssertionError(f"{self.address} saw {so_far}{but} within {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 2, 0.01)

    def _has_told(self, deadline: float) -> bool:
        """Wait until on_close has returned for all that have ended by now; False: not in time."""
        calls = self._calls
        if calls is None or calls.on_close is None:
            return True

        def worker_rounds() -> dict[str, int]:
            workers = self.stats().workers
            return {f"fastecho-{i}": one.iterations for i, one in enumerate(workers)}

        if not self._go_round(worker_rounds, deadline):
            return False
        return calls.on_workers or self._go_round(lambda: {ACCEPT_THREAD: calls.rounds}, deadline)

    def _go_round(self, rounds: Callable[[], dict[str, int]], deadline: float) -> bool:
        """Wait until these threads have done what there is to do by now; False: not in time.

        Each deals in a round with all that has come before it. The second one that ends from now
        on has begun since.
        """
        begun = rounds()
        while any(
            n < begun[name] + 2 and not self._crew.join(name, 0) for name, n in rounds().items()
        ):
            if time.monotonic() >= deadline or self._core is None:
                return False
            self._core.wake()
            time.sleep(0.0002)
        return True

    def take_error(self) -> BaseException | None:
        """Return what the first callback that failed raised, and forget it; None if none did.

        For a test in which a callback is to fail: the end of the server has nothing to say then.
        """
        if self._calls is None:
            return None
        error, self._calls.error = self._calls.error, None
        return error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if not self._is_mine():
                return
            self.abort()
        except BaseException:  # Ctrl-C: nobody could end it any more
            self.abort()
            raise
        if kind is not None:
            return
        has_ended = self._ended.is_open() and self._crew.join(ACCEPT_THREAD, END_WAIT)
        error = self.take_error()
        raised = "" if error is None else f"a callback of {self.address} raised {error!r}"
        if not has_ended:
            text = f"{self.address} does not end: a callback has not returned"
            raise AssertionError(f"{text}; {raised}" if raised else text) from error
        if raised:
            raise AssertionError(raised) from error


def _duplicates(fault: Fault | str | None) -> bool:
    """Tell whether a fault, or its text, duplicates frames."""
    return "duplicate" in str(fault)


def _echo(_: Connection, data: bytes) -> bytes:
    return data


class _Captured:
    """What peers sent, up to a number of bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[int, bytes]] = []
        self._lock = threading.Lock()
        # Bytes that came, kept or not.
        self.total = 0

    def wrap(
        self, on_message: Callable[[Connection, Any], object]
    ) -> Callable[[Connection, Any], object]:
        """Return a message callback that captures, and then calls this one."""

        def capturing(connection: Connection, data: Any) -> object:
            with self._lock:
                room = self._most - self.total
                if room > 0:
                    self._kept.append((connection.id, bytes(data[:room])))
                self.total += len(data)
            return on_message(connection, data)

        return capturing

    def all(self) -> list[tuple[int, bytes]]:
        """Return the number of a connection and what it sent, in order."""
        with self._lock:
            if self.total > self._most:
                raise AssertionError(
                    f"peers sent {self.total} bytes, more than capture={self._most} keeps"
                )
            return list(self._kept)
