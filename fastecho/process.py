"""The process: what its fork and its exit do to the servers that live in it.

Lives here: the list of living servers, and the two hooks. Does not live here: how a server ends
(server.py).

After fork the workers exist in the parent only, but the child has a copy of every descriptor: the
parent's close() of a connection would send nothing as long as the child lives. So the child closes
its copies at once, and does nothing that acts on what both share (epoll_ctl, shutdown). A fork
that Python does not know of (a C library's) runs no hook; the core is written to stand that too.
"""

from __future__ import annotations

import atexit
import os
import sys
import time

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .server import Server

__all__ = ["add", "remove"]

EXIT_DEADLINE = 1.0
"""Seconds that connections have at interpreter exit, when nobody has stopped their server."""
EXIT_MARGIN = 0.5
"""Seconds beyond that; the workers keep the deadline by themselves."""

_living: dict[int, Server] = {}


def add(server: Server) -> None:
    """Remember a server that starts; from here on fork and exit take care of it."""
    _living[id(server)] = server


def remove(server: Server) -> None:
    """Forget a server that has ended."""
    _living.pop(id(server), None)


def _after_fork_in_child() -> None:
    for server in list(_living.values()):
        server._forget_in_child()
    _living.clear()


def _at_exit() -> None:
    """End every server that is left.

    One that does not end in time is abandoned with its memory: its threads are daemons, and the
    interpreter does not wait for them.
    """
    # A fork that ran no hook has left the list as it was; what it holds is the parent's.
    servers = [server for server in _living.values() if server._is_mine()]
    for server in servers:
        server._begin_exit(EXIT_DEADLINE)
    deadline = time.monotonic() + EXIT_DEADLINE + EXIT_MARGIN
    for server in servers:
        if not server.wait(max(deadline - time.monotonic(), 0.0)):
            print(f"fastecho: {server.address} did not end in time; abandoned", file=sys.stderr)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
