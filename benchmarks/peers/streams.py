"""Echo with asyncio streams: a coroutine for each connection.

`--frame line --prefix TEXT` answers each line, as readline gives it, with the prefix before it.

Example: python -m benchmarks.peers.streams --ready-fd 1
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

from benchmarks.peers._listen import announce_listener, arguments, listen

READ_SIZE = 65536

Handler = Callable[[StreamReader, StreamWriter], Awaitable[None]]


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    """Write back what is read until the peer ends."""
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def prefixed_lines(prefix: bytes) -> Handler:
    """Return a handler that writes back each line with `prefix` before it."""

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(prefix + line)
                await writer.drain()
        except (ConnectionError, ValueError):  # ValueError: the line is too long
            pass
        finally:
            writer.close()

    return handler


async def serve(handler: Handler, ready_fd: int) -> None:
    """Serve until the process is ended."""
    listener = listen()
    server = await asyncio.start_server(handler, sock=listener, backlog=4096)
    announce_listener(listener, ready_fd)
    await server.serve_forever()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--frame", choices=("raw", "line"), default="raw")
    parser.add_argument("--prefix", default="")
    options = parser.parse_args()
    handler = prefixed_lines(options.prefix.encode()) if options.frame == "line" else echo
    asyncio.run(serve(handler, options.ready_fd))


if __name__ == "__main__":
    main()
