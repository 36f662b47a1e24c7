"""Reorders: now and then a piece is held back, and sent behind the next one."""

from __future__ import annotations

import asyncio

from boxes.relay import READ_BYTES, Link, Relay, main

EVERY = 7
"""Pieces that have come in a row."""
HOLD_SECONDS = 0.005


class Box(Relay):
    """Lets every seventh piece of the way to the client be overtaken."""

    async def carry(
        self,
        link: Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        outward: bool,
    ) -> None:
        """Carry one direction to its end."""
        number = 0
        while data := await reader.read(READ_BYTES):
            number += 1
            if not outward and number % EVERY == 0:
                try:
                    data = await asyncio.wait_for(reader.read(READ_BYTES), HOLD_SECONDS) + data
                except TimeoutError:
                    pass  # nothing came that could overtake
            await self.write(writer, data)
        await self.at_end(link, writer, outward=outward)


if __name__ == "__main__":
    main(Box, __doc__)
