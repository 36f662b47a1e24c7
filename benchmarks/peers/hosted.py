"""A Python program that holds an echo server and is told over stdin what to do beside it.

It serves the figures that need a program around the server: a pure-Python busy loop in another
thread, callbacks, the workers' own counts. The server is `fastecho.Server`, or an
asyncio.Protocol on asyncio or uvloop in a thread of its own. Each command is a line; its answer
is one line of JSON on stdout:

    busy CORE   run the busy loop in a thread pinned to CORE
    idle        end it; answers how often it went round, and in how many seconds
    workers     answer the open connections of each worker (fastecho)
    accepts     answer how often the accept callback ran
    write RATE CORE   write 16 bytes RATE times a second to the connection that said "here I am",
                from a thread pinned to CORE (fastecho, --writes)
    still       end that; answers how often it wrote, and in how many seconds

The process ends when its stdin does.

Example: python -m benchmarks.peers.hosted --server fastecho --threads 2 --ready-fd 1
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from benchmarks.peers._listen import announce, announce_listener, arguments, listen
from benchmarks.peers.protocol import Echo

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastecho import Connection, Peer, Server


class BusyLoop:
    """A thread that does nothing but run Python byte code, as a program's own work would."""

    def __init__(self) -> None:
        self.turns = 0
        self.started = 0.0
        self.stopping = False
        self.thread: threading.Thread | None = None

    def start(self, core: int) -> None:
        """Run on `core` until stop()."""
        if self.thread is not None:
            raise RuntimeError("busy: already busy")
        self.stopping = False
        self.turns = 0
        self.started = time.monotonic()
        self.thread = threading.Thread(target=self._run, args=(core,), daemon=True)
        self.thread.start()

    def _run(self, core: int) -> None:
        os.sched_setaffinity(0, {core})  # 0: this thread alone
        while not self.stopping:
            self.turns += 1

    def stop(self) -> dict[str, float]:
        """End the loop and tell how much it did."""
        if self.thread is not None:
            self.stopping = True
            self.thread.join()
            self.thread = None
        return {"turns": self.turns, "seconds": time.monotonic() - self.started}


class AcceptCount:
    """The accept callback: it accepts everybody and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, peer: Peer) -> None:
        self.count += 1


class Writer:
    """A thread that writes to one connection, some hundred times each millisecond."""

    SPAN = 0.001

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.count = 0
        self.full = 0
        self.started = 0.0
        self.stopping = False
        self.thread: threading.Thread | None = None

    def on_message(self, connection: Connection, data: bytes) -> bytes | None:
        """Echo; but who says that it is the reader gets what is written."""
        if data == b"here I am\n":
            self.connection = connection
            return None
        return data

    def start(self, rate: float, core: int) -> None:
        """Write on `core` until stop()."""
        if self.thread is not None or self.connection is None:
            raise RuntimeError("write: nobody has said where to")
        self.stopping = False
        self.count = self.full = 0
        self.started = time.monotonic()
        self.thread = threading.Thread(target=self._run, args=(rate, core), daemon=True)
        self.thread.start()

    def _run(self, rate: float, core: int) -> None:
        os.sched_setaffinity(0, {core})
        assert self.connection is not None
        write = self.connection.write
        while not self.stopping:
            due = int((time.monotonic() - self.started) * rate)
            for _ in range(due - self.count):
                self.full += not write(b"sixteen bytes...")
            self.count = max(due, self.count)
            time.sleep(self.SPAN)

    def stop(self) -> dict[str, float]:
        """End it and tell how much it wrote, and how often it was told to wait."""
        if self.thread is not None:
            self.stopping = True
            self.thread.join()
            self.thread = None
        seconds = time.monotonic() - self.started
        return {"writes": self.count, "full": self.full, "seconds": seconds}


def echo(_: Connection, data: bytes) -> bytes:
    """Be the least that a message callback can be."""
    return data


class HandOver:
    """Hands each message to a coroutine of a running event loop, which writes the reply.

    Those that come while the loop is at work are handed over in one go: it is woken once.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.waiting: deque[tuple[Connection, bytes]] = deque()
        self.queue: asyncio.Queue[tuple[Connection, bytes]] = asyncio.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._answer())

    async def _answer(self) -> None:
        while True:
            connection, data = await self.queue.get()
            connection.write(data)

    def _take(self) -> None:
        while self.waiting:
            self.queue.put_nowait(self.waiting.popleft())

    def on_message(self, connection: Connection, data: bytes) -> None:
        """Put it where the loop finds it."""
        self.waiting.append((connection, data))
        if len(self.waiting) == 1:
            self.loop.call_soon_threadsafe(self._take)


def serve_protocol(loop_name: str, ready_fd: int) -> None:
    """Serve an asyncio.Protocol in this thread until the process ends."""

    async def serve() -> None:
        listener = listen()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, sock=listener, backlog=4096)
        announce_listener(listener, ready_fd)
        await server.serve_forever()

    if loop_name == "uvloop":
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())


def obey(busy: BusyLoop, accepts: AcceptCount, writer: Writer, server: Server | None) -> None:
    """Carry out one command for each line of stdin, until it ends."""
    for line in sys.stdin:
        command, *operands = line.split()
        answer: object
        if command == "busy":
            busy.start(int(operands[0]))
            answer = True
        elif command == "idle":
            answer = busy.stop()
        elif command == "write":
            writer.start(float(operands[0]), int(operands[1]))
            answer = True
        elif command == "still":
            answer = writer.stop()
        elif command == "accepts":
            answer = accepts.count
        elif command == "workers" and server is not None:
            answer = [worker.connections_open for worker in server.stats().workers]
        else:
            answer = {"error": f"unknown command: {command}"}
        print(json.dumps(answer), flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--server", choices=("fastecho", "asyncio", "uvloop"), required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--on-accept", action="store_true", help="set an accept callback")
    parser.add_argument("--on-message", action="store_true", help="set one that echoes")
    parser.add_argument("--writes", action="store_true", help="the same, for the command write")
    parser.add_argument("--hand-over", action="store_true", help="a coroutine answers")
    parser.add_argument("--frame", choices=("recv", "line"), default="recv")
    options = parser.parse_args()
    busy, accepts, writer = BusyLoop(), AcceptCount(), Writer()
    if options.server != "fastecho":
        threading.Thread(
            target=serve_protocol, args=(options.server, options.ready_fd), daemon=True
        ).start()
        obey(busy, accepts, writer, None)
        return
    import fastecho

    on_message: Callable[[Connection, bytes], bytes | None] | None = None
    if options.on_message:
        on_message = echo
    elif options.writes:
        on_message = writer.on_message
    elif options.hand_over:
        on_message = HandOver().on_message
    server = fastecho.Server(
        "127.0.0.1:0",
        threads=options.threads,
        frame=options.frame,
        on_accept=accepts if options.on_accept else None,
        on_message=on_message,
    )
    server.start()
    announce(server.address, options.ready_fd)
    obey(busy, accepts, writer, server)
    busy.stop()
    writer.stop()
    server.abort()


if __name__ == "__main__":
    main()
