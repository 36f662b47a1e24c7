"""Message callbacks: a Python function for each message, beside uvloop and the core alone.

The callback is the least that there can be: it returns what it is given. So the figures are what
calling Python costs; what a real callback does comes on top, in all of the programs alike.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks._compare import Against, enter, figure
from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._programs import ASYNCIO, STREAMS, UVLOOP, fastecho, hosted, peer
from benchmarks._ratios import at_least, at_most
from benchmarks._servers import Server
from benchmarks._turns import Contender, interleave

SOURCES = tuple(f"127.0.1.{last}" for last in range(1, 65))
WRITES_PER_S = 100_000

NATIVE = fastecho(name="fastecho, no callback")
MESSAGES = hosted("fastecho", "--on-message", name="fastecho")
LINES = hosted("fastecho", "--on-message", "--frame", "line", name="fastecho")
UVLOOP_CALLS = peer(
    "uvloop Protocol, a call for each line",
    "protocol",
    "--loop",
    "uvloop",
    "--frame",
    "line",
    "--call",
)
HANDING = hosted("fastecho", "--hand-over", name="fastecho")
MESSAGES_TOO = hosted("fastecho", "--on-message", name="fastecho, answered in on_message")
WRITING = hosted("fastecho", "--writes", name="fastecho")
ACCEPTING = hosted("fastecho", "--on-accept", name="fastecho")
NOT_ACCEPTING = hosted("fastecho", name="fastecho, no on_accept")


def identity(plan: Plan, connections: int, rounds: int, uvloop_bar: float) -> Figure:
    """Return the figure of `connections` connections."""
    with plan.stage() as stage:
        contenders = enter(
            stage, [MESSAGES, UVLOOP, NATIVE], [], [], connections=connections, size=64
        )
        taken = interleave(contenders, plan.rounds(rounds), plan.seconds(0.1))
        return figure(
            f"messages-{connections}",
            f"on_message returns what it is given: 64 B, {connections:,} connections, 1 thread",
            contenders,
            taken,
            [],
            [
                Against("rate", UVLOOP.name, at_least(uvloop_bar)),
                Against("cpu_us", NATIVE.name, at_most(1.08)),
                Against("rate", NATIVE.name, None),
            ],
        )


def lines(plan: Plan) -> Figure:
    """Return the figure of a callback for each of many lines."""
    with plan.stage() as stage:
        contenders = enter(
            stage, [LINES, UVLOOP_CALLS], [], [], connections=64, depth=32, size=64, frame="line"
        )
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.1))
        return figure(
            "messages-lines",
            "64 connections, depth 32, lines of 64 B, a function is called for each",
            contenders,
            taken,
            [],
            [Against("rate", UVLOOP_CALLS.name, at_least(1.3))],
        )


class Reader:
    """A connection that reads and forgets what is written to it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.sendall(b"here I am\n")
        self.bytes = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        buffer = bytearray(1 << 20)
        while n := self._socket.recv_into(buffer):
            self.bytes += n

    def end(self) -> None:
        """Close it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def writes(plan: Plan) -> Figure:
    """Return the figure of an echo beside another thread's writes, on the same worker."""
    told: list[dict[str, float]] = []

    @contextlib.contextmanager
    def beside_writes(server: Server) -> Iterator[None]:
        server.ask(f"write {WRITES_PER_S} {plan.load_core}")
        try:
            yield
        finally:
            told.append(server.ask("still"))

    with plan.stage() as stage, contextlib.ExitStack() as stack:
        server = stage.server(WRITING)
        stack.callback(Reader(server.address).end)
        load = stage.load(server, connections=64, size=64)
        quiet = "fastecho, nobody writes"
        contenders = [
            Contender(quiet, server, load),
            Contender(f"{quiet} (again)", server, load),
            Contender("fastecho", server, load, around=partial(beside_writes, server)),
        ]
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.2))
        made = figure(
            "messages-writes",
            f"echo by on_message, 64 connections, while another thread writes {WRITES_PER_S:,}"
            " times a second to one connection of the same worker",
            contenders,
            taken,
            [],
            [Against("rate", quiet, at_least(0.8))],
        )
        done = sum(one["writes"] for one in told) / sum(one["seconds"] for one in told)
        made.notes.append(
            f"the other thread wrote {done:,.0f} times a second, and was told to wait"
            f" {sum(one['full'] for one in told):,.0f} times; it and the reader of what it wrote"
            " share the load's core"
        )
        return made


def hand_over(plan: Plan) -> Figure:
    """Return the figure of messages that a coroutine of a running event loop answers."""
    with plan.stage() as stage:
        contenders = enter(
            stage, [HANDING, MESSAGES_TOO, STREAMS, ASYNCIO], [], [], connections=64, size=64
        )
        taken = interleave(contenders, plan.rounds(20), plan.seconds(0.1))
        return figure(
            "messages-asyncio",
            "each message is handed to a coroutine of an event loop in another thread, which writes"
            " the reply: 64 B, 64 connections",
            contenders,
            taken,
            [],
            [
                Against("cpu_us", MESSAGES_TOO.name, None),
                Against("cpu_us", STREAMS.name, None),
                Against("cpu_us", ASYNCIO.name, None),
            ],
        )


def accepts(plan: Plan) -> Figure:
    """Return the figure of what an accept callback costs those who connect."""
    with plan.stage() as stage:
        contenders = enter(
            stage,
            [ACCEPTING, NOT_ACCEPTING],
            [],
            [],
            connections=16,
            size=64,
            mode="reconnect",
            sources=SOURCES,
        )
        taken = interleave(contenders, plan.rounds(40), plan.seconds(0.1))
        return figure(
            "accepts",
            "connect, echo 64 B, close, 16 at a time, each accepted by a callback",
            contenders,
            taken,
            [],
            [Against("rate", NOT_ACCEPTING.name, at_least(0.85))],
        )


FIGURES: dict[str, Callable[[Plan], Figure]] = {
    "messages-64": partial(identity, connections=64, rounds=40, uvloop_bar=1.05),
    "messages-1000": partial(identity, connections=1000, rounds=60, uvloop_bar=1.08),
    "messages-lines": lines,
    "messages-writes": writes,
    "messages-asyncio": hand_over,
    "accepts": accepts,
}
