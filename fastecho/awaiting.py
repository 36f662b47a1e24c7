"""A server in a coroutine: starting, ending and waiting without holding up the event loop.

Lives here: what `async with` and wait_closed() do. Does not live here: the life cycle itself, which
knows no event loop (server.py). Only who uses it imports asyncio.
"""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .latch import Latch
    from .server import Server

__all__ = ["enter", "leave", "wait_open"]


async def enter(server: Server) -> None:
    """Start it; cancelled, it ends again."""
    try:
        await asyncio.to_thread(server.start)
    except asyncio.CancelledError:  # the thread goes on
        await asyncio.to_thread(server.abort)
        raise


async def leave(server: Server, kind: type[BaseException] | None) -> None:
    """Stop it, or end it at once after an exception."""
    try:
        await asyncio.to_thread(server.__exit__, kind)
    except asyncio.CancelledError:
        await asyncio.to_thread(server.abort)
        raise


async def wait_open(latch: Latch) -> None:
    """Wait until a latch is open."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(_set_done, opened)
        except RuntimeError:
            pass  # that loop was closed: nobody waits any more

    with latch.calling(wake):
        if not latch.is_open():
            await opened


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
