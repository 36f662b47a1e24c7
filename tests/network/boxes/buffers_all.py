"""Stores and forwards without bound: it reads whatever comes, however slowly that is taken."""

from __future__ import annotations

import asyncio

from boxes.relay import Relay, main


class Box(Relay):
    """Never waits for the side that it writes to."""

    async def write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Keep what is not taken."""
        writer.write(data)
        await asyncio.sleep(0)


if __name__ == "__main__":
    main(Box, __doc__)
