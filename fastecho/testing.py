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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from fastecho import Connection, Peer

    from .config import Bind

__all__ = ["EchoServer"]

CAPTURE = 1048576
"""Bytes that are kept of what peers sent, unless the test asks for another number."""
WAIT = 5.0
"""Seconds of wait_for(): a hundred times what a loaded machine needs."""


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
        All that Server raises.
    Thread: every method may be called from any thread.
    """

    def __init__(
        self, bind: Bind | Sequence[Bind] = "127.0.0.1:0", *, capture: int = CAPTURE, **config: Any
    ) -> None:
        on_message, on_accept = config.get("on_message"), config.get("on_accept")
        if on_message is not None:
            check_callback("on_message", on_message)
        if on_accept is not None:
            check_callback("on_accept", on_accept)
            config["on_accept"] = self._watched(on_accept)
        self._accept_error: BaseException | None = None
        self._captured: _Captured | None = None
        # The core refuses them beside a callback: they say what a reply is.
        replies = (config.get("prefix"), config.get("suffix"), _duplicates(config.get("fault")))
        if capture and (on_message or not any(replies)):
            self._captured = _Captured(capture)
            config["on_message"] = self._captured.wrap(on_message or _echo)
        self._captures_echo = self._captured is not None and on_message is None
        super().__init__(bind, **config)

    def _watched(self, on_accept: Callable[[Peer], object]) -> Callable[[Peer], object]:
        """Return an accept callback that remembers its first exception."""

        def watched(peer: Peer) -> object:
            try:
                answer = on_accept(peer)
                if answer is not None and not isinstance(answer, bool | Fault):
                    # The core resets it: a test of retries would take that for what it wanted.
                    raise TypeError(
                        f"on_accept must return None, a bool or a Fault, not {answer!r}"
                    )
                return answer
            except BaseException as error:
                self._accept_error = self._accept_error or error
                raise

        return watched

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
            bytes: received; they are in `received` then, unless an unfinished frame holds them.
            closed: connections that have ended, for whatever reason.
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
            got = stats.bytes_in
            if self._captured is not None and self.config.frame == "recv":
                got = self._captured.total
            wanted = {
                "connections": (connections, stats.connections_accepted),
                "bytes": (bytes, got),
                "closed": (closed, stats.connections_closed),
            }
            if all(found >= least for least, found in wanted.values()):
                return
            if time.monotonic() >= deadline:
                so_far = ", ".join(
                    f"{found} of {least} {name}" for name, (least, found) in wanted.items() if least
                )
                raise AssertionError(f"{self.address} saw {so_far} within {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 2, 0.01)

    def take_error(self) -> BaseException | None:
        """Return what the first callback that failed raised, and forget it; None if none did.

        For a test in which a callback is to fail: the end of the server has nothing to say then.
        """
        error, self._accept_error = self._accept_error, None
        if self._calls is not None:
            error, self._calls.error = self._calls.error or error, None
        return error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._is_mine():
            return
        self.abort()
        if kind is not None:
            return
        if not self._ended.is_open():
            raise AssertionError(f"{self.address} does not end: a callback has not returned")
        if (error := self.take_error()) is not None:
            raise AssertionError(f"a callback of {self.address} raised {error!r}") from error


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

        capturing.__name__ = getattr(on_message, "__name__", "on_message")
        return capturing

    def all(self) -> list[tuple[int, bytes]]:
        """Return the number of a connection and what it sent, in order."""
        with self._lock:
            if self.total > self._most:
                raise AssertionError(
                    f"peers sent {self.total} bytes, more than capture={self._most} keeps"
                )
            return list(self._kept)
