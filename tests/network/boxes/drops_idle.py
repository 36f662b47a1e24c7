"""Drops connections on which no byte went for some seconds, by RST."""

from __future__ import annotations

import asyncio

from boxes.relay import Link, Relay, parser, place, run


class Box(Relay):
    """Resets what has been idle for too long."""

    seconds = 60.0

    async def watch(self, link: Link) -> None:
        """Look at the clock until it has been quiet for too long."""
        clock = asyncio.get_running_loop().time
        while (left := link.last + self.seconds - clock()) > 0:
            await asyncio.sleep(left)
        link.reset()


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, default=60.0)
    options = made.parse_args()
    box = Box(*place(options.to))
    box.seconds = options.seconds
    run(box, options)
