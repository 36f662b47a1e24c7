"""Answers in place of the server: it speaks HTTP, and knows no such site."""

from __future__ import annotations

import asyncio

from boxes.relay import READ_BYTES, Relay, main

ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n"
    b"Connection: close\r\n\r\nno server available\n"
)


class Box(Relay):
    """Never asks the server."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer whatever comes first."""
        try:
            if await reader.read(READ_BYTES):
                await self.write(writer, ANSWER)
        except OSError:
            pass
        writer.close()


if __name__ == "__main__":
    main(Box, __doc__)
