"""Metrics of a server for Prometheus: a collector, and a small HTTP server for who scrapes it.

Lives here: which counter is exported under which name, /metrics, /healthz and /readyz. Does not
live here: counting (the core), the exposition format (prometheus-client, the extra `metrics`).

A scrape reads counters that the workers write anyway, without a lock: no worker notices it. The
HTTP server has a thread of its own, and one for each request, of which there are only so many: who
holds them up, or takes all descriptors, costs a scrape and no more.
"""

from __future__ import annotations

import io
import select
import threading
import time
import weakref
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from .address import parse_bind
from .config import Config
from .errors import StartError
from .logs import valid_text
from .opening import open_listeners
from .stats import QUEUE_WAIT_BOUNDS

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.exposition import choose_encoder
except ModuleNotFoundError as error:
    if error.name != "prometheus_client":
        raise
    raise StartError(
        0,
        "metrics need prometheus-client, which is not installed: "
        "pip install 'fastecho[metrics]', or '.[metrics]' in a checkout",
    ) from None

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Iterator
    from typing import Any

    from prometheus_client.core import Metric

    from .address import Address
    from .handover.offers import Offers
    from .listen_queue import ListenQueue
    from .listener import Listener
    from .server import Server
    from .stats import Stats, WorkerStats

__all__ = ["Collector", "MetricsServer"]

POLL_SECONDS = 0.1
"""So long close() may have to wait, and accepting rests when the system refuses it something."""
MOST_REQUESTS = 8
"""Requests under way at one address; whoever comes then waits in its accept queue."""
REQUEST_SECONDS = 10.0
"""So long a request may take to come, and its answer to be taken."""
LONGEST_HEAD = 16384
"""Bytes of a request: a scraper's has some hundreds."""

COUNTERS = {
    "connections_accepted": ("connections_accepted", "Connections accepted and kept."),
    "bytes_in": ("received_bytes", "Bytes received from peers."),
    "bytes_out": ("sent_bytes", "Bytes of replies."),
    "bytes_dropped": ("dropped_bytes", "Bytes of replies that a peer never took."),
    "bytes_discarded": (
        "discarded_bytes",
        "Input that came after the server had ended a connection.",
    ),
    "messages": ("messages", "Frames answered; with recv framing, rounds of reading."),
    "frames_incomplete": ("frames_incomplete", "Connections that ended inside a frame."),
    "short_writes": ("short_writes", "Sends that took less than they were offered."),
    "linger_timeouts": ("linger_timeouts", "Connections whose peer never ended its side."),
    "callback_errors": ("callback_errors", "Exceptions and wrong replies of callbacks."),
    "callback_time": ("callback_seconds", "Time in which message callbacks ran."),
    "connections_proxied": ("connections_proxied", "Connections whose PROXY header was taken."),
    "connections_faulty": ("connections_faulty", "Connections that were given a fault."),
    "bytes_corrupted": ("corrupted_bytes", "Bytes that a fault has changed."),
    "frames_duplicated": ("frames_duplicated", "Frames that a fault has sent twice."),
    "datagrams_in": ("received_datagrams", "Datagrams received."),
    "datagram_bytes_in": ("received_datagram_bytes", "Bytes of datagrams received."),
    "datagrams_out": ("sent_datagrams", "Datagrams answered."),
    "datagram_bytes_out": ("sent_datagram_bytes", "Bytes of replies to datagrams."),
    "datagrams_unsent": ("unsent_datagrams", "Replies that the kernel had no room for."),
    "datagrams_too_long": ("too_long_datagrams", "Replies that are longer than a datagram can be."),
    "datagrams_failed": ("failed_datagrams", "Replies that failed otherwise."),
    "datagrams_overflowed": ("overflowed_datagrams", "Datagrams that found the buffer full."),
    "accept_errors": ("accept_errors", "Failures of accept, other than for want of newcomers."),
    "accept_pauses": ("accept_pauses", "Times that accepting rested for want of descriptors."),
    "access_log_dropped": ("access_log_dropped", "Connections without a line in the access log."),
}
"""Attribute of Stats: name after fastecho_ and before _total, and what it is."""
WORKER_COUNTERS = {
    "iterations": ("loop_iterations", "Rounds of the loop."),
    "events": ("loop_events", "Events that epoll_wait delivered."),
    "busy_time": ("worker_busy_seconds", "Time in which the worker had a CPU."),
    "running_time": ("worker_running_seconds", "Time since the worker began."),
}
"""The same for each worker."""


class Collector:
    """A server's counters for a registry of prometheus-client: `registry.register(Collector(s))`.

    Thread: any.   Cost: a scrape some 100 microseconds; no worker is disturbed.
    Source: https://prometheus.io/docs/practices/naming/ (names and units).
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def describe(self) -> list[Metric]:
        """Return what it will give: so a registry knows that it has another server already."""
        return list(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        stats = self._server.stats()
        for attribute, (name, text) in COUNTERS.items():
            yield _counter(name, text, getattr(stats, attribute))
        yield _gauge("connections_open", "Connections that are open.", stats.connections_open)
        yield _gauge(
            "pending_bytes", "Bytes of replies that the kernel has not taken yet.",
            stats.bytes_pending,
        )  # fmt: skip
        yield _by_prefix(stats, "ended_by_", "connections_ended", "Connections that have ended.")
        yield _by_prefix(stats, "shed_", "connections_shed", "Newcomers reset at once.")
        yield _by_prefix(
            stats, "datagrams_refused_", "datagrams_refused", "Datagrams not answered, by guard."
        )
        errors = CounterMetricFamily(
            "fastecho_errors", "Errors of system calls, by errno.", labels=["errno"]
        )
        for errno, count in sorted(stats.errors.items()):
            errors.add_metric([errno], count)
        yield errors
        yield from _workers(stats.workers)
        yield _queue_waits(stats)
        if stats.listen_queue is not None:
            addresses = [valid_text(str(one.address)) for one in self._server.listeners]
            yield from _queues(stats.listen_queue, addresses)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"fastecho_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fastecho_{name}", text, value=value)


def _by_prefix(stats: Stats, prefix: str, name: str, text: str) -> Metric:
    """Return all counters whose name begins so, the rest of their name as the label `reason`."""
    family = CounterMetricFamily(f"fastecho_{name}", text, labels=["reason"])
    for attribute in stats.workers[0].__slots__ if stats.workers else ():
        if attribute.startswith(prefix):
            family.add_metric([attribute.removeprefix(prefix)], getattr(stats, attribute))
    return family


def _workers(workers: tuple[WorkerStats, ...]) -> Iterator[Metric]:
    for attribute, (name, text) in WORKER_COUNTERS.items():
        family = CounterMetricFamily(f"fastecho_{name}", text, labels=["worker"])
        for number, worker in enumerate(workers):
            family.add_metric([str(number)], getattr(worker, attribute))
        yield family


def _queue_waits(stats: Stats) -> Metric:
    """Return the histogram of the wait in the accept queue; Prometheus adds its buckets up."""
    below, buckets = 0, []
    for bound, count in zip(QUEUE_WAIT_BOUNDS, stats.queue_waits, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), below))
    return HistogramMetricFamily(
        "fastecho_accept_queue_wait_seconds",
        "Time that TCP connections waited in the accept queue, in steps of the kernel's tick.",
        buckets=buckets,
        sum_value=stats.queue_wait,
    )


def _queues(queue: ListenQueue, addresses: list[str]) -> Iterator[Metric]:
    families: dict[str, Any] = {
        name: GaugeMetricFamily(
            f"fastecho_accept_queue_{name}", text, labels=["listener", "socket"]
        )
        for name, text in (
            ("depth", "Connections that wait to be accepted."),
            ("limit", "min(backlog, somaxconn); the queue holds one more."),
            ("highest", "Deepest accept queue that was seen."),
        )
    }
    families["drops"] = CounterMetricFamily(
        "fastecho_accept_queue_drops",
        "Packets dropped at the listener, nearly all of them SYNs that found its queue full.",
        labels=["listener", "socket"],
    )
    # With reuse_port several sockets share an address.
    numbers = dict.fromkeys(addresses, 0)
    for address, one in zip(addresses, queue.listeners, strict=True):
        labels = [address, str(numbers[address])]
        numbers[address] += 1
        for name, family in families.items():
            value = None if one is None else getattr(one, name)
            if value is not None:
                family.add_metric(labels, value)
    yield from families.values()


# --- over HTTP -----------------------------------------------------------------------------


class MetricsServer:
    """An HTTP server with /metrics, /healthz and /readyz of an echo server.

    Args:
        address: where to listen: HOST:PORT, [IPV6]:PORT, unix:PATH, or an Address.
        server: whose metrics; it need not have started.
        offers: listeners of another server: those of the address are taken (fastecho/handover).
        waits: answer nobody before begin().
    Raises:
        ConfigError, StartError: the address is wrong, or cannot be listened on.
    Thread: the requests are answered in threads of their own until close().
    """

    def __init__(
        self,
        address: str | Address,
        server: Server,
        *,
        offers: Offers | None = None,
        waits: bool = False,
    ) -> None:
        self._running: list[tuple[_Http, threading.Thread]] = []
        self._listeners: list[Listener] = []
        # Ctrl-C on the way into a with block, or out of it: it ends with its last reference.
        weakref.finalize(self, _end, self._running, self._listeners).atexit = False
        try:
            self.config = Config(bind=parse_bind(address, "address"))
            self._listeners += open_listeners(self.config, 1, offers)
            self._registry = CollectorRegistry()
            ProcessCollector(registry=self._registry)
            self._registry.register(Collector(server))
            self._server = server
            if not waits:
                self.begin()
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Answer from now on; for `waits`."""
        for listener in self._listeners:
            self._start(_Http(listener.socket, self._server, self._registry))

    def _start(self, http: _Http) -> None:
        thread = threading.Thread(target=http.serve, name="fastecho-metrics", daemon=True)
        self._running.append((http, thread))
        thread.start()

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""
        return [str(one.address) for one in self._listeners]

    @property
    def listeners(self) -> list[Listener]:
        """Its sockets. Not to be closed."""
        return list(self._listeners)

    def give(self, taken: Collection[int]) -> None:
        """End it, and leave these of `listeners` as they are, to another process."""
        for number in taken:
            self._listeners[number].give()
        self.close()

    def close(self) -> None:
        """End it; requests under way are not waited for. A second call does nothing."""
        _end(self._running, self._listeners)

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(running: list[tuple[_Http, threading.Thread]], listeners: list[Listener]) -> None:
    """End the threads, close the listeners; what is interrupted can be done again."""
    for http, thread in running:
        http.over.set()
        if thread.ident is not None:  # otherwise it has not started
            thread.join()
    for listener in listeners:
        listener.close()
    running.clear()


class _Http:
    """One listening socket, and a thread for each request: so many at a time, the others wait.

    Attributes:
        over: set to end it.
    """

    def __init__(self, sock: socket.socket, server: Server, registry: CollectorRegistry) -> None:
        self.over = threading.Event()
        self.echo_server = server
        self.registry = registry
        self._sock = sock  # it does not block
        self._room = threading.Semaphore(MOST_REQUESTS)

    def serve(self) -> None:
        """Accept until it is over; what the system refuses is tried again a little later."""
        waiting = select.poll()
        waiting.register(self._sock, select.POLLIN)
        while not self.over.is_set():
            if not self._room.acquire(timeout=POLL_SECONDS):
                continue
            try:
                if waiting.poll(POLL_SECONDS * 1000) and self._accept():
                    continue
            except (OSError, RuntimeError, MemoryError):  # no descriptor, no thread, no memory
                self.over.wait(POLL_SECONDS)
            self._room.release()

    def _accept(self) -> bool:
        """Take one newcomer, if there is one, and let a thread answer; tell whether one does."""
        try:
            peer, _ = self._sock.accept()
        except (BlockingIOError, ConnectionError):  # it has gone again
            return False
        try:
            threading.Thread(target=self._answer, args=[peer], daemon=True).start()
        except BaseException:
            peer.close()
            raise
        return True

    def _answer(self, peer: socket.socket) -> None:
        try:
            with peer:
                peer.settimeout(REQUEST_SECONDS)
                _Handler(peer, "", self)  # type: ignore[arg-type]
        except (OSError, ValueError):
            pass  # a scraper that has gone is nobody's trouble
        finally:
            self._room.release()


def _read_head(peer: socket.socket) -> bytes:
    """Return a request up to its empty line; what is longer or later than allowed is cut off."""
    head = bytearray()
    deadline = time.monotonic() + REQUEST_SECONDS
    while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < LONGEST_HEAD:
        peer.settimeout(max(deadline - time.monotonic(), 0.001))
        data = peer.recv(LONGEST_HEAD - len(head))
        if not data:
            break
        head += data
    peer.settimeout(REQUEST_SECONDS)
    return bytes(head)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Http  # type: ignore[assignment]
    server_version = "fastecho"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        # http.server would give each line of it the whole time.
        self.rfile = io.BytesIO(_read_head(self.connection))

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        server = self.server.echo_server
        if path == "/metrics":
            self._metrics()
        elif path == "/healthz":
            self._answer(200, b"ok\n")
        elif path == "/readyz":
            ready = server.is_ready()
            self._answer(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
        else:
            self._answer(404, b"there are /metrics, /healthz and /readyz\n")

    def _metrics(self) -> None:
        try:
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            text = encode(self.server.registry)
        except Exception as error:
            self._answer(500, f"the metrics cannot be written: {error}\n".encode(errors="replace"))
        else:
            self._answer(200, text, kind)

    do_HEAD = do_GET  # noqa: N815 (the name is http.server's)

    def _answer(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def address_string(self) -> str:
        """Return who asks; on a Unix socket that is nobody."""
        return ""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: who scrapes each second would fill the log."""
