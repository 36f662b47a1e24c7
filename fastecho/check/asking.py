"""Asking over UDP: a datagram goes out, and what comes back is compared, several at a time.

Lives here: sending each until it comes back as it was sent, or often enough. Does not live here:
a train of many (train.py), what it means if something does not come back (datagram_probes/).

A datagram may be lost, which is no news about its size or its bytes. So each is sent again, some
times, each time from a new port: one bad link of a bundle, which the ports choose, is a matter of
the probe flows. Earlier ports stay open, for answers that take long. An answer counts wherever it
comes from: where that is, is a matter of the probe source.
"""

from __future__ import annotations

import errno
import os
import select
from math import ceil, log
from time import monotonic, perf_counter

from fastecho.check.pattern import shown_bytes, what_is
from fastecho.datagrams import Datagrams

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastecho.check.path import Path

    Place = tuple[object, ...]

__all__ = ["Asked", "ask", "ask_once", "tries_for", "try_seconds"]

SPACING_SECONDS = 0.0025
"""Between two datagrams: 400/s, well below what servers with guards answer a source."""
TRY_SECONDS, TRY_ROUND_TRIPS = 0.25, 4
"""Without an answer for so long, a datagram is sent again."""
REFUSED_SECONDS = 0.02
"""Before the next try."""
MOST_KEPT = 8
"""Wrong answers, and places of answers, of one datagram."""
UNLIKELY = 1e-5
"""So improbable may it be that a datagram is lost each time, by the loss that was seen."""
FEWEST_TRIES, MOST_TRIES = 3, 14
FRAGMENT_BYTES = 1472
"""What one packet of an Ethernet carries over IPv4."""


class Asked:
    """What became of one datagram.

    Attributes:
        data: its bytes.
        sent: how often it was sent.
        is_exact: whether it came back as it was.
        wrong: what else came back, each once.
        places: where answers came from.
        ports: our own, in the order of trying.
        errno: what ICMP told last, or why it could not be sent; 0: nothing of that.
        is_unsent: our own system refused to send it.
        seconds: from sending it to its coming back.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent = 0
        self.is_exact = False
        self.wrong: list[bytes] = []
        self.places: set[Place] = set()
        self.ports: list[int] = []
        self.errno = 0
        self.is_unsent = False
        self.seconds = 0.0

    @property
    def is_mute(self) -> bool:
        """Whether nothing at all came back."""
        return not self.is_exact and not self.wrong

    def story(self) -> str:
        """Return what came in place of it, in words; "" if it came back."""
        if self.is_exact:
            return ""
        if self.wrong:
            return _difference(self.data, self.wrong[0])
        if self.errno == errno.ECONNREFUSED:
            return "refused: nothing listens on that port (ICMP port unreachable)"
        if self.errno:
            return f"{os.strerror(self.errno)}{'' if self.is_unsent else ' (ICMP)'}"
        times = "once" if self.sent == 1 else f"{self.sent} times"
        return f"nothing came back, sent {times}"


def _difference(sent: bytes, came: bytes) -> str:
    if len(came) < len(sent) and sent.startswith(came):
        return f"{len(came):,} of {len(sent):,} bytes came back"
    if sent and sent in came:
        return f"{len(came) - len(sent):,} bytes too many came back: {what_is(came)}"
    if len(came) == len(sent):
        at = next(i for i, byte in enumerate(came) if byte != sent[i])
        wrong = sum(one != other for one, other in zip(came, sent, strict=True))
        words = f"byte {at:,} came back as 0x{came[at]:02x}, not 0x{sent[at]:02x}"
        return words if wrong == 1 else f"{words}, and {wrong - 1:,} more are wrong"
    return f"{len(came):,} other bytes came back: {shown_bytes(came)}"


def try_seconds(path: Path) -> float:
    """Return after how long without an answer a datagram is sent again."""
    return min(max(TRY_SECONDS, TRY_ROUND_TRIPS * path.rtt), path.patience)


def tries_for(path: Path, size: int = 0) -> int:
    """Return how often to send, so that loss as it was seen hardly explains silence; 0: too often.

    One of several fragments that is lost costs the whole datagram.
    """
    arrives = (1 - path.loss) ** max(ceil(size / FRAGMENT_BYTES), 1)
    if arrives >= 1:
        return FEWEST_TRIES
    if (1 - arrives) ** MOST_TRIES > UNLIKELY:
        return 0
    tries = ceil(log(UNLIKELY) / log(1 - arrives))
    return min(max(tries, FEWEST_TRIES), MOST_TRIES)


class _Round:
    """Sockets that are open, and what each was used for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._poller = path.poller()
        # By descriptor: the socket, what was asked on it, and when.
        self._open: dict[int, tuple[Datagrams, Asked, float]] = {}

    def close(self) -> None:
        for socket, _, _ in self._open.values():
            socket.close()

    def send(self, one: Asked, place: tuple[int, object]) -> None:
        socket = Datagrams([place])
        self._open[socket.fileno()] = (socket, one, perf_counter())
        self._poller.register(socket, select.POLLIN)
        one.ports.append(socket.sock.getsockname()[1])
        one.sent += 1
        one.errno = 0
        try:
            socket.send(one.data)
        except OSError as error:
            one.errno, one.is_unsent = error.errno or 0, True

    def take(self, until: float) -> None:
        """Wait until then, or for something; take what is there."""
        for fd, _ in self._path.wait(self._poller, until):
            if fd in self._open:
                self._read(fd, *self._open[fd])

    def _read(self, fd: int, socket: Datagrams, one: Asked, began: float) -> None:
        for number, _ in socket.errors():
            one.errno = number
        for data, place in socket.some():
            if len(one.places) < MOST_KEPT:
                one.places.add(place)
            if data != one.data:
                if len(one.wrong) < MOST_KEPT and data not in one.wrong:
                    one.wrong.append(data)
            elif not one.is_exact:
                one.is_exact, one.seconds = True, perf_counter() - began
        if one.is_exact:  # what comes twice is a matter of the probe duplicates
            self._poller.unregister(fd)
            socket.close()
            del self._open[fd]


def ask(
    path: Path,
    datas: Sequence[bytes],
    *,
    tries: int = FEWEST_TRIES,
    place: tuple[int, object] | None = None,
    patience: float | None = None,
) -> list[Asked]:
    """Send each of these until it has come back exactly, at most so many times.

    Args:
        path: where to.
        datas: what to send.
        tries: how often.
        place: family and address; None: what answered first.
        patience: seconds that the last try has for its answer; None: the path's own.
    """
    asked = [Asked(data) for data in datas]
    last = path.patience if patience is None else patience
    a_round = _Round(path)
    try:
        for number in range(tries):
            for one in asked:
                if _is_open(one):
                    a_round.send(one, place or path.place)
                    a_round.take(monotonic() + SPACING_SECONDS)
            until = monotonic() + (try_seconds(path) if number < tries - 1 else last)
            while any(_is_open(one) and not one.errno for one in asked) and monotonic() < until:
                a_round.take(until)
            if not any(map(_is_open, asked)):
                break
            path.sleep(REFUSED_SECONDS)
        return asked
    finally:
        a_round.close()


def _is_open(one: Asked) -> bool:
    """Tell whether to send it again, also if it was refused: a server may be between two flows."""
    return not one.is_exact and not one.is_unsent


def ask_once(path: Path, socket: Datagrams, data: bytes, patience: float) -> float | None:
    """Send one on a socket that is there; return the seconds until it came back, or None."""
    poller = path.poller()
    poller.register(socket, select.POLLIN)
    began, until = perf_counter(), monotonic() + patience
    try:
        socket.send(data)
    except OSError:
        return None
    while monotonic() < until:
        path.wait(poller, until)
        list(socket.errors())
        if any(came == data for came, _ in socket.some()):
            return perf_counter() - began
    return None
