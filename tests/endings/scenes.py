"""What is interrupted by SIGINT: each use of the library that a main thread can be in.

Lives here: the scenes, and what a user does after each. Does not live here: the moments
(moments.py), what must hold after each scene (player.py).
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from peers import connect, exchange
from programs import ROOT

from fastecho import Client, Server, black_hole
from fastecho.metrics import MetricsServer
from fastecho.refused import RefusedAddress
from fastecho.testing import EchoServer

DATA = bytes(range(256)) * 400
"""For Client.echo: more than one turn of its loop."""


class Stage:
    """What a scene finds: where to listen, somebody else's echo server, and its own things."""

    def __init__(self, path: Path, elsewhere: str) -> None:
        self.path = path
        self.elsewhere = elsewhere
        self.server: Server | None = None
        self.runner = asyncio.Runner()
        self.others = ExitStack()
        """What is ended after the scene: peers, threads."""

    def make(self) -> None:
        """Make a server that is not started, with every kind of thread and of listener."""
        inherited = self.others.enter_context(socket.create_server(("127.0.0.1", 0)))
        bind = [f"unix:{self.path}", "127.0.0.1:0", f"fd://{inherited.fileno()}"]
        self.server = Server(bind, threads=2, drain_idle=0.0, on_accept=lambda _: None)

    def running(self) -> Server:
        """Return its server."""
        assert self.server is not None
        return self.server


def serve(stage: Stage) -> None:
    """Start a server that somebody is connected to."""
    stage.make()
    stage.running().start()
    peer = stage.others.enter_context(connect(stage.running()))
    assert exchange(peer, b"x") == b"x"


def abort(stage: Stage) -> None:
    """Abort."""
    stage.running().abort()


def abort_if_serving(stage: Stage) -> None:
    """Abort what has started. What has not started must have left nothing by itself."""
    if stage.running().is_serving():
        stage.running().abort()


def block(stage: Stage) -> None:
    """Serve in a `with` block."""
    with stage.running() as server, connect(server) as peer:
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"


def failing_block(stage: Stage) -> None:
    """Leave a `with` block by an exception."""
    with suppress(KeyError), stage.running():
        raise KeyError


def look_and_change(stage: Stage) -> None:
    """Call what only looks, and what changes limits."""
    server = stage.running()
    server.set_limits(max_connections=5, max_per_ip=3, idle_timeout=9.0)
    repr((server, server.stats(), server.addresses, server.sockets, server.is_serving()))
    repr((server.listen_queue(), server.tcp_info(2), server.is_ready()))


def export(stage: Stage) -> None:
    """Answer HTTP for a server."""
    with MetricsServer("127.0.0.1:0", stage.running()) as metrics:
        assert metrics.addresses


def serve_a_port(stage: Stage) -> None:
    """Start a server whose port can refuse."""
    stage.server = Server(drain_idle=0.0)
    stage.server.start()


def misbehave(stage: Stage) -> None:
    """Refuse, admit, and change the fault."""
    server = stage.running()
    server.set_fault("delay=1ms,fail_first=2")
    server.refuse()
    server.admit()
    server.set_fault(None)
    with connect(server) as peer:
        assert exchange(peer, b"x") == b"x"


def use_a_fixture(_: Stage) -> None:
    """Do what a test with a fixture does."""
    with EchoServer() as server, connect(server) as peer:
        peer.sendall(b"x")
        server.wait_for(connections=1, bytes=1)
        assert server.received == b"x"


def meet_nobody(_: Stage) -> None:
    """Open addresses where nobody answers, and connect to them."""
    with black_hole() as hole, RefusedAddress() as refused:
        for address in (hole, refused):
            with socket.socket() as sock:
                sock.settimeout(0.001)
                assert sock.connect_ex((address.host, address.port)) != 0


def expect_to_serve(stage: Stage) -> None:
    """Have another thread that ends a server once that waits for signals."""
    stage.make()
    server, over = stage.running(), threading.Event()

    def stop() -> None:
        while not over.wait(0.001):
            if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
                server.stop(0)
                return

    thread = threading.Thread(target=stop)
    thread.start()
    stage.others.callback(thread.join)
    stage.others.callback(over.set)


def echo(stage: Stage) -> None:
    """Use a client in every way."""
    with Client(stage.elsewhere, timeout=20.0) as client:
        assert client.echo(DATA) == DATA
        client.send(b"a line\nand more")
        assert client.recv_line() == b"a line\n"
        assert client.recv_exactly(8) == b"and more"
        client.shutdown()
        assert client.recv(1) == b""


async def serve_asynchronously(stage: Stage) -> None:
    """Serve in an `async with` block."""
    async with stage.running() as server:
        reader, writer = await asyncio.open_unix_connection(stage.path)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        await writer.wait_closed()
        server.stop(0)
        await server.wait_closed()


def run_asynchronously(stage: Stage) -> None:
    """Run a coroutine as asyncio.run does: SIGINT cancels it."""
    stage.runner.run(serve_asynchronously(stage))


class Scene(NamedTuple):
    """Something that is interrupted."""

    act: Callable[[Stage], object]
    before: Callable[[Stage], object] = lambda stage: None
    """Not interrupted."""
    after: Callable[[Stage], object] = lambda stage: None
    """What the user still does, interrupted or not."""
    folder: str = ""
    """Only moments in files below it; "" for all."""


EXCUSED = {
    f"entry of {name}.__exit__": "a `with` block calls it, and it has not begun"
    for name in ("Server", "EchoServer")
}
"""Where nothing can be done in Python; what is left there is ended at the interpreter's exit."""
SCENES = {
    "start()": Scene(lambda stage: stage.running().start(), Stage.make, abort_if_serving),
    "stop()": Scene(lambda stage: stage.running().stop(0), serve, abort),
    "abort()": Scene(abort, serve, abort),
    "close()": Scene(lambda stage: stage.running().close(), serve, abort),
    "wait()": Scene(lambda stage: stage.running().wait(0.001), serve, abort),
    "stats(), set_limits()": Scene(look_and_change, serve, abort),
    # What the standard library's HTTP server leaves in pieces is its own.
    "MetricsServer": Scene(export, serve, abort, folder=str(ROOT / "fastecho")),
    "with": Scene(block, Stage.make),
    "with, an error": Scene(failing_block, Stage.make),
    "serve_forever()": Scene(lambda stage: stage.running().serve_forever(), expect_to_serve, abort),
    # asyncio itself can be left in pieces.
    "async with": Scene(run_asynchronously, Stage.make, folder=str(ROOT)),
    "Client": Scene(echo),
    "set_fault(), refuse(), admit()": Scene(misbehave, serve_a_port, abort),
    "EchoServer": Scene(use_a_fixture),
    "black_hole(), RefusedAddress": Scene(meet_nobody),
}
