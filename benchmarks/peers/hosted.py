"""A Python program that holds an echo server and is told over stdin what to do beside it.

It serves the figures that need a program around the server: a pure-Python busy loop in another
thread, an accept callback, the workers' own counts. The server is `fastecho.Server`, or an
asyncio.Protocol on asyncio or uvloop in a thread of its own. Each command is a line; its answer
is one line of JSON on stdout:

    busy CORE   run the busy loop in a thread pinned to CORE
    idle        end it; answers how often it went round, and in how many seconds
    workers     answer the open connections of each worker (fastecho)
    accepts     answer how often the accept callback ran

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
from typing import TYPE_CHECKING

from benchmarks.peers._listen import announce, announce_listener, arguments, listen
from benchmarks.peers.protocol import Echo

if TYPE_CHECKING:
    from fastecho import Peer, Server


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


def obey(busy: BusyLoop, accepts: AcceptCount, server: Server | None) -> None:
    """Carry out one command for each line of stdin, until it ends."""
    for line in sys.stdin:
        command, *operands = line.split()
        answer: object
        if command == "busy":
            busy.start(int(operands[0]))
            answer = True
        elif command == "idle":
            answer = busy.stop()
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
    options = parser.parse_args()
    busy = BusyLoop()
    accepts = AcceptCount()
    if options.server != "fastecho":
        threading.Thread(
            target=serve_protocol, args=(options.server, options.ready_fd), daemon=True
        ).start()
        obey(busy, accepts, None)
        return
    import fastecho

    callback = accepts if options.on_accept else None
    server = fastecho.Server("127.0.0.1:0", threads=options.threads, on_accept=callback)
    server.start()
    announce(server.address, options.ready_fd)
    obey(busy, accepts, server)
    busy.stop()
    server.abort()


if __name__ == "__main__":
    main()
