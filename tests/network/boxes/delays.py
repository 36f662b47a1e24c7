"""Delays every byte by the same time in each direction, as a long line does; honest otherwise."""

from __future__ import annotations

import asyncio

from boxes.relay import READ_BYTES, Link, Relay, parser, place, run

MOST_PIECES = 32
"""Under way at a time, in one direction: who does not read is not read for."""


class Box(Relay):
    """Holds what comes until it is old enough."""

    seconds = 0.02

    async def carry(
        self,
        link: Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        outward: bool,
    ) -> None:
        """Read and write in two tasks, with a queue between them."""
        clock = asyncio.get_running_loop().time
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_PIECES)

        async def fill() -> None:
            data = b"start"
            while data:
                data = await reader.read(READ_BYTES)
                await line.put((clock() + self.seconds, data))

        filling = asyncio.ensure_future(fill())
        try:
            while True:
                getting = asyncio.ensure_future(line.get())
                await asyncio.wait({getting, filling}, return_when=asyncio.FIRST_COMPLETED)
                if filling.done() and filling.exception() is not None:
                    getting.cancel()
                    await filling
                due, data = await getting
                await asyncio.sleep(due - clock())
                if not data:
                    break
                await self.write(writer, data)
            await self.at_end(link, writer, outward=outward)
        finally:
            filling.cancel()


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--ms", type=float, default=20.0)
    options = made.parse_args()
    box = Box(*place(options.to))
    box.seconds = options.ms / 1e3
    run(box, options)
