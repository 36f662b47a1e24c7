"""An honest relay, and the places at which a broken one differs.

What comes on one side goes out on the other; FIN is passed on as FIN, RST as RST, and who does not
read is not read for. Subclasses change one of that each.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import sys
from typing import Any

READ_BYTES = 1 << 16


class Link:
    """One connection through a box: both sides."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.client_reader, self.client_writer = client
        self.server_reader, self.server_writer = server
        self.last = asyncio.get_running_loop().time()

    def reset(self) -> None:
        """End both sides by RST."""
        for writer in (self.client_writer, self.server_writer):
            reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Relay:
    """A box that changes nothing."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._tasks: set[asyncio.Task[Any]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)  # the loop itself would forget it
        task.add_done_callback(self._tasks.discard)
        try:
            server = await asyncio.open_connection(self._host, self._port, limit=READ_BYTES)
        except OSError:
            reset(writer)
            return
        for one in (writer, server[1]):
            sock = one.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link((reader, writer), server)
        ways = [
            asyncio.ensure_future(self._way(link, reader, server[1], outward=True)),
            asyncio.ensure_future(self._way(link, server[0], writer, outward=False)),
        ]
        watch = asyncio.ensure_future(self.watch(link))
        try:
            await asyncio.gather(*ways)
        finally:
            watch.cancel()
            for one in (writer, server[1]):
                one.close()

    async def _way(
        self,
        link: Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        outward: bool,
    ) -> None:
        try:
            await self.carry(link, reader, writer, outward=outward)
        except OSError:
            link.reset()

    async def carry(
        self,
        link: Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        outward: bool,
    ) -> None:
        """Carry one direction to its end."""
        while data := await reader.read(READ_BYTES):
            link.last = asyncio.get_running_loop().time()
            await self.write(writer, self.change(data, outward=outward))
        await self.at_end(link, writer, outward=outward)

    async def write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Pass bytes on; wait while the other side does not take them."""
        writer.write(data)
        await writer.drain()

    def change(self, data: bytes, *, outward: bool) -> bytes:
        """Return what is passed on of what has come."""
        return data

    async def at_end(self, link: Link, writer: asyncio.StreamWriter, *, outward: bool) -> None:
        """Pass a FIN on."""
        writer.write_eof()

    async def watch(self, link: Link) -> None:
        """Do what a connection's age or silence asks for: nothing."""


async def _serve(box: Relay, host: str, port: int) -> None:
    server = await asyncio.start_server(box.accept, host, port, limit=READ_BYTES, backlog=1024)
    name = server.sockets[0].getsockname()
    print(f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}", flush=True)
    async with server:
        await server.serve_forever()


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return the options that every box has."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    made.add_argument("--to", required=True, metavar="HOST:PORT")
    return made


def place(text: str) -> tuple[str, int]:
    """Return host and port."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main(box: type[Relay], about: str | None) -> None:
    """Run a box that has no options of its own."""
    options = parser(about).parse_args()
    run(box(*place(options.to)), options)


def run(box: Relay, options: argparse.Namespace) -> None:
    """Listen, print the address, and relay until the process is ended."""
    try:
        asyncio.run(_serve(box, *place(options.listen)))
    except KeyboardInterrupt:
        sys.exit(130)
