"""TcpInfo: what the kernel knows of one open connection."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["TcpInfo"]


class TcpInfo:
    """A sample of one open TCP connection, as of tcp(7).

    Attributes:
        number: its number among all accepted, as Connection.id and the access log have it.
        peer: the remote end, HOST:PORT or [HOST]:PORT.
        rtt: the kernel's smoothed round-trip time, seconds, float.
        rttvar: how much that varies, seconds, float.
        retransmissions: segments that were sent again, since the connection began.
    """

    __slots__ = ("number", "peer", "retransmissions", "rtt", "rttvar")

    number: int
    peer: str
    rtt: float
    rttvar: float
    retransmissions: int

    def __init__(
        self, number: int, peer: str, rtt: float, rttvar: float, retransmissions: int
    ) -> None:
        put = object.__setattr__
        put(self, "number", number)
        put(self, "peer", peer)
        put(self, "rtt", rtt)
        put(self, "rttvar", rttvar)
        put(self, "retransmissions", retransmissions)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a TcpInfo is a sample: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a TcpInfo is a sample: {name} cannot be deleted")

    def __repr__(self) -> str:
        return (
            f"<TcpInfo {self.number} {self.peer}: rtt {self.rtt * 1e3:.3f} ms, "
            f"retransmissions {self.retransmissions}>"
        )
