"""Echo with asyncio.Protocol, on asyncio's own loop or on uvloop.

`--frame line --prefix TEXT` answers each line with the prefix before it, as cheaply as a Protocol
can: one rfind, one replace and one write for all lines that a read gave. With `--each` it goes
through the lines one by one, as a server must that looks at them; with `--call` each goes to a
function, which returns the reply.

Example: python -m benchmarks.peers.protocol --loop uvloop --ready-fd 1
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from benchmarks.peers._listen import announce_listener, arguments, listen

# the longest line that is put together from several reads, in bytes
MAX_LINE = 65536

# bytes that a buffered read takes at most
READ_SIZE = 65536


class Echo(asyncio.Protocol):
    """Writes back what it is given; stops reading while the peer does not take it."""

    __slots__ = ("transport",)

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class BufferedEcho(Echo, asyncio.BufferedProtocol):
    """Echo that receives into one buffer for all connections instead of a new object each time.

    asyncio's Protocol asks for 256 KiB at each read, and for an object of that size glibc maps
    and unmaps memory: for small messages that costs several times as much as all the rest.
    """

    __slots__ = ()

    buffer = memoryview(bytearray(READ_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        # a copy: the transport may keep what it is given, and the buffer is everybody's
        self.transport.write(bytes(self.buffer[:nbytes]))


class PrefixedLines(Echo):
    """Writes back each line with a prefix; the last line may lack its newline at the end."""

    __slots__ = ("between", "prefix", "rest")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.between = b"\n" + prefix
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        end = data.rfind(b"\n")
        self.rest = data[end + 1 :]
        if end >= 0:
            self.transport.write(self.prefix + data[:end].replace(b"\n", self.between) + b"\n")
        if len(self.rest) > MAX_LINE:
            self.transport.abort()

    def eof_received(self) -> None:
        if self.rest:
            self.transport.write(self.prefix + self.rest)


class EachLine(PrefixedLines):
    """The same, line by line: split, prefix, join, one write for all lines that a read gave."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if lines:
            self.transport.write(b"".join([self.prefix + line + b"\n" for line in lines]))
        if len(self.rest) > MAX_LINE:
            self.transport.abort()


class CalledLine(PrefixedLines):
    """Each line, with its line end, is given to a function; one write for all their replies."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if lines:
            self.transport.write(b"".join([answer(line + b"\n") for line in lines]))
        if len(self.rest) > MAX_LINE:
            self.transport.abort()


def answer(line: bytes) -> bytes:
    """Return the reply to a line."""
    return line


def factory(
    frame: str, prefix: bytes, *, buffered: bool, each: bool, call: bool
) -> Callable[[], asyncio.BaseProtocol]:
    """Return what makes a protocol for each connection."""
    if buffered:
        return BufferedEcho
    if call:
        return lambda: CalledLine(prefix)
    if each:
        return lambda: EachLine(prefix)
    if frame == "line":
        return lambda: PrefixedLines(prefix)
    return Echo


async def serve(make: Callable[[], asyncio.BaseProtocol], ready_fd: int) -> None:
    """Serve until the process is ended."""
    listener = listen()
    server = await asyncio.get_running_loop().create_server(make, sock=listener, backlog=4096)
    announce_listener(listener, ready_fd)
    await server.serve_forever()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--frame", choices=("raw", "line"), default="raw")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--buffered", action="store_true", help="raw echo by BufferedProtocol")
    parser.add_argument("--each", action="store_true", help="lines one by one")
    parser.add_argument("--call", action="store_true", help="a function answers each line")
    options = parser.parse_args()
    make = factory(
        options.frame,
        options.prefix.encode(),
        buffered=options.buffered,
        each=options.each,
        call=options.call,
    )
    serving = serve(make, options.ready_fd)
    if options.loop == "uvloop":
        import uvloop

        uvloop.run(serving)
    else:
        asyncio.run(serving)


if __name__ == "__main__":
    main()
