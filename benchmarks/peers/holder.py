"""Hold listeners and connections, and do nothing: `holder.py LISTENERS CONNECTIONS`.

Prints "ready" when all are there; holds them until its standard input ends.
"""

from __future__ import annotations

import resource
import socket
import sys


def hold(listeners: int, connections: int) -> list[socket.socket]:
    """Return the listeners, and both ends of connections to the first of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(listeners)]
    address = held[0].getsockname()
    for _ in range(connections):
        client = socket.create_connection(address)
        held += [client, held[0].accept()[0]]
    return held


if __name__ == "__main__":
    sockets = hold(*map(int, sys.argv[1:]))
    print("ready", flush=True)
    sys.stdin.read()
