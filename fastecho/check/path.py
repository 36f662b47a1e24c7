"""Path: where the probes go, how long they wait, and how they connect, wait and are ended.

Lives here: addresses, connections with a deadline, waiting that the end of the check interrupts.
Does not live here: sending and reading (talk.py), which probes there are and in which order they
run (runner.py), what anything means (probes/).

Every wait of a probe goes through Path.wait: it ends with Cancelled when somebody ends the check,
and with OutOfTime when the check's own time is over.
"""

from __future__ import annotations

import copy
import errno
import os
import select
import socket
import threading
from time import monotonic, perf_counter

from fastecho.check.verdict import Cancelled, OutOfTime
from fastecho.dial import connect_error, is_itself, resolve, text_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from fastecho.address import Address

__all__ = ["NotConnected", "Path", "Stream", "no_route", "streams_of"]

CONNECT_SECONDS = 4.0
"""A lost SYN is sent again 1, 2 and 3 s after the first (Linux from 6.5 on), or 1 and 3 s after."""
ROOM_SECONDS = 0.02
"""After which a Unix listener whose queue was full is tried again."""
ROUND_TRIPS = 30
"""A deadline is never shorter than so many round trips."""
UNREACHED = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EHOSTUNREACH)


class NotConnected(OSError):  # noqa: N818 (as NotTestable)
    """A connection that could not be opened, though the server was reached before."""


class Stream:
    """An open connection, not blocking.

    Attributes:
        sock: the socket.
        connect_s: how long it took to connect, in seconds.
        port: our own port; 0 for a Unix socket.
    """

    __slots__ = ("connect_s", "port", "sock")

    def __init__(self, sock: socket.socket, connect_s: float) -> None:
        self.sock = sock
        self.connect_s = connect_s
        name = sock.getsockname()
        self.port = name[1] if isinstance(name, tuple) else 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def reset(self) -> None:
        """End it by RST."""
        from struct import pack

        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        self.sock.close()


class _Found:
    """What the first probes have found out, for those behind them."""

    def __init__(self) -> None:
        self.place: tuple[int, object] | None = None
        self.rtt = 0.0
        self.mss = 0
        self.loss = 0.0
        self.trains: Any = None
        self.train_lock = threading.Lock()


class Path:
    """The way to one echo server.

    Args:
        address: where it is; a name is resolved when it is needed first.
        timeout: seconds of silence after which something counts as gone.
        seed: of the bytes that are sent.
        quick: whether the whole check has to be short.
        idle: for how many seconds connections are left alone, a ladder.
        connections: how many are open at a time.
        direct: another way to the same server, to compare with; None without one.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = 5.0,
        seed: int = 1,
        quick: bool = False,
        idle: Sequence[float] = (),
        connections: int = 50,
        direct: Path | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.seed = seed
        self.quick = quick
        self.idle = tuple(idle)
        self.connections = connections
        self.direct = direct
        # When a probe has to be done, by monotonic(); None: when it is.
        self.end: float | None = None
        self._found = _Found()
        self._wake = os.pipe()
        self._cancelled = [False]

    def until(self, end: float | None) -> Path:
        """Return the same path, whose waits end at this moment."""
        other = copy.copy(self)
        other.end = end
        if self.direct is not None:
            other.direct = self.direct.until(end)
        return other

    def close(self) -> None:
        """Give the descriptors back; no probe may run any more."""
        for one in self._wake:
            os.close(one)
        if self.direct is not None:
            self.direct.close()

    def cancel(self) -> None:
        """End every probe that runs, from any thread or from a signal handler."""
        self._cancelled[0] = True
        os.write(self._wake[1], b"x")
        if self.direct is not None:
            self.direct.cancel()

    # What is known of it

    @property
    def is_tcp(self) -> bool:
        """Whether it is no Unix socket."""
        return self.address.kind == "tcp"

    @property
    def rtt(self) -> float:
        """Seconds from a message to its echo, as the first probes saw it; 0 before."""
        return self._found.rtt

    @rtt.setter
    def rtt(self, seconds: float) -> None:
        self._found.rtt = seconds

    @property
    def mss(self) -> int:
        """The MSS that connections are limited to, because larger segments are lost; 0: none."""
        return self._found.mss

    @mss.setter
    def mss(self, size: int) -> None:
        self._found.mss = size

    @property
    def loss(self) -> float:
        """The share of datagrams that do not come back at a low rate, 0 to 1; UDP only."""
        return self._found.loss

    @loss.setter
    def loss(self, share: float) -> None:
        self._found.loss = share

    @property
    def trains(self) -> Any:
        """What trains of datagrams have shown (train.py); None before."""
        return self._found.trains

    @trains.setter
    def trains(self, found: Any) -> None:
        self._found.trains = found

    @property
    def train_lock(self) -> threading.Lock:
        """Held by the probe that runs the trains."""
        return self._found.train_lock

    @property
    def place(self) -> tuple[int, object]:
        """Family and socket address of what answered first."""
        if self._found.place is None:
            self._found.place = resolve(self.address)[0]
        return self._found.place

    @place.setter
    def place(self, place: tuple[int, object]) -> None:
        self._found.place = place

    @property
    def place_text(self) -> str:
        """That address as text."""
        return text_of(*self.place)

    @property
    def patience(self) -> float:
        """Seconds without a sign of life after which one does not come any more."""
        return max(self.timeout, ROUND_TRIPS * self.rtt)

    @property
    def connect_patience(self) -> float:
        """Seconds for connecting."""
        return max(self.timeout, CONNECT_SECONDS, ROUND_TRIPS * self.rtt)

    def left(self) -> float:
        """Return the seconds that are left for this probe."""
        return float("inf") if self.end is None else self.end - monotonic()

    # Waiting

    def wait(self, poller: select.poll, until: float) -> list[tuple[int, int]]:
        """Wait for events, or until this moment; an event of ours is none of them.

        The poller must have been made by poller().
        """
        end = until if self.end is None else min(until, self.end)
        events = poller.poll(max(end - monotonic(), 0) * 1e3 + 0.999)
        if self._cancelled[0]:
            raise Cancelled
        if self.end is not None and monotonic() >= self.end:
            raise OutOfTime
        return events

    def poller(self) -> select.poll:
        """Return a poller that the end of the check wakes."""
        poller = select.poll()
        poller.register(self._wake[0], select.POLLIN)
        return poller

    def sleep(self, seconds: float) -> None:
        """Wait for so long."""
        poller, until = self.poller(), monotonic() + seconds
        while monotonic() < until:
            self.wait(poller, until)

    # Connecting

    def places(self, family: int = 0) -> Sequence[tuple[int, object]]:
        """Return all that the address stands for, of one family or of both."""
        return resolve(self.address, family)

    def open(self, **options: object) -> Stream:
        """Connect; as connect_all() does with one.

        Raises:
            NotConnected: an OSError with an errno and a sentence.
        """
        (stream,) = self.connect_all([self.place], **options)  # type: ignore[arg-type]
        if isinstance(stream, OSError):
            error = connect_error(self.address, [(self.place_text, stream)])
            raise NotConnected(error.errno, error.strerror)
        return stream

    def open_all(self, number: int, **options: object) -> list[Stream | OSError]:
        """Connect so many times at once, to what answered first."""
        return self.connect_all([self.place] * number, **options)  # type: ignore[arg-type]

    def connect_all(
        self,
        places: Iterable[tuple[int, object]],
        *,
        tcp: Iterable[Mapping[int, int]] = (),
        receive_buffer: int = 0,
        ports: Sequence[int | None] | None = None,
        patience: float = 0.0,
        enough: int = 0,
    ) -> list[Stream | OSError]:
        """Connect to each of these addresses at once; return streams and errors in their order.

        Args:
            places: family and address of each.
            tcp: options of TCP to set before, for each.
            receive_buffer: SO_RCVBUF of all, set before; 0 leaves the kernel's own.
            ports: our own port of each; 0 lets the kernel choose it before it connects (Linux then
                takes an odd one), None while it does (an even one).
            patience: seconds; 0: the path's own.
            enough: do not wait for the others when so many are connected; 0: all.
        """
        options = list(tcp)
        opening = _Opening(self)
        try:
            for i, (family, place) in enumerate(places):
                sock = opening.new(family)
                if sock is None:
                    continue
                if receive_buffer:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                for option, value in options[i].items() if options else self._tcp_options():
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
                opening.begin(i, sock, place, None if ports is None else ports[i])
            return opening.finish(monotonic() + (patience or self.connect_patience), enough)
        except BaseException:
            opening.abandon()
            raise

    def _tcp_options(self) -> Iterable[tuple[int, int]]:
        return ((socket.TCP_MAXSEG, self.mss),) if self.mss and self.is_tcp else ()


class _Opening:
    """Connections that are being made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: list[Stream | OSError] = []
        self._waiting: dict[int, tuple[int, socket.socket, float]] = {}
        # Of these, Unix sockets whose listener had no room, and where they connect to.
        self._roomless: dict[int, object] = {}
        self._poller = path.poller()

    def new(self, family: int) -> socket.socket | None:
        """Return a new socket, or None and note the failure."""
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._done.append(error)
            return None
        self._done.append(OSError(errno.ECONNABORTED, "not connected yet"))
        sock.setblocking(False)
        if family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def begin(self, i: int, sock: socket.socket, place: object, port: int | None) -> None:
        """Begin to connect."""
        began = perf_counter()
        self._waiting[sock.fileno()] = (i, sock, began)
        try:
            if port is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("", port))
            sock.connect(place)  # type: ignore[arg-type]
        except BlockingIOError as error:
            if error.errno == errno.EAGAIN:  # a full queue of a Unix listener gives no event
                self._roomless[sock.fileno()] = place
            else:
                self._poller.register(sock, select.POLLOUT)
        except OSError as error:
            self._end(sock, error)
        else:
            self._end(sock, None)

    def _try_again(self) -> None:
        """Try those again whose listener had no room."""
        for fd, place in list(self._roomless.items()):
            sock = self._waiting[fd][1]
            try:
                sock.connect(place)  # type: ignore[arg-type]
            except BlockingIOError:
                return  # the others find none either
            except OSError as error:
                self._end(sock, error)
            else:
                self._end(sock, None)

    def finish(self, until: float, enough: int) -> list[Stream | OSError]:
        """Wait until each is connected, or so many are, has failed, or has had its time."""
        while self._waiting and monotonic() < until:
            if 0 < enough <= sum(isinstance(one, Stream) for one in self._done):
                break
            soon = min(until, monotonic() + ROOM_SECONDS) if self._roomless else until
            events = self._path.wait(self._poller, soon)
            self._try_again()
            for fd, _ in events:
                _, sock, _ = self._waiting[fd]
                self._poller.unregister(fd)
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self._end(sock, OSError(number, os.strerror(number)) if number else None)
        for _, sock, _ in list(self._waiting.values()):
            self._end(sock, OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
        return self._done

    def _end(self, sock: socket.socket, error: OSError | None) -> None:
        i, _, began = self._waiting.pop(sock.fileno())
        self._roomless.pop(sock.fileno(), None)
        took = perf_counter() - began
        if error is None and sock.family != getattr(socket, "AF_UNIX", None) and is_itself(sock):
            error = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if error is None:
            self._done[i] = Stream(sock, took)
            return
        name = sock.getsockname()
        error.port = name[1] if isinstance(name, tuple) else 0  # type: ignore[attr-defined]
        self._done[i] = error
        sock.close()

    def abandon(self) -> None:
        """Close all."""
        for _, sock, _ in self._waiting.values():
            sock.close()
        for one in self._done:
            if isinstance(one, Stream):
                one.close()


def no_route(family: int, place: object) -> str:
    """Return why this machine cannot even try to reach an address; "" if it can.

    Connecting a UDP socket looks the route up, and sends nothing.
    """
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(place)  # type: ignore[arg-type]
    except OSError as error:
        if error.errno in UNREACHED:
            return error.strerror or str(error)
    return ""


def streams_of(found: Iterable[Stream | OSError]) -> list[Stream]:
    """Return those that are connected; if one has failed, close all and raise its error."""
    streams, error = [], None
    for one in found:
        if isinstance(one, OSError):
            error = one
        else:
            streams.append(one)
    if error is not None:
        for stream in streams:
            stream.close()
        words = f"a connection could not be opened: {error.strerror or error}"
        raise NotConnected(error.errno, words)
    return streams
