"""View: what can be seen of a server, in whatever state it is.

Lives here: addresses, sockets, queues, statistics, and whose process it is. Does not live here:
anything that changes a server (server.py, whose Server is a View).
"""

from __future__ import annotations

import os

from .errors import ConfigError, ForkedError
from .limits import milliseconds, seconds
from .listen_queue import NotListeningError, read_queues
from .stats import Stats

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import socket

    from . import _core
    from .address import Address
    from .callbacks import Callbacks
    from .config import Config
    from .crew import Crew
    from .datagram_socket import DatagramSocket
    from .latch import Latch
    from .listen_queue import ListenQueue
    from .listener import Listener
    from .tcp_info import TcpInfo

__all__ = ["View"]

SAMPLES_WAIT_MS = 1000
"""How long a worker may take to answer for its connections."""


class View:
    """The part of a Server that only looks. Thread: everything may be called from any thread."""

    config: Config
    _pid: int
    _core: _core.Core | None
    _listeners: list[Listener]
    _datagrams: list[DatagramSocket]
    _calls: Callbacks | None
    _crew: Crew
    _accepting: bool
    _refusing: bool
    _ending: bool
    _leaving: Latch
    _ended: Latch

    def __repr__(self) -> str:
        if not hasattr(self, "_ended"):
            return "<fastecho.Server not made>"  # its arguments were wrong
        if self._accepting and not self._ending:
            state = "refusing" if self._refusing else "listening"
        elif self._ended.is_open():
            state = "ended"
        else:
            state = "not started" if self._core is None else "ending"
        if not self._is_mine():
            state = f"of process {self._pid}"
        where = ", ".join(self._addresses())
        return f"<fastecho.Server {where + ' ' if where else ''}{state}>"

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The listeners, also after they were closed; empty before start()."""
        self._check_process()
        return tuple(self._listeners)

    @property
    def datagram_sockets(self) -> tuple[DatagramSocket, ...]:
        """The same for UDP."""
        self._check_process()
        return tuple(self._datagrams)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets, then those of UDP; empty when the server does not accept.

        Not to be closed.
        """
        self._check_process()
        return tuple(one.socket for one in self._opened()) if self._accepting else ()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as text that a client takes, UDP last; the same address only once."""
        self._check_process()
        return self._addresses()

    def _addresses(self) -> list[str]:
        return list(dict.fromkeys(str(one.address) for one in self._opened()))

    def _opened(self) -> list[Listener | DatagramSocket]:
        return [*self._listeners, *self._datagrams]

    @property
    def address(self) -> str:
        """The first of `addresses`."""
        return str(self._first_address())

    @property
    def host(self) -> str | None:
        """Host of the first address; None on a Unix socket."""
        return self._first_address().host

    @property
    def port(self) -> int | None:
        """Port of the first address; None on a Unix socket."""
        return self._first_address().port

    def _first_address(self) -> Address:
        self._check_process()
        for one in self._opened():
            return one.address
        raise RuntimeError("the server has no address before start()")

    @property
    def threads(self) -> int:
        """Number of workers."""
        return self.config.threads

    def is_serving(self) -> bool:
        """Tell whether it accepts connections now."""
        self._check_process()
        return self._accepting and not self._refusing

    def is_ready(self) -> bool:
        """Tell whether newcomers are wanted: it accepts, and is not about to end.

        For readiness probes: at the first signal or stop() it turns false, before accepting ends.
        """
        return self.is_serving() and not self._ending and not self._leaving.is_open()

    def is_ending(self) -> bool:
        """Tell whether accepting has ended, for good, and connections are left to finish."""
        self._check_process()
        return self._ending and not self._ended.is_open()

    def wait_retired(self, timeout: float | None = None) -> bool:
        """Wait until the end is near: a signal came, or retire(), stop() or another end began.

        For programs that tell others, as sd_notify(3) does. After close() it is near with the last
        connection.

        Args:
            timeout: seconds, float >= 0; None waits for ever.
        Returns:
            bool: True if it is near, or over.
        """
        self._check_process()
        return self._leaving.wait(None if timeout is None else seconds(timeout))

    def stats(self) -> Stats:
        """Return what was counted so far; after the end, the last state.

        Thread: any; no worker is disturbed.   Cost: some 10 microseconds a worker, and those of
        listen_queue().
        """
        self._check_process()
        failures = 0 if self._calls is None else self._calls.failures
        counters = [] if self._core is None else self._core.counters()
        try:
            queue = self._queue()
        except OSError:
            queue = None
        return Stats(counters, failures, queue, sum(one.drops() for one in self._datagrams))

    def listen_queue(self) -> ListenQueue:
        """Return how full the accept queues of the listeners are, now.

        Raises:
            RuntimeError: the server does not accept: it has not begun, refuses, or has ended; or
                it has no listener, but UDP.
            OSError: the kernel tells of none of them: netlink is forbidden, or no descriptor is
                left for it, and all are Unix sockets.
        Thread: any; no worker is disturbed.   Cost: some microseconds a listener; of a Unix
        socket some tens.
        """
        queue = self._queue()
        if queue is None:
            raise RuntimeError("there is no accept queue: the server does not accept")
        return queue

    def _queue(self) -> ListenQueue | None:
        self._check_process()
        core = self._core
        if core is None or not self._accepting or self._refusing or self._ending:
            return None
        if not self._listeners:
            return None
        try:
            return read_queues(self._listeners, core.highest_depths())
        except NotListeningError:  # it has ended meanwhile, or is about to refuse
            return None

    def tcp_info(self, most: int = 100) -> list[TcpInfo]:
        """Ask the kernel about open TCP connections: round-trip times, retransmissions.

        Args:
            most: about so many, spread evenly over those that are open; int, 1 to 1,000,000.
        Returns:
            list[TcpInfo]: without those of a worker that is kept by a callback for more than a
            second; empty before the start and after the end.
        Raises:
            ConfigError: `most` is out of range.
            RuntimeError: called from a callback: its worker would wait for itself.
        Thread: any; each worker is interrupted once.   Cost: about two microseconds a connection,
        on its worker.
        """
        self._check_process()
        if type(most) is not int or not 1 <= most <= 1_000_000:
            raise ConfigError("most", most, "must be a whole number from 1 to 1000000")
        if self._crew.has_current():
            raise RuntimeError("tcp_info() in a callback would wait for itself")
        if self._core is None or self._ended.is_open():
            return []
        from .peer import read_name
        from .tcp_info import TcpInfo

        return [
            TcpInfo(number, read_name(address), rtt / 1e6, rttvar / 1e6, retransmissions)
            for number, address, rtt, rttvar, retransmissions in self._core.samples(
                most, SAMPLES_WAIT_MS
            )[0]
        ]

    def silent_workers(self, timeout: float = 1.0) -> list[int]:
        """Ask every worker for a sign of life; return those that give none.

        For watchdogs: a worker that hangs, or a callback that never returns, is found by this.
        A worker that has ended is silent as well; while the server drains, some end before others,
        and are not.

        Args:
            timeout: seconds that they have together, 0 or more.
        Returns:
            list[int]: worker numbers from 0; empty before the start and after the end.
        Raises:
            RuntimeError: called from a callback: its worker would wait for itself.
        Thread: any; each worker is interrupted once.   Cost: some microseconds a worker.
        """
        self._check_process()
        if self._crew.has_current():
            raise RuntimeError("silent_workers() in a callback would wait for itself")
        if self._core is None or self._ended.is_open():
            return []
        _, answered = self._core.samples(0, milliseconds(seconds(timeout)))
        if self._ended.is_open():
            return []
        return [
            worker
            for worker, answer in enumerate(answered)
            if answer is False or (answer is None and not self._ending)
        ]

    def _is_mine(self) -> bool:
        """Tell whether this process is the one that made the server, and not a forked child."""
        return os.getpid() == self._pid

    def _check_process(self) -> None:
        if not self._is_mine():
            raise ForkedError(
                f"this server lives in process {self._pid}: a forked child cannot use it"
            )
