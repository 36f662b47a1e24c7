"""A connect storm: peers that come and go without a pause, while servers are drained under them.

Lives here: the storm, and what may become of who is in it. Does not live here: how often that is
tried (test_drain.py, endings/endings.py).
"""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from peers import connect, wait_until

import fastecho

STORMS: dict[str, dict[str, Any]] = {
    "one worker": {"threads": 1},
    "two workers": {"threads": 2},
    "reuse_port": {"threads": 2, "reuse_port": True},
    "on_accept": {"threads": 2, "on_accept": lambda _: None},
    "unix": {"threads": 2},
}
"""Servers, by name; "unix" listens on a Unix socket."""
IDLE = 0.1
"""drain_idle during the storm."""
SERVED = 30
"""Messages that a server answers before it is drained."""
ALLOWED = {"echoed", "late", "no answer", "ECONNREFUSED", "ENOENT", "EAGAIN"}
"""What may become of a visit: whoever was accepted is echoed, others never come in."""


def visit(address: str, stays: bool) -> str:
    """Connect, send, read the echo, and close, or wait for FIN; tell how that went."""
    try:
        # A SYN that the drain drops is sent again after a second: this one gives up before.
        peer = connect(address, timeout=0.05)
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    begun = time.monotonic()
    with peer:
        peer.settimeout(10)
        try:
            peer.sendall(b"hello")
            data = peer.recv(100)
            if data == b"hello" and (not stays or peer.recv(100) == b""):
                return "echoed"
        except OSError as error:
            return f"{errno.errorcode[error.errno or 0]} after connect"
        # FIN before the echo: only if it needed longer than drain_idle to send.
        late = time.monotonic() - begun >= IDLE
        return "late" if data == b"" and late else f"answered {data!r}"


@contextmanager
def storm(places: list[str], clients: int = 6) -> Iterator[Counter[str]]:
    """Visit the last of `places` without a pause; at the end the counter tells how it went."""
    over = threading.Event()
    results: Counter[str] = Counter()

    def run(number: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        while not over.is_set():
            seen[visit(places[-1], stays=number == 0)] += 1
        return seen

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(run, number) for number in range(clients)]
        try:
            yield results
        finally:
            over.set()
        for one in running:
            results.update(one.result())


def has_answered(server: fastecho.Server) -> bool:
    """Tell whether it has answered enough."""
    return server.stats().messages >= SERVED


def drain_in_a_storm(name: str, drains: int, folder: Path) -> Counter[str]:
    """Drain one server after the other in a storm that moves on to the next one.

    Fails if anybody who was accepted is reset or gets other bytes. Returns how the visits went.
    """
    places: list[str] = []

    def start() -> fastecho.Server:
        bind = f"unix:{folder / str(len(places))}" if name == "unix" else "127.0.0.1:0"
        server = fastecho.Server(bind, drain_idle=IDLE, **STORMS[name])
        server.start()
        places.append(server.address)
        return server

    server = start()
    try:
        with storm(places) as results:
            for left in reversed(range(drains)):
                wait_until(partial(has_answered, server), what="the storm")
                assert server.stop(20) is True
                if left:
                    server = start()
    finally:
        server.abort()
    wrong = {what: n for what, n in results.items() if what not in ALLOWED}
    assert not wrong, f"{wrong} of {results.total()} visits"
    assert results["echoed"] + results["late"] >= drains * SERVED, f"{results}"
    return results
