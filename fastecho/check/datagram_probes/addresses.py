"""Whether each address that a name has answers."""

from __future__ import annotations

import socket

from fastecho.check.asking import ask, tries_for
from fastecho.check.path import no_route
from fastecho.check.pattern import Pattern
from fastecho.check.verdict import NotTestable, failed, passed
from fastecho.dial import reason, text_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "every address of the name answers"
GROUP, QUICK, PHASE, NEEDS = "reach", True, "alone", ()
PASSED = "Whichever address a client takes, it is answered."
FAILED = (
    "Clients that take another address of the name get no answer: a stale DNS record, or a server "
    "that listens on one family or address only."
)
SIZE = 64


def run(path: Path) -> Finding:
    """Ask each that this machine has a way to."""
    try:
        places = path.places()
    except socket.gaierror as error:
        raise NotTestable(reason(error)) from None
    good, bad = [], []
    for number, place in enumerate(places):
        where = text_of(*place)
        if no_route(*place):
            continue
        data = Pattern(path.seed, 310 + number, SIZE).take(0, SIZE)
        (asked,) = ask(path, [data], tries=tries_for(path) or 3, place=place)
        if asked.is_exact:
            good.append(where)
        else:
            bad.append(f"{where}: {asked.story()}")
    if bad:
        return failed("; ".join(bad), addresses=len(places), addresses_reached=len(good))
    words = f"answered by {', '.join(good)}"
    return passed(words, addresses=len(places), addresses_reached=len(good))
