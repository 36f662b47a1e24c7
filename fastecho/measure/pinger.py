"""One connection to an echo server, and a probe on it every so often: what `fastecho ping` does.

Lives here: the schedule, losing the connection, coming back. Does not live here: sending and
verifying (channel.py), how a connection is opened (route.py), what is told (ping_events.py) and
added up (ping_result.py), options, text and signals (cli/ping.py).

Probe N is due at start + (N - 1) * interval, whatever became of those before it: one whose
predecessor is still unanswered is sent all the same, and replies are matched in the order of the
probes. With interval 0 a probe is due when the one before was answered. A program that was itself
stopped does not send later what it missed: its schedule moves on. That is known from the clock: no
turn of a loop waits for long, and one that took long did not wait for the peer.

A connection that is lost is opened again. It counts as back when it has echoed something: a
stopped program's kernel accepts connections too. Probes that are due until then are lost. A try is
made at once, the next ones after a tenth of the time gone by, from 0.1 s to 1 s (of the time since
the first loss, if no probe was answered in between); why they fail is told once for each reason.
With interval 0 one probe is lost with each try that fails.

With a connection for each probe there is one at a time. A probe that is due meanwhile waits, and
its time counts from when it was due: a peer that stalls costs it as much as on one connection. It
is lost if it waited for longer than the timeout, or if the one before failed. After its reply the
connection is half-closed and read to its end, for bytes that nobody asked for: until the next probe
is due, and not for long.
"""

from __future__ import annotations

import errno
import socket
from struct import pack
from time import perf_counter_ns as clock

from fastecho.dial import reason
from fastecho.errors import ConfigError
from fastecho.identity import NotIdentifiedError, read_identity

from .channel import CLOSED, NO_ECHO, RESET, Channel, ChannelEndedError, Waiting
from .ping_events import Back, Event, Failure, Opened
from .ping_result import PingResult
from .probes import PERIOD, SIZE_LIMIT, Probes
from .route import Route, tcp_info

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastecho.address import Address
    from fastecho.identity import Identity

    from .route import Line

__all__ = ["ENDLESS", "PATIENCE_NS", "Pinger", "nanoseconds", "whole"]

LEAST, LONGEST = 0.001, 86400.0
"""Seconds: no interval and no timeout is shorter or longer."""

ENDLESS = 2**63 - 1
"""Number of a last probe that never comes."""

PATIENCE_NS = 1_000_000_000
"""A turn that takes so long was no wait for the peer, which is by slices (channel.SLICE_NS)."""

TRY_NS = (100_000_000, 1_000_000_000)
"""Shortest and longest pause between two tries to connect."""

LISTEN_NS = (10_000_000, 100_000_000)
"""How long a peer may take to close a probe's own connection: with interval 0, and otherwise."""

CHECK_BYTES = 64
"""What a new connection has to echo before the server counts as back, at most."""


class Pinger:
    """Send probes to an echo server and verify what comes back: iterate over what happens.

    Use it to watch one path for minutes or days; for load there is bench, for UDP DatagramPinger.
    It is pure Python and works where the compiled core does not.

    Args:
        address: HOST:PORT, [V6]:PORT, :PORT (this machine) or unix:PATH.
        size: bytes of a probe, 1..1048576.
        interval: seconds from one probe to the next: 0 (after each reply), or 0.001..86400.
        count: how many probes, at least 1; None goes on until stop().
        timeout: seconds, 0.001..86400: to connect, and of silence until a connection is given up.
        new_connection: each probe on a connection of its own, one after the other.
        source: our own address, ADDR, ADDR:PORT or [V6]:PORT.
        tos: type of service or traffic class, 0..255.
        family: AF_INET or AF_INET6 takes only such addresses of a name; 0 takes both.
        send_proxy: "v1" or "v2" sends a PROXY header first on each connection; None sends none.
        identify: each connection begins by the server's line that says who answers.
    Raises:
        ConfigError: which of them is wrong.
        OSError: while iterating, and only before the first event: could not connect, or the line
            did not come (fastecho.identity.NotIdentifiedError).
    Thread: one at a time; stop() from any, and from signal handlers.
    Cost: one descriptor; a few microseconds of CPU for each probe beside its system calls.
    Source: ping(8); docs/decisions/0008-measuring.md for what counts as what.
    """

    def __init__(
        self,
        address: str | tuple[str, int] | Address,
        *,
        size: int = 64,
        interval: float = 1.0,
        count: int | None = None,
        timeout: float = 5.0,
        new_connection: bool = False,
        source: str | None = None,
        tos: int | None = None,
        family: int = 0,
        send_proxy: str | None = None,
        identify: bool = False,
    ) -> None:
        self._route = Route(address, source, tos, family, send_proxy)
        self._identify = identify
        # Number of the last probe.
        self._last = ENDLESS if count is None else whole("count", count, ENDLESS)
        self._interval_ns = 0 if interval == 0 else nanoseconds("interval", interval, "0, or from")
        self._timeout_ns = nanoseconds("timeout", timeout, "from")
        self._new_connection = new_connection
        self._probes = Probes(whole("size", size, SIZE_LIMIT))
        self._waiting = Waiting()
        self._result = PingResult(
            {
                "target": str(self._route.address),
                "size": size,
                "interval_s": float(interval),
                "count": count,
                "timeout_s": float(timeout),
                "new_connection": new_connection,
                "source": source,
                "tos": tos,
                "send_proxy": send_proxy,
                "identify": identify,
            }
        )
        # Number of the next probe; when probe 1 was due, by a schedule that may have moved since.
        self._next = 1
        self._start_ns = 0
        # When the program showed last that it runs, by the clock.
        self._awake_ns = 0
        # With a connection for each probe: when the last one was answered, or had failed.
        self._answered_ns = 0
        # None: there is no connection.
        self._channel: Channel | None = None
        # When it was lost, while nothing echoes; how many probes that cost so far.
        self._away_ns: int | None = None
        self._lost_away = 0
        # When it was lost first since a probe was answered; how many were when it was lost last.
        self._restless_ns = 0
        self._received = -1
        # Why tries to connect have failed since then.
        self._told: set[str] = set()
        # Not before this time is the next try to connect.
        self._next_try_ns = 0

    def __iter__(self) -> Iterator[Event]:
        """Run, once; yields Opened, then Reply, Failure and Back as they happen."""
        try:
            line = self._open(self._timeout_ns)
            self._use(line)
            self._start_ns = self._awake_ns = self._result.begin(line)
            yield Opened(line)
            yield from self._on_new_ones() if self._new_connection else self._on_one()
        finally:
            self._waiting.interruptible = False
            if self._away_ns is not None:
                self._result.still_away_ns = self._end_gap()
            self._result.end()
            if self._channel is not None:
                self._result.unanswered = self._channel.unanswered
                if self._new_connection and self._channel.unanswered:
                    self._count_waiting()
            self._close()

    @property
    def interruptible(self) -> bool:
        """Whether it waits: a signal handler that raises then leaves every count right.

        One that comes at another time should call stop() and return.
        """
        return self._waiting.interruptible

    def stop(self) -> None:
        """End before the next wait begins; what is under way then stays unanswered."""
        self._waiting.stopped = True

    def result(self) -> PingResult:
        """Return what was counted so far; it goes on counting until the iteration has ended."""
        return self._result

    def _on_one(self) -> Iterator[Event]:
        """Run on one connection, and on others when it is lost."""
        while not self._is_over():
            channel = self._channel
            if channel is None:
                yield from self._come_back()
                continue
            try:
                if self._is_due(channel.unanswered):
                    yield from channel.probe(self._begin())
                else:
                    scheduled = self._interval_ns and channel.unanswered < PERIOD
                    due = self._due_ns() if scheduled and self._has_more() else None
                    yield from channel.attend(due)
            except ChannelEndedError as end:
                yield from self._lose(end)
        if self._channel is not None and not self._waiting.stopped:
            try:
                yield from self._channel.take()  # what was sent too much may be here already
            except ChannelEndedError:
                pass  # it was the end in any case

    def _on_new_ones(self) -> Iterator[Event]:
        """Run with a connection for each probe; the first one is there already."""
        while not self._is_over():
            due, now = self._is_due(0), clock()
            if not due:
                self._waiting.sleep(self._due_ns() - now)
            elif not self._interval_ns and now < self._next_try_ns:
                self._waiting.sleep(self._next_try_ns - now)
            else:
                yield from self._on_new_one()
                if self._away_ns is not None:
                    self._lose_due()
                    self._next_try_ns = now + self._pause_ns(now)

    def _on_new_one(self) -> Iterator[Event]:
        """Send one probe, on a connection of its own."""
        began_ns, due_ns = clock(), self._due_ns()
        if numbers := self._lose_waiting(began_ns):
            sentence = f"not sent, after waiting {self._timeout_ns / 1e9:g} s for those before"
            yield self._result.told(Failure("lost", numbers, sentence))
            return
        try:
            channel = self._channel or self._use(self._open(self._timeout_ns))
        except OSError as error:
            yield self._unconnected(error, began_ns)
            return
        if self._interval_ns and due_ns < self._answered_ns:
            channel.waited_ns = clock() - due_ns
        received = self._result.received
        try:
            yield from channel.probe(self._begin())
            while channel.unanswered and not self._waiting.stopped:
                self._move_if_stopped()
                yield from channel.attend(None)
        except ChannelEndedError as end:
            if self._result.received == received:
                yield from self._lose(end)
        self._answered_ns = clock()
        if self._result.received > received:
            if self._away_ns is not None:
                yield self._back()
            yield from self._see_out(channel)
        if not self._waiting.stopped:
            self._close()

    def _see_out(self, channel: Channel) -> Iterator[Event]:
        """Notice what comes after the reply to a connection's only probe."""
        until_ns = clock() + LISTEN_NS[self._interval_ns > 0]
        if self._interval_ns and self._has_more():
            until_ns = min(until_ns, self._due_ns())
        try:
            # A port that the user chose can be used again at once only if it is we who reset.
            yield from channel.see_out(until_ns, half_close=not self._route.has_fixed_port)
        except ChannelEndedError:
            pass  # how it ends is nobody's business any more

    def _has_more(self) -> bool:
        return self._next <= self._last

    def _is_over(self) -> bool:
        if self._waiting.stopped:
            return True
        return self._next > self._last and not (self._channel and self._channel.unanswered)

    def _due_ns(self) -> int:
        return self._start_ns + (self._next - 1) * self._interval_ns

    def _is_due(self, unanswered: int) -> bool:
        """Tell whether to send the next probe now."""
        self._move_if_stopped()
        if self._next > self._last or unanswered >= PERIOD:
            return False
        if not self._interval_ns:
            return not unanswered
        return clock() >= self._due_ns()

    def _move_if_stopped(self) -> None:
        """Move the schedule if the program itself was stopped: a turn of a loop calls this once."""
        if not self._interval_ns:
            return
        now = clock()
        gone_ns, late_ns = now - self._awake_ns, now - self._due_ns()
        self._awake_ns = now
        if gone_ns > PATIENCE_NS and late_ns > self._interval_ns + PATIENCE_NS:
            self._start_ns += min(gone_ns, late_ns)

    def _begin(self) -> int:
        """Count the next probe, and return its number."""
        number = self._next
        self._next += 1
        self._result.probes += 1
        return number

    def _open(self, timeout_ns: int) -> Line:
        """Connect, and read who answers if that was asked for."""
        try:
            self._waiting.interruptible = True
            line = self._route.open(max(timeout_ns, 1_000_000) / 1e9)
            if self._identify:
                line.identity = _identity_on(line, self._timeout_ns)
        finally:
            self._waiting.interruptible = False
            self._awake_ns = clock()
        self._result.opened(line)
        return line

    def _use(self, line: Line) -> Channel:
        """Send probes on this connection from now on."""
        self._channel = Channel(
            line,
            self._probes,
            self._result,
            self._waiting,
            self._timeout_ns,
            self._interval_ns or self._timeout_ns,
        )
        return self._channel

    def _close(self) -> None:
        """Close the connection, if there is one."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        sock = channel.line.sock
        if (view := tcp_info(sock)) is not None:
            self._result.add_kernel_view(*view)
        if self._new_connection and self._route.has_fixed_port:
            # By RST, else our port would have to rest for a minute.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("@ii", 1, 0))
        channel.close()

    def _lose(self, end: ChannelEndedError) -> Iterator[Event]:
        """Give up the connection and what was under way on it.

        If that ends the last probe as well, there is no gap, unless it was a silence.
        """
        if end.kind == "timed_out" or self._has_more():
            self._go_away(end.since_ns, end.sentence if end.kind else NO_ECHO)
        self._close()
        failures, lost = self._result.failures, len(end.numbers)
        self._lost_away += lost
        failures["timed_out" if end.kind == "timed_out" else "lost"] += lost
        if end.kind not in ("", "timed_out"):
            failures[end.kind] += 1
        if end.kind or lost:
            again = self._has_more() and not self._new_connection
            sentence = f"{end.sentence}; reconnecting" if again else end.sentence
            yield self._result.told(Failure(end.kind or "lost", end.numbers, sentence))

    def _go_away(self, since_ns: int, why: str) -> None:
        """Note when and why the server was lost; the beginning stays, if it is already."""
        if self._away_ns is None:
            self._away_ns = since_ns
            self._lost_away = 0
            self._told.clear()
            if self._result.received > self._received:
                self._restless_ns = since_ns
            self._received = self._result.received
        self._result.still_away = why

    def _come_back(self) -> Iterator[Event]:
        """Count the probes that are due; connect if it is time to; wait a little if not."""
        self._move_if_stopped()
        self._lose_due()
        now = clock()
        if self._is_over():
            return
        if now < self._next_try_ns:
            self._waiting.sleep(self._next_try_ns - now)
            return
        self._next_try_ns = now + self._pause_ns(now)
        limit_ns = self._timeout_ns
        if self._interval_ns and self._last != ENDLESS:
            last_ns = self._start_ns + (self._last - 1) * self._interval_ns
            limit_ns = min(limit_ns, max(last_ns - now, TRY_NS[0]))
        line: Line | None = None
        try:
            line = self._open(limit_ns)
            self._check(line.sock, limit_ns)
        except OSError as error:
            if not self._interval_ns:  # else it would not end when the server never comes back
                self._lose_one()
            yield from self._not_back(error, "" if line else _not_opened(error))
            return
        self._lose_due()
        self._use(line)
        yield self._back()

    def _not_back(self, error: OSError, what: str) -> Iterator[Event]:
        """Count a try that failed; tell why, if that is new."""
        kind, why = _kind_of(error), reason(error)
        self._result.failures[kind] += 1
        self._result.still_away = why
        if why not in self._told:
            self._told.add(why)
            again = "; trying again" if self._has_more() else ""
            yield self._result.told(Failure(kind, [], f"{what}{why}{again}"))

    def _pause_ns(self, now: int) -> int:
        """Return how long after `now` the next try to connect may come."""
        return min(max((now - self._restless_ns) // 10, TRY_NS[0]), TRY_NS[1])

    def _check(self, sock: socket.socket, limit_ns: int) -> None:
        """Have a new connection echo something, or close it and raise OSError."""
        data = self._probes.bytes_of(0)[-CHECK_BYTES:]
        end_ns, came = clock() + limit_ns, bytearray()
        try:
            self._waiting.interruptible = True
            sock.settimeout(limit_ns / 1e9)
            sock.sendall(data)
            while len(came) < len(data):
                sock.settimeout(max((end_ns - clock()) / 1e9, 0.001))
                if not (part := sock.recv(len(data) - len(came))):
                    raise OSError(errno.ECONNABORTED, CLOSED)
                came += part
                if not data.startswith(came):
                    raise OSError(errno.EPROTO, NO_ECHO)
        except TimeoutError:
            sock.close()
            raise OSError(errno.EPROTO, "it accepts connections, but does not answer") from None
        except ConnectionResetError:
            sock.close()
            raise OSError(errno.ECONNRESET, RESET) from None
        except BrokenPipeError:
            sock.close()
            raise OSError(errno.ECONNABORTED, CLOSED) from None
        except BaseException:
            sock.close()
            raise
        finally:
            self._waiting.interruptible = False
            self._awake_ns = clock()

    def _back(self) -> Back:
        gap_ns = self._end_gap()
        self._result.still_away = ""
        assert self._channel is not None
        return Back(gap_ns, self._lost_away, self._channel.line.identity)

    def _end_gap(self) -> int:
        """Count the time since the server was lost, and return it."""
        assert self._away_ns is not None
        gap_ns, self._away_ns = clock() - self._away_ns, None
        self._result.add_gap(gap_ns)
        return gap_ns

    def _lose_due(self) -> None:
        """Count the probes that are due, and cannot be sent, as lost."""
        while self._interval_ns and self._has_more() and clock() >= self._due_ns():
            self._lose_one()

    def _lose_waiting(self, now: int) -> list[int]:
        """Count probes that wait for longer than the timeout as lost; return their numbers.

        They wait for one that is answered, if slowly: those behind one that fails are lost by that.
        """
        numbers: list[int] = []
        limit_ns = min(self._answered_ns, now - self._timeout_ns)
        while self._interval_ns and self._has_more() and self._due_ns() < limit_ns:
            numbers.append(self._lose_one())
        return numbers

    def _count_waiting(self) -> None:
        """Count the probes that are due behind one without an answer as unanswered as well."""
        self._move_if_stopped()
        while self._interval_ns and self._has_more() and self._due_ns() <= clock():
            self._begin()
            self._result.unanswered += 1

    def _lose_one(self) -> int:
        """Count the next probe as lost, and return its number."""
        self._result.failures["lost"] += 1
        self._lost_away += 1
        return self._begin()

    def _unconnected(self, error: OSError, began_ns: int) -> Failure:
        """Count the next probe as lost, since its own connection could not be opened."""
        kind = _kind_of(error)
        if kind == "connect_timed_out" or self._next < self._last:
            self._go_away(began_ns, reason(error))
        self._result.failures[kind] += 1
        sentence = f"{_not_opened(error)}{reason(error)}"
        return self._result.told(Failure(kind, [self._lose_one()], sentence))


def _identity_on(line: Line, timeout_ns: int) -> Identity:
    """Read who answers on a new connection; if that fails it is closed."""
    try:
        return read_identity(line.sock, line.peer, timeout_ns / 1e9)
    except BaseException:
        line.sock.close()
        raise


def _not_opened(error: OSError) -> str:
    """Return how the sentence begins that tells why there is no new connection."""
    return "" if isinstance(error, NotIdentifiedError) else "cannot connect: "


def _kind_of(error: OSError) -> str:
    """Return what a failure to connect, or to be echoed at once, counts as."""
    kinds: tuple[tuple[type[OSError], str], ...] = (
        (ConnectionRefusedError, "refused"),
        (TimeoutError, "connect_timed_out"),
        (ConnectionResetError, "reset"),
        (ConnectionAbortedError, "closed"),
    )
    return next((kind for one, kind in kinds if isinstance(error, one)), "other")


def whole(name: str, value: object, most: int) -> int:
    """Return a whole number from 1 to `most`, or raise ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(name, value, f"must be a whole number from 1 to {most}")
    return value


def nanoseconds(name: str, value: object, must: str) -> int:
    """Return seconds as nanoseconds, or raise ConfigError."""
    if not isinstance(value, (int, float)) or not LEAST <= value <= LONGEST:
        raise ConfigError(name, value, f"must be {must} {LEAST:g} to {LONGEST:.0f} seconds")
    return round(value * 1e9)
