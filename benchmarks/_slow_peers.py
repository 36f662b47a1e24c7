"""Peers that cost a server something and give it nothing to do: silent, slow, or never reading.

Both ends live here. `SlowPeers` starts the program and talks to it; run as a program, this file
connects the peers and does what its standard input says. What they do to the others, and what
the kernel holds for them, is measured in benchmarks/figures.

    silent       connects and sends nothing
    slow-sender  sends one byte now and then, and reads what comes back
    non-reader   sends as much as is taken, and never reads
    slow-reader  a non-reader that takes a few bytes now and then, and sends as many again

"Now and then" is once every EVERY seconds for each peer, evenly spread over all of them, and only
from "go" until "pause": a peer that may act at any time would disturb the turns of others too.

Example: python -m benchmarks._slow_peers --kind silent --count 5 --address 127.0.0.1:7 --ready-fd 1
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal, get_args

from benchmarks._errors import MeasurementError
from benchmarks._servers import Process
from benchmarks.peers._listen import arguments

Kind = Literal["silent", "slow-sender", "non-reader", "slow-reader"]

# the kinds that go on doing something
ACTING: tuple[Kind, ...] = ("slow-sender", "slow-reader")

# seconds between two acts of one peer
EVERY = 1.0

# bytes that a slow reader takes at a time
SIP = 1024

# seconds without a byte taken after which a peer that does not read counts as blocked
BLOCKED = 0.2

# seconds in which all of them must be
FILL_TIMEOUT = 15.0

# what a peer that does not read sends: lines, so that it does for every framing
FILLING = (b"x" * 63 + b"\n") * 1024


class SlowPeers(Process):
    """A process that holds slow peers of one server."""

    def __init__(
        self, address: tuple[str, int], kind: Kind, count: int, core: int, *, buffer: int = 0
    ) -> None:
        """Connect `count` peers to `address`; ready when they are, and blocked if they do not read.

        `buffer`: SO_SNDBUF and SO_RCVBUF of each peer, in bytes; 0 leaves them to the kernel.
        """
        host, port = address
        command = [sys.executable, "-m", __name__, "--kind", kind, "--count", f"{count}"]
        command += ["--address", f"{host}:{port}", "--buffer", f"{buffer}"]
        self.kind = kind
        self.count = count
        # how often a peer did something, and for how many seconds they were at it
        self.acts = 0
        self.seconds = 0.0
        super().__init__(f"{count} peers ({kind})", command, (core,), obeys=True)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Let them act meanwhile, those that ever do."""
        self.ask("go")
        try:
            yield
        finally:
            told = self.ask("pause")
        self.acts += told["acts"]
        self.seconds += told["seconds"]

    def verify(self) -> None:
        """Raise MeasurementError unless they acted at least half as often as they should.

        Whoever shares their core may keep them from it; the figure shows how often they acted.
        """
        if self.kind not in ACTING:
            return
        due = self.seconds * self.count / EVERY
        if self.acts < due / 2:
            raise MeasurementError(f"{self.name} acted {self.acts} times, not {due:.0f} times")


def open_peers(address: tuple[str, int], count: int, buffer: int) -> list[socket.socket]:
    """Return connected sockets that do not block."""
    peers: list[socket.socket] = []
    for _ in range(count):
        peer = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        peer.connect(address)
        peer.setblocking(False)
        peers.append(peer)
    return peers


def fill(peers: list[socket.socket]) -> None:
    """Send from every peer, without reading, until nothing more is taken from any."""
    by_number = {peer.fileno(): peer for peer in peers}
    deadline = time.monotonic() + FILL_TIMEOUT
    with select.epoll() as waiting:
        for number in by_number:
            waiting.register(number, select.EPOLLOUT)
        while ready := waiting.poll(BLOCKED):
            if time.monotonic() > deadline:
                raise MeasurementError(f"peers could send for {FILL_TIMEOUT:g} s without reading")
            for number, _ in ready:
                with contextlib.suppress(BlockingIOError):
                    by_number[number].send(FILLING)


def act(kind: Kind, peer: socket.socket) -> None:
    """Do once what a peer of this kind does now and then."""
    with contextlib.suppress(BlockingIOError):
        if peer.recv(SIP) == b"":
            raise MeasurementError(f"the server ended the connection of a {kind}")
    with contextlib.suppress(BlockingIOError):
        peer.send(b"x" if kind == "slow-sender" else FILLING[:SIP])


def obey(kind: Kind, peers: list[socket.socket]) -> None:
    """Carry out one command for each line of stdin, until it ends."""
    gap = EVERY / len(peers)
    acting, acts, began, due, turn = False, 0, 0.0, 0.0, 0
    while True:
        left = max(due - time.monotonic(), 0.0) if acting else None
        if select.select([sys.stdin.fileno()], [], [], left)[0]:
            command = os.read(sys.stdin.fileno(), 4096)
            if not command:
                return
            told: Any = True
            now = time.monotonic()
            if command == b"go\n":
                acting, acts, began, due = kind in ACTING, 0, now, now
            else:
                acting, told = False, {"acts": acts, "seconds": now - began}
            print(json.dumps(told), flush=True)
        elif acting:
            act(kind, peers[turn])
            turn = (turn + 1) % len(peers)
            acts += 1
            due += gap


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=get_args(Kind), required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--address", required=True, metavar="HOST:PORT")
    parser.add_argument("--buffer", type=int, default=0, metavar="BYTES")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    host, _, port = options.address.rpartition(":")
    peers = open_peers((host, int(port)), options.count, options.buffer)
    if options.kind in ("non-reader", "slow-reader"):
        fill(peers)
    os.write(options.ready_fd, b"connected\n")
    os.close(options.ready_fd)
    obey(options.kind, peers)


if __name__ == "__main__":
    main()
