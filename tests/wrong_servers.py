"""Handlers for load_servers.serving() that answer, but are no echo servers, or not always.

Lives here: what is wrong with them. Does not live here: starting them (load_servers.py), what a
load or a command says of them.
"""

from __future__ import annotations

import itertools
import socket

from load_servers import Served, exact, hold

__all__ = ["address_of", "flips", "repeats", "says_more", "slams", "stops", "web_server"]


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
    for number in itertools.count():
        data = bytearray(exact(sock, 64))
        if number == 9:
            data[5] ^= 1
        sock.sendall(data)


def repeats(sock: socket.socket) -> None:
    """Echo messages of 64 bytes; in place of the tenth comes the ninth again."""
    last = b""
    for number in itertools.count():
        data = exact(sock, 64)
        sock.sendall(last if number == 9 else data)
        last = data


def says_more(sock: socket.socket) -> None:
    """Echo messages of 64 bytes; behind the tenth come 7 more."""
    for number in itertools.count():
        data = exact(sock, 64)
        sock.sendall(data + (b"and so " if number == 9 else b""))


def stops(sock: socket.socket) -> None:
    """Echo messages of 64 bytes, of the tenth only a half; then keep silent."""
    for number in range(10):
        sock.sendall(exact(sock, 64)[: 32 if number == 9 else 64])
    hold(sock)
