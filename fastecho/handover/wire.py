"""What two servers say to each other over a Unix socket: lines of JSON, some with a descriptor.

Lives here: sending and receiving with a deadline, who the other one is, the form of each line.
Does not live here: who says what when (give.py, take.py).

* A descriptor arrives with the first byte of what it was sent with. Each is sent with a line of
  its own, so descriptors and lines come in one order.
* recvmsg(2) installs the descriptors at once: whoever reads must close those it does not want.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
import time
from contextlib import suppress

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["PROTOCOL", "Channel", "GoneError", "peer_of"]

PROTOCOL = 1
LONGEST = 65536
"""Bytes of a line."""
DESCRIPTORS_AT_A_TIME = 253
"""SCM_MAX_FD of the kernel: so many may come with one message."""


class GoneError(Exception):
    """The other one has ended the connection."""


class Channel:
    """One connection between an old and a new server.

    Args:
        sock: a connected Unix stream socket; the Channel's from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._received = bytearray()
        # Those that came and were not taken yet, oldest first.
        self._descriptors: list[int] = []

    def send(self, timeout: float, descriptor: int | None = None, /, **said: Any) -> None:
        """Send one line, and a descriptor with it.

        Raises:
            GoneError: the other one has left.
            TimeoutError: it does not read.
            OSError: ETOOMANYREFS, for example.
        """
        data = json.dumps(said).encode() + b"\n"
        with_it = []
        if descriptor is not None:
            with_it = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self._sock.settimeout(timeout)
        try:
            sent = self._sock.sendmsg([data], with_it, socket.MSG_NOSIGNAL)
            if sent < len(data):
                self._sock.sendall(data[sent:], socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            raise GoneError from None

    def receive(self, timeout: float | None) -> dict[str, Any]:
        """Return the next line; without a timeout, whenever it comes.

        Raises:
            GoneError: the other one has left without it.
            TimeoutError: it has not come in time.
            ValueError: it is not of this protocol.
            OSError: EMFILE, a descriptor came and there was no room for it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._received:
            if len(self._received) > LONGEST:
                raise ValueError(f"a line of more than {LONGEST} bytes")
            left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
            self._sock.settimeout(left)
            self._read()
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received[:] = rest
        try:
            said = json.loads(line)
        except RecursionError:
            raise ValueError(f"a line that is nested too deep: {line[:60]!r}") from None
        if not isinstance(said, dict):
            raise ValueError(f"a line that is no object: {line[:60]!r}")
        return said

    def _read(self) -> None:
        room = socket.CMSG_SPACE(DESCRIPTORS_AT_A_TIME * 4)
        try:
            data, came, flags, _ = self._sock.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            raise GoneError from None
        for level, kind, content in came:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._descriptors += numbers
        if flags & socket.MSG_CTRUNC:  # the kernel has dropped it
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if not data:
            raise GoneError
        self._received += data

    def take_descriptor(self) -> int:
        """Return the oldest descriptor that was not taken yet; ValueError without one."""
        if not self._descriptors:
            raise ValueError("a listener without its descriptor")
        return self._descriptors.pop(0)

    def is_over(self) -> bool:
        """Tell whether the other one has left, without waiting."""
        self._sock.settimeout(0)
        try:
            return not self._received and self._sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def end(self) -> None:
        """Have the other one, and a thread that waits here, see the end; then close()."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it, and close what was not taken."""
        while self._descriptors:
            os.close(self._descriptors.pop())
        self._sock.close()


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return process and user of whoever is at the other end (SO_PEERCRED of unix(7)).

    Of one that listens: those that it had when it began to listen.
    """
    size = struct.calcsize("iII")
    process, user, _ = struct.unpack(
        "iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return process, user
