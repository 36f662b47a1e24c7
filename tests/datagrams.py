"""Peers of a UDP echo under test: sockets with deadlines, trains, forged datagrams.

Lives here: opening sockets, asking, collecting replies, waiting for the end of a loop. Does not
live here: what a test expects; TCP (peers.py).
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

from peers import DEADLINE

if TYPE_CHECKING:
    from served import Served

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
"""Of linux/udp.h; Python has no names for them."""
QUIET = 0.2
"""Seconds without a datagram after which no further one is expected over loopback."""


def place_of(address: str, host: str = "") -> tuple[str, int]:
    """Return where udp://HOST:PORT is reached; `host` in the place of its own, if given."""
    text, _, port = address.removeprefix("udp://").rpartition(":")
    return host or text.strip("[]"), int(port)


def open_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a bound socket; every call on it has a deadline."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.settimeout(DEADLINE)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def ask(address: str, data: bytes, *, host: str = "", source: str = "") -> tuple[bytes, str]:
    """Send one datagram from a new socket; return the reply and the address that it came from."""
    place = place_of(address, host)
    own = source or ("::" if ":" in place[0] else "0.0.0.0")
    with open_socket(own) as sock:
        sock.sendto(data, place)
        reply, came_from = sock.recvfrom(1 << 17)
        assert came_from[1] == place[1]
        return reply, came_from[0]


def collect(sock: socket.socket, most: int, quiet: float = QUIET) -> list[bytes]:
    """Return up to `most` datagrams, fewer when none comes for `quiet` seconds."""
    replies: list[bytes] = []
    sock.settimeout(quiet)
    try:
        while len(replies) < most:
            replies.append(sock.recv(1 << 17))
    except TimeoutError:
        pass
    finally:
        sock.settimeout(DEADLINE)
    return replies


def send_train(sock: socket.socket, data: bytes, segment: int, place: tuple[str, int]) -> None:
    """Send datagrams of `segment` bytes, the last one of the rest, as one train."""
    beside = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment))]
    assert sock.sendmsg([data], beside, 0, place) == len(data)


def forge(served: Served, source: tuple[str, int], data: bytes) -> None:
    """Have a server find a datagram from an address that belongs to nobody any more.

    No raw socket is needed: a socket of that address sends it while the server stands still, and is
    closed. A second server can bind the address before the first goes on: `with served.paused()`
    stands round both.
    """
    with open_socket(*source) as sock:
        sock.sendto(data, place_of(served.address))


def wait_for_rest(served: list[Served], limit: int, span: float = QUIET) -> int:
    """Return how many datagrams servers have received, when it is over.

    It is when none comes for `span` seconds, or when they are more than `limit`.
    """
    before, since = -1, time.monotonic()
    while True:
        count = sum(one.stats().datagrams_in for one in served)
        if count != before:
            before, since = count, time.monotonic()
        if count > limit or time.monotonic() - since > span:
            return count
