"""Echo of datagrams with asyncio.DatagramProtocol, on asyncio's own loop or on uvloop.

Example: python -m benchmarks.peers.datagrams --loop uvloop --ready-fd 1
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, cast

from benchmarks.peers._listen import announce_listener, arguments

RECEIVE_BUFFER = 4 * 1024 * 1024
"""Kernel memory of the socket, in bytes: as fastecho asks for."""
SO_RCVBUFFORCE = 33
"""Of asm-generic/socket.h; Python has no name for it."""


class Echo(asyncio.DatagramProtocol):
    """Sends each datagram back to where it came from."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(data, addr)


async def serve(ready_fd: int) -> None:
    """Serve until the process is ended."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    with contextlib.suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=sock)
    announce_listener(sock, ready_fd)
    await asyncio.Event().wait()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    if options.loop == "uvloop":
        import uvloop

        uvloop.run(serve(options.ready_fd))
    else:
        asyncio.run(serve(options.ready_fd))


if __name__ == "__main__":
    main()
