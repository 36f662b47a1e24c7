"""Closes both ways at the first FIN, whatever is still under way."""

from __future__ import annotations

import asyncio

from boxes.relay import Link, Relay, main


class Box(Relay):
    """Takes a FIN for the end of the whole connection."""

    async def at_end(self, link: Link, writer: asyncio.StreamWriter, *, outward: bool) -> None:
        """Close both sides."""
        link.client_writer.close()
        link.server_writer.close()


if __name__ == "__main__":
    main(Box, __doc__)
