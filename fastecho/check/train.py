"""A train: many numbered datagrams over UDP, one after the other on a clock, and what came of each.

Lives here: sending it, counting what was lost, came twice, out of order or spoilt; a second, slow
one where something was lost, which tells a limit of the rate from loss. Does not live here: what
any of it means (datagram_probes/). The probes share one train: whoever needs it first runs it.

Each datagram has its number three times, so that one spoilt byte does not hide whose it was: it
was spoilt then, not lost.
"""

from __future__ import annotations

import select
from math import comb
from random import Random
from time import monotonic

from fastecho.check.asking import MOST_TRIES, ask_once, try_seconds
from fastecho.check.verdict import NotTestable
from fastecho.datagrams import Datagrams

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path

__all__ = ["SIZE", "Train", "Trains", "answered_socket", "trains"]

SIZE = 64
"""Bytes of a datagram."""
HEADER = 16
"""A tag of 8 letters and a number of 8 digits, which stand three times."""
COPIES = 3
QUICK, FULL = (300, 300.0), (1500, 300.0)
QUICK_SLOW, FULL_SLOW = (60, 50.0), (200, 50.0)
"""How many, and how many a second."""
GRACE_SECONDS, GRACE_ROUND_TRIPS = 0.1, 4
"""After the last one, before the slow train begins if something is missing: it waits as well."""
UNLIKELY = 1e-3
"""So improbable must the slow train's loss be, by the fast one's, to be told a limit."""


class Train:
    """What became of the datagrams of one train.

    Attributes:
        sent: how many; at `rate` a second.
        arrived: of these, how many came back, spoilt ones included.
        duplicates: how often one came once more.
        reordered: numbers that came after a later one (RFC 4737), in the order of coming.
        spoilt: by number, what came instead.
        foreign: datagrams that could be nobody's.
        last_rate: of the second half, how many a second came back.
        longest_gap: so many in a row were lost, at most.
    """

    def __init__(self, seed: int, which: int, count: int, rate: float) -> None:
        random = Random(f"{seed} {which}")
        self._tag = "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=8)).encode()
        self.count, self.rate = count, rate
        self.sent = self.duplicates = self.foreign = 0
        self.reordered: list[int] = []
        self.spoilt: dict[int, bytes] = {}
        self._came: set[int] = set()
        self._expected = 0

    def data(self, number: int) -> bytes:
        """Return the bytes of one."""
        header = self._tag + b"%08d" % number
        return (header * COPIES).ljust(SIZE, b"+")

    def _number_of(self, data: bytes) -> int | None:
        """Return whose bytes these are, spoilt or not."""
        found = []
        for at in range(0, HEADER * COPIES, HEADER):
            tag, digits = data[at : at + 8], data[at + 8 : at + HEADER]
            if tag == self._tag and digits.isdigit() and len(digits) == 8:
                found.append(int(digits))
        number = max(found, key=found.count, default=self.sent)
        return number if number < self.sent else None

    def is_of(self, data: bytes) -> bool:
        """Tell whether these bytes are one of its datagrams, spoilt or not."""
        return self._number_of(data) is not None

    def take(self, data: bytes) -> None:
        """Count what came."""
        number = self._number_of(data)
        if number is None:
            self.foreign += 1
            return
        if data != self.data(number):
            self.spoilt.setdefault(number, data)
        if number in self._came:
            self.duplicates += 1
            return
        self._came.add(number)
        if number < self._expected:
            self.reordered.append(number)
        self._expected = max(self._expected, number + 1)

    @property
    def arrived(self) -> int:
        """How many came back."""
        return len(self._came)

    @property
    def lost(self) -> int:
        """How many did not."""
        return self.sent - len(self._came)

    @property
    def share(self) -> float:
        """The share that was lost, 0 to 1."""
        return self.lost / self.sent if self.sent else 0.0

    @property
    def last_rate(self) -> float:
        """How many a second came back of the second half, when a limit's burst is over."""
        half = self.sent // 2
        came = sum(number >= half for number in self._came)
        return came / ((self.sent - half) / self.rate)

    @property
    def longest_gap(self) -> int:
        """How many in a row were lost, at most."""
        longest = run = 0
        for number in range(self.sent):
            run = 0 if number in self._came else run + 1
            longest = max(longest, run)
        return longest


class Trains:
    """The fast train, and the slow one if something of it was lost.

    Attributes:
        fast, slow: they; slow is None if it was not needed.
    """

    def __init__(self, fast: Train, slow: Train | None) -> None:
        self.fast, self.slow = fast, slow

    @property
    def is_limited(self) -> bool:
        """Whether loss comes from the rate: the slow train lost far less than chance allows."""
        if self.slow is None or self.slow.share * 3 > self.fast.share:
            return False
        return _chance(self.slow.sent, self.slow.lost, self.fast.share) < UNLIKELY

    @property
    def both(self) -> list[Train]:
        """The trains that there are."""
        return [self.fast] if self.slow is None else [self.fast, self.slow]

    @property
    def loss(self) -> float:
        """The share that is lost at a low rate."""
        if self.slow is not None and self.is_limited:
            return self.slow.share
        return sum(one.lost for one in self.both) / max(sum(one.sent for one in self.both), 1)


def _chance(sent: int, most: int, share: float) -> float:
    """Return how probable it is that at most so many of these are lost, each with this share."""
    return sum(comb(sent, n) * share**n * (1 - share) ** (sent - n) for n in range(most + 1))


def trains(path: Path) -> Trains:
    """Return what the trains of this path have shown; the first who asks runs them.

    Raises:
        NotTestable: no port of ours was answered.
    """
    with path.train_lock:
        if path.trains is None:
            path.trains = _run(path)
            path.loss = path.trains.loss
        found: Trains = path.trains
        return found


def answered_socket(path: Path, number: int = 0) -> Datagrams:
    """Return a socket on which a datagram has come back: a bad link takes all of some ports.

    Raises:
        NotTestable: there was none.
    """
    for one in range(MOST_TRIES):
        socket = Datagrams([path.place])
        try:
            data = b"hello %d %d %d\n" % (path.seed, number, one)
            if ask_once(path, socket, data, try_seconds(path)) is not None:
                return socket
        except BaseException:
            socket.close()
            raise
        socket.close()
    raise NotTestable(f"of {MOST_TRIES} ports of ours none was answered")


def _run(path: Path) -> Trains:
    with answered_socket(path) as socket:
        fast = Train(path.seed, 1, *(QUICK if path.quick else FULL))
        _send(path, socket, [fast])
        grace = max(GRACE_SECONDS, GRACE_ROUND_TRIPS * path.rtt)
        _collect(path, socket, [fast], grace)
        if not fast.lost:
            return Trains(fast, None)
        slow = Train(path.seed, 2, *(QUICK_SLOW if path.quick else FULL_SLOW))
        _send(path, socket, [fast, slow])
        _collect(path, socket, [fast, slow], path.patience)
        return Trains(fast, slow if fast.lost else None)


def _send(path: Path, socket: Datagrams, all_of_them: list[Train]) -> None:
    """Send the last of these trains on its clock, and take what comes of any."""
    poller, train = path.poller(), all_of_them[-1]
    poller.register(socket, select.POLLIN)
    due = monotonic()
    while train.sent < train.count:
        now = monotonic()
        if now >= due:
            due = max(due + 1 / train.rate, now)  # what was missed is not sent in a burst
            data = train.data(train.sent)
            train.sent += 1
            try:
                socket.send(data)
            except OSError:
                pass  # it is lost, as it would be on any narrow line
            continue
        path.wait(poller, due)
        _take(socket, all_of_them)


def _collect(path: Path, socket: Datagrams, all_of_them: list[Train], silence: float) -> None:
    """Take what comes until nothing is missing, or nothing has come for so long."""
    poller = path.poller()
    poller.register(socket, select.POLLIN)
    until = monotonic() + silence
    while any(one.lost for one in all_of_them) and monotonic() < until:
        path.wait(poller, until)
        if _take(socket, all_of_them):
            until = monotonic() + silence
    end = monotonic() + GRACE_SECONDS  # what comes twice comes about now
    while monotonic() < end:
        path.wait(poller, end)
        _take(socket, all_of_them)


def _take(socket: Datagrams, all_of_them: list[Train]) -> bool:
    """Take what is there; tell whether it was one of theirs."""
    list(socket.errors())
    some = False
    for data, _ in socket.some():
        train = next((one for one in all_of_them if one.is_of(data)), None)
        if train is None:
            all_of_them[0].foreign += 1
            continue
        some = True
        train.take(data)
    return some
