"""Resets where it should close: the server's FIN reaches the client as RST."""

from __future__ import annotations

import asyncio

from boxes.relay import Link, Relay, main, reset


class Box(Relay):
    """Gives a connection up as soon as the server has finished."""

    async def at_end(self, link: Link, writer: asyncio.StreamWriter, *, outward: bool) -> None:
        """Pass the client's FIN on, and make an RST of the server's."""
        if outward:
            await super().at_end(link, writer, outward=outward)
        else:
            reset(writer)


if __name__ == "__main__":
    main(Box, __doc__)
