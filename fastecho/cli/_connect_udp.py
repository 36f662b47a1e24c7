"""`fastecho connect udp://...`: lines as datagrams, and what comes back.

Lives here: one line, one datagram; what was not answered; refusals. Does not live here: the
conversation at a terminal and the options (connect.py), the socket (fastecho/datagrams.py).

At a terminal the conversation of connect.py runs, for which DatagramPeer looks like a Client. Piped
input goes out line by line, each with its newline, as `nc -u` sends what is typed, and not faster
than a datagram every PACE_SECONDS: a receiver's buffer holds some hundred, and servers with guards
answer a source only so often.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from time import monotonic

from fastecho.cli import complain
from fastecho.cli._terminal import Decoder, Screen, read_some, write_all
from fastecho.datagrams import LARGEST, NO_LISTENER, Datagrams
from fastecho.dial import text_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DatagramPeer", "LineCopy"]

PACE_SECONDS = 0.002
"""Between two datagrams of piped input: half of the 1,000/s that `serve` answers a source."""
HELD_LINES = 64
"""So many lines at most are read ahead of what was sent."""
SLICE_SECONDS = 0.25
"""Longest single wait: somebody may have ended it meanwhile."""
KEPT = 64
"""So many datagrams are sent again if the first address of a name refuses."""


class DatagramPeer:
    """What a conversation needs of a Client, for datagrams: recv() gives one at a time.

    Attributes:
        peer_address: as the user writes it.
        timeout: for the sake of its name.
    """

    def __init__(self, targets: Sequence[tuple[int, object]], name: str) -> None:
        self._datagrams = Datagrams(targets)
        self._name = name
        self.timeout: float | None = None
        # Sent while nobody has answered: somebody else may have to be asked.
        self._untried: list[bytes] | None = []
        self._closed = False
        self._told: set[object] = set()
        self._poller = self._new_poller()

    @property
    def peer_address(self) -> str:
        """The numeric address that is talked with."""
        return f"udp://{self._datagrams.peer}"

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._datagrams.fileno()

    def _new_poller(self) -> select.poll:
        poller = select.poll()
        poller.register(self._datagrams, select.POLLIN)
        return poller

    def send(self, data: bytes) -> None:
        """Send one datagram; wait for room if our own buffer is full."""
        untried = self._untried
        if untried is not None and len(untried) < KEPT:
            untried.append(data)
        while True:
            try:
                self._datagrams.send(data)
            except BlockingIOError:
                select.select([], [self._datagrams], [], SLICE_SECONDS)
            else:
                return

    def recv(self, n: int) -> bytes:
        """Return the next datagram that has bytes; b"" once it is closed.

        Raises:
            OSError: what ICMP told of one that was sent (ECONNREFUSED).
        """
        while not self._closed:
            if (data := self.take()) is not None:
                if data:
                    return data[:n]
            else:
                self._poller.poll(SLICE_SECONDS * 1e3)
        return b""

    def take(self) -> bytes | None:
        """Return a datagram of the peer that is here; None if there is none.

        Raises:
            OSError: what ICMP told of one that was sent.
        """
        for number, _ in self._datagrams.errors():
            self._refused(number)
        for data, place in self._datagrams.some():
            if place == self._datagrams.place:
                self._untried = None
                return data
            if place not in self._told and len(self._told) < KEPT:
                self._told.add(place)
                where = text_of(self._datagrams.sock.family, place)
                complain(self._name, f"a datagram of {len(data)} bytes came from {where}, not from "
                         f"{self._datagrams.peer}: it is not shown")  # fmt: skip
        return None

    def _refused(self, number: int) -> None:
        """Ask the next address of the name, or raise what ICMP has told."""
        untried = self._untried
        if untried is not None and self._datagrams.move_on():
            self._poller = self._new_poller()
            for data in untried:
                self._datagrams.send(data)
            return
        refused = number == errno.ECONNREFUSED
        raise OSError(number, NO_LISTENER if refused else os.strerror(number))

    def shutdown(self) -> None:
        """End recv(): nothing more will be sent, which nobody can be told over UDP."""
        self._closed = True

    def close(self) -> None:
        """Give the descriptor back."""
        self._closed = True
        self._datagrams.close()


class LineCopy:
    """Standard input to the peer, a datagram for each line; what comes back to standard output.

    It ends when each has been answered and nothing more comes for `wait` seconds; or when nothing
    has come for `patience` seconds after the last one was sent.
    """

    def __init__(
        self,
        peer: DatagramPeer,
        *,
        name: str,
        goodbye: frozenset[str],
        typed: bool,
        newline: bool,
        wait: float,
        patience: float,
    ) -> None:
        self._peer = peer
        self._name = name
        # Words that end typed input.
        self._goodbye = goodbye if typed else frozenset()
        self._newline = newline or not typed
        self._wait, self._patience = wait, patience
        self._fd = -1 if sys.stdin is None else sys.stdin.fileno()
        # Read, and no whole line yet; whole lines to send.
        self._part = b""
        self._lines: list[bytes] = []
        self._ended = self._fd < 0
        # How often each datagram was sent and not answered; datagrams that are no echo of one.
        self._open: dict[bytes, int] = {}
        self._sent = self._echoes = self._others = 0
        # When the next may be sent, when something was sent or received last.
        self._next_at = self._last = 0.0

    def run(self) -> int:
        """Copy to the end; return the exit code."""
        show = _output()
        self._last = monotonic()
        try:
            while (left := self._left()) > 0:
                self._send_next()
                self._await(left)
                while (data := self._peer.take()) is not None:
                    self._count(data)
                    show(data)
        except BrokenPipeError:
            raise  # as with any filter: whoever reads the output has had enough
        except _InputError as error:
            complain(self._name, str(error))
            return 1
        except OSError as error:
            complain(self._name, f"{self._peer.peer_address}: {error.strerror or error}")
            return 1
        finally:
            self._peer.close()
        return self._conclude()

    def _left(self) -> float:
        """Return for how long to wait for something, 0 at the end."""
        if not self._ended or self._lines:
            return SLICE_SECONDS
        patience = self._patience if self._unanswered() else self._wait
        return self._last + patience - monotonic()

    def _unanswered(self) -> int:
        """Return how many have no answer; if none comes back as it was sent, by number."""
        if self._others and not self._echoes:
            return max(self._sent - self._others, 0)
        return sum(self._open.values())

    def _conclude(self) -> int:
        missing = self._unanswered()
        if not missing:
            return 0
        what = "1 datagram was" if self._sent == 1 else f"{missing} of {self._sent} datagrams were"
        complain(self._name, f"{what} not answered within {self._patience:g} s")
        return 1

    def _send_next(self) -> None:
        if not self._lines or monotonic() < self._next_at:
            return
        data = self._lines.pop(0)
        self._peer.send(data)
        self._last = monotonic()
        self._next_at = self._last + PACE_SECONDS
        self._sent += 1
        self._open[data] = self._open.get(data, 0) + 1

    def _await(self, left: float) -> None:
        """Wait until something can be done; read from standard input."""
        until = monotonic() + min(left, SLICE_SECONDS)
        if self._lines:
            until = min(until, self._next_at)
        poller = select.poll()
        poller.register(self._peer.fileno(), select.POLLIN)
        if not self._ended and len(self._lines) < HELD_LINES:
            poller.register(self._fd, select.POLLIN)
        # Rounded up: half a millisecond is not waited for by turns without a wait.
        ready = poller.poll(max(until - monotonic(), 0) * 1e3 + 0.999)
        if any(fd == self._fd for fd, _ in ready):
            self._read()

    def _read(self) -> None:
        """Read what is there, and cut it into lines."""
        try:
            data = read_some(self._fd)
        except OSError as error:
            raise _InputError(f"cannot read standard input: {error.strerror}") from None
        *lines, self._part = (self._part + data).split(b"\n")
        self._lines += [line + b"\n" for line in lines]
        if not data:
            self._ended = True
            if self._part:
                self._lines.append(self._part)
        self._end_at_goodbye()
        if not self._newline:
            self._lines = [line for one in self._lines if (line := one.removesuffix(b"\n"))]
        longest = max(map(len, (*self._lines, self._part)))
        if longest > LARGEST:
            raise _InputError(f"a line of more than {LARGEST:,} bytes does not fit into a datagram")

    def _end_at_goodbye(self) -> None:
        for i, line in enumerate(self._lines):
            if line.decode("utf-8", "replace").strip().lower() in self._goodbye:
                del self._lines[i:]
                self._part, self._ended = b"", True
                return

    def _count(self, data: bytes) -> None:
        self._last = monotonic()
        left = self._open.get(data)
        if left is None:
            self._others += 1
            return
        self._echoes += 1
        if left > 1:
            self._open[data] = left - 1
        else:
            del self._open[data]


class _InputError(Exception):
    """Standard input cannot be read, or not be sent."""


def _output() -> Callable[[bytes], None]:
    """Return what shows received bytes: exact, or harmless on a terminal."""
    fd = sys.stdout.fileno()
    if not sys.stdout.isatty():
        return lambda data: write_all(fd, data)
    screen = Screen("")
    return lambda data: screen.write(Decoder().text(data, final=True))
