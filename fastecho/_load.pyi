"""Types of the compiled load generator (_load.pyx)."""

from collections.abc import Sequence
from typing import Literal, TypedDict, final, type_check_only

Address = tuple[str, int] | bytes | str
HistogramName = Literal["latency", "service", "connect", "schedule_error"]

@type_check_only
class Counts(TypedDict):
    """What a load has counted since its window began. Counts and nanoseconds; no rates.

    A message whose time falls into the window ends as exactly one of: messages, late, corrupt,
    misplaced, lost, timed_out, unsent. Failures before the window (warm-up, connecting) count too,
    so without one of these: sent + what was due while no connection was open + unsent is their sum.
    A datagram ends as one of: messages, corrupt, no_reply, not_sent, unsent.
    """

    # Messages whose reply was complete, right and there within the timeout.
    messages: int
    # Such replies that came in the window, also to messages of the warm-up: a rate is this by
    # elapsed_ns.
    messages_in_window: int
    # Right replies whenever they came, those of the warm-up and late ones included.
    right: int
    # Messages of the window given to a connection, answered or not.
    sent: int
    # Bytes of the replies in messages_in_window.
    bytes: int
    # Bytes handed to the kernel, and bytes received, whatever they were, since the window began.
    bytes_sent: int
    bytes_received: int
    # Connections established since the last run ended; mode "reconnect": since the window began.
    connects: int
    # Connections that are open now.
    connections_open: int
    # The window so far; shorter than asked when it was ended early: by stop(), because no
    # connection was left, or with the last of `messages`: then it ends with the last reply that
    # came, in an open loop not before so many intervals of the schedule have passed.
    elapsed_ns: int
    # From the start of the window until the last reply was in or given up.
    total_ns: int
    # CPU time of the load's thread, user and system, during total_ns; in a snapshot: 20 ms old.
    cpu_ns: int
    # Of the wall time: spent polling ahead of a send that was nearly due (open loop).
    spin_ns: int
    # Rounds of the loop (epoll_wait calls).
    iterations: int
    # Open loop: messages that waited in the generator because every connection had `depth`
    # outstanding, `unsent` ones included. No failure: their latency shows it.
    held: int

    # Right replies that came after the timeout.
    late: int
    # Replies that differ from what was due.
    corrupt: int
    # Of the replies that differ, not in `corrupt`: the bytes are those of another message, one of
    # the 64 before or the 1,024 from it on.
    misplaced: int
    # Messages without a complete reply because their connection ended, or because no connection
    # was open when they were due, or when the last one ended while they waited in the generator.
    lost: int
    # Messages without a complete reply when their connection was given up: it gave no byte for the
    # timeout.
    timed_out: int
    # Open loop: messages that still waited in the generator when the run was given up.
    unsent: int
    # Bytes that arrived although no reply was due.
    extra_bytes: int
    # Connections that the server ended with RST; with FIN before we did.
    reset: int
    closed: int
    # Connects that were refused; that were not answered in time.
    refused: int
    connect_timed_out: int
    # Connections and connects ended by any other errno.
    other: int
    # Connections that were lost, or could not connect, and answered again in the same run (idle
    # ones: were open again); the ns from the loss until then: all and longest.
    reopened: int
    gap_ns: int
    longest_gap_ns: int

    # Of datagrams (`udp`), and no failures. Messages of the window that were not answered within
    # the timeout, each counted when that is over; of these, those whose reply came afterwards.
    no_reply: int
    tardy: int
    # Replies that came once more; right replies whose message was sent before one that had been
    # answered already (RFC 4737).
    duplicates: int
    reordered: int
    # Messages that our own socket did not take: EAGAIN, ENOBUFS, or another error, which is a
    # failure as well. They are in `sent`.
    not_sent: int
    # Datagrams that the kernel dropped because our socket's receive buffer was full: written when
    # the run is over. Their messages are in no_reply.
    overflows: int

@type_check_only
class RunResult(Counts):
    """What one Load.run did."""

    # The first few failures: ns since the start of the window (negative: before), one sentence.
    failures: list[tuple[int, str]]

@final
class Histogram:
    """A latency histogram in ns: 3 significant digits, 64 ns to 1 h, HdrHistogram's layout."""

    def __init__(self) -> None: ...
    def record(self, ns: int, count: int = 1) -> None:
        """Count a value of `ns` nanoseconds, `count` times. Above 1 h: see `overflow`."""
    def percentile(self, p: float) -> int:
        """Return the ns that about `p` percent of the values (0..100) do not exceed; 0 if empty.

        Of values in order, it is the one of rank p / 100 * count, rounded to the nearest whole rank
        (halves up), at least the first: the highest ns of its bucket, or the exact maximum where
        that is less. For 0 it is the lowest ns of the minimum's bucket.
        """
    def merge(self, other: Histogram) -> None:
        """Add everything that `other` holds. Exact: no value moves to another bucket.

        Raises:
            ValueError: together they hold more than 2**63 - 1 values; nothing has changed.
        """
    def reset(self) -> None:
        """Forget everything."""
    def subtract(self, other: Histogram) -> None:
        """Take away what an earlier copy of this histogram held; min and max are then bucket edges.

        Raises:
            ValueError: `other` holds what this one does not; nothing has changed.
        """
    def encode(self) -> bytes:
        """Return the counts as HdrHistogram V2 holds them, with its header, not compressed.

        Values above 1 h are in its last bucket (73 min), which nothing else uses.

        Raises:
            ValueError: a count is above 2**63 - 1.
        """
    @staticmethod
    def decode(data: bytes, least: int = -1, most: int = -1) -> Histogram:
        """Return the histogram that V2 bytes hold, not compressed.

        Any V2 histogram is taken, its values as ns: those of other layouts are counted at the
        middle of their buckets, those above 1 h as `overflow`. min and max are bucket edges, or
        `least` and `most` (ns, below 2**63; -1: unknown) where these lie in the same buckets.

        Raises:
            ValueError: the bytes are no V2 histogram, are cut or damaged.
        """
    def buckets(self) -> list[tuple[int, int, int]]:
        """Return (lowest ns, highest ns, count) of every bucket that holds anything."""
    @property
    def count(self) -> int:
        """Values recorded, overflow included."""
    @property
    def overflow(self) -> int:
        """Of `count`: values above 1 h. They count as larger than any bucket."""
    @property
    def min(self) -> int:
        """The smallest value recorded, exact, in ns; 0 if empty."""
    @property
    def max(self) -> int:
        """The largest value recorded, exact, in ns; 0 if empty."""
    @property
    def mean(self) -> float:
        """The mean in ns, from bucket middles (32 ns or 0.05 % at most from exact); 0.0 if empty.

        It is never outside of min and max. Values above 1 h count as 1 h.
        """
    @property
    def stddev(self) -> float:
        """The standard deviation in ns, from bucket middles; 0.0 if empty."""

@final
class Load:
    """Drive connections to echo servers from one thread, and verify every byte.

    Use one object in one thread at a time; snapshot() and stop() from any. Blocking methods release
    the GIL.

    Args:
        targets: one or more of (family, address): socket.AF_INET or AF_INET6 with (host, port) and
            a numeric host, AF_UNIX with a path as bytes or str. Connections take them in turn.
        connections: how many, >= 1.
        depth: messages that may be outstanding on each connection, 1..65536.
        size: bytes of a message, 1..64 MiB; or a table of up to 65,536 such sizes, from which each
            message draws one by its number. A line's newline is one of them, a length frame's
            header is not.
        frame: "raw", "line" or "length".
        prefix, suffix: what the server adds to each reply, at most 4096 bytes each; not
            with "raw".
        mode: "closed" (send after each reply), "open" (send on a schedule; the last 0.1 ms
            before a message is due are spent polling), "reconnect" (connect, echo one
            message, close, for ever; after a failure again within 20 ms) or "idle" (connect and
            hold).
        rate: messages per second over all connections; mode "open" only.
        schedule: of an open loop: "fixed" (evenly) or "poisson" (independently of each other).
        phase: where in the first interval a fixed schedule begins, 0..1, so that several threads
            take turns.
        sendfile: send from a memfd by sendfile(2) instead of from memory; one size only.
        timeout: seconds, float > 0: for a reply, for a connect, and for what is still
            outstanding when the window of a run ends. A reply that takes longer is late; a
            connection is given up only when no byte came for as long, or at the end.
        seed: decides the bytes and sizes of every message, and a Poisson schedule.
        sources: local addresses to connect from, in turn. Default: the kernel's choice;
            several 127.x.y.z towards 127.0.0.0/8 in reconnect mode and with very many
            connections, so that ports do not run out.
        close: how reconnect mode ends a connection: "fin" (send FIN, wait for the server's
            FIN) or "reset" (RST after the reply: leaves no TIME_WAIT behind).
        poll: never sleep while replies are awaited: a client whose own waking up, which can
            take longer than the server, is not in its latencies. Takes a whole CPU.
        reopen: open what is not open when a run begins, and connect again what was lost or could
            not connect, every 0.1 s, while it lasts.
        proxy: 1 or 2: each connection begins by a PROXY header of that version with its own
            addresses, in the same segment as a message that follows at once; 0: by none.
            `bytes_sent` does not count it.
        identify: each connection begins by the server's line that says who answers. It is taken
            away in front of the first reply, for which nobody waits; `bytes_received` counts it.
            A connection that begins otherwise is ended, and the run with it: see `unidentified`.
        udp: each connection is a UDP socket, each message a datagram of 16 to 65,507 bytes that
            begins by a header of 16. Replies may come in any order; without one within the timeout
            a message is lost, and the next takes its place. prefix and suffix are what the server
            puts around each datagram. Modes "closed" and "open", frame "raw" only.
    Raises:
        ValueError: a wrong argument, named with its value.
        MemoryError: too little memory for the messages.
        OSError: no descriptor was left.
    """

    def __init__(
        self,
        targets: Sequence[tuple[int, Address]],
        *,
        connections: int = 1,
        depth: int = 1,
        size: int | Sequence[int] = 64,
        frame: Literal["raw", "line", "length"] = "raw",
        prefix: bytes = b"",
        suffix: bytes = b"",
        mode: Literal["closed", "open", "reconnect", "idle"] = "closed",
        rate: float = 0.0,
        schedule: Literal["fixed", "poisson"] = "fixed",
        phase: float = 0.0,
        sendfile: bool = False,
        timeout: float = 5.0,
        seed: int = 1,
        sources: Sequence[str] = (),
        close: Literal["fin", "reset"] = "fin",
        poll: bool = False,
        reopen: bool = False,
        proxy: Literal[0, 1, 2] = 0,
        identify: bool = False,
        udp: bool = False,
    ) -> None: ...
    def connect(self) -> None:
        """Open every connection that is not open; at most 64 connects are under way at once.

        In reconnect mode there is nothing to open: it does nothing.

        Raises:
            OSError: the errno of the first that failed (ECONNREFUSED, ETIMEDOUT after
                `timeout`, EMFILE, EADDRNOTAVAIL), and how many did; the others stay open.
        """
    def disconnect(self) -> None:
        """Close every connection by FIN; connect() opens new ones.

        Raises:
            RuntimeError: another thread is in a method, or the load is closed.
        """
    def run(
        self,
        seconds: float,
        *,
        messages: int | None = None,
        warmup: float = 0.0,
        ramp: float = 0.0,
        start_ns: int | None = None,
    ) -> RunResult:
        """Send for `seconds`, then collect what is outstanding: nothing stays in flight.

        Returns at the latest `warmup` + `seconds` + `timeout` after the start. Without `reopen`, a
        connection that failed is counted and stays closed until the next connect(). Mode "idle"
        only watches.

        Args:
            seconds: length of the window, from 1e-6 to 1e6.
            messages: give so many in the window and no more, and end it when all are answered.
            warmup: seconds of the same load before the window; its messages are not counted and
                not in the histograms.
            ramp: seconds over which the connections that are not open are opened, evenly, from the
                start of the warm-up on; 0: only what connect() has opened takes part.
            start_ns: CLOCK_MONOTONIC at which to begin, at most an hour ahead; None, or a time
                that is over: now.
        Raises:
            ValueError: an argument is out of range.
            RuntimeError: no connection is open (and no ramp or reopen would open one), or another
                thread is in a method.
        """
    def snapshot(self) -> Counts:
        """Return what the run under way has counted so far; after a run, what it had counted.

        Any thread, at any time: it waits for nobody and costs the load's thread nothing. The
        numbers are each exact, but not all of the same instant.
        """
    def instances(self) -> list[tuple[str, int, int]]:
        """Return (name, connections, messages) of each instance that the lines named.

        A name is as it stood between its quotes, with JSON's escapes; "" stands for all beyond 256
        names. messages: right replies in time, as in Counts. Counted as Counts are: connections
        since the last run ended, in mode "reconnect" since the window began. Empty without
        `identify`.

        Raises:
            RuntimeError: another thread is in a method, or the load is closed.
        """
    @property
    def unidentified(self) -> tuple[int, bytes] | None:
        """What the first connection that had no such line began by, at most 40 bytes.

        Before these bytes stands the index of its target; None: there was no such connection.
        """
    def stop(self, *, collect: bool = True) -> None:
        """End the window of the run under way now, or the one of the next run at once.

        Any thread. The load's thread notices within 20 ms; what is outstanding is collected, or
        with collect=False given up at once: it counts as timed out.
        """
    def histogram(self, name: HistogramName = "latency") -> Histogram:
        """Return a copy of the nanoseconds recorded since the last reset(). Any thread.

        latency: of all right replies. Closed loop: from the send. Open loop: from the intended
            time. Reconnect: from the start of the connect to the last byte of the reply.
        service: open loop: from when the message was given to its connection.
        connect: of every handshake, also before the window.
        schedule_error: open loop: how long after its intended time each message was given to its
            connection, the generator's own lateness. A message for which no connection had room
            is left out; it is in `held`.
        """
    def reset(self) -> None:
        """Empty all histograms."""
    def close(self) -> None:
        """Close every connection and free the memory; idempotent."""
    @property
    def failed_target(self) -> int:
        """Which of the targets the first connect that failed went to, by its index."""
    @property
    def connections_open(self) -> int:
        """Connections that are open now."""
    def __enter__(self) -> Load: ...
    def __exit__(self, *exc: object) -> None: ...
