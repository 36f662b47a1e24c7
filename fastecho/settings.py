"""The table of settings: each with its default, type, unit and limits.

The table is the only place that knows them: the keywords of Config, the flags of `fastecho serve`,
the FASTECHO_ variables, the keys of a TOML file and --print-config are all read from it. Does not
live here: how a value is checked and read (setting.py), where it comes from (config.py).
"""

from __future__ import annotations

from .setting import UDP_BIND, Setting

__all__ = ["DEFAULT_MAX_FRAME", "DEFAULT_MAX_PENDING", "SETTINGS"]

LARGEST_INT = 2**31 - 1
LARGEST_BUFFER = 2**30
LONGEST_TIME = 1_000_000.0
"""Seconds, 11 days: every smaller time fits in 31 bits of milliseconds."""
DEFAULT_MAX_FRAME = 65536
DEFAULT_MAX_PENDING = 67108864

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "bind",
        "bind",
        "127.0.0.1:0",
        "where to listen: HOST:PORT (a name binds every address it resolves to, port 0 picks "
        "one), [::1]:7, [::]:7 (IPv6 only), :7 (every address, IPv4 and IPv6), udp:// before any "
        "of these, unix:PATH, fd://3 (inherited), or systemd:NAME (passed by socket activation; "
        "systemd: for all of them); repeatable",
        metavar="ADDRESS",
    ),
    Setting(
        "threads",
        "whole",
        1,
        "worker threads, each with its own loop",
        low=1,
        high=1024,
        metavar="N",
    ),
    Setting(
        "backlog",
        "whole",
        None,
        "length of the accept queue, in connections, as for listen(2)",
        low=0,
        high=LARGEST_INT,
        unset="somaxconn",
        metavar="N",
    ),
    Setting(
        "reuse_port",
        "switch",
        False,
        "one listener for each thread with SO_REUSEPORT, instead of one for all",
    ),
    Setting(
        "service",
        "choice",
        "echo",
        "what a connection gets: echo (RFC 862), discard (nothing: what it sends is dropped, RFC "
        "863) or chargen (a pattern without end, RFC 864); the last two over TCP and Unix sockets",
        choices=("echo", "discard", "chargen"),
        metavar="WHAT",
    ),
    Setting(
        "frame",
        "choice",
        "recv",
        "how the bytes are cut into messages for prefix and suffix: recv (whatever one recv "
        "gave), line (up to a newline) or length (4 bytes, big-endian, then the payload)",
        choices=("recv", "line", "length"),
        metavar="FORM",
    ),
    Setting(
        "prefix", "bytes", b"", "put before each message of the reply", high=4096, metavar="TEXT"
    ),
    Setting(
        "suffix",
        "bytes",
        b"",
        "put after each message of the reply, before a line's newline",
        high=4096,
        metavar="TEXT",
    ),
    Setting(
        "max_frame",
        "whole",
        None,
        "longest message, in bytes; a longer one ends the connection (frames line and length)",
        low=1,
        high=LARGEST_BUFFER,
        unset=f"{DEFAULT_MAX_FRAME}, or high_water if that is less",
        metavar="BYTES",
    ),
    Setting(
        "high_water",
        "whole",
        262144,
        "stop reading from a peer while so many bytes wait to be sent to it",
        low=1,
        high=LARGEST_BUFFER,
        metavar="BYTES",
    ),
    Setting(
        "low_water",
        "whole",
        None,
        "read again when no more than so many bytes wait",
        low=0,
        high=LARGEST_BUFFER,
        unset="a quarter of high_water",
        metavar="BYTES",
    ),
    Setting(
        "max_connections",
        "whole",
        None,
        "open connections at a time; at_limit says what becomes of a newcomer above it",
        low=1,
        high=LARGEST_INT,
        unset="no limit",
        metavar="N",
        live=True,
    ),
    Setting(
        "at_limit",
        "choice",
        "reset",
        "what becomes of a newcomer above max_connections: reset (at once, and counted) or queue "
        "(it waits in the kernel's accept queue until a connection ends)",
        choices=("reset", "queue"),
        metavar="WHAT",
        needs="max_connections",
    ),
    Setting(
        "max_per_ip",
        "whole",
        None,
        "open connections of one peer address; a newcomer above it is reset and counted",
        low=1,
        high=LARGEST_INT,
        unset="no limit",
        metavar="N",
        live=True,
    ),
    Setting(
        "ipv6_prefix",
        "whole",
        64,
        "bits of an IPv6 address that count as one address for max_per_ip and udp_rate",
        high=128,
        metavar="BITS",
        live=True,
        needs=f"max_per_ip or {UDP_BIND}",
    ),
    Setting(
        "accept_rate",
        "whole",
        None,
        "newcomers a second, with bursts of a tenth of that; one above it is reset and counted",
        low=1,
        high=1_000_000_000,
        unset="no limit",
        metavar="N",
        live=True,
    ),
    Setting(
        "udp_rate",
        "whole",
        1000,
        "datagrams of one source address that each thread answers a second, with bursts of one "
        "second; what is above is dropped and counted",
        low=1,
        high=1_000_000_000,
        unset="no limit",
        metavar="N",
        live=True,
        needs=UDP_BIND,
    ),
    Setting(
        "udp_guards",
        "switch",
        True,
        "answer no datagram from a port below 1024 or one of our own, none from or to a broadcast "
        "address or a group, and end loops with other servers",
        needs=UDP_BIND,
    ),
    Setting(
        "first_byte_timeout",
        "seconds",
        None,
        "close a connection that has not sent its first byte within so many seconds",
        low=0.001,
        high=LONGEST_TIME,
        unset="no limit",
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "idle_timeout",
        "seconds",
        None,
        "close a connection when no byte went either way for so many seconds",
        low=0.001,
        high=LONGEST_TIME,
        unset="no limit",
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "proxy_protocol",
        "choice",
        "off",
        "a PROXY header (version 1 or 2) before the first byte tells who the peer is: off, "
        "optional (who sends none is echoed) or required (who sends none is reset)",
        choices=("off", "optional", "required"),
        metavar="WHAT",
    ),
    Setting(
        "proxy_trusted",
        "networks",
        "127.0.0.0/8,::1",
        "whose PROXY headers are believed: addresses or ranges, as in 10.0.0.0/8,fd00::/8; peers "
        "of a Unix socket always are",
        metavar="RANGES",
        needs="proxy_protocol",
    ),
    Setting(
        "proxy_timeout",
        "seconds",
        5.0,
        "seconds that a PROXY header may take to come",
        low=0.001,
        high=3600,
        metavar="SECONDS",
        needs="proxy_protocol",
    ),
    Setting(
        "identify",
        "switch",
        False,
        "say who answers: one line of JSON, before all else on each connection",
    ),
    Setting(
        "instance",
        "name",
        None,
        "the server's name in that line",
        high=255,
        unset="the host's name",
        metavar="NAME",
        needs="identify",
    ),
    Setting(
        "user_timeout",
        "seconds",
        None,
        "give a TCP peer up that has not acknowledged what was sent to it for so many seconds",
        low=0.001,
        high=LONGEST_TIME,
        unset="the system's",
        metavar="SECONDS",
    ),
    Setting(
        "keepalive",
        "seconds",
        None,
        "ask a silent TCP peer every so many seconds whether it is there; after the third "
        "question without an answer it is given up",
        low=1,
        high=32767,
        unset="never",
        metavar="SECONDS",
    ),
    Setting(
        "send_buffer",
        "whole",
        None,
        "kernel memory for what a TCP peer has not taken yet (SO_SNDBUF; Linux doubles it)",
        low=1,
        high=LARGEST_BUFFER,
        unset="the system's, growing",
        metavar="BYTES",
    ),
    Setting(
        "receive_buffer",
        "whole",
        None,
        "kernel memory for what a TCP peer has sent and the server has not read, and for what "
        "waits at each UDP socket (SO_RCVBUF; Linux doubles it)",
        low=1,
        high=LARGEST_BUFFER,
        unset="the system's, growing",
        metavar="BYTES",
    ),
    Setting(
        "graceful_timeout",
        "seconds",
        30.0,
        "on SIGTERM, seconds that connections have to finish before the rest is reset",
        high=LONGEST_TIME,
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "drain_delay",
        "seconds",
        0.0,
        "on SIGTERM, seconds to go on accepting before the drain begins, while /readyz says 503: "
        "for load balancers that need some time to look elsewhere",
        high=LONGEST_TIME,
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "drain_idle",
        "seconds",
        1.0,
        "while draining, end a connection that was quiet for so many seconds",
        high=LONGEST_TIME,
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "spin_us",
        "whole",
        0,
        "microseconds to look for work before a thread sleeps: less latency for more CPU",
        high=100_000,
        metavar="MICROSECONDS",
    ),
    Setting(
        "access_log",
        "switch",
        False,
        "one line for each connection at its end: who, how long, bytes in and out, how it ended",
    ),
    Setting(
        "access_log_sample",
        "whole",
        1,
        "a line for one connection in so many: the first, and every N-th from there",
        low=1,
        high=LARGEST_INT,
        metavar="N",
        needs="access_log",
    ),
    Setting(
        "access_log_rate",
        "whole",
        None,
        "lines of the access log a second, with bursts of a tenth of that; those above are counted",
        low=1,
        high=1_000_000_000,
        unset="no limit",
        metavar="N",
        needs="access_log",
    ),
    Setting(
        "log_format",
        "choice",
        "text",
        "lines of the log for people (text) or for machines (json)",
        choices=("text", "json"),
        metavar="FORM",
    ),
    Setting(
        "fault",
        "fault",
        None,
        "what goes wrong on purpose, for those who test a client: delay=50ms,jitter=10ms; "
        "bandwidth=100k (bytes a second); slice=1,gap=1ms; stall_after=10 (bytes), close_after, "
        "reset_after; corrupt=0.01, duplicate=0.1; silent, no_read, deny, half_close; "
        "accept_delay=1s; with fail_first=3 (connections) or probability=0.1, and seed=1",
        unset="none",
        metavar="FAULT",
        live=True,
    ),
)
