"""Drops the half-close: a FIN ends here, and the other side never learns of it."""

from __future__ import annotations

import asyncio

from boxes.relay import Link, Relay, main


class Box(Relay):
    """Keeps the client's FIN to itself."""

    async def at_end(self, link: Link, writer: asyncio.StreamWriter, *, outward: bool) -> None:
        """Pass on the server's FIN only."""
        if not outward:
            await super().at_end(link, writer, outward=outward)


if __name__ == "__main__":
    main(Box, __doc__)
