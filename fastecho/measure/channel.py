"""One open connection and the probes that are under way on it: sent, timed, verified.

Lives here: sending and receiving, matching replies with probes, noticing how a connection ends.
Does not live here: when a probe is due and what follows when the connection is lost (pinger.py),
opening it (route.py), the bytes (probes.py).

The usual probe is sent and answered while nothing else is under way. It is timed by two readings
of the clock around a blocking send(2) and recv(2), with no poll(2) and no statement of Python
between but the calls themselves; bytes are compared after the second reading. A blocking recv
gives up after a short while (SO_RCVTIMEO). From then on, and for anything that is not usual (a
reply in pieces, several probes under way, large probes), the socket is non-blocking, and select(2)
waits until a reply, the next probe, or the end of patience.

Every byte is verified. After an answer that was wrong and not of the right length nobody can say
where the next one begins: such a connection is given up.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from struct import pack
from time import perf_counter_ns as clock

from fastecho.dial import reason
from fastecho.errors import shown

from .ping_events import Failure, Reply

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .ping_events import Event
    from .ping_result import PingResult
    from .probes import Probes
    from .route import Line

__all__ = ["CLOSED", "NO_ECHO", "RESET", "Channel", "ChannelEndedError", "Waiting"]

AT_ONCE = 16384
"""Probes up to this size fit into every socket's buffers: sending them cannot wait for a reply."""

ROOM = 512
"""Bytes that a reply may have too many and still be read at once."""

SLICE_NS = 250_000_000
"""Longest single wait. A signal that comes just before one is heeded when it ends."""

SELECT_LIMIT = 1024
"""select(2) takes no descriptor from this number on (FD_SETSIZE)."""

SHOWN_BYTES = 40
"""So much of a wrong answer is shown."""

NO_ECHO = "it answered, but not with what was sent"
CLOSED = "closed by the peer (FIN)"
RESET = "reset by the peer (RST)"


class Waiting:
    """How a signal handler and a program that waits get along.

    Attributes:
        interruptible: the program waits: a handler that raises leaves every count right.
        stopped: somebody wants an end; no new wait begins.
    """

    __slots__ = ("interruptible", "stopped")

    def __init__(self) -> None:
        self.interruptible = self.stopped = False

    def sleep(self, ns: int) -> None:
        """Wait for so long, or for a slice of it."""
        try:
            self.interruptible = True
            if not self.stopped and ns > 0:
                time.sleep(min(ns, SLICE_NS) / 1e9)
        finally:
            self.interruptible = False


class ChannelEndedError(Exception):
    """The connection is of no more use.

    Attributes:
        kind: closed, reset, other, or timed_out: a key of PingResult.failures; "" if it was given
            up after a wrong answer, which has been told already.
        sentence: what happened.
        numbers: the probes that are lost with it.
        since_ns: when it began, by the clock.
    """

    def __init__(self, kind: str, sentence: str, numbers: list[int], since_ns: int) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
        self.numbers = numbers
        self.since_ns = since_ns


class Channel:
    """Send probes on one connection; what becomes of them is yielded, and counted in `result`.

    Every method that yields raises ChannelEndedError when the connection is of no more use.
    `tick_ns` is how long a blocking call may last at most.

    Attributes:
        line: the connection.
        waited_ns: so long its probes were due before they were sent; it counts as their time.
    """

    def __init__(
        self,
        line: Line,
        probes: Probes,
        result: PingResult,
        waiting: Waiting,
        timeout_ns: int,
        tick_ns: int,
    ) -> None:
        self.line = line
        self.waited_ns = 0
        self._sock = line.sock
        self._probes = probes
        self._result = result
        # What the instance that answers on it has answered in all; None: nobody asked who.
        self._tally = result.tally_of(line.identity)
        self._waiting = waiting
        self._timeout_ns = timeout_ns
        self._tick = min(tick_ns, timeout_ns, SLICE_NS) / 1e9
        self._is_large = probes.size > AT_ONCE
        self._buffer = bytearray(probes.size + ROOM)
        self._send, self._recv_into = self._sock.send, self._sock.recv_into
        # Probes that were begun and not answered, with when that was.
        self._under_way: deque[tuple[int, int]] = deque()
        # What of them was not sent yet, with how many bytes were.
        self._unsent: deque[tuple[int, int]] = deque()
        # What has come of the oldest one's reply.
        self._came = bytearray()
        # When a byte came last.
        self._heard_ns = 0
        # None: not set yet.
        self._blocking: bool | None = None
        if sys.platform == "linux":
            _give_up_after(self._sock, self._tick)
        self._block(True)

    @property
    def unanswered(self) -> int:
        """How many probes are under way."""
        return len(self._under_way)

    def close(self) -> None:
        """Close the connection; what is under way is nobody's business any more."""
        self._sock.close()

    def probe(self, number: int) -> Iterable[Event]:
        """Send a probe, and take its reply if nothing else is under way and it comes soon.

        A function that returns a tuple for the usual case: a generator would cost a microsecond,
        in which the server falls asleep.
        """
        if self._under_way or self._is_large:
            return self._queue(number)
        if not self._blocking:
            self._block(True)
        waiting, data = self._waiting, self._probes.bytes_of(number)
        send, recv_into, buffer = self._send, self._recv_into, self._buffer
        sent_ns = came_ns = took = 0
        came = -1
        failure: OSError | None = None
        try:
            waiting.interruptible = True
            if not waiting.stopped:
                sent_ns = clock()
                took = send(data)
                came = recv_into(buffer)
                came_ns = clock()
        except (BlockingIOError, TimeoutError):
            pass  # not yet
        except OSError as error:
            failure = error
        except BaseException:
            # A signal that comes during send(2) is heeded after it: it was sent, took is not set.
            self._result.transmitted += sent_ns > 0
            self._under_way.append((number, sent_ns))
            raise
        finally:
            waiting.interruptible = False
        if took:
            self._result.transmitted += 1
        if came == len(data) and buffer.startswith(data):
            return (self._received(number, came_ns - sent_ns),)
        self._under_way.append((number, sent_ns))
        if took < len(data):
            self._unsent.append((number, took))
        return self._go_on(failure, came, came_ns)

    def _queue(self, number: int) -> Iterator[Event]:
        """Send a probe as far as there is room, behind those under way."""
        self._under_way.append((number, clock()))
        self._unsent.append((number, 0))
        self._push()
        yield from ()

    def _go_on(self, failure: OSError | None, came: int, came_ns: int) -> Iterator[Event]:
        """Take what a probe had instead of its whole reply; -1 bytes is nothing yet."""
        if failure is not None:
            raise self._failed(failure)
        if came >= 0:
            yield from self._absorb(came, came_ns)

    def attend(self, until_ns: int | None) -> Iterator[Event]:
        """Wait until `until_ns`, or a while; take what comes, and give up after silence."""
        now, limit = clock(), until_ns
        patience_ns = None
        if self._under_way:
            patience_ns = max(self._heard_ns, self._under_way[0][1]) + self._timeout_ns
            limit = patience_ns if limit is None else min(limit, patience_ns)
        wait_ns = SLICE_NS if limit is None else min(max(limit - now, 0), SLICE_NS)
        readable, writable = self._wait(wait_ns)
        if writable:
            self._push()
        if readable:
            yield from self.take()
        elif patience_ns is not None and clock() >= patience_ns:
            sentence = f"no answer for {self._timeout_ns / 1e9:g} s"
            raise self._ended("timed_out", sentence, self._under_way[0][1])

    def take(self) -> Iterator[Event]:
        """Receive what is here, without waiting."""
        self._block(False)
        while True:
            try:
                came = self._sock.recv_into(self._buffer)
                at_ns = clock()
            except BlockingIOError:
                return
            except OSError as error:
                raise self._failed(error) from None
            yield from self._absorb(came, at_ns)

    def see_out(self, until_ns: int, *, half_close: bool) -> Iterator[Event]:
        """Take what comes after the last reply, until `until_ns` or the peer's end of it.

        With `half_close` the peer is told that no more probes come: it has no reason to wait.
        """
        if half_close:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it is over already, and the next call says how
        yield from self.take()
        while not self._waiting.stopped and (left_ns := until_ns - clock()) > 0:
            if self._wait(min(left_ns, SLICE_NS))[0]:
                yield from self.take()

    def _push(self) -> None:
        """Send what the kernel takes now."""
        self._block(False)
        while self._unsent:
            number, done = self._unsent[0]
            try:
                took = self._sock.send(memoryview(self._probes.bytes_of(number))[done:])
            except BlockingIOError:
                return
            except OSError as error:
                raise self._failed(error) from None
            self._result.transmitted += done == 0
            if done + took < self._probes.size:
                self._unsent[0] = (number, done + took)
            else:
                self._unsent.popleft()

    def _wait(self, ns: int) -> tuple[bool, bool]:
        """Wait until there is something to receive, or room for what is to be sent."""
        sock, waiting = self._sock, self._waiting
        try:
            waiting.interruptible = True
            if waiting.stopped:
                return False, False
            if sock.fileno() < SELECT_LIMIT or not hasattr(select, "poll"):
                # Not poll(2), which knows milliseconds only.
                found = select.select([sock], [sock] if self._unsent else [], [], ns / 1e9)
                return bool(found[0]), bool(found[1])
            poller = select.poll()
            poller.register(sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            ready = poller.poll(ns / 1e6)
            events = ready[0][1] if ready else 0
            return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)
        finally:
            waiting.interruptible = False

    def _absorb(self, count: int, at_ns: int) -> Iterator[Event]:
        """Verify so many bytes of the buffer, which came at that time; none is the end."""
        if not count:
            raise self._ended("closed", CLOSED)
        self._heard_ns = at_ns
        self._came += memoryview(self._buffer)[:count]
        size = self._probes.size
        while self._under_way and self._came:
            number, sent_ns = self._under_way[0]
            if not self._probes.bytes_of(number).startswith(self._came[:size]):
                yield from self._take_wrong(number)
                return
            if len(self._came) < size:
                return
            del self._came[:size]
            self._under_way.popleft()
            yield self._received(number, at_ns - sent_ns)
        if self._came:
            extra = len(self._came)
            self._result.failures["extra_bytes"] += extra
            start = shown(bytes(self._came[:SHOWN_BYTES]))
            sentence = f"it sent more than it got: {extra} more bytes, which begin {start}"
            yield self._result.told(Failure("extra_bytes", [], sentence))
            raise self._given_up()

    def _take_wrong(self, number: int) -> Iterator[Event]:
        """Count an answer that is wrong; keep the connection if its length at least is right."""
        reply = bytes(self._came[: self._probes.size])
        keep = len(self._came) == self._probes.size and len(self._under_way) == 1
        self._came.clear()
        self._under_way.popleft()
        other = self._probes.number_of(reply, number)
        kind = "corrupt" if other is None else "misplaced"
        self._result.failures[kind] += 1
        if other is None:
            difference = self._probes.difference(reply, number)
            sentence = f"{NO_ECHO}: {difference}; it begins {shown(reply[:SHOWN_BYTES])}"
        else:
            sentence = f"it answered with the bytes of seq={other}"
        yield self._result.told(Failure(kind, [number], sentence))
        if not keep:
            raise self._given_up()

    def _received(self, number: int, time_ns: int) -> Reply:
        """Count a reply that is right, so long after its probe was sent."""
        time_ns += self.waited_ns
        late = time_ns > self._timeout_ns
        result = self._result
        result.received += 1
        result.timings.add(time_ns)
        if self._tally is not None:
            self._tally.received += 1
        if late:
            result.failures["late"] += 1
        line = self.line
        return Reply(number, time_ns, late, line.connect_ns, self.waited_ns, line.identity)

    def _failed(self, error: OSError) -> ChannelEndedError:
        """Return the end that an error of the socket means."""
        if isinstance(error, ConnectionResetError):
            return self._ended("reset", RESET)
        if isinstance(error, BrokenPipeError):
            return self._ended("closed", CLOSED)
        return self._ended("other", reason(error))

    def _ended(self, kind: str, sentence: str, since_ns: int | None = None) -> ChannelEndedError:
        if self._came:
            sentence += f", after {len(self._came)} of {self._probes.size} bytes"
        numbers = [number for number, _ in self._under_way]
        self._under_way.clear()
        return ChannelEndedError(kind, sentence, numbers, since_ns or clock())

    def _given_up(self) -> ChannelEndedError:
        self._came.clear()
        return self._ended("", "lost with the connection, which is given up")

    def _block(self, blocking: bool) -> None:
        """Make the socket's calls wait for a short while, or not at all."""
        if blocking is self._blocking:
            return
        self._blocking = blocking
        if sys.platform == "linux":
            self._sock.setblocking(blocking)
        else:
            self._sock.settimeout(self._tick if blocking else 0)


def _give_up_after(sock: socket.socket, seconds: float) -> None:
    """Let blocking calls return after a while, without a poll(2) before each (socket(7))."""
    interval = pack("@ll", int(seconds), max(round(seconds % 1 * 1_000_000), 1))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
