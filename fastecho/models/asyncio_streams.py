"""`asyncio`: the callbacks again, but each conversation reads from top to bottom.

The idea: a coroutine for each connection. `await reader.read()` looks like a call that waits, and
is none: the coroutine is put aside, the loop (epoll inside) serves others, and goes on with it when
bytes have come. The code is that of `threaded`, without its threads.

Its cost: for each message a coroutine is put aside and resumed, a future is made, and the bytes
go through two buffers: one and a half times to twice the CPU of a bare epoll loop. `await
writer.drain()` is what keeps a peer that does not read from filling the memory.

Where it breaks: at rates where Python's own work shows; and when a coroutine calls something that
really waits (time.sleep, a blocking socket), because then everybody does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .options import RECV_SIZE, Model, Options

MODEL = Model(
    "asyncio",
    idea="a coroutine for each connection on asyncio's loop",
    good_for="thousands of peers and code that reads from top to bottom",
    breaks="up to twice the CPU of a bare epoll loop for each message",
)


class Server:
    """The conversations, and what may go wrong outside of them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.told = False

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One conversation; asyncio makes a task of it for each peer."""
        conversation = self.options.conversation(writer.get_extra_info("peername"))
        try:
            while data := await reader.read(RECV_SIZE):
                writer.write(conversation.reply(data))
                await writer.drain()  # waits while too much is pending
        except OSError:
            pass  # reset
        except asyncio.CancelledError:
            writer.transport.abort()  # the server stops: what is pending may never be taken
        finally:
            conversation.end()
            writer.close()  # sends what is pending, then FIN

    async def run(self) -> None:
        """Serve until this is cancelled."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        loop.set_exception_handler(self.complain)
        # A signal cancels it from within the loop: an exception might hit the loop's own work.
        self.options.stop = lambda: loop.call_soon_threadsafe(task.cancel)
        listener = self.options.listen()
        # Without a descriptor left, asyncio lets newcomers wait for a second.
        # It tries again for each place of the backlog that it knows of, so that is 1 to it.
        server = await asyncio.start_server(self.talk, sock=listener, backlog=1)
        listener.listen(self.options.backlog)
        async with server:
            await server.serve_forever()

    def complain(self, _loop: asyncio.AbstractEventLoop, what: dict[str, Any]) -> None:
        """Say once that something went wrong; by itself asyncio writes a traceback, each time."""
        if not self.told:
            self.told = True
            self.options.note(f"{what['message']}: {what.get('exception')}")


def serve(options: Options) -> None:
    """Run the loop until a signal ends it; asyncio.run() then cancels what is under way."""
    try:
        asyncio.run(Server(options).run())
    except asyncio.CancelledError:
        pass
