"""Whether a connection can be opened; the address that answers first serves all probes."""

from __future__ import annotations

import socket

from fastecho.check.path import Stream
from fastecho.check.verdict import hopeless, passed
from fastecho.dial import connect_error, text_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "a connection can be opened"
GROUP, ORDER, QUICK, PHASE, NEEDS = "reach", 0, True, "first", ()
PASSED = "Something accepts connections at this address."
FAILED = (
    "Nobody can connect: the server does not run, listens elsewhere, or a firewall drops or "
    "refuses what is sent to it."
)
UNRESOLVED = (
    "The name has no address here: it is misspelt, or the resolver does not know it or cannot be "
    "asked. Nothing was tried on the way to the server."
)
TRIED = 3
SPARE_SECONDS, LEAST_SECONDS = 1.0, 0.1
"""Of the time of all, what is left for saying so; for an address, however many there are."""


def run(path: Path) -> Finding:
    """Connect to each address in turn, until one answers."""
    failures = []
    try:
        places = path.places()
    except OSError as error:
        meaning = UNRESOLVED if isinstance(error, socket.gaierror) else ""
        return hopeless(error.strerror or str(error), meaning)
    for number, (family, place) in enumerate(places):
        share = (path.left() - SPARE_SECONDS) / (len(places) - number)
        patience = min(path.connect_patience, max(share, LEAST_SECONDS))
        # More than one: a single one may go over the one bad link of a bundle.
        found = path.connect_all([(family, place)] * TRIED, enough=1, patience=patience)
        where = text_of(family, place)
        streams = [one for one in found if isinstance(one, Stream)]
        for stream in streams:
            stream.close()
        if streams:
            path.place = (family, place)
            ms = streams[0].connect_s * 1e3
            return passed(f"connected to {where} in {ms:.3f} ms", address=where, connect_ms=ms)
        failures += [(where, one) for one in found[:1] if isinstance(one, OSError)]
    reason = connect_error(path.address, failures)
    return hopeless(reason.strerror or str(reason), errno=reason.errno or 0)
