"""SYNs made by hand, from addresses that never answer: what fills a SYN queue.

Only for a network namespace that was made for it (netns.make): a raw socket needs CAP_NET_RAW,
and on a real network this would be an attack.
"""

from __future__ import annotations

import socket
import struct

__all__ = ["send_syns"]

TCP_SYN = 0x02
WINDOW = 64240


def send_syns(count: int, source: str, port: int, to: tuple[str, int]) -> None:
    """Send SYNs from so many ports of a source address, beginning at `port`.

    Raises:
        OSError: EPERM: raw sockets are not allowed.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(count):
            raw.sendto(_packet(source, port + number, to), (to[0], 0))


def _packet(source: str, port: int, to: tuple[str, int]) -> bytes:
    """Return an IPv4 packet with a SYN; the kernel fills in length and checksum of IPv4's head."""
    here, there = socket.inet_aton(source), socket.inet_aton(to[0])
    segment = struct.pack("!HHIIBBHHH", port, to[1], 1000, 0, 5 << 4, TCP_SYN, WINDOW, 0, 0)
    pseudo = here + there + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment))
    checksum = _checksum(pseudo + segment)
    segment = segment[:16] + struct.pack("!H", checksum) + segment[18:]
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0)
        + here
        + there
        + segment
    )


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
