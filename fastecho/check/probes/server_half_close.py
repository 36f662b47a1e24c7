"""Whether we may go on sending when the server has sent its FIN."""

from __future__ import annotations

import json
from time import monotonic

from fastecho.check.orders import UNORDERED, order, read_line
from fastecho.check.pattern import Pattern, Ruler, shown_bytes
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import Failed, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Any

    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "the server's half-close is respected"
GROUP, QUICK, PHASE, NEEDS = "server", True, "beside", ("probes",)
PASSED = "What we send after the server's FIN still reaches the server."
FAILED = (
    "A half-close of the server is not carried: a proxy closes both ways at the first FIN, and "
    "what a client sends after that is lost."
)
FIRST, THEN = 1000, 100_000
"""Bytes of the server before its FIN, and of us after it."""
ASK_SECONDS = 0.05
MOST = 1 << 63
"""Above what a server may say that it got."""


def run(path: Path) -> Finding:
    """Read to the server's FIN, send on, half-close; then ask the server what it got."""
    from secrets import token_hex
    from zlib import crc32

    token = token_hex(8)
    with order(path, f"half-close {token} {FIRST}") as stream:
        talk = Talk(stream, Pattern(path.seed, 150, 0), want=Ruler(FIRST), eof=True)
        converse(path, [talk])
        if not talk.is_whole:
            return failed(f"{FIRST:,} bytes and FIN were due: {talk.story()}")
        source = Pattern(path.seed, 151, THEN)
        more = Talk(stream, source, fin=True, deaf=True)
        converse(path, [more])
        got = _ask(path, token)
    sent, came = THEN, got["bytes"]
    values = {"sent_bytes": sent, "received_bytes": came, "fin_received": bool(got["eof"])}
    words = f"after the server's FIN {sent:,} bytes were sent, {came:,} arrived"
    if came != sent:
        return failed(words, **values)
    if not got["eof"]:
        return failed(f"{words}, but not our FIN", **values)
    if got.get("crc32") not in (None, crc32(source.take(0, sent))):
        return failed(f"{words}, but not the same", **values)
    return passed(f"{words}, and our FIN", **values)


def _ask(path: Path, token: str) -> dict[str, Any]:
    """Ask what the server got, until it has our FIN or nothing more has come for too long."""
    until, most = monotonic() + path.patience, 0
    while True:
        with order(path, f"received {token}") as stream:
            line = read_line(path, stream)
        try:
            got = json.loads(line)
            eof, came = got["eof"], got["bytes"]
        except (ValueError, TypeError, KeyError, RecursionError):
            eof, came = True, None
        if type(came) is not int or not 0 <= came < MOST:
            words = f"the server's report cannot be read: {shown_bytes(line, 60)}"
            raise Failed(words, UNORDERED)
        if came > most:  # a slow path still carries it
            until, most = monotonic() + path.patience, came
        if eof or monotonic() > until:
            return dict(got)
        path.sleep(max(ASK_SECONDS, path.rtt))
