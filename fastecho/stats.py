"""What a server has counted, as an object that never changes.

Lives here: the names and the sums. Does not live here: the counting (src_c/counters.h, each
worker for itself), reading the counters (Server.stats).
"""

from __future__ import annotations

from errno import errorcode

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

    from .listen_queue import ListenQueue

__all__ = ["QUEUE_WAIT_BOUNDS", "Stats", "WorkerStats"]

QUEUE_WAIT_BOUNDS = (*(2**i / 1000 for i in range(16)), float("inf"))
"""Seconds: the classes of queue_waits, FE_QUEUE_WAITS of src_c/counters.h."""


class WorkerStats:
    """What one worker has counted since the server started.

    Attributes:
        connections_accepted: accepted here and kept; another worker may serve them.
        connections_closed: served here and ended, for whatever reason.
        connections_open: placed here now.
        bytes_in: bytes that recv gave while the connection was served.
        bytes_out: reply bytes, counted before they are offered to the kernel: a peer that has a
            reply finds it counted.
        bytes_pending: reply bytes that the kernel has not taken yet, now.
        bytes_dropped: of bytes_out, what the kernel never took because the connection ended.
        bytes_discarded: input that came after we had decided to end the connection, and replies
            that a fault forbids.
        connections_proxied: their PROXY header was taken.
        connections_faulty: given a fault.
        bytes_corrupted, frames_duplicated: what a fault did to replies.
        messages: frames answered; with recv framing, rounds of reading (bulk: several recv calls).
        frames_incomplete: connections that ended inside a frame which was not answered.
        short_writes: sends that took less than they were offered, or nothing.
        ended_by_peer: the peer's FIN came first, and everything was echoed.
        ended_by_error: recv, send or epoll_ctl failed; `errors` has the errno.
        ended_by_idle_timeout, ended_by_first_byte_timeout, ended_by_frame_too_long: the limit of
            that name was broken.
        ended_by_denial: the accept callback said no, or raised.
        ended_by_drain: quiet during a drain.
        ended_by_abort: reset at a drain's deadline, or by abort().
        ended_by_no_memory: memory for its bytes or its registration was refused.
        ended_by_close, ended_by_reset: Connection.close(), Connection.abort().
        ended_by_callback_error: a callback raised, or returned what is no reply.
        ended_by_fault: a fault's deny, close_after or reset_after.
        ended_by_max_pending: more than max_pending waited for a peer that does not read.
        ended_by_proxy_header: its PROXY header was wrong, missing or late.
        ended_by_max_per_ip: the address that its PROXY header tells has max_per_ip connections.
        callback_errors: exceptions and wrong replies of callbacks, on_accept's and on_close's too.
        linger_timeouts: we ended first, and gave up waiting for the peer's FIN.
        shed_max_connections, shed_max_per_ip, shed_accept_rate, shed_no_descriptors: accepted and
            reset at once, never served.
        shed_untrusted: the same: a PROXY header is required, and proxy_trusted does not name them.
        accept_errors: accept4 failed other than by EAGAIN; `errors` has the errno.
        accept_pauses: times that accepting rested for want of descriptors or memory.
        access_log_dropped: connections without a line in the access log, because there were more
            than access_log_rate, or than were written in time.
        datagrams_in, datagram_bytes_in: what came over UDP; none of it is in bytes_in.
        datagrams_out, datagram_bytes_out: replies, counted before they are offered to the kernel.
        datagrams_unsent, datagrams_too_long, datagrams_failed: of datagrams_out, those that the
            kernel did not take: it had no room; with prefix and suffix they are longer than a
            datagram can be; another error, which `errors` has.
        datagrams_refused_port, datagrams_refused_address, datagrams_refused_rate,
            datagrams_refused_loop: not answered: the guard that said so.
        iterations, events: rounds of the loop, and events that epoll_wait delivered.
        running_time: seconds since the worker's thread began, or that it ran; float.
        busy_time: seconds of those in which it had a CPU; in the rest it was blocked, mostly in
            epoll_wait, or waited for a CPU or for the GIL. Float.
        callback_time: seconds in which message callbacks ran, with on_drain, on_eof and on_close;
            float.
        queue_wait: seconds that the accepted TCP connections waited in the kernel's accept queue,
            all together; float, in steps of the kernel's tick (some ms) for each.
        queue_waits: tuple of int: how many of them waited for less than each of
            QUEUE_WAIT_BOUNDS, and no less than the one before it. Also those that were shed.
        errors: count by errno name, such as {"ECONNRESET": 3}.
    """

    __slots__ = (
        "accept_errors",
        "accept_pauses",
        "access_log_dropped",
        "busy_time",
        "bytes_corrupted",
        "bytes_discarded",
        "bytes_dropped",
        "bytes_in",
        "bytes_out",
        "bytes_pending",
        "callback_errors",
        "callback_time",
        "connections_accepted",
        "connections_closed",
        "connections_faulty",
        "connections_open",
        "connections_proxied",
        "datagram_bytes_in",
        "datagram_bytes_out",
        "datagrams_failed",
        "datagrams_in",
        "datagrams_out",
        "datagrams_refused_address",
        "datagrams_refused_loop",
        "datagrams_refused_port",
        "datagrams_refused_rate",
        "datagrams_too_long",
        "datagrams_unsent",
        "ended_by_abort",
        "ended_by_callback_error",
        "ended_by_close",
        "ended_by_denial",
        "ended_by_drain",
        "ended_by_error",
        "ended_by_fault",
        "ended_by_first_byte_timeout",
        "ended_by_frame_too_long",
        "ended_by_idle_timeout",
        "ended_by_max_pending",
        "ended_by_max_per_ip",
        "ended_by_no_memory",
        "ended_by_peer",
        "ended_by_proxy_header",
        "ended_by_reset",
        "errors",
        "events",
        "frames_duplicated",
        "frames_incomplete",
        "iterations",
        "linger_timeouts",
        "messages",
        "queue_wait",
        "queue_waits",
        "running_time",
        "shed_accept_rate",
        "shed_max_connections",
        "shed_max_per_ip",
        "shed_no_descriptors",
        "shed_untrusted",
        "short_writes",
    )

    accept_errors: int
    accept_pauses: int
    access_log_dropped: int
    bytes_corrupted: int
    bytes_discarded: int
    bytes_dropped: int
    bytes_in: int
    bytes_out: int
    bytes_pending: int
    busy_time: float
    callback_errors: int
    callback_time: float
    connections_accepted: int
    connections_closed: int
    connections_faulty: int
    connections_open: int
    connections_proxied: int
    datagram_bytes_in: int
    datagram_bytes_out: int
    datagrams_failed: int
    datagrams_in: int
    datagrams_out: int
    datagrams_refused_address: int
    datagrams_refused_loop: int
    datagrams_refused_port: int
    datagrams_refused_rate: int
    datagrams_too_long: int
    datagrams_unsent: int
    ended_by_abort: int
    ended_by_callback_error: int
    ended_by_close: int
    ended_by_denial: int
    ended_by_drain: int
    ended_by_error: int
    ended_by_fault: int
    ended_by_first_byte_timeout: int
    ended_by_frame_too_long: int
    ended_by_idle_timeout: int
    ended_by_max_pending: int
    ended_by_max_per_ip: int
    ended_by_no_memory: int
    ended_by_peer: int
    ended_by_proxy_header: int
    ended_by_reset: int
    errors: dict[str, int]
    events: int
    frames_duplicated: int
    frames_incomplete: int
    iterations: int
    linger_timeouts: int
    messages: int
    queue_wait: float
    queue_waits: tuple[int, ...]
    running_time: float
    shed_accept_rate: int
    shed_max_connections: int
    shed_max_per_ip: int
    shed_no_descriptors: int
    shed_untrusted: int
    short_writes: int

    def __init__(self, values: Mapping[str, object]) -> None:
        for name in WorkerStats.__slots__:
            object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"statistics are a snapshot: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"statistics are a snapshot: {name} cannot be deleted")

    def __repr__(self) -> str:
        names = (name for name in WorkerStats.__slots__ if getattr(self, name))
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"


class Stats(WorkerStats):
    """What all workers of a server have counted, summed up, at one moment.

    connections_accepted - connections_closed is connections_open here, and never negative.
    callback_errors has those of no worker as well: of on_accept, of on_close without on_message.

    Attributes:
        workers: tuple of WorkerStats, one for each worker, in order.
        listen_queue: the accept queues, as of Server.listen_queue(); None if it does not accept, or
            if the kernel tells nothing.
        datagrams_overflowed: datagrams that the kernel dropped because a receive buffer was full;
            none of them is in datagrams_in.
    """

    __slots__ = ("datagrams_overflowed", "listen_queue", "workers")

    workers: tuple[WorkerStats, ...]
    listen_queue: ListenQueue | None
    datagrams_overflowed: int

    def __init__(
        self,
        counters: Iterable[Mapping[str, object]],
        callback_errors: int = 0,
        listen_queue: ListenQueue | None = None,
        datagrams_overflowed: int = 0,
    ) -> None:
        workers = tuple(WorkerStats(_named(one)) for one in counters)
        values: dict[str, object] = {}
        for name in WorkerStats.__slots__:
            if name not in ("errors", "queue_waits"):
                values[name] = sum(getattr(worker, name) for worker in workers)
        values["callback_errors"] = callback_errors + sum(one.callback_errors for one in workers)
        values["connections_open"] = sum(
            worker.connections_accepted - worker.connections_closed for worker in workers
        )
        errors: dict[str, int] = {}
        for worker in workers:
            for error, count in worker.errors.items():
                errors[error] = errors.get(error, 0) + count
        values["errors"] = errors
        columns = zip(*(worker.queue_waits for worker in workers), strict=True)
        values["queue_waits"] = tuple(map(sum, columns)) or (0,) * len(QUEUE_WAIT_BOUNDS)
        super().__init__(values)
        object.__setattr__(self, "workers", workers)
        object.__setattr__(self, "listen_queue", listen_queue)
        object.__setattr__(self, "datagrams_overflowed", datagrams_overflowed)


def _named(counters: Mapping[str, object]) -> dict[str, object]:
    """Return the core's counters of one worker under the names of WorkerStats."""
    values = dict(counters)
    values["connections_open"] = values.pop("connections_placed")
    values["queue_wait"] = _seconds(values.pop("queue_wait_ms"), 1000)
    values["queue_waits"] = tuple(_list(values["queue_waits"]))
    for name in ("busy", "callback", "running"):
        values[f"{name}_time"] = _seconds(values.pop(f"{name}_ns"), 1_000_000_000)
    errnos = values.pop("errnos")
    assert isinstance(errnos, dict)
    values["errors"] = {errorcode.get(n, f"errno {n}"): count for n, count in errnos.items()}
    return values


def _seconds(count: object, parts: int) -> float:
    assert isinstance(count, int)
    return count / parts


def _list(value: object) -> list[int]:
    assert isinstance(value, list)
    return value
