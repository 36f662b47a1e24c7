"""Whether every port of ours is answered: the ports choose the link, or the server, of a bundle."""

from __future__ import annotations

import select
from time import monotonic

from fastecho.check.asking import SPACING_SECONDS, tries_for, try_seconds
from fastecho.check.train import trains
from fastecho.check.verdict import NotTestable, failed, passed
from fastecho.datagrams import Datagrams

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "many ports, one flow each"
GROUP, QUICK, PHASE, NEEDS = "path", True, "alone", ()
PASSED = "Whatever port a client has, it is answered."
FAILED = (
    "Some of our ports are never answered, while others are: one bad link of a bundle or of equal "
    "routes, one bad server behind a balancer, or a NAT that has no room for more flows."
)
QUICK_FLOWS, FULL_FLOWS = 24, 64


def run(path: Path) -> Finding:
    """Send on many sockets, on those without an answer again; none may stay without."""
    trains(path)
    tries = tries_for(path)
    if not tries:
        raise NotTestable(f"{path.loss:.1%} of all datagrams are lost")
    count = QUICK_FLOWS if path.quick else FULL_FLOWS
    sockets: list[Datagrams] = []
    try:
        while len(sockets) < count:
            sockets.append(Datagrams([path.place]))
        silent = _ask_all(path, sockets, tries)
    finally:
        for socket in sockets:
            socket.close()
    values = {"flows": count, "silent_ports": silent, "tries": tries}
    if not silent:
        return passed(f"{count} ports of ours were answered", **values)
    if len(silent) * 2 > count:
        raise NotTestable(f"{len(silent)} of {count} ports were not answered: no one stands out")
    ports = ", ".join(map(str, silent[:8]))
    words = f"{len(silent)} of {count} ports had no answer to {tries} datagrams: {ports}"
    return failed(words + (", ..." if len(silent) > 8 else ""), **values)


def _ask_all(path: Path, sockets: list[Datagrams], tries: int) -> list[int]:
    """Return the ports that were never answered."""
    poller = path.poller()
    waiting = {socket.fileno(): socket for socket in sockets}
    for socket in sockets:
        poller.register(socket, select.POLLIN)

    def take(until: float) -> None:
        for fd, _ in path.wait(poller, until):
            socket = waiting.get(fd)
            if socket is None:
                continue
            list(socket.errors())
            if socket.receive() is not None:
                poller.unregister(fd)
                del waiting[fd]

    for number in range(tries):
        for socket in list(waiting.values()):
            try:
                socket.send(b"flow %d %d\n" % (path.seed, number))
            except OSError:
                pass  # it stays silent
            take(monotonic() + SPACING_SECONDS)
        until = monotonic() + (try_seconds(path) if number < tries - 1 else path.patience)
        while waiting and monotonic() < until:
            take(until)
    return sorted(socket.sock.getsockname()[1] for socket in waiting.values())
