"""The connect black hole: an address on which connect hangs, for as long as it is wanted.

Lives here: filling an accept queue and keeping it full. Does not live here: opening listeners
(listener.py), what waits for the end of the command (cli/_black_hole.py).

The accept queue of listen(2) with a backlog of 0 holds one connection. While one stands there that
nobody accepts, the kernel drops every SYN that comes: the peer hears nothing, sends the SYN again
after 1, 2, 3, 4, 5, 7 s and so on, and its connect ends only by its own timeout, or after some two
minutes by ETIMEDOUT. So it is from anywhere, loopback included, with no rights and no firewall. It
ends with the listener: a new connect is refused at once, one that hangs by the answer to its next
SYN. This is Linux: elsewhere a full queue resets, or is longer than was asked.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from contextlib import suppress

from .config import Config
from .errors import ConfigError, StartError
from .opening import open_listeners

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from .config import Bind
    from .listener import Listener

__all__ = ["black_hole"]

PARK_WAIT = 5.0
"""Seconds that a connection of this machine with itself may take; it needs microseconds."""


class black_hole:  # noqa: N801 - a context manager, named as it is used
    """An address on which connect hangs, until close() or the end of a `with` block.

    For tests of connect timeouts: unlike an unroutable address it is on this machine, needs no
    network, and can be ended. Afterwards the port refuses connections, and is free: a Server may
    listen there, and answers a connect that still hangs at its next SYN, within some seconds.

    Args:
        bind: "HOST:PORT", "[::1]:0", or a (host, port) pair, or a list of these; port 0 picks a
            free one.
    Attributes:
        addresses: where it is, as text that a client takes.
        address, host, port: of the first of these.
    Raises:
        ConfigError: bind has no valid form, or is no TCP address.
        StartError: an address could not be resolved, bound or listened on.
        OSError: EOPNOTSUPP: this is not Linux.
    Thread: any.   Cost: two sockets for each address; some 100 microseconds, no thread.
    Source: listen(2); tcp(7); the tests measure it.
    """

    def __init__(self, bind: Bind | Sequence[Bind] = "127.0.0.1:0") -> None:
        if sys.platform != "linux":
            raise OSError(errno.EOPNOTSUPP, "a connect black hole needs the queues of Linux")
        config = Config(bind=bind, backlog=0)
        for address in config.bind:
            if address.kind != "tcp":
                raise ConfigError("bind", str(address), "must be HOST:PORT: a black hole is of TCP")
        self._process = os.getpid()
        # Connections that stand in the queues.
        self._parked: list[socket.socket] = []
        self._listeners = open_listeners(config, 1)
        first = self._listeners[0].address
        assert first.host is not None and first.port is not None
        self.addresses = [str(one.address) for one in self._listeners]
        self.address = str(first)
        self.host = first.host
        self.port = first.port
        try:
            for listener in self._listeners:
                self._fill(listener)
        except BaseException:
            self.close()
            raise

    def _fill(self, listener: Listener) -> None:
        """Put a connection into the queue; there is one for certain once the listener is readable.

        It may be a stranger's that was faster: ours is dropped then, as all that follow.
        """
        cannot = f"cannot fill the queue of {listener.address}"
        try:
            sock = socket.socket(listener.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise StartError(error.errno or 0, f"{cannot}: {why}") from None
        self._parked.append(sock)
        sock.connect_ex(listener.socket.getsockname())
        poll = select.poll()
        poll.register(listener.socket, select.POLLIN)
        if not poll.poll(PARK_WAIT * 1000):
            raise StartError(errno.ETIMEDOUT, f"{cannot}: no connection came")

    def close(self) -> None:
        """Be a black hole no more; a second call does nothing."""
        for listener in self._listeners:
            if self._process == os.getpid():  # a forked child would end that of its parent
                with suppress(OSError):  # it is closed
                    listener.socket.shutdown(socket.SHUT_RD)
            listener.close()
        for sock in self._parked:
            sock.close()

    def __enter__(self) -> Self:
        if self._is_closed():
            raise RuntimeError(f"{self!r} has ended: make another one")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_closed(self) -> bool:
        return self._listeners[0].socket.fileno() < 0

    def __repr__(self) -> str:
        state = " closed" if self._is_closed() else ""
        return f"<fastecho.black_hole {', '.join(self.addresses)}{state}>"
