"""Peers of a server under test: plain sockets, used with deadlines.

Lives here: connecting, reading exactly, reading to the end, resetting, waiting for a condition.
Does not live here: fixtures (conftest.py), anything that knows how the server works inside.

No function here waits for a fixed time. Each waits for something to become true and fails with a
sentence when its deadline has passed.
"""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from select import POLLIN, POLLOUT, poll
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import fastecho

DEADLINE = 20.0
"""Seconds until a test gives up: a hundred times what a loaded machine needs."""


def wait_until(
    condition: Callable[[], object], timeout: float = DEADLINE, what: str = "the condition"
) -> None:
    """Return as soon as `condition()` is true; fail when it is not within `timeout` seconds.

    Time in which this process does not run counts as a second at most: a virtual machine that
    stands still for longer than that must not fail a test.
    """
    left, before = timeout, time.monotonic()
    pause = 0.0001
    while not condition():
        now = time.monotonic()
        left, before = left - min(now - before, 1.0), now
        if left < 0:
            raise AssertionError(f"{what} did not come true within {timeout} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.01)


class Counting(Protocol):
    """Something with statistics: a fastecho.Server, or one in another process."""

    def stats(self) -> fastecho.Stats:
        """Return what was counted so far."""


def expect_stats(server: Counting, **expected: object) -> None:
    """Wait until these counters have these values; fail with all of them when they never have.

    A peer may know of an event a moment before it is counted.
    """

    def counted() -> dict[str, object]:
        stats = server.stats()
        return {name: getattr(stats, name) for name in expected}

    with contextlib.suppress(AssertionError):
        wait_until(lambda: counted() == expected)
    assert counted() == expected, server.stats()


def iterations_at_rest(server: Counting, span: float = 0.05) -> int:
    """Return how many iterations the server makes in a span of time in which nobody asks for any.

    A spin is a rate, so it takes time to see one: some thousands in the default span. A loop
    that rests makes none, however slow the machine. Call it when the server has answered.
    """
    before = server.stats().iterations
    end = time.monotonic() + span
    wait_until(lambda: time.monotonic() > end)
    return server.stats().iterations - before


def has_ipv6() -> bool:
    """Tell whether this machine can listen on ::1."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def connect(
    target: fastecho.Server | str | tuple[str, int],
    *,
    receive_buffer: int | None = None,
    send_buffer: int | None = None,
    segment: int | None = None,
    timeout: float = DEADLINE,
) -> socket.socket:
    """Return a blocking stream socket that is connected; every call on it has a deadline.

    target: a server (its first address), an address as text ("127.0.0.1:7", "[::1]:7",
    "unix:PATH"), or a (host, port) pair. The buffers are set before the handshake, so that they
    bound the window, and so is the largest segment, to which the other side's buffer is fitted;
    TCP_NODELAY is on, so that a send is a segment.
    """
    address = target if isinstance(target, (str, tuple)) else target.address
    if isinstance(address, str) and address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        place: str | tuple[str, int] = address.removeprefix("unix:")
    else:
        if isinstance(address, str):
            host, _, port = address.rpartition(":")
            address = (host.strip("[]") or "127.0.0.1", int(port))
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family)
        place = address
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if segment is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        sock.settimeout(timeout)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def pattern(size: int, seed: int = 1) -> bytes:
    """Return bytes without a period, so that lost, doubled and swapped bytes all show."""
    return random.Random(seed).randbytes(size)


@functools.cache
def plenty() -> bytes:
    """Return more bytes than all buffers between two sockets, and a server's own, can hold."""
    return pattern(64_000_000)


def recv_exactly(sock: socket.socket, size: int, timeout: float = DEADLINE) -> bytes:
    """Return the next `size` bytes; fail on an early FIN or when they do not come in time."""
    received = bytearray()
    deadline = time.monotonic() + timeout
    with _deadline_kept(sock):
        while len(received) < size:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = sock.recv(min(size - len(received), 1 << 20))
            except TimeoutError:
                raise AssertionError(
                    f"{len(received)} of {size} bytes came within {timeout} s"
                ) from None
            assert data, f"FIN after {len(received)} of {size} bytes"
            received += data
    return bytes(received)


def same(received: bytes | bytearray, expected: bytes) -> bool:
    """Tell whether they are equal; fail with the place where they differ.

    For megabytes, where an assertion's own account of the difference would take minutes.
    """
    if received == expected:
        return True
    low, high = 0, min(len(received), len(expected))
    while low < high:  # the longest common start
        middle = (low + high + 1) // 2
        if received[:middle] == expected[:middle]:
            low = middle
        else:
            high = middle - 1
    raise AssertionError(
        f"{len(received)} of {len(expected)} bytes, different from byte {low} on:"
        f" {received[low : low + 20]!r}, not {expected[low : low + 20]!r}"
    )


def read_to_eof(sock: socket.socket, timeout: float = DEADLINE) -> bytes:
    """Return everything up to the other side's FIN."""
    received = bytearray()
    deadline = time.monotonic() + timeout
    with _deadline_kept(sock):
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = sock.recv(1 << 20)
            except TimeoutError:
                raise AssertionError(
                    f"no FIN within {timeout} s, after {len(received)} bytes"
                ) from None
            if not data:
                return bytes(received)
            received += data


def exchange(
    sock: socket.socket,
    data: bytes | Sequence[bytes],
    size: int | None = None,
    timeout: float = DEADLINE,
) -> bytes:
    """Send `data` while reading, until it is sent and `size` bytes have come back.

    data: bytes, or a sequence of bytes, each of which is a send of its own. size: as many as
    were sent, if it is None. Asserts nothing about the bytes; returns them.
    """
    segments = [data] if isinstance(data, bytes) else [one for one in data if one]
    size = sum(map(len, segments)) if size is None else size
    received, turn, done = bytearray(), 0, 0
    deadline = time.monotonic() + timeout
    with _deadline_kept(sock):
        sock.setblocking(False)
        while len(received) < size or turn < len(segments):
            left = deadline - time.monotonic()
            assert left > 0, (
                f"{len(segments) - turn} sends left and {len(received)} of {size} bytes back"
                f" within {timeout} s"
            )
            ready = _wait_for(sock, POLLIN | POLLOUT if turn < len(segments) else POLLIN, left)
            if ready & ~POLLOUT:
                got = sock.recv(1 << 20)
                assert got, f"FIN after {len(received)} of {size} bytes"
                received += got
            if ready & POLLOUT:
                with contextlib.suppress(BlockingIOError):
                    done += sock.send(memoryview(segments[turn])[done : done + (1 << 18)])
                if done == len(segments[turn]):
                    turn, done = turn + 1, 0
    return bytes(received)


def fill(
    sock: socket.socket,
    data: bytes,
    blocked: Callable[[], object] = lambda: True,
    quiet: float = 0.1,
    timeout: float = DEADLINE,
) -> int:
    """Send `data`, without reading, until the other side takes no more of it.

    That is: no byte for `quiet` seconds, and `blocked()` is true. Returns the number of bytes
    sent; fails if all of `data` was taken.
    """
    sent = 0
    deadline = time.monotonic() + timeout
    with _deadline_kept(sock):
        sock.setblocking(False)
        while True:
            if _wait_for(sock, POLLOUT, quiet):
                assert sent < len(data), f"all of {sent} bytes were taken"
                with contextlib.suppress(BlockingIOError):
                    sent += sock.send(memoryview(data)[sent : sent + (1 << 18)])
            elif blocked():
                return sent
            assert time.monotonic() < deadline, f"still not blocked after {sent} bytes"


def reset(sock: socket.socket) -> None:
    """Close with SO_LINGER 0: the other side gets RST (on a Unix socket: an end)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_reset(sock: socket.socket, timeout: float = DEADLINE) -> bool:
    """Read until the end: True if it is RST, False if it is FIN; fails if there is none."""
    try:
        read_to_eof(sock, timeout)
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def is_turned_away(target: fastecho.Server | str | tuple[str, int]) -> bool:
    """Connect; True if RST ends the connection, False if FIN does; fails if nothing ends it.

    The RST may already be there when connect looks at its result.
    """
    try:
        sock = connect(target)
    except ConnectionResetError:
        return True
    with sock:
        return is_reset(sock)


def is_refused(target: fastecho.Server | str | tuple[str, int]) -> bool:
    """Tell whether nobody listens there; a connection that is taken is given back in order.

    What stands in the queue of a listener that is being closed is reset: refused as well.
    """
    try:
        with connect(target) as sock:
            sock.shutdown(socket.SHUT_WR)
            read_to_eof(sock)
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def port_of(sock: socket.socket) -> int:
    """Return the port by which the other side, its logs and its rules know this peer."""
    port: int = sock.getsockname()[1]
    return port


def _wait_for(sock: socket.socket, events: int, timeout: float) -> int:
    """Wait until one of the poll(2) events; return those that came, 0 after the timeout."""
    waiting = poll()  # select() ends at descriptor 1023
    waiting.register(sock, events)
    found = waiting.poll(timeout * 1000)
    return found[0][1] if found else 0


@contextlib.contextmanager
def _deadline_kept(sock: socket.socket) -> Iterator[None]:
    """Put the socket's own timeout back."""
    timeout = sock.gettimeout()
    try:
        yield
    finally:
        if sock.fileno() >= 0:
            sock.settimeout(timeout)
