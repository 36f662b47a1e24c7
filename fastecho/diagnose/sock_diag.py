"""sock_diag: the kernel's list of listening sockets, asked by netlink.

Lives here: the messages to and from the kernel. Does not live here: what a listener is
(listening.py), the same from /proc where netlink is not allowed (proc_net.py).

A dump is the listeners of the network namespace of the socket that asks; no privilege is needed.
For a TCP listener, idiag_rqueue is the depth of its accept queue and idiag_wqueue the limit, as in
`ss -ltn`; a Unix listener has both in UNIX_DIAG_RQLEN. Drops are the ninth word of SKMEMINFO.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

from fastecho.diagnose.listening import Listening

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["handshakes", "tcp_listeners", "unaccepted", "unix_listener", "unix_listeners"]

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
NLMSG_ERROR, NLMSG_DONE = 2, 3
TCP_ESTABLISHED, TCP_SYN_RECV, TCP_CLOSE_WAIT, TCP_LISTEN, TCP_NEW_SYN_RECV = 1, 3, 8, 10, 12
INET_DIAG_SKMEMINFO, INET_DIAG_SKV6ONLY = 7, 11
UNIX_DIAG_NAME, UNIX_DIAG_RQLEN, UNIX_DIAG_UID = 0, 4, 7
UDIAG_SHOW_NAME, UDIAG_SHOW_RQLEN, UDIAG_SHOW_UID = 0x1, 0x10, 0x40

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
INET_REQUEST = struct.Struct("=4BI48s")
"""struct inet_diag_req_v2: family, protocol, extensions, padding, states, no socket."""
INET_MESSAGE = struct.Struct("=4B2s2s16s16sI8s5I")
"""struct inet_diag_msg: family, state, .., ports, addresses, interface, cookie, expires, rqueue,
wqueue, uid, inode."""
UNIX_REQUEST = struct.Struct("=2BH5I")
"""struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie."""
UNIX_MESSAGE = struct.Struct("=4BI8x")
"""struct unix_diag_msg: family, type, state, padding, inode."""
NO_COOKIE = 0xFFFFFFFF
ATTRIBUTE = struct.Struct("=HH")
LARGEST_ANSWER = 65536
"""Bytes: the kernel cuts a dump into messages of at most half of that."""
TRIES = 5
"""So often a dump is asked for that changed while it was written."""


def tcp_listeners() -> list[Listening]:
    """Return all TCP listeners, IPv4 and IPv6.

    Raises:
        OSError: the kernel has no sock_diag for TCP, or it is not allowed.
    """
    extensions = 1 << (INET_DIAG_SKMEMINFO - 1)
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = INET_REQUEST.pack(
            family, socket.IPPROTO_TCP, extensions, 0, 1 << TCP_LISTEN, bytes(48)
        )
        for message in _dump(request):
            fields = INET_MESSAGE.unpack_from(message)
            attributes = dict(_attributes(message, INET_MESSAGE.size))
            memory = attributes.get(INET_DIAG_SKMEMINFO, b"")
            only_v6 = attributes.get(INET_DIAG_SKV6ONLY, b"\1") != b"\0"
            found.append(
                Listening(
                    "tcp",
                    host=_host(fields[0], fields[6], fields[8], only_v6=only_v6),
                    port=int.from_bytes(fields[4], "big"),
                    depth=fields[11],
                    limit=fields[12],
                    drops=struct.unpack_from("=I", memory, 32)[0] if len(memory) >= 36 else None,
                    uid=fields[13],
                    inode=fields[14],
                )
            )
    return found


def handshakes() -> dict[tuple[str, int], int]:
    """Return how many handshakes are under way (SYN_RECV), by our address and port.

    Raises:
        OSError: the kernel has no sock_diag for TCP, or it is not allowed.
    """
    counts: dict[tuple[str, int], int] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        states = 1 << TCP_SYN_RECV | 1 << TCP_NEW_SYN_RECV
        request = INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states, bytes(48))
        for message in _dump(request):
            fields = INET_MESSAGE.unpack_from(message)
            if fields[1] in (TCP_SYN_RECV, TCP_NEW_SYN_RECV):
                key = (_own_host(fields), int.from_bytes(fields[4], "big"))
                counts[key] = counts.get(key, 0) + 1
    return counts


def unaccepted(port: int) -> dict[tuple[str, int], set[bytes]]:
    """Return the kernel's cookies of who waits in accept queues at a port, by our address and port.

    They are those that are established and belong to no process. One that was reset meanwhile is
    still in the queue, and not among them. Port 0: at any.

    Raises:
        OSError: the kernel has no sock_diag for TCP, or it is not allowed.
    Cost: the kernel walks all connections; each one at the port is a message.
    """
    waiting: dict[tuple[str, int], set[bytes]] = {}
    socket_id = port.to_bytes(2, "big") + bytes(46)
    states = 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT
    for family in (socket.AF_INET, socket.AF_INET6):
        request = INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states, socket_id)
        for message in _dump(request):
            fields = INET_MESSAGE.unpack_from(message)
            if fields[14] == 0:
                key = (_own_host(fields), int.from_bytes(fields[4], "big"))
                waiting.setdefault(key, set()).add(fields[9])
    return waiting


def unix_listeners() -> list[Listening]:
    """Return all listening Unix sockets, of streams and of packets.

    Raises:
        OSError: the kernel has no sock_diag for Unix sockets, or it is not allowed.
    """
    show = UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN | UDIAG_SHOW_UID
    request = UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, 1 << TCP_LISTEN, 0, show, 0, 0)
    found = [_unix_listening(message) for message in _dump(request)]
    return [one for one in found if one is not None]


def unix_listener(inode: int) -> Listening | None:
    """Return the listening Unix socket of this number; None: it does not listen.

    Raises:
        OSError: ENOENT: there is no such socket; or the kernel has no sock_diag for Unix sockets.
    """
    show = UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN | UDIAG_SHOW_UID
    states = 1 << TCP_LISTEN
    request = UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, states, inode, show, NO_COOKIE, NO_COOKIE)
    (message,) = _ask(request, NLM_F_REQUEST) or [b""]
    return _unix_listening(message)


def _unix_listening(message: bytes) -> Listening | None:
    """Read one socket of unix_diag; None: it does not listen."""
    fields = UNIX_MESSAGE.unpack_from(message)
    attributes = dict(_attributes(message, UNIX_MESSAGE.size))
    if fields[2] != TCP_LISTEN or UNIX_DIAG_RQLEN not in attributes:
        return None
    depth, limit = struct.unpack("=2I", attributes[UNIX_DIAG_RQLEN])
    uid = attributes.get(UNIX_DIAG_UID)
    return Listening(
        "unix",
        path=_path(attributes.get(UNIX_DIAG_NAME, b"")),
        depth=depth,
        limit=limit,
        uid=None if uid is None else int.from_bytes(uid, sys.byteorder),
        inode=fields[4],
    )


def _own_host(fields: tuple[Any, ...]) -> str:
    """Return our address of a connection."""
    return _host(fields[0], fields[6], fields[8], only_v6=True)


def _host(family: int, address: bytes, interface: int, *, only_v6: bool) -> str:
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[:4])
    if not only_v6 and address == bytes(16):
        return ""  # one socket for every address of both kinds
    host = socket.inet_ntop(socket.AF_INET6, address)
    if interface and address[0] == 0xFE and address[1] & 0xC0 == 0x80:
        return f"{host}%{_interface(interface)}"  # link-local: each interface may have it
    return host


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _path(name: bytes) -> str:
    """Return the name as fastecho writes it; one of the abstract namespace begins with NUL."""
    return os.fsdecode(name if name.startswith(b"\0") else name.rstrip(b"\0"))


def _dump(request: bytes) -> list[bytes]:
    """Return the messages that answer a request, each without its netlink header."""
    for _ in range(TRIES):
        found = _ask(request, NLM_F_REQUEST | NLM_F_DUMP)
        if found is not None:
            return found
    raise OSError(errno.EAGAIN, "the kernel's list of sockets changed all the time")


def _ask(request: bytes, flags: int) -> list[bytes] | None:
    """Ask once; None: the list changed meanwhile, and may lack something."""
    found, whole = list[bytes](), True
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        size = HEADER.size + len(request)
        kernel.sendto(HEADER.pack(size, SOCK_DIAG_BY_FAMILY, flags, 1, 0) + request, (0, 0))
        while True:
            answer, at = kernel.recv(LARGEST_ANSWER), 0
            while at < len(answer):
                length, kind, said, _, _ = HEADER.unpack_from(answer, at)
                begin, end = at + HEADER.size, at + length
                at += length + 3 & ~3
                whole = whole and not said & NLM_F_DUMP_INTR
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    # Both carry an errno, negative; a kernel without unix_diag says ENOENT.
                    (code,) = struct.unpack_from("=i", answer, begin) if end > begin else (0,)
                    if code < 0:
                        raise OSError(-code, os.strerror(-code))
                    return found if whole else None
                found.append(answer[begin:end])
            if not flags & NLM_F_DUMP:
                return found


def _attributes(message: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the attributes behind a message's fixed part."""
    while at + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, at)
        if length < ATTRIBUTE.size:
            return
        yield kind, message[at + ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
