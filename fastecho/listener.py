"""Listener: one listening socket, and what closes it again; nothing here ever accepts.

Does not live here: opening (opening.py, listen_tcp.py, listen_unix.py, inherited.py).

What the kernel does that is easy to get wrong:

* The accept queue's limit is min(backlog, somaxconn) of the network namespace at the moment of
  listen(2). TCP_INFO of a listener tells what is in force (`tcpi_sacked`).
* shutdown(2) of a listener makes its port refuse, and listen(2) brings it back, but only a port
  that bind(2) was given by number: one that the kernel chose is given back, and listen(2) takes
  another. A second shutdown(2) sticks: every connection is accepted with its input at an end.
* Only the process that made the file of a Unix socket removes it, and only while the name still
  leads to that inode.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

from .address import Address, is_loopback
from .errors import StartError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Listener", "handshake_grace", "read_somaxconn", "refused"]

HANDSHAKE_LOOPBACK = 0.002
"""Seconds that a handshake over loopback may take: the grace at the end of accepting."""
HANDSHAKE_ELSEWHERE = 0.1
"""The same for any other address: one round trip, with room for most of the world."""
TCP_INFO_LIMIT = slice(28, 32)
"""Where tcp_info keeps `tcpi_sacked`: for a listener, the limit of its accept queue."""


class Listener:
    """A bound, listening, non-blocking socket, closed on exec.

    Attributes:
        socket: the socket itself; the Listener owns it.
        address: where it really listens, with the port that the kernel chose; ":PORT" for one
            socket of both families.
        family: socket.AF_INET, AF_INET6 or AF_UNIX.
        backlog_asked: the argument of listen(2); None if an inherited socket was left as it came.
        somaxconn: the limit of every backlog in the network namespace at that moment.
        backlog_effective: the limit in force, in connections; None if the kernel does not tell
            (an inherited Unix socket).
        owned: False for an inherited socket, which must not be shut down.
        deepest: of a Unix socket, the deepest accept queue that was told so far.
        worker: the one worker that accepts here (reuse_port), or None: all of them.
        asked: what the user wrote for it; None before it was opened as one of several.
    """

    __slots__ = (
        "_file",
        "_process",
        "address",
        "asked",
        "backlog_asked",
        "backlog_effective",
        "deepest",
        "family",
        "owned",
        "socket",
        "somaxconn",
        "worker",
    )

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        *,
        backlog: int | None,
        worker: int | None = None,
        owned: bool = True,
        file: tuple[str, int, int] | None = None,
    ) -> None:
        self.socket = sock
        self.address = address
        self.family = sock.family
        self.asked: Address | None = None
        self.take_backlog(backlog)
        self.deepest = 0
        self.owned = owned
        self.worker = worker
        self._process = os.getpid()
        self._file = file  # absolute path, device, inode

    def take_backlog(self, asked: int | None) -> None:
        """Note what listen(2) was told just now, and what came of it."""
        self.backlog_asked = asked
        self.somaxconn = read_somaxconn()
        self.backlog_effective = self._backlog_in_force()

    def _backlog_in_force(self) -> int | None:
        asked = self.backlog_asked
        if self.family != socket.AF_UNIX:
            try:
                info = self.socket.getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_LIMIT.stop
                )
                limit = int.from_bytes(info[TCP_INFO_LIMIT], sys.byteorder)
                if limit or asked == 0:
                    return limit
            except (OSError, AttributeError):
                pass  # a kernel that does not tell: work it out
        return None if asked is None else min(asked, self.somaxconn)

    @property
    def can_refuse(self) -> bool:
        """False for a Unix socket, which never listens again, and an inherited, shared one."""
        return self.owned and self.family != socket.AF_UNIX

    def refuse(self) -> None:
        """Listen no more, and keep the port: who connects is refused, who is queued is reset.

        Only while it listens.
        """
        self.socket.shutdown(socket.SHUT_RD)

    def admit(self) -> None:
        """Listen again after refuse()."""
        assert self.backlog_asked is not None
        self.socket.listen(self.backlog_asked)

    @property
    def file(self) -> tuple[str, int, int] | None:
        """The file of a Unix socket that close() removes: absolute path, device, inode."""
        return self._file

    def give(self) -> None:
        """Be another process's from now on: it is left as it is, and so is its file."""
        self.owned, self._file = False, None

    def own(self, file: tuple[str, int, int] | None) -> None:
        """Be ours from now on, and the file as well."""
        self.owned, self._file = True, file
        self._process = os.getpid()

    def close(self) -> None:
        """Close the socket and remove its own file; a second call does nothing."""
        if self._process == os.getpid():
            # Taken first: of two threads, one removes it. Put back if a signal handler raises.
            file, self._file = self._file, None
            try:
                if file is not None:
                    _remove(*file)
            except BaseException:
                self._file = file
                raise
        self.socket.close()

    def __del__(self) -> None:
        # Lost on the way to its owner: a signal handler has raised.
        if getattr(self, "_file", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<Listener {self.address} fd={self.socket.fileno()}>"


def _remove(path: str, device: int, inode: int) -> None:
    """Remove a socket's file, unless the name leads somewhere else by now.

    Before the socket is closed: until then nobody takes the name for stale.
    """
    try:
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (device, inode):
            os.unlink(path)
    except OSError:
        pass  # somebody else removed it, or the directory: nothing of ours is left


def handshake_grace(listeners: Sequence[Listener]) -> float:
    """Return the seconds to wait for handshakes that are under way when accepting ends."""
    tcp = [one for one in listeners if one.family != socket.AF_UNIX and one.owned]
    if not tcp:
        return 0.0
    loopback = all(is_loopback(one.address.host or "") for one in tcp)
    return HANDSHAKE_LOOPBACK if loopback else HANDSHAKE_ELSEWHERE


def read_somaxconn() -> int:
    """Return the limit that this network namespace puts on every backlog."""
    try:
        with open("/proc/sys/net/core/somaxconn", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return socket.SOMAXCONN


def refused(address: Address, at: str, error: OSError) -> StartError:
    """Turn the errno of bind or listen into the sentence that the user reads."""
    number = error.errno or 0
    where = str(address) if at == str(address) else f"{address} ({at})"
    if number == errno.EADDRINUSE:
        why = "the address is in use"
    elif number == errno.EADDRNOTAVAIL:
        why = "it is not an address of this machine"
    elif number == errno.EACCES and address.port is not None and 0 < address.port < 1024:
        why = "no right to a port below 1024 (that takes root or CAP_NET_BIND_SERVICE)"
    elif number == errno.EAFNOSUPPORT:
        why = "this machine has no IPv6"
    else:
        why = (error.strerror or str(error)).lower()
    return StartError(number, f"cannot listen on {where}: {why}")
