"""Types of the compiled load generator (_load.pyx)."""

from collections.abc import Sequence
from typing import Literal, TypedDict, final, type_check_only

@type_check_only
class RunResult(TypedDict):
    """What one Load.run did. Counts and nanoseconds only; a rate is the caller's division.

    Every message ends as exactly one of: messages, wrong_bytes, lost, timed_out, unsent.
    """

    # Messages whose reply was complete and right.
    messages: int
    # Of these: the reply came while the window was still open.
    messages_in_window: int
    # Messages handed to the kernel, answered or not.
    sent: int
    # Bytes of right replies.
    bytes: int
    # Bytes handed to the kernel, and bytes received, whatever they were.
    bytes_sent: int
    bytes_received: int
    # Connections established during the run (reconnect mode).
    connects: int
    # The window in which messages were begun; shorter than asked when no connection was left.
    elapsed_ns: int
    # From the start of the window until the last reply was in or given up.
    total_ns: int
    # CPU time of the calling thread, user and system, during total_ns.
    cpu_ns: int
    # Of the wall time: spent polling ahead of a send that was nearly due (open loop).
    spin_ns: int
    # Rounds of the loop (epoll_wait calls).
    iterations: int
    # Connections that are open after the run.
    connections_open: int

    # Replies that differ from what was due.
    wrong_bytes: int
    # Messages without a (complete) reply because their connection ended.
    lost: int
    # Bytes that arrived although no reply was due.
    extra_bytes: int
    # Messages whose reply did not come within the timeout; connects and FINs as well.
    timed_out: int
    # Open loop: messages that waited because every connection had `depth` outstanding. No
    # failure: their latency shows it.
    held: int
    # Open loop: messages that were due in the window and could not be sent until its end
    # plus the timeout, or for which no connection was left.
    unsent: int
    # Connections that the server ended with RST.
    reset: int
    # Connections that the server ended with FIN before we did.
    closed: int
    # Connects that were refused (reconnect mode; connect() raises instead).
    refused: int
    # Connections ended by any other errno.
    other: int
    # The first few failures, one sentence each.
    failures: list[str]

@final
class Histogram:
    """A latency histogram in ns: 3 significant digits, 64 ns to 1 h, HdrHistogram's layout."""

    def __init__(self) -> None: ...
    def record(self, ns: int, count: int = 1) -> None:
        """Count a value of `ns` nanoseconds, `count` times. Above 1 h: see `overflow`."""
    def percentile(self, p: float) -> int:
        """Return the ns that `p` percent of the values (0..100) do not exceed; 0 if empty."""
    def merge(self, other: Histogram) -> None:
        """Add everything that `other` holds. Exact: no value moves to another bucket."""
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
    def decode(data: bytes) -> Histogram:
        """Return the histogram that V2 bytes hold, not compressed.

        Any V2 histogram is taken, its values as ns: those of other layouts are counted at the
        middle of their buckets, those above 1 h as `overflow`. min and max are bucket edges.

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
        """The mean in ns, from bucket middles (0.05 % at most from exact); 0.0 if empty."""
    @property
    def stddev(self) -> float:
        """The standard deviation in ns, from bucket middles; 0.0 if empty."""

@final
class Load:
    """Drive connections to one echo server from one thread, and verify every byte.

    Use one object in one thread at a time. Blocking methods release the GIL.

    Args:
        family: socket.AF_INET, AF_INET6 or AF_UNIX.
        address: (host, port) with a numeric host, or a path as bytes or str for AF_UNIX.
        connections: how many, >= 1.
        depth: messages that may be outstanding on each connection, 1..65536.
        size: bytes of a message, 1..64 MiB; a line's newline is one of them, a length
            frame's header is not.
        frame: "raw", "line" or "length".
        prefix, suffix: what the server adds to each reply, at most 4096 bytes each; not
            with "raw".
        mode: "closed" (send after each reply), "open" (send on a schedule; the last 0.1 ms
            before a message is due are spent polling), "reconnect" (connect, echo one
            message, close, for ever) or "idle" (connect and hold).
        rate: messages per second over all connections; mode "open" only.
        sendfile: send from a memfd by sendfile(2) instead of from memory.
        timeout: seconds, float > 0: for a reply, for a connect, and for what is still
            outstanding when the window of a run ends.
        seed: decides the bytes of every message.
        sources: local addresses to connect from, in turn. Default: the kernel's choice;
            several 127.x.y.z towards 127.0.0.0/8 in reconnect mode and with very many
            connections, so that ports do not run out.
        close: how reconnect mode ends a connection: "fin" (send FIN, wait for the server's
            FIN) or "reset" (RST after the reply: leaves no TIME_WAIT behind).
        poll: never sleep while replies are awaited: a client whose own waking up, which can
            take longer than the server, is not in its latencies. Takes a whole CPU.
    Raises:
        ValueError: a wrong argument, named with its value.
        MemoryError: too little memory for the messages.
        OSError: no descriptor was left.
    """

    def __init__(
        self,
        family: int,
        address: tuple[str, int] | bytes | str,
        *,
        connections: int = 1,
        depth: int = 1,
        size: int = 64,
        frame: Literal["raw", "line", "length"] = "raw",
        prefix: bytes = b"",
        suffix: bytes = b"",
        mode: Literal["closed", "open", "reconnect", "idle"] = "closed",
        rate: float = 0.0,
        sendfile: bool = False,
        timeout: float = 5.0,
        seed: int = 1,
        sources: Sequence[str] = (),
        close: Literal["fin", "reset"] = "fin",
        poll: bool = False,
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
    def run(self, seconds: float) -> RunResult:
        """Send for `seconds`, then collect what is outstanding: nothing stays in flight.

        Returns at the latest `seconds` + `timeout` after the call. A connection that failed
        is counted and stays closed until the next connect(). Mode "idle" only watches.

        Raises:
            ValueError: seconds is not > 0.
            RuntimeError: no connection is open, or another thread is in a method.
        """
    def histogram(self) -> Histogram:
        """Return a copy of the latencies in ns of all right replies since the last reset().

        Closed loop: from the send. Open loop: from the intended time. Reconnect: from the
        start of the connect to the last byte of the reply.
        """
    def schedule_histogram(self) -> Histogram:
        """Return a copy of the schedule error in ns since the last reset(), open loop only.

        How long after its intended time each message was given to its connection: the
        generator's own lateness. A message for which no connection had room is left out; it
        is in `held`.
        """
    def reset(self) -> None:
        """Empty both histograms."""
    def close(self) -> None:
        """Close every connection and free the memory; idempotent."""
    @property
    def connections_open(self) -> int:
        """Connections that are open now."""
    def __enter__(self) -> Load: ...
    def __exit__(self, *exc: object) -> None: ...
