"""`asyncio`: the callbacks again, but each conversation reads from top to bottom.

The idea: a coroutine for each connection. `await reader.read()` looks like a call that waits, and
is none: the coroutine is put aside, the loop (epoll inside) serves others, and goes on with it when
bytes have come. The code is that of `threaded`, without its threads.

Its cost: for each message a coroutine is put aside and resumed, a future is made, and the bytes
go through two buffers: several times the CPU of a bare epoll loop. `await writer.drain()` is what
keeps a peer that does not read from filling the memory.

Where it breaks: at rates where Python's own work shows; and when a coroutine calls something that
really waits (time.sleep, a blocking socket), because then everybody does.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from .options import RECV_SIZE, Model, Options

MODEL = Model(
    "asyncio",
    idea="a coroutine for each connection on asyncio's loop",
    good_for="thousands of peers and code that reads from top to bottom",
    breaks="several times the CPU of a bare epoll loop for each message",
)


async def listen_and_talk(options: Options) -> None:
    """Serve until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    loop.set_exception_handler(lambda _, what: complain(options, what))
    talking: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking[task] = writer
        conversation = options.conversation(writer.get_extra_info("peername"))
        try:
            while data := await reader.read(RECV_SIZE):
                writer.write(conversation.reply(data))
                await writer.drain()  # waits while too much is pending
        except OSError:
            pass  # reset
        finally:
            del talking[task]
            conversation.end()
            writer.close()

    listener = options.listen()
    async with await asyncio.start_server(talk, sock=listener, backlog=options.backlog):
        await stopped.wait()
        for writer in talking.values():
            writer.transport.abort()  # read() returns b"", drain() raises
        await asyncio.gather(*talking)


def complain(options: Options, what: dict[str, Any]) -> None:
    """Say in one line what went wrong: asyncio would write a traceback."""
    reason = what.get("exception")
    options.note(f"{what['message']}{f': {reason}' if reason else ''}")


def serve(options: Options) -> None:
    """Run the loop until it is stopped."""
    asyncio.run(listen_and_talk(options))
