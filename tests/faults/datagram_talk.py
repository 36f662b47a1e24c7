"""Datagrams to a server whose calls fail: any may be lost, none may be wrong, twice or foreign.

Lives here: sending them, collecting the replies, the judgement. Does not live here: connections
(workload.py), the faults.
"""

from __future__ import annotations

import random
import socket

from peers import wait_until

COUNT = 200
QUIET = 0.02
"""Seconds without a reply after which the rest counts as lost: over loopback none is on its way."""


def send_datagrams(address: str, dice: random.Random, prefix: bytes) -> list[str]:
    """Send COUNT datagrams at once, take the replies; return what is wrong with them."""
    host, _, port = address.removeprefix("udp://").rpartition(":")
    place = (host, int(port))
    wrong = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(QUIET)
        # Some leave in trains: those of one size.
        sizes = dice.choice([[64], [700, 700, 300], range(8, 2001)])
        sent = [prefix + dice.randbytes(dice.choice(sizes)) for _ in range(COUNT)]
        due = set(sent)
        for one in sent:
            sock.sendto(one[len(prefix) :], place)
        try:
            while due:
                reply, source = sock.recvfrom(1 << 16)
                if source != place:
                    wrong.append(f"a reply from {source}")
                elif reply in due:
                    due.remove(reply)
                else:
                    wrong.append(f"{len(reply)} bytes that were not due: {reply[:20]!r}")
        except TimeoutError:
            pass
    return wrong


def is_answered(address: str, prefix: bytes) -> bool:
    """Tell whether a datagram is answered, at the first try or a later one.

    One can be lost: after failures the sockets rest, and what waited may be more than they hold.
    """
    host, _, port = address.removeprefix("udp://").rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)

        def ask() -> bool:
            sock.sendto(b"newcomer", (host, int(port)))
            try:
                return sock.recv(1 << 16) == prefix + b"newcomer"
            except TimeoutError:
                return False

        wait_until(ask, what="an answer to a datagram")
    return True
