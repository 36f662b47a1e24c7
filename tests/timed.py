"""Every timer of a server, measured from outside: a program of its own, for clocks of its own.

Lives here: what each timer is made to do, and the time that it took. Does not live here: the
clocks in which this is run, and what must hold (test_clock.py).

Run as a program it prints one JSON object: for each timer the seconds that are due and those that
were measured. Measured is never less than what passed between cause and effect, so a timer that
looks early is early. Arguments: a power of two; measuring begins shortly before that many
milliseconds of the monotonic clock have gone once more (0: at once); and "shim" when that is
loaded, which the pause of accepting needs.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import select
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from peers import connect, exchange, is_reset, read_to_eof
from served import CALLS

from fastecho import Client, Server

SPAN = 0.5
"""Seconds of most timers: long enough that a clock turns over, or jumps, while they run."""
AHEAD = 0.3
"""Seconds before the turn-over at which measuring begins."""
LINGER = 1.0
"""Seconds that a peer has to answer our FIN (FE_LINGER_MS)."""
ACCEPT_PAUSE = 0.1
"""Seconds that accepting rests when the kernel has no memory (ACCEPT_PAUSE_MS)."""
GRACE = 0.1
"""Seconds for handshakes under way, behind an address that others can reach."""
RATE = 2
"""Newcomers a second: every half of one, of which a tenth of a second may be used in advance."""

now = time.monotonic


def pause(seconds: float) -> None:
    """Sleep. Not by time.sleep, whose end libfaketime moves by what the clock of the day jumps."""
    select.select([], [], [], seconds)


class Timer(NamedTuple):
    """A timer that has expired."""

    due: float
    """Seconds."""
    took: float
    """Seconds, at least those that have passed."""


def serve(bind: str = "127.0.0.1:0", **config: Any) -> Server:
    """Start a server."""
    server = Server(bind, **config)
    server.start()
    return server


def idle_timeout_and_linger() -> dict[str, Timer]:
    """Be silent until FIN, and leave that unanswered until the server has gone."""
    server = serve(idle_timeout=SPAN)
    with connect(server) as peer:
        last = now()
        assert exchange(peer, b"x") == b"x"
        assert read_to_eof(peer) == b""
        idle = now() - last
        while server.stats().linger_timeouts == 0:
            pause(0.002)
        gone = now() - last
    server.abort()
    return {"idle_timeout": Timer(SPAN, idle), "linger": Timer(SPAN + LINGER, gone)}


def idle_timeout_put_off() -> dict[str, Timer]:
    """Say something every now and then, and be silent after that."""
    server = serve(idle_timeout=SPAN)
    with connect(server) as peer:
        begun = now()
        while now() < begun + 2 * AHEAD:
            last = now()
            assert exchange(peer, b"x") == b"x"
            assert not select.select([peer], [], [], 0.05)[0], "ended before its time"
        assert read_to_eof(peer) == b""
        idle = now() - last
    server.abort()
    return {"idle_timeout, put off": Timer(SPAN, idle)}


def first_byte_timeout() -> dict[str, Timer]:
    """Never say anything."""
    server = serve(first_byte_timeout=SPAN)
    begun = now()
    with connect(server) as peer:
        assert read_to_eof(peer) == b""
        took = now() - begun
    server.abort()
    return {"first_byte_timeout": Timer(SPAN, took)}


def drain_idle() -> dict[str, Timer]:
    """Be silent while the server is stopped."""
    server = serve(drain_idle=SPAN)
    with connect(server) as peer, ThreadPoolExecutor(1) as pool:
        assert exchange(peer, b"x") == b"x"
        begun = now()
        stopped = pool.submit(server.stop, 30)
        assert read_to_eof(peer) == b""
        took = now() - begun
        peer.close()
        assert stopped.result() is True
    return {"drain_idle": Timer(SPAN, took)}


def drain_deadline() -> dict[str, Timer]:
    """Stay while the server is stopped, which does not wait for silence."""
    server = serve(drain_idle=3600.0)
    with connect(server) as peer, ThreadPoolExecutor(1) as pool:
        assert exchange(peer, b"x") == b"x"
        begun = now()
        stopped = pool.submit(server.stop, SPAN)
        assert is_reset(peer)
        took = now() - begun
        assert stopped.result() is False
        returned = now() - begun
    return {"drain deadline": Timer(SPAN, took), "stop(timeout)": Timer(SPAN, returned)}


def handshake_grace() -> dict[str, Timer]:
    """Stop a server that nobody is connected to."""
    server = serve("0.0.0.0:0")
    begun = now()
    assert server.stop(30) is True
    return {"handshake grace": Timer(GRACE, now() - begun)}


def accept_rate() -> dict[str, Timer]:
    """Be let in, and knock until that happens again."""
    server = serve(accept_rate=RATE)
    begun = now()
    knocks = 0
    while server.stats().connections_accepted < 2:
        knocks += 1
        try:
            with connect(server) as peer:
                exchange(peer, b"x")
        except (OSError, AssertionError):
            pause(0.01)
    took = now() - begun
    assert knocks > 2
    server.abort()
    return {"accept_rate": Timer(1 / RATE - 0.1, took)}


def waiting() -> dict[str, Timer]:
    """Wait for a server that goes on, and for a reply that never comes."""
    server = serve(frame="line")
    begun = now()
    assert server.wait(SPAN) is False
    waited = now() - begun
    with Client(server.address, timeout=SPAN) as client:
        client.send(b"no newline")
        begun = now()
        try:
            client.recv(1)
        except TimeoutError:
            given_up = now() - begun
    server.abort()
    return {"wait(timeout)": Timer(SPAN, waited), "Client(timeout)": Timer(SPAN, given_up)}


def accept_pause() -> dict[str, Timer]:
    """Come when the kernel has no memory for newcomers, once."""
    logging.getLogger("fastecho").setLevel(logging.ERROR)  # it says that it rested
    shim = ctypes.CDLL(None)
    assert shim.shim_add(CALLS["accept4"], 0, 0, 0, 1, errno.ENOMEM, 0, 0) >= 0
    server = serve()
    begun = now()
    with connect(server) as peer:
        assert exchange(peer, b"x") == b"x"
        took = now() - begun
    assert server.stats().accept_pauses == 1
    server.abort()
    return {"accept pause": Timer(ACCEPT_PAUSE, took)}


TIMERS: list[Callable[[], dict[str, Timer]]] = [
    idle_timeout_and_linger,
    idle_timeout_put_off,
    first_byte_timeout,
    drain_idle,
    drain_deadline,
    handshake_grace,
    accept_rate,
    waiting,
]


def await_turn(turn_ms: int) -> None:
    """Sleep until shortly before the monotonic clock has gone through so many ms again."""
    left = turn_ms - time.monotonic_ns() // 1_000_000 % turn_ms
    assert AHEAD * 1000 < left < 20_000, f"{left} ms before the turn-over"
    pause(left / 1000 - AHEAD)


def count_jumps(until: Callable[[], bool]) -> int:
    """Return how often the clock of the day has jumped, by at least a minute, until then."""
    jumps, before = 0, time.time() - now()
    while not until():
        after = time.time() - now()
        jumps += abs(after - before) > 60
        before = after
        pause(0.005)
    return jumps


def main() -> None:
    """Measure all at once; fail if one of them did not come to its end."""
    turn_ms, has_shim = int(sys.argv[1]), sys.argv[2] == "shim"
    socket.setdefaulttimeout(20)
    if turn_ms:
        await_turn(turn_ms)
    begun = now()
    found: dict[str, Timer] = accept_pause() if has_shim else {}
    with ThreadPoolExecutor(len(TIMERS)) as pool:
        running = [pool.submit(timer) for timer in TIMERS]
        jumps = count_jumps(lambda: all(one.done() for one in running))
        for measured in running:
            found |= measured.result()
    turns = int(now() * 1000) // turn_ms - int(begun * 1000) // turn_ms if turn_ms else 0
    print(json.dumps({"timers": found, "turns": turns, "jumps": jumps, "monotonic": begun}))


if __name__ == "__main__":
    main()
