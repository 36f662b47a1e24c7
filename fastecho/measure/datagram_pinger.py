"""Probes as datagrams to an echo server over UDP: what `fastecho ping udp://...` does.

Lives here: the schedule, and what a datagram that comes back counts as. Does not live here: the
socket (fastecho/datagrams.py), probes on a connection (pinger.py), what is told (ping_events.py)
and added up (ping_result.py), options, text and signals (cli/ping.py).

A probe begins by a tag that is drawn for the run, then its number: so every answer is told apart,
however late, often and in whatever order it comes. The rest of its bytes follow from the number.

Probe N is due at start + (N - 1) * interval, whatever became of those before it. With interval 0 it
is due when the one before was answered, or after STALL_NS without an answer. One that has none for
the timeout is lost; should the answer come still, it was late, and not lost.

Reordered is what RFC 4737 calls so: an answer whose number is smaller than that of one which came
before it. Only the first answer to a probe is looked at; the others are duplicates.

A refusal (ICMP) comes for each probe to a port that nothing listens on. It is told once, until
something comes back, and counted each time; the probe that it quotes is lost at once. While a name
has other addresses, and nothing has come from one yet, the next address is asked instead.
"""

from __future__ import annotations

import errno
import os
import select
from secrets import token_hex
from time import perf_counter_ns as clock

from fastecho.datagrams import LARGEST, NO_LISTENER, Datagrams
from fastecho.dial import reason, text_of
from fastecho.errors import ConfigError

from .channel import SELECT_LIMIT, SHOWN_BYTES, SLICE_NS, Waiting
from .ping_events import Event, Failure, Opened, Reply
from .ping_result import PingResult
from .pinger import ENDLESS, PATIENCE_NS, nanoseconds, whole
from .probes import PERIOD, Probes
from .route import Line, Route

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastecho.address import Address

__all__ = ["HEADER", "DatagramPinger"]

TAG_BYTES = 8
HEADER = TAG_BYTES + 8
"""Bytes of the smallest probe: the tag and the number."""

STALL_NS = 1_000_000_000
"""With interval 0, after which the next probe is sent though the one before has no answer."""

REFUSED_NS = 100_000_000
"""With interval 0, the pause after a refusal, and after a send that failed."""

LINGER_NS = (10_000_000, 100_000_000)
"""How long duplicates of the last answer are waited for: with interval 0, and otherwise."""

KEPT = 65536
"""So many lost probes are known, whose answers may still come."""

TOLD = 16
"""So many senders that nobody asked are told."""


class DatagramPinger:
    """Send probes over UDP and verify what comes back: iterate over what happens.

    Use it as Pinger, for what datagrams suffer: loss, duplicates, reordering.

    Args:
        address: udp://HOST:PORT, udp://[V6]:PORT, or udp://:PORT (this machine).
        size: bytes of a probe, 16..65507; above the path's MTU they travel in fragments.
        interval: seconds from one probe to the next: 0 (after each reply), or 0.001..86400.
        count: how many probes, at least 1; None goes on until stop().
        timeout: seconds, 0.001..86400: a probe without an answer for so long is lost.
        source: our own address, ADDR, ADDR:PORT or [V6]:PORT.
        tos: type of service or traffic class, 0..255.
        family: AF_INET or AF_INET6 takes only such addresses of a name; 0 takes both.
    Raises:
        ConfigError: which of them is wrong.
        OSError: while iterating, and only before the first event: no way to the address.
    Thread: one at a time; stop() from any, and from signal handlers.
    Cost: one descriptor; some microseconds of CPU for each probe beside its system calls.
    Source: ping(8), RFC 862, RFC 4737; docs/decisions/0022-udp-clients.md.
    """

    def __init__(
        self,
        address: str | Address,
        *,
        size: int = 64,
        interval: float = 1.0,
        count: int | None = None,
        timeout: float = 5.0,
        source: str | None = None,
        tos: int | None = None,
        family: int = 0,
    ) -> None:
        self._route = Route(address, source, tos, family, udp=True)
        self._last = ENDLESS if count is None else whole("count", count, ENDLESS)
        self._interval_ns = 0 if interval == 0 else nanoseconds("interval", interval, "0, or from")
        self._timeout_ns = nanoseconds("timeout", timeout, "from")
        if whole("size", size, LARGEST) < HEADER:
            raise ConfigError("size", size, f"must be a whole number from {HEADER} to {LARGEST}")
        self._size = size
        self._tag = token_hex(TAG_BYTES // 2).encode()
        self._body = Probes(size - HEADER) if size > HEADER else None
        self._waiting = Waiting()
        self._result = PingResult(
            {
                "target": str(self._route.address),
                "size": size,
                "interval_s": float(interval),
                "count": count,
                "timeout_s": float(timeout),
                "new_connection": False,
                "source": source,
                "tos": tos,
                "send_proxy": None,
                "identify": False,
            }
        )
        self._next = 1
        self._start_ns = 0
        # When the program showed last that it runs.
        self._awake_ns = 0
        # Without an answer, in the order of sending; those given up, the oldest first.
        self._under_way: dict[int, int] = {}
        self._given_up: dict[int, int] = {}
        # With interval 0: not before this time is the next probe due.
        self._hold_ns = 0
        # One more than the highest number that has come back: RFC 4737's NextExp.
        self._expected = 1
        # Why probes were lost, told since something came back; senders that nobody asked, told.
        self._told: set[str] = set()
        self._senders: set[object] = set()
        self._datagrams: Datagrams | None = None

    def __iter__(self) -> Iterator[Event]:
        """Run, once; yields Opened (again, if the next address is asked), Reply and Failure."""
        try:
            with self._route.open_datagrams() as datagrams:
                self._datagrams = datagrams
                line = self._line()
                self._start_ns = self._awake_ns = self._result.begin(line)
                yield Opened(line)
                yield from self._run()
        finally:
            self._waiting.interruptible = False
            self._datagrams = None
            self._result.unanswered = len(self._under_way)
            self._result.end()

    @property
    def interruptible(self) -> bool:
        """Whether it waits: a signal handler that raises then leaves every count right."""
        return self._waiting.interruptible

    def stop(self) -> None:
        """End before the next wait begins; what is under way then stays unanswered."""
        self._waiting.stopped = True

    def result(self) -> PingResult:
        """Return what was counted so far; it goes on counting until the iteration has ended."""
        return self._result

    def _line(self) -> Line:
        assert self._datagrams is not None
        return Line(self._datagrams.sock, self._datagrams.peer, 0)

    # The schedule

    def _run(self) -> Iterator[Event]:
        while not self._waiting.stopped:
            self._move_if_stopped()
            yield from self._take()
            yield from self._give_up(clock())
            now, due_ns = clock(), self._due_ns()
            if self._next <= self._last and now >= due_ns:
                yield from self._send()
                continue
            if self._next > self._last and not self._under_way:
                break
            until = due_ns if self._next <= self._last else now + SLICE_NS
            if self._under_way:
                until = min(until, next(iter(self._under_way.values())) + self._timeout_ns)
            self._wait(until - now)
        end_ns = clock() + LINGER_NS[self._interval_ns > 0]
        while self._result.received and not self._waiting.stopped and clock() < end_ns:
            self._wait(end_ns - clock())
            yield from self._take()

    def _due_ns(self) -> int:
        """Return when the next probe is to be sent."""
        if self._interval_ns:
            return self._start_ns + (self._next - 1) * self._interval_ns
        if not self._under_way:
            return self._hold_ns
        newest = next(reversed(self._under_way.values()))
        return max(newest + min(STALL_NS, self._timeout_ns), self._hold_ns)

    def _move_if_stopped(self) -> None:
        """Move the schedule if the program itself was stopped: what it missed is not sent later."""
        now = clock()
        gone_ns, late_ns = now - self._awake_ns, now - self._due_ns()
        self._awake_ns = now
        was_stopped = gone_ns > PATIENCE_NS and late_ns > self._interval_ns + PATIENCE_NS
        if self._interval_ns and was_stopped:
            self._start_ns += min(gone_ns, late_ns)

    def _wait(self, ns: int) -> None:
        """Wait for a datagram or an error, or for so long, or for a slice of it."""
        assert self._datagrams is not None
        seconds = max(min(ns, SLICE_NS), 0) / 1e9
        try:
            self._waiting.interruptible = True
            if self._waiting.stopped:
                return
            if self._datagrams.fileno() < SELECT_LIMIT:  # to the microsecond
                select.select([self._datagrams], [], [], seconds)
            else:
                poller = select.poll()
                poller.register(self._datagrams, select.POLLIN)
                poller.poll(seconds * 1e3 + 0.999)
        finally:
            self._waiting.interruptible = False

    # Sending

    def _bytes_of(self, number: int) -> bytes:
        body = b"" if self._body is None else self._body.bytes_of(number)
        return self._tag + number.to_bytes(8, "big") + body

    def _number_in(self, data: bytes) -> int | None:
        """Return the number of the probe that a datagram answers, wherever its header stands."""
        at = data.find(self._tag)
        header = data[at + TAG_BYTES : at + HEADER]
        if at < 0 or len(header) < 8:
            return None
        number = int.from_bytes(header, "big")
        return number if 0 < number < self._next else None

    def _send(self) -> Iterator[Event]:
        assert self._datagrams is not None
        number = self._next
        self._next += 1
        self._result.probes += 1
        data = self._bytes_of(number)
        self._under_way[number] = clock()
        try:
            self._datagrams.send(data)
        except OSError as error:
            del self._under_way[number]
            self._given_up[number] = 0
            self._hold_ns = clock() + REFUSED_NS
            yield from self._lost_by("other", f"not sent: {reason(error)}", [number])
        else:
            self._result.transmitted += 1

    def _send_again(self) -> None:
        """Send what is under way to another address; what cannot be sent will have no answer."""
        assert self._datagrams is not None
        for number in self._under_way:
            self._under_way[number] = clock()
            try:
                self._datagrams.send(self._bytes_of(number))
            except OSError:
                pass

    def _lost_by(self, kind: str, why: str, numbers: list[int]) -> Iterator[Event]:
        """Count what made probes be lost; tell it, if it is new since something came back."""
        self._result.failures[kind] += 1
        self._result.failures["lost"] += len(numbers)
        if why not in self._told:
            self._told.add(why)
            yield self._result.told(Failure(kind, numbers, why))

    def _give_up(self, now: int) -> Iterator[Event]:
        """Count those as lost that have had no answer for the timeout."""
        numbers: list[int] = []
        for number, sent_ns in self._under_way.items():
            if sent_ns + self._timeout_ns > now and len(self._under_way) - len(numbers) < PERIOD:
                break
            numbers.append(number)
        if not numbers:
            return
        for number in numbers:
            self._given_up[number] = self._under_way.pop(number)
        while len(self._given_up) > KEPT:
            del self._given_up[next(iter(self._given_up))]
        self._result.failures["lost"] += len(numbers)
        sentence = f"no answer in {self._timeout_ns / 1e9:g} s"
        yield self._result.told(Failure("lost", numbers, sentence))

    # What comes

    def _take(self) -> Iterator[Event]:
        """Read what is there."""
        assert self._datagrams is not None
        for number, quoted in self._datagrams.errors():
            yield from self._refused(number, quoted)
        for data, place in self._datagrams.some():
            yield from self._came(data, place, clock())

    def _refused(self, number: int, quoted: bytes) -> Iterator[Event]:
        """Count an error that ICMP told, or ask the next address."""
        assert self._datagrams is not None
        if self._expected == 1 and self._datagrams.move_on():
            yield Opened(self._line())
            self._send_again()
            return
        refused = number == errno.ECONNREFUSED
        probe = self._number_in(quoted) or 0
        numbers: list[int] = []
        if probe in self._under_way:
            self._given_up[probe] = self._under_way.pop(probe)
            numbers.append(probe)
        self._hold_ns = clock() + REFUSED_NS
        why = NO_LISTENER if refused else f"{os.strerror(number)} (ICMP)"
        yield from self._lost_by("refused" if refused else "other", why, numbers)

    def _came(self, data: bytes, place: tuple[object, ...], now: int) -> Iterator[Event]:
        """Say what a datagram is, and count it."""
        assert self._datagrams is not None
        number = self._number_in(data)
        if number is None or place != self._datagrams.place:
            yield from self._foreign(number, data, place)
            return
        under_way = number in self._under_way
        if not under_way and number not in self._given_up:
            self._result.failures["duplicates"] += 1
            yield self._result.told(Failure("duplicates", [number], "came once more (duplicate)"))
            return
        sent_ns = (self._under_way if under_way else self._given_up).pop(number)
        if not under_way:
            self._result.failures["lost"] -= 1
        behind = self._expected - 1 if number < self._expected else 0
        self._expected = max(self._expected, number + 1)
        if behind:
            self._result.failures["reordered"] += 1
        self._told.clear()
        if data != self._bytes_of(number):
            self._result.failures["corrupt"] += 1
            yield self._result.told(Failure("corrupt", [number], self._difference(data, number)))
            return
        self._result.received += 1
        self._result.timings.add(now - sent_ns)
        if not under_way:
            self._result.failures["late"] += 1
        yield Reply(number, now - sent_ns, not under_way, 0, behind=behind)

    def _foreign(
        self, number: int | None, data: bytes, place: tuple[object, ...]
    ) -> Iterator[Event]:
        """Count what answers no probe, or comes from elsewhere; tell it once for each sender."""
        assert self._datagrams is not None
        self._result.failures["foreign"] += 1
        key = (place, number is None)
        if key in self._senders or len(self._senders) >= TOLD:
            return
        self._senders.add(key)
        where = text_of(self._datagrams.sock.family, place)
        if number is None:
            what = f"a datagram that answers no probe came from {where}: "
            what += f"{len(data)} bytes, {data[:SHOWN_BYTES]!r}"
        else:
            what = f"the answer came from {where}, not from {self._datagrams.peer}"
        yield self._result.told(Failure("foreign", [number] if number else [], what))

    def _difference(self, data: bytes, number: int) -> str:
        if len(data) != self._size:
            return f"{len(data)} bytes came back, not {self._size}"
        expected = self._bytes_of(number)
        at = next(i for i, byte in enumerate(data) if byte != expected[i])
        return f"byte {at} is 0x{data[at]:02x}, not 0x{expected[at]:02x}"
