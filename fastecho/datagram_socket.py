"""DatagramSocket: a bound UDP socket, what it has lost, and what closes it; nothing here receives.

Does not live here: opening (listen_udp.py, inherited.py), the echo (_udp.pxd).
"""

from __future__ import annotations

import socket
from contextlib import suppress

from .listen_queue import read_drops

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .address import Address
    from .config import Config

__all__ = ["DatagramSocket", "datagrams_of"]


class DatagramSocket:
    """A bound, non-blocking UDP socket, closed on exec.

    Attributes:
        socket: the socket itself; the DatagramSocket owns it.
        address: where it really is bound, with the port that the kernel chose.
        family: socket.AF_INET or AF_INET6.
        receive_buffer: bytes of kernel memory that wait to be received at the most.
        owned: False for an inherited socket.
        worker: the one worker that receives here, or None: all of them.
        asked: what the user wrote for it; None before it was opened as one of several.
        file: None, as of every socket without one.
    """

    __slots__ = (
        "_drops", "address", "asked", "family", "owned", "receive_buffer", "socket", "worker",
    )  # fmt: skip

    file = None

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        *,
        worker: int | None = None,
        owned: bool = True,
    ) -> None:
        self.socket = sock
        self.address = address
        self.family = sock.family
        self.receive_buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.owned = owned
        self.worker = worker
        self.asked: Address | None = None
        self._drops = 0

    @property
    def can_refuse(self) -> bool:
        """False: to stop answering looks like a loss, not like a refusal."""
        return False

    def give(self) -> None:
        """Be another process's from now on."""
        self.owned = False

    def own(self, _file: object = None) -> None:
        """Be ours from now on."""
        self.owned = True

    def drops(self) -> int:
        """Return how many datagrams found the receive buffer full; after close(), the last count.

        Cost: one system call.   Source: SO_MEMINFO of socket(7), which counts 32 bits.
        """
        with suppress(OSError):
            self._drops = read_drops(self.socket)
        return self._drops

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self.drops()
        self.socket.close()

    def __repr__(self) -> str:
        return f"<DatagramSocket {self.address} fd={self.socket.fileno()}>"


def datagrams_of(config: Config, sockets: Sequence[DatagramSocket]) -> dict[str, object]:
    """Return what Core takes as its `datagrams`."""
    return {
        "sockets": [
            (one.socket.fileno(), -1 if one.worker is None else one.worker, one.address.port)
            for one in sockets
        ],
        "guards": config.udp_guards,
    }
