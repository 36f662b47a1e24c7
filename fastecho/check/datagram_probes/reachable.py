"""Whether a datagram comes back; the address that answers first serves all probes."""

from __future__ import annotations

import socket

from fastecho.check.asking import Asked, ask
from fastecho.check.pattern import Pattern
from fastecho.check.verdict import hopeless, passed
from fastecho.dial import text_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "a datagram comes back"
GROUP, ORDER, QUICK, PHASE, NEEDS = "reach", 0, True, "first", ()
PASSED = "Something at this address sends datagrams back as they came."
FAILED = (
    "No echo: the server does not run or listens elsewhere, a firewall drops what is sent to it or "
    "what it answers, or its guards do not answer this source."
)
UNRESOLVED = (
    "The name has no address here: it is misspelt, or the resolver does not know it or cannot be "
    "asked. Nothing was tried on the way to the server."
)
OTHER = "What answers is no exact echo server: another service, or one that adds something."
TRIES, SIZE = 5, 64


def run(path: Path) -> Finding:
    """Ask each address in turn, until one sends back what came."""
    try:
        places = path.places()
    except OSError as error:
        meaning = UNRESOLVED if isinstance(error, socket.gaierror) else ""
        return hopeless(error.strerror or str(error), meaning)
    stories, meaning = [], ""
    for number, place in enumerate(places):
        where, data = text_of(*place), Pattern(path.seed, 300 + number, SIZE).take(0, SIZE)
        try:
            (asked,) = ask(path, [data], tries=TRIES, place=place)
        except OSError as error:
            stories.append(f"{where}: {error.strerror or error}")
            continue
        if asked.is_exact:
            return _reached(path, place, where, asked)
        stories.append(f"{where}: {asked.story()}")
        meaning = OTHER if asked.wrong else meaning
    return hopeless("; ".join(stories), meaning)


def _reached(path: Path, place: tuple[int, object], where: str, asked: Asked) -> Finding:
    path.place, path.rtt = place, asked.seconds
    ms = asked.seconds * 1e3
    times = "" if asked.sent == 1 else f", sent {asked.sent} times"
    words = f"{SIZE} bytes came back from {where} in {ms:.3f} ms{times}"
    return passed(words, address=where, rtt_ms=ms, sent=asked.sent)
