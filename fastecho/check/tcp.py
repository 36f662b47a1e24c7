"""What the kernel knows of one of our TCP connections, and what it still holds of ours.

Lives here: reading struct tcp_info and the send queue. Does not live here: what the figures mean.
"""

from __future__ import annotations

import socket
import sys

__all__ = ["FIELDS", "tcp_info", "unsent"]

FIELDS = {
    "retransmits": (2, 1),
    "keepalive_probes": (3, 1),
    "options": (5, 1),
    "snd_mss": (16, 4),
    "rcv_mss": (20, 4),
    "unacked": (24, 4),
    "last_ack_recv_ms": (56, 4),
    "pmtu": (60, 4),
    "rtt_us": (68, 4),
    "rttvar_us": (72, 4),
    "advmss": (84, 4),
    "total_retrans": (100, 4),
    "segs_out": (136, 4),
    "segs_in": (140, 4),
    "data_segs_out": (156, 4),
}
"""Each with its offset and its size in struct tcp_info of linux/tcp.h."""
SIZE = 160
"""Bytes of it that are asked for, which Linux has since 4.6."""


def tcp_info(sock: socket.socket) -> dict[str, int] | None:
    """Return the fields of a TCP socket; None where there are none (other systems, Unix)."""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZE)
    except OSError:  # a kernel in a sandbox may not have it
        return None
    if len(data) < SIZE:
        return None
    return {
        name: int.from_bytes(data[at : at + size], sys.byteorder)
        for name, (at, size) in FIELDS.items()
    }


def unsent(sock: socket.socket) -> int:
    """Return the bytes that the kernel took from us and the other side has not acknowledged.

    0 where the kernel does not tell.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    import fcntl
    import struct
    import termios

    try:
        answer = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
