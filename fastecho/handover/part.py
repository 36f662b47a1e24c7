"""Handover: one server's part in two handovers, in the order in which it does things.

Does not live here: its two sides (take.py, give.py), what is written on the command line.
"""

from __future__ import annotations

import logging
import os

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Collection

    from fastecho.address import Address
    from fastecho.listener import Listener
    from fastecho.metrics import MetricsServer
    from fastecho.server import Server

    from .give import Giver
    from .offers import Offers
    from .take import Taker

__all__ = ["Handover"]

log = logging.getLogger("fastecho")


class Handover:
    """One server's part in two handovers: from the one before it, and to the next one.

    Args:
        address: unix:PATH; None: there is neither.
        users: whose servers are believed, beside this user's.
    Raises:
        StartError: a server is there and refuses.
    """

    def __init__(self, address: Address | None, users: Collection[int]) -> None:
        self._taker: Taker | None = None
        self._path: Listener | None = None
        self._giver: Giver | None = None
        if address is None:
            return
        from fastecho.inherited import take_over
        from fastecho.listen_unix import open_unix

        from .give import Giver
        from .take import take

        self._giver_class = Giver  # imported now: the right to read it may be gone later
        self._taker = take(address, {os.geteuid(), 0, *users})
        if self._taker is None:
            self._path = open_unix(address, None, mode=0o600)
        else:
            self._path = take_over(self._taker.path, address, None)

    @property
    def echo(self) -> Offers | None:
        """What the server before listens on."""
        return None if self._taker is None else self._taker.echo

    @property
    def metrics(self) -> Offers | None:
        """The same of its metrics."""
        return None if self._taker is None else self._taker.metrics

    @property
    def listeners(self) -> list[Listener]:
        """The listener at PATH, if there is one."""
        return [] if self._path is None else [self._path]

    @property
    def files(self) -> list[tuple[str, int, int]]:
        """Those of Unix sockets that become this server's once the one before has left."""
        return [] if self._taker is None else self._taker.files

    def complete(self, server: Server, metrics: MetricsServer | None) -> None:
        """`server` accepts: the one before may leave; and wait for the next one.

        Raises:
            StartError: the one before goes on after all.
        """
        if self._path is None:
            return
        if self._taker is not None:
            config = None if metrics is None else metrics.config
            has_left = self._taker.serve(server, config)
            taken = dict.fromkeys(str(one.address) for one in self._taker.echo.taken)
            addresses = ", ".join(taken) or "nothing"
            log.info("taken over from process %s: %s", self._taker.process, addresses)
            if not has_left:
                self._taker.wait_left(server, config, lambda: self._give(server, metrics))
                return
            self._taker.close()
        self._give(server, metrics)

    def _give(self, server: Server, metrics: MetricsServer | None) -> None:
        assert self._path is not None
        self._giver = self._giver_class(self._path, server, metrics)

    def close(self) -> None:
        """End all of it."""
        if self._taker is not None:
            self._taker.close()
        if self._giver is not None:
            self._giver.close()
        elif self._path is not None:
            self._path.close()
