"""Whether answers come from the address and port that were asked."""

from __future__ import annotations

from fastecho.check.asking import ask, tries_for
from fastecho.check.pattern import Pattern
from fastecho.check.verdict import NotTestable, failed, passed
from fastecho.datagrams import HAS_QUEUE, Datagrams
from fastecho.dial import text_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "answers come from whom was asked"
GROUP, QUICK, PHASE, NEEDS = "path", True, "alone", ()
PASSED = "A client whose socket is connected, or that stands behind a NAT, gets the answers."
FAILED = (
    "Answers come from another address or port than was asked: connected sockets, NATs and "
    "firewalls drop them. A server with several addresses that answers from the route's (without "
    "IP_PKTINFO), or a relay that has a socket of its own for answers."
)
ASKED, SIZE = 3, 64


def run(path: Path) -> Finding:
    """Ask with a socket that is not connected, and look where the answers come from."""
    if not HAS_QUEUE:
        raise NotTestable("on this system datagrams are sent by connected sockets")
    datas = [Pattern(path.seed, 330 + number, SIZE).take(0, SIZE) for number in range(ASKED)]
    asked = ask(path, datas, tries=tries_for(path) or 3)
    with Datagrams([path.place]) as socket:
        place, family = socket.place, socket.sock.family
    places = {one for each in asked for one in each.places}
    if not places:
        raise NotTestable(f"there was no answer: {asked[0].story()}")
    there = text_of(family, place)
    others = sorted(text_of(family, one) for one in places - {place})
    if others:
        return failed(f"asked {there}, answered from {', '.join(others[:3])}", answered_from=others)
    return passed(f"{len(asked)} answers from {there}", answered_from=[there])
