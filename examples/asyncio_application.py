"""An asyncio application whose connections are served by the compiled core in the background.

    python examples/asyncio_application.py

The core cuts the stream into lines and hands each to the running event loop, where a coroutine
answers, for as long as that takes. Meanwhile that peer is not read from: one message of each
connection is under way, and nobody can flood the loop.
"""

from __future__ import annotations

import asyncio

from fastecho import Connection, Server, aio


async def look_up(word: str) -> str:
    """Stand for a database, or anything else that takes a while."""
    await asyncio.sleep(0.01)
    return word[::-1]


async def main() -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(connection: Connection, line: bytes) -> None:
        reply = await look_up(line.decode().strip())
        connection.write(reply.encode() + b"\n")
        connection.resume_reading()

    def begin(connection: Connection, line: bytes) -> None:
        task = loop.create_task(answer(connection, line))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_message(connection: Connection, line: bytes) -> None:  # on a thread of the server
        connection.pause_reading()
        loop.call_soon_threadsafe(begin, connection, line)

    async def ask(address: str, words: list[str]) -> list[str]:
        async with aio.Client(address, timeout=5) as client:
            await client.send("".join(f"{word}\n" for word in words).encode())
            return [(await client.recv_line()).decode().strip() for _ in words]

    async with Server(frame="line", on_message=on_message) as server:
        for replies in await asyncio.gather(
            ask(server.address, ["stressed", "drawer"]), ask(server.address, ["live", "evil"])
        ):
            print(*replies)


if __name__ == "__main__":
    asyncio.run(main())
