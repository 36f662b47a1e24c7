"""Handlers for load_servers.serving() that answer, but are no echo servers, or not always.

Lives here: what is wrong with them. Does not live here: starting them (load_servers.py), what a
load or a command says of them.
"""

from __future__ import annotations

import socket

from load_servers import Served, exact

__all__ = ["address_of", "flips", "slams", "web_server"]


def address_of(served: Served) -> str:
    """Return where such a server listens, as a user writes it."""
    host, port = served._address()
    return f"{host}:{port}"


def web_server(sock: socket.socket) -> None:
    """Answer as a web server does that did not understand."""
    sock.recv(1 << 16)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b"x" * 100)


def slams(sock: socket.socket) -> None:
    """End the connection after a byte."""
    sock.recv(1)


def flips(sock: socket.socket) -> None:
    """Echo messages of 64 bytes; the tenth has a byte that was changed."""
    count = 0
    while True:
        data = bytearray(exact(sock, 64))
        count += 1
        if count == 10:
            data[5] ^= 1
        sock.sendall(data)
