"""A listening socket of any process, as the kernel sees it at one moment."""

from __future__ import annotations

from fastecho.address import format_host_port

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Literal

__all__ = ["Listening"]


class Listening:
    """A listening socket, and how full its queues are.

    Attributes:
        kind: "tcp" or "unix".
        host, port: TCP only; host is "" for a socket of every address, IPv4 and IPv6.
        path: Unix only; that of the abstract namespace begins with NUL, "" is one without a name.
        inode: the socket's number in this kernel; it is the same as long as the socket lives.
        uid: user who made it; None where that is not known.
        depth: connections in the accept queue: their handshake is over, nobody accepted them yet.
        limit: min(backlog, somaxconn), of which the queue holds one more; None where not known.
        drops: TCP only: packets dropped since it listens, nearly all of them SYNs that found
            the accept queue full; None where not known.
        handshakes: TCP only: connections in the SYN queue of its address; None where not known.
        waiting: TCP only: the kernel's cookies of those in the accept queue, but for those that
            were reset there; None where nobody looked, or where listeners share the address.
        sharing: how many listeners have this very address (SO_REUSEPORT); they share handshakes.
        processes: (pid, name) of those who have it open, as far as this user may know.
    """

    __slots__ = (
        "depth", "drops", "handshakes", "host", "inode", "kind", "limit", "path", "port",
        "processes", "sharing", "uid", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        kind: Literal["tcp", "unix"],
        *,
        depth: int,
        limit: int | None,
        inode: int,
        host: str | None = None,
        port: int | None = None,
        path: str | None = None,
        uid: int | None = None,
        drops: int | None = None,
    ) -> None:
        self.kind = kind
        self.host = host
        self.port = port
        self.path = path
        self.inode = inode
        self.uid = uid
        self.depth = depth
        self.limit = limit
        self.drops = drops
        self.handshakes: int | None = None
        self.waiting: frozenset[bytes] | None = None
        self.sharing = 1
        self.processes: tuple[tuple[int, str], ...] = ()

    @property
    def address(self) -> str:
        """Where it listens, in the form of `--bind`; `unix:` alone for one without a name."""
        if self.kind == "unix":
            path = self.path or ""
            return f"unix:{'@' + path[1:] if path.startswith(chr(0)) else path}"
        assert self.host is not None and self.port is not None
        return format_host_port(self.host, self.port)

    @property
    def holds(self) -> int | None:
        """How many connections its accept queue holds: one more than the limit."""
        return None if self.limit is None else self.limit + 1

    @property
    def is_full(self) -> bool:
        """Tell whether the next newcomer finds no place."""
        return self.limit is not None and self.depth > self.limit

    def __repr__(self) -> str:
        return f"<Listening {self.address} {self.depth} of {self.holds}>"
