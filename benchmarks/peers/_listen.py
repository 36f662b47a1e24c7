"""What every Python peer does before it serves: arguments, a listener, the address to the harness.

No serving here.
"""

from __future__ import annotations

import argparse
import os
import socket


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that already knows `--ready-fd`; a peer adds its own options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--ready-fd",
        type=int,
        required=True,
        metavar="N",
        help="descriptor that gets 127.0.0.1:PORT and a newline once the server listens",
    )
    return parser


def listen() -> socket.socket:
    """Return a listener on a free loopback port; accepted sockets inherit its TCP_NODELAY."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(socket.SOMAXCONN)
    return listener


def announce(address: str, ready_fd: int) -> None:
    """Tell the harness where to connect, then close the descriptor that it waits on."""
    os.write(ready_fd, f"{address}\n".encode())
    os.close(ready_fd)


def announce_listener(listener: socket.socket, ready_fd: int) -> None:
    """Tell the harness the address of `listener`."""
    host, port = listener.getsockname()
    announce(f"{host}:{port}", ready_fd)
