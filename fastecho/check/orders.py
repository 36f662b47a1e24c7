"""Orders for a server that was started with --probes: one line, which it acknowledges.

Lives here: both lines as a client sees them. Does not live here: what a server does then
(fastecho/probing.py has ours; docs/reference/check.md says it for others).
"""

from __future__ import annotations

import select
from time import monotonic

from fastecho.check.pattern import shown_bytes
from fastecho.check.verdict import Failed, NotTestable

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path, Stream

__all__ = ["UNORDERED", "order", "read_line"]

MAGIC = b"FASTECHO-PROBE/1 "
LONGEST = 512
"""Bytes of an answer's line."""
CLOSED = "the connection was closed (FIN) in place of an answer to an order"
RESET = "the connection was reset (RST) in place of an answer to an order"
UNORDERED = (
    "What this looks for was not seen, because the order to the server or its answer did not get "
    "through: see what the probes answer, connections and echo say."
)


def order(path: Path, text: str, *, receive_buffer: int = 0) -> Stream:
    """Connect and order this; return the connection, on which what was ordered follows.

    Raises:
        NotTestable: it is a server that takes no orders, or refuses this one.
        Failed: something between has changed the line or its answer, or there is none; that is
            not what the probe looks for, and its meaning says so.
    """
    stream = path.open(receive_buffer=receive_buffer)
    try:
        line = MAGIC + text.encode() + b"\n"
        try:
            stream.sock.send(line)
        except ConnectionError:
            raise Failed(RESET, UNORDERED) from None
        answer = read_line(path, stream)
        if answer == line:
            raise NotTestable("the server takes no orders: it was not started with --probes")
        if answer.startswith(MAGIC + b"error "):
            why = answer[len(MAGIC) + 6 :].decode("ascii", "replace").strip()
            raise NotTestable(f"the server refused the order {text!r}: {why}")
        if answer != MAGIC + b"ok " + text.partition(" ")[0].encode() + b"\n":
            words = f"the answer to an order was changed on its way: {shown_bytes(answer, 60)}"
            raise Failed(words, UNORDERED)
    except BaseException:
        stream.close()
        raise
    return stream


def read_line(path: Path, stream: Stream) -> bytes:
    """Return the next line with its newline; not a byte of what comes behind it is taken.

    Raises:
        Failed: none came in time, or none that long.
    """
    poller = path.poller()
    poller.register(stream.sock, select.POLLIN)
    line, until = b"", monotonic() + path.patience
    while not line.endswith(b"\n"):
        if not path.wait(poller, until):
            if monotonic() < until:
                continue
            came = f" but {shown_bytes(line)}" if line else ""
            raise Failed(f"an order got no answer in {path.patience:.1f} s{came}", UNORDERED)
        try:
            byte = stream.sock.recv(1)
        except BlockingIOError:
            continue
        except ConnectionError:
            raise Failed(RESET, UNORDERED) from None
        if not byte:
            raise Failed(CLOSED, UNORDERED)
        line += byte
        if len(line) > LONGEST:
            words = f"an order got an answer without an end: {shown_bytes(line, 60)}"
            raise Failed(words, UNORDERED)
    return line
