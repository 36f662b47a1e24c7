"""Offers: sockets that another server has passed on, and who wants them.

Lives here: what is known of each, and finding those of an address. Does not live here: how they
come (take.py), what becomes of them in a server (opening.py, listen_tcp.py, listen_unix.py).

Which of them an address means: HOST:PORT those that are bound to one of the addresses of HOST, with
port 0 those that were opened for the same text, unix:PATH the one of that file, if the name still
leads to it. What nobody wants is closed here; the server before drains it as its own.
"""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Any

    from fastecho.address import Address
    from fastecho.datagram_socket import DatagramSocket
    from fastecho.listener import Listener

__all__ = ["Offer", "Offers"]


class Offer:
    """One socket.

    Attributes:
        number: its place in what the server before has.
        role: "echo", "metrics" or "handover": what it is for.
        asked: the address that the user had written for it.
        worker: the one worker that accepted from it (reuse_port), or None.
        owned: whether the server before had opened it, or one before that.
        file: of a Unix socket: absolute path, device, inode; None if it is somebody else's.
        taken: the socket of this server that it became, once it was taken.
    """

    __slots__ = ("asked", "file", "number", "owned", "role", "sock", "taken", "worker")

    def __init__(self, number: int, said: dict[str, Any], sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.role = str(said.get("role"))
        self.asked = str(said.get("asked"))
        worker = said.get("worker")
        self.worker = worker if isinstance(worker, int) else None
        self.owned = said.get("owned") is True
        self.file: tuple[str, int, int] | None = None
        file = said.get("file")
        if isinstance(file, list) and [type(one) for one in file] == [str, int, int]:
            self.file = (file[0], file[1], file[2])
        self.taken: Listener | DatagramSocket | None = None


class Offers:
    """All sockets of one role.

    Args:
        offers: in the order in which they came; this object's to close.
    """

    def __init__(self, offers: list[Offer]) -> None:
        self._offers = offers

    @property
    def taken(self) -> list[Listener | DatagramSocket]:
        """What they have become, as far as they were taken."""
        return [one.taken for one in self._offers if one.taken is not None]

    def at(
        self, family: int, kind: int, name: tuple[Any, ...], dual_stack: bool, address: Address
    ) -> list[Offer]:
        """Return what is bound to a socket address, worker 0 first; none twice.

        Args:
            family, kind: socket.AF_INET or AF_INET6; socket.SOCK_STREAM or SOCK_DGRAM.
            name: as getsockname() gives it; with port 0, what was opened for `address` counts.
            dual_stack: whether it takes IPv4 as well.
        """
        found: list[Offer] = []
        for one in self._offers:
            if one.taken is not None or one.sock.fileno() < 0:
                continue
            if (one.sock.family, one.sock.type) != (family, kind):
                continue
            bound = one.sock.getsockname()
            if family == socket.AF_INET6:
                only = one.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                if bool(only) == dual_stack:
                    continue
            at_any_port = (bound[0], 0, *bound[2:])
            if bound != name and (at_any_port != name or one.asked != str(address)):
                continue
            if not found or found[0].sock.getsockname()[1] == bound[1]:
                found.append(one)
        return sorted(found, key=lambda one: one.worker or 0)

    def of_file(self, path: str, kind: int = socket.SOCK_STREAM) -> Offer | None:
        """Return the one of a Unix socket's file, if the name still leads to it."""
        for one in self._offers:
            if one.taken is None and one.file is not None and one.file[0] == path:
                if (one.sock.family, one.sock.type) != (socket.AF_UNIX, kind):
                    continue
                try:
                    found = os.lstat(path)
                except OSError:
                    return None
                return one if (found.st_dev, found.st_ino) == one.file[1:] else None
        return None

    def close(self) -> None:
        """Close what nobody has taken."""
        for one in self._offers:
            if one.taken is None:
                one.sock.close()
