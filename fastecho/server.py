"""Server: the life cycle of an echo server, and the accept callback.

Lives here: starting and ending workers. Does not live here: what can be seen of a server (view.py),
sockets (opening.py), settings (config.py), the accept callback (admission.py), signals
(signals.py), fork and exit (process.py), payload: no byte of a peer ever passes through this file.

Theory of operation. start() opens the listeners, builds the core (_core.Core) and starts one
daemon thread for each worker; each sits in Core.run() without the GIL until it was told to end
and nothing is left to serve. One more thread writes the log (reporter.py), and sleeps unless there
is something to write. With `on_accept` there is another: it takes newcomers from the core in
batches, asks the callback, and posts the verdict. Nothing waits for it but the newcomer.

Ending is a message: stop_accepting, then drain with a deadline that the workers keep, or abort.
The last worker to leave closes the listeners and gives the core's memory back (_finish), so a
stop() that is called where it must not wait (a callback) only signals. Waiting is always for
`_ended`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import suppress
from functools import partial

from . import _core, process
from .admission import ask_for_each
from .config import Config
from .crew import Crew
from .datagram_socket import datagrams_of
from .front import front_of
from .latch import Latch
from .limits import limits_of, milliseconds, seconds
from .listener import Listener, handshake_grace
from .opening import open_sockets
from .passing import Passing
from .reporter import write_log
from .settings import DEFAULT_MAX_PENDING
from .signals import block_signals, ending_signals

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .callbacks import Callbacks, OnClose, OnConnection, OnMessage
    from .config import AtLimit, Bind, Bytes, Frame, LogFormat, Networks, ProxyProtocol, Service
    from .datagram_socket import DatagramSocket
    from .faults import Fault
    from .peer import Peer

    OnAccept = Callable[[Peer], object]

__all__ = ["Server"]

log = logging.getLogger("fastecho")

FRAMES = {"recv": 0, "line": 1, "length": 2}
NO_CALLBACKS: dict[str, Any] = {
    "on_accept": None,
    "on_message": None,
    "on_drain": None,
    "on_eof": None,
    "on_close": None,
    "memoryviews": False,
    "max_pending": DEFAULT_MAX_PENDING,
    "slow_callback_duration": None,
}
"""What callbacks.py takes of the arguments of Server(), where there are none."""
ACCEPT_THREAD = "fastecho-accept"
"""Name of the thread of the accept callback, and of on_close without on_message."""
CLOSE_WAIT = 5.0
"""Seconds to wait for workers to leave their listeners; they need microseconds and the grace."""
LOG_WAIT = 2.0
"""Seconds that the last lines of the log have; nobody may read them."""


class Server(Passing):
    """An echo server on the compiled core.

    It listens from start() to close(), stop() or abort(), and ends with its last connection.
    A server is used once: after it has ended, make another one. A process can have many.

    Args:
        bind: where to listen: "HOST:PORT", "[::1]:7", ":7", "udp://HOST:PORT", "unix:PATH",
            "fd://3", "systemd:NAME", a (host, port) pair, or a list of these. Port 0 picks a free
            one.
        threads: workers, each with its own loop; int >= 1.
        backlog: length of the accept queue, in connections; None for the system's limit.
        reuse_port: one listener for each worker with SO_REUSEPORT, instead of one for all.
        service: "echo", "discard" (all input is dropped, RFC 863) or "chargen" (a pattern without
            end, RFC 864).
        frame: "recv", "line" or "length": how bytes are cut into messages.
        prefix, suffix: bytes-like (or str, as UTF-8) put around each message, at most 4096 bytes.
        max_frame: longest message of line and length frames, in bytes.
        high_water, low_water: bytes pending at which reading pauses, and goes on.
        max_connections: open connections; a newcomer above it is reset. None for no limit.
        at_limit: "reset", or "queue": a newcomer above max_connections waits in the accept queue.
        max_per_ip: open connections of one peer address; None for no limit. Of an IPv6 address
            the first `ipv6_prefix` bits count.
        accept_rate: newcomers a second, with bursts of a tenth of that; None for no limit. One
            above it is reset.
        udp_rate: datagrams of one source address that each worker answers a second, with bursts of
            one second; None for no limit.
        udp_guards: answer no datagram from a port below 1024 or one of ours, none from or to a
            broadcast address or a group, and end loops with other servers.
        first_byte_timeout: seconds until the first byte must have come; None for no limit.
        idle_timeout: seconds without a byte in either direction; None for no limit.
        proxy_protocol: "off", or "optional" or "required": a PROXY header before the first byte
            tells who the peer is.
        proxy_trusted: whose headers are believed: ranges, "10.0.0.0/8,::1" or a list of these.
        proxy_timeout: seconds that the header may take to come.
        identify: send one line of JSON, before all else, that says who answers.
        instance: the server's name in it; None for the host's name.
        user_timeout: seconds that a TCP peer has to acknowledge what was sent; None: the system's.
        keepalive: seconds of silence after which TCP asks the peer, three times so far apart,
            whether it is there; None: never.
        send_buffer, receive_buffer: kernel memory of a TCP connection in each direction, in
            bytes; None for what the system gives, which grows to some MB.
        graceful_timeout: seconds that stop() gives connections by default.
        drain_delay: seconds from the first signal of serve_forever() in which newcomers are still
            accepted, and is_ready() says no.
        drain_idle: seconds of quiet after which a draining connection is ended.
        spin_us: microseconds to poll before blocking: less latency for more CPU.
        access_log: a line for each connection at its end, by the logger "fastecho.access".
        access_log_sample: one connection in so many has a line.
        access_log_rate: lines a second; None for no limit. What is above is counted.
        log_format: "text" or "json": what the lines of the access log look like.
        fault: what goes wrong on purpose, a Fault or its text; None for nothing.
        on_accept: called with a Peer for each newcomer, on a thread of its own, one at a time;
            the connection is served after it returned. None or True accepts, False resets; a
            Fault is that peer's, whatever `fault` says.
            An exception is logged, counted, and resets that newcomer.
        on_message: called with a Connection and each frame, bytes, instead of echoing it. A
            bytes-like result is the reply; Connection.write() sends at any time. Lines have their
            line end, length frames no header. This and the next three run on the connection's
            worker, one at a time; an exception resets its connection and no other.
        on_drain: called with a Connection whose write() returned False, at low water.
        on_eof: called at the peer's FIN. Unless it returns a true value, ours follows.
        on_close: called with a Connection and a Reason at the end of each that was served.
        memoryviews: on_message gets memoryviews, which may be kept, instead of bytes.
        max_pending: bytes that may wait for a peer before it is reset, from high_water on.
        slow_callback_duration: seconds from which a callback is logged, 0.000001 or more; None
            for never.
    Raises:
        ConfigError: a value is wrong; the text names it.
    Thread: every method may be called from any thread.
    """

    def __init__(
        self,
        bind: Bind | Sequence[Bind] = "127.0.0.1:0",
        *,
        threads: int = 1,
        backlog: int | None = None,
        reuse_port: bool = False,
        service: Service = "echo",
        frame: Frame = "recv",
        prefix: Bytes = b"",
        suffix: Bytes = b"",
        max_frame: int | None = None,
        high_water: int = 262144,
        low_water: int | None = None,
        max_connections: int | None = None,
        at_limit: AtLimit = "reset",
        max_per_ip: int | None = None,
        ipv6_prefix: int = 64,
        accept_rate: int | None = None,
        udp_rate: int | None = 1000,
        udp_guards: bool = True,
        first_byte_timeout: float | None = None,
        idle_timeout: float | None = None,
        proxy_protocol: ProxyProtocol = "off",
        proxy_trusted: Networks = "127.0.0.0/8,::1",
        proxy_timeout: float = 5.0,
        identify: bool = False,
        instance: str | None = None,
        user_timeout: float | None = None,
        keepalive: float | None = None,
        send_buffer: int | None = None,
        receive_buffer: int | None = None,
        graceful_timeout: float = 30.0,
        drain_delay: float = 0.0,
        drain_idle: float = 1.0,
        spin_us: int = 0,
        access_log: bool = False,
        access_log_sample: int = 1,
        access_log_rate: int | None = None,
        log_format: LogFormat = "text",
        fault: Fault | str | None = None,
        on_accept: OnAccept | None = None,
        on_message: OnMessage | None = None,
        on_drain: OnConnection | None = None,
        on_eof: OnConnection | None = None,
        on_close: OnClose | None = None,
        memoryviews: bool = False,
        max_pending: int = DEFAULT_MAX_PENDING,
        slow_callback_duration: float | None = None,
    ) -> None:
        given = locals()
        self.config = Config(**{name: given[name] for name in Config.__slots__})
        self._calls = self._callbacks(given)
        self._check_fault(self.config.fault)
        self._pid = os.getpid()
        # Reentrant: a signal handler may call stop() in the middle of another method.
        self._lock = threading.RLock()
        self._core: _core.Core | None = None
        self._listeners: list[Listener] = []
        self._datagrams: list[DatagramSocket] = []
        self._crew = Crew()
        self._starting: threading.Thread | None = None
        self._accepting = False
        self._refusing = False
        # Set before anything is done to the listeners for the end.
        self._ending = False
        # Opened before the end begins: it still accepts.
        self._leaving = Latch()
        self._delayed: threading.Timer | None = None
        self._admitting = False
        self._ended = Latch()

    def _callbacks(self, given: dict[str, Any]) -> Callbacks | None:
        """Return the callbacks among the arguments, if there are any."""
        chosen = {name: given[name] for name in NO_CALLBACKS}
        if chosen == NO_CALLBACKS:
            return None
        from .callbacks import Callbacks

        return Callbacks(self, **chosen)

    # --- starting --------------------------------------------------------------------------

    def start(self) -> None:
        """Open the listeners and start the workers; returns once connections are accepted.

        Installs no signal handlers.

        Raises:
            ConfigError: systemd:NAME, and no socket of that name was passed to this process.
            StartError: an address could not be resolved, bound or listened on.
            OSError: a descriptor, memory or a thread was refused; nothing is left behind.
            RuntimeError: it was started before.
            BaseException: what a signal handler raises (KeyboardInterrupt): it has not started, or
                has ended.
        Thread: any.   Cost: some hundred microseconds; a name waits for the resolver.
        """
        self._check_process()
        begun = False
        try:
            with self._lock:
                if self._core is not None or self._ended.is_open() or self._starting is not None:
                    raise RuntimeError("a Server starts once: make another one")
                self._starting = threading.current_thread()
                begun = True
                process.add(self)
                self._start()
                self._starting = None
        except BaseException:
            # Also that of a signal handler, wherever that came, be everything done.
            if begun:
                self._take_back()
            raise

    def _start(self) -> None:
        self._listeners, self._datagrams = open_sockets(
            self.config, self.config.threads, self._offers
        )
        if self._on_opened is not None:
            self._on_opened(self._listeners)
        self._core = core = self._make_core(self._listeners)
        self._tell_fault()
        if self._ended.is_open():  # a signal handler in this thread called stop()
            raise RuntimeError("the server was stopped while it was starting")
        self._accepting = True
        self._start_threads(core)

    def _take_back(self) -> None:
        """start() raises: nothing that it has begun goes on."""
        if self._core is not None:
            # Threads may still be starting. A worker belongs to the thread that claims it, in
            # Core.run(), or to nobody, here.
            if self._core.give_up():
                self._finish(self._core)
        else:
            self._close_sockets()
            self._listeners, self._datagrams = [], []
            process.remove(self)
        self._starting = None

    def _make_core(self, listeners: list[Listener]) -> _core.Core:
        config, calls = self.config, self._calls
        return _core.Core(
            config.threads,
            [
                (
                    one.socket.fileno(),
                    -1 if one.worker is None else one.worker,
                    one.owned,
                    one.family == socket.AF_UNIX,
                )
                for one in listeners
            ],
            FRAMES[config.frame],
            config.prefix,
            config.suffix,
            config.max_frame,
            config.high_water,
            config.low_water,
            # On one CPU whoever could bring work is waiting for us to sleep.
            config.spin_us if (os.cpu_count() or 1) > 1 else 0,
            calls is not None and calls.on_accept is not None,
            config.at_limit == "queue",
            limits_of(config),
            config.access_log_sample if config.access_log else 0,
            config.access_log_rate or 0,
            calls if calls is not None and calls.in_core else None,
            front_of(config),
            datagrams_of(config, self._datagrams),
        )

    def _start_threads(self, core: _core.Core) -> None:
        for worker in range(self.config.threads):
            self._crew.add(partial(self._work, core, worker), f"fastecho-{worker}")
        write = partial(write_log, core, self.config, self._listeners, self._ended.is_open)
        self._crew.add(write, "fastecho-log", LOG_WAIT)
        if self._calls is not None and self._calls.on_thread:
            self._crew.add(partial(self._ask, core, self._calls), ACCEPT_THREAD)
        try:
            self._crew.start()
        except RuntimeError as error:
            raise OSError(f"a worker's thread could not be started: {error}") from None

    def _ask(self, core: _core.Core, calls: Callbacks) -> None:
        """The accept callback's thread."""
        self._admitting = True
        ask_for_each(core, calls, self._check_fault, self._ended.is_open)

    def _work(self, core: _core.Core, worker: int) -> None:
        """A worker's thread."""
        if not (self._calls and self._calls.on_workers):  # processes that they start inherit it
            block_signals()
        try:
            if not core.run(worker):
                return
        except OSError as error:
            with suppress(Exception):  # a handler's
                log.critical("worker %d cannot go on, connections were reset: %s", worker, error)
        if core.leave() == 0:
            self._finish(core)

    def _finish(self, core: _core.Core) -> None:
        """What the last worker leaves behind is closed; whoever waits is woken.

        Takes no lock: a signal handler that waits for the end may have interrupted its holder.
        """
        self._ending = True
        self._leaving.open()
        core.leave_listeners()
        self._close_sockets()
        self._accepting = False
        core.release()
        process.remove(self)
        self._ended.open()
        core.wake_log()  # behind _ended, which is what that thread looks at
        if not self._admitting:
            core.end_admissions()
        else:
            core.wake()  # the same

    # --- ending ----------------------------------------------------------------------------

    def retire(self) -> None:
        """Let is_ready() say no from now on, and go on accepting: the end is near.

        For programs with signals of their own: load balancers need some time to look elsewhere
        before stop(). `drain_delay` does the same in serve_forever().
        """
        self._leaving.open()

    def close(self) -> None:
        """Stop accepting; connections live on, and the server ends with the last of them.

        As with asyncio's Server. Who was in the accept queue is accepted first, if there is
        a place. The port is free when this returns.
        """
        self._check_process()
        core = self._core
        if core is not None and not self._ended.is_open():
            self._ending = True
            core.stop_accepting(milliseconds(handshake_grace(self._listeners)))
            self._close_listeners(core)

    def stop(self, timeout: float | None = None) -> bool:
        """Stop accepting, let connections finish, and end.

        Echoing goes on. A connection that is quiet for `drain_idle` seconds gets a FIN; what is
        left at the deadline is reset.

        Args:
            timeout: seconds that connections have, float >= 0; None for `graceful_timeout`.
        Returns:
            bool: False if connections had to be reset (or, called from the accept callback,
            which only signals: if there still are any).
        Thread: any; a second call waits for the same end.
        """
        self._check_process()
        timeout = self.config.graceful_timeout if timeout is None else seconds(timeout)
        core = self._started()
        if core is None:
            return True
        self._begin_drain(core, timeout, self.config.drain_idle)
        if not self._may_wait():
            return self.stats().connections_open == 0
        # The workers keep the deadline; waiting longer than they could take would be a defect.
        return self._wait_ended(timeout + CLOSE_WAIT) and self.stats().ended_by_abort == 0

    def abort(self) -> None:
        """End everything now: every connection is reset. A second call does nothing."""
        self._check_process()
        core = self._started()
        if core is None:
            return
        self._ending = True
        self._leaving.open()
        core.abort()
        if self._may_wait():
            self._wait_ended(CLOSE_WAIT)

    def _may_wait(self) -> bool:
        """False in a callback, and in a signal handler that has interrupted start()."""
        return not self._crew.has_current() and self._starting is not threading.current_thread()

    def _started(self) -> _core.Core | None:
        """Return the core, after a start() in another thread; without one, there never will be."""
        with self._lock:
            if self._core is None:
                self._ended.open()
            return self._core

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended.

        Args:
            timeout: seconds, float >= 0; None waits for ever.
        Returns:
            bool: True if it has ended.
        Raises:
            RuntimeError: called from a callback: it would wait for itself.
        """
        self._check_process()
        if not self._may_wait():
            raise RuntimeError("wait() in a callback would wait for itself")
        return self._wait_ended(None if timeout is None else seconds(timeout))

    def _wait_ended(self, timeout: float | None) -> bool:
        """Wait for the end, and then for the threads: who asks may look for what is left behind."""
        if not self._ended.wait(timeout):
            return False
        # An accept callback that never returns keeps its thread, but not the server.
        self._crew.wait()
        return True

    def _begin_drain(self, core: _core.Core, timeout: float, idle: float) -> None:
        self._ending = True
        self._leaving.open()
        core.stop_accepting(milliseconds(handshake_grace(self._listeners)))
        core.drain(milliseconds(timeout), milliseconds(idle))
        if self._starting is not threading.current_thread():
            self._close_listeners(core)

    def _close_listeners(self, core: _core.Core) -> None:
        """Close the listeners once no worker uses them; frees the port before connections end."""
        # The worker that runs a callback uses them.
        if self._calls is not None and self._calls.on_workers and self._crew.has_current():
            threading.Thread(target=self._close_listeners, args=[core], daemon=True).start()
            return
        if core.wait_not_accepting(milliseconds(CLOSE_WAIT)):
            self._close_sockets()
            self._accepting = False

    def _close_sockets(self) -> None:
        for one in self._opened():
            if self._lent:  # a successor may be about to serve: its file stays
                one.give()
            one.close()

    # --- serving in this thread ------------------------------------------------------------

    def serve_forever(self, on_hangup: Callable[[], object] | None = None) -> bool:
        """Start, unless it was started, and wait until the server has ended.

        In the main thread SIGINT, SIGTERM and SIGHUP drain it, and a second one of these ends it
        at once; signals that are ignored stay ignored. The handlers found are put back.

        Args:
            on_hangup: called at each SIGHUP, which then does not drain; in the main thread.
        Returns:
            bool: True if every connection ended by itself or was quiet, False if any was reset.
        """
        self._check_process()
        if self._core is None:
            self.start()
        if threading.current_thread() is threading.main_thread():
            with (
                ending_signals(self._on_signal, on_hangup) as watch,
                self._ended.calling(watch.wake),
            ):
                try:
                    while not self._ended.is_open():
                        watch.wait()
                finally:
                    if self._delayed is not None:
                        self._delayed.cancel()
                self.wait()  # for the last lines of the log
        else:
            self.wait()
        return self.stats().ended_by_abort == 0

    def _on_signal(self, asked: int) -> None:
        """The first signal drains, at once or after drain_delay; a further one ends everything."""
        core = self._core
        assert core is not None
        if asked > 1:
            self._ending = True
            self._leaving.open()
            core.abort()
        elif self.config.drain_delay:
            self.retire()
            self._delayed = threading.Timer(self.config.drain_delay, self._drain, args=[core])
            self._delayed.daemon = True
            try:
                self._delayed.start()
            except RuntimeError:  # there is no thread to be had
                self._drain(core)
        else:
            self._drain(core)

    def _drain(self, core: _core.Core) -> None:
        self._drain_asked = True
        if self._lent:  # _keep() or _give() does it
            return
        self._begin_drain(core, self.config.graceful_timeout, self.config.drain_idle)

    # --- context managers ------------------------------------------------------------------

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if not self._is_mine():
                return  # a forked child that leaves by SystemExit is to leave by that
            if kind is None:
                self.stop()
            else:
                self.abort()
        except BaseException:  # Ctrl-C: nobody could end it any more
            self.abort()
            raise

    async def __aenter__(self) -> Server:
        from .awaiting import enter

        await enter(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from .awaiting import leave

        await leave(self, kind)

    async def wait_closed(self) -> None:
        """Wait in a coroutine until the server has ended."""
        from .awaiting import wait_open

        self._check_process()
        await wait_open(self._ended)

    # --- fork ------------------------------------------------------------------------------

    def _forget_in_child(self) -> None:
        """For process.py: after fork, in the child, close the copies of the descriptors."""
        if self._core is not None:
            self._core.close_in_child()
        self._close_sockets()

    def _begin_exit(self, timeout: float) -> None:
        """For process.py: end every connection in order, for at most `timeout` seconds."""
        if self._lock.acquire(timeout=timeout):  # a start in another thread comes to its end
            self._lock.release()
        if self._core is not None:
            self._begin_drain(self._core, timeout, 0.0)
        else:
            self._ended.open()
