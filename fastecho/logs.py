"""Log lines: one event, one line; text for people, JSON for machines, harmless characters.

Lives here: what a line looks like. Does not live here: where lines come from (reporter.py), where
they go (logging; cli/serve.py for the command).

Nothing that a peer chooses can end a line or act on a terminal. In text, whatever is not printable
becomes a backslash escape: control characters, the marks that change the direction of text, line
separators, bytes that are no UTF-8. In JSON everything but ASCII is escaped.
"""

from __future__ import annotations

from time import gmtime, strftime

__all__ = [
    "LEVELS",
    "Entry",
    "access_json",
    "access_text",
    "message_json",
    "one_line",
    "valid_text",
]


LEVELS = ("error", "warning", "info")
"""Of lines that are not the access log's, the most important first."""


class Entry:
    """One connection, as the access log tells it after its end.

    Attributes:
        number: its number among all accepted, from 1; None if it was refused.
        peer: the remote end, as text; "unix:" for a Unix socket without a name.
        listener: where it came in, as in Server.addresses.
        ended_at: when it was closed, seconds since 1970, float.
        queue_wait: seconds that it waited in the kernel's accept queue before, float, in steps of
            the kernel's tick (some ms); None on a Unix socket, where the kernel does not tell.
        duration: seconds from accept to close, float.
        bytes_in: bytes received.
        bytes_out: bytes of reply that the kernel took for the peer.
        ended_by: "peer", "error", "idle_timeout", "first_byte_timeout", "frame_too_long", "denial",
            "drain", "abort" or "no_memory"; for a newcomer that was accepted and reset at once
            "max_connections", "max_per_ip", "accept_rate" or "no_descriptors".
        error: name of the errno behind "error" and "no_memory", such as "ECONNRESET"; else None.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "duration",
        "ended_at",
        "ended_by",
        "error",
        "listener",
        "number",
        "peer",
        "queue_wait",
    )

    def __init__(
        self,
        *,
        number: int | None,
        peer: str,
        listener: str,
        ended_at: float,
        queue_wait: float | None,
        duration: float,
        bytes_in: int,
        bytes_out: int,
        ended_by: str,
        error: str | None,
    ) -> None:
        self.number = number
        self.peer = peer
        self.listener = listener
        self.ended_at = ended_at
        self.queue_wait = queue_wait
        self.duration = duration
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.ended_by = ended_by
        self.error = error

    def __repr__(self) -> str:
        return f"<Entry {access_text(self)}>"


def valid_text(text: str) -> str:
    r"""Return a name with bytes that are no UTF-8 as \\xff: lone surrogates are no Unicode text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """Return `text` with everything escaped that could end the line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def _timestamp(seconds: float) -> str:
    """Return a time since 1970 as UTC by RFC 3339, with milliseconds."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(whole))}.{milliseconds:03}Z"


def access_text(entry: Entry) -> str:
    """Return the access log's line for people."""
    how = f"refused by {entry.ended_by}" if entry.number is None else f"ended by {entry.ended_by}"
    queued = "" if entry.queue_wait is None else f"queued {entry.queue_wait:.3f} s, "
    return one_line(
        f"{_timestamp(entry.ended_at)} {entry.peer} to {entry.listener}: {entry.duration:.6f} s, "
        f"{queued}bytes in {entry.bytes_in}, bytes out {entry.bytes_out}, {how}"
        f"{f' {entry.error}' if entry.error else ''}"
    )


def access_json(entry: Entry) -> str:
    """Return the access log's line for machines; docs/reference/access-log.md lists the keys."""
    return _json(
        time=_timestamp(entry.ended_at),
        event="access",
        connection=entry.number,
        peer=entry.peer,
        listener=entry.listener,
        queue_wait_ms=None if entry.queue_wait is None else round(entry.queue_wait * 1000),
        duration_ms=round(entry.duration * 1000, 3),
        bytes_in=entry.bytes_in,
        bytes_out=entry.bytes_out,
        ended_by=entry.ended_by,
        error=entry.error,
    )


def message_json(at: float, level: str, message: str) -> str:
    """Return any other line for machines."""
    return _json(time=_timestamp(at), event="message", level=level, message=message)


def _json(**values: object) -> str:
    import json

    safe = {
        key: valid_text(value) if isinstance(value, str) else value for key, value in values.items()
    }
    return json.dumps(safe, separators=(",", ":"))
