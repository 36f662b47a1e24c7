"""What the kernel holds for TCP connections, asked by sock_diag(7) as ss(8) does. No measuring.

It is what the kernel charges to a socket (and in the end to net.ipv4.tcp_mem): the bytes that
wait in its queues with all their overhead, and what it has reserved for the next ones. Nobody
else's connections are in it, which /proc/net/sockstat cannot say.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
INET_DIAG_SKMEMINFO = 7
TCP_ESTABLISHED = 1

HEADER = struct.Struct("=IHHII")
# family, protocol, extensions, padding, states; then the ports of struct inet_diag_sockid
REQUEST = struct.Struct("=BBBxIHH44x")
# of struct inet_diag_msg: its size, where the ports stand
MESSAGE_SIZE, PORTS_AT = 72, 4
ATTRIBUTE = struct.Struct("=HH")
# of the words of SK_MEMINFO: what is in the queues, their limits, and what is reserved
RECEIVE_QUEUE, RECEIVE_LIMIT, SEND_LIMIT, RESERVED, SEND_QUEUE = 0, 1, 3, 4, 5
MEMINFO = struct.Struct("=9I")


@dataclass(frozen=True, slots=True)
class Held:
    """The connections of one end and what the kernel holds for them."""

    connections: int
    # bytes, of all of them together
    memory: int
    # of all of them together, bytes above which a queue takes nothing more: SO_SNDBUF, SO_RCVBUF
    limit: int


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut what one recv of a netlink socket gave into (type, payload)."""
    while data:
        length, kind, *_ = HEADER.unpack_from(data)
        yield kind, data[HEADER.size : length]
        data = data[length + -length % 4 :]


def meminfo(payload: bytes) -> tuple[int, ...]:
    """Return the words of SK_MEMINFO of one socket's message."""
    rest = payload[MESSAGE_SIZE:]
    while rest:
        length, kind = ATTRIBUTE.unpack_from(rest)
        if kind == INET_DIAG_SKMEMINFO:
            return MEMINFO.unpack_from(rest, ATTRIBUTE.size)
        rest = rest[length + -length % 4 :]
    raise OSError("the kernel tells no memory of a socket")


def held(*, port: int, remote: bool = False) -> Held:
    """Return what the kernel holds for established IPv4 connections of `port`.

    The ends whose own port it is, or with `remote` those that are connected to it.
    """
    near, far = (0, port) if remote else (port, 0)
    request = REQUEST.pack(
        socket.AF_INET,
        socket.IPPROTO_TCP,
        1 << (INET_DIAG_SKMEMINFO - 1),
        1 << TCP_ESTABLISHED,
        socket.htons(near),
        socket.htons(far),
    )
    size = HEADER.size + len(request)
    count = memory = limit = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as asked:
        asked.send(HEADER.pack(size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + request)
        while True:
            for kind, payload in messages(asked.recv(1 << 18)):
                if kind == NLMSG_DONE:
                    return Held(count, memory, limit)
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, "the kernel does not tell of sockets (sock_diag)")
                words = meminfo(payload)
                count += 1
                memory += words[RECEIVE_QUEUE] + words[SEND_QUEUE] + words[RESERVED]
                limit += words[RECEIVE_LIMIT] + words[SEND_LIMIT]


def setting(name: str) -> list[int]:
    """Return the numbers of a setting of the kernel, such as net.ipv4.tcp_wmem."""
    text = Path("/proc/sys", *name.split(".")).read_text()
    return [int(one) for one in text.split()]


def tcp_pages() -> int:
    """Return the pages that the kernel holds for all TCP sockets of the machine."""
    text = Path("/proc/net/sockstat").read_text()
    return int(text.partition("TCP:")[2].partition(" mem ")[2].split()[0])
