"""Servers that are started and ended many times, one after the other and in many threads at once.

Lives here: doing it, and the look at what is left. Does not live here: how often (endings.py).
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import NamedTuple

from conftest import open_descriptors, running_threads
from peers import connect, exchange, read_to_eof, wait_until

import fastecho
from fastecho import process

WARM_UP = 100
"""Servers before the first look: Python and the C library keep what they once had."""
MEMORY = 2_000_000
"""Bytes that may be resident beyond what was before: the allocators' own unrest."""


def cycles(count: int, errors: list[BaseException]) -> None:
    """Start a server, echo once, end it: one after the other."""
    try:
        for number in range(count):
            server = fastecho.Server(threads=1 + number % 2, drain_idle=0.0)
            with server, connect(server) as client:
                assert exchange(client, b"x") == b"x"
                client.shutdown(socket.SHUT_WR)
                assert read_to_eof(client) == b""
    except BaseException as error:
        errors.append(error)


class Holdings(NamedTuple):
    """What this process holds."""

    descriptors: int
    threads: int
    servers: int
    """As the interpreter's exit would find them."""
    resident: int
    """Bytes."""


def holdings() -> Holdings:
    """Return what this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    return Holdings(len(open_descriptors()), len(running_threads()), len(process._living), resident)


def one_after_the_other(count: int) -> int:
    """Start and end so many; fail if anything is left. Returns by how much the memory grew."""
    errors: list[BaseException] = []
    cycles(WARM_UP, errors)
    before = holdings()
    cycles(count, errors)
    assert not errors, f"{errors}"
    grown = nothing_is_left(before)
    assert grown < MEMORY or "san.so" in os.environ.get("LD_PRELOAD", ""), f"{grown} bytes"
    return grown


def at_once(threads: int, count: int) -> int:
    """Start and end so many in each thread; fail if anything is left.

    Memory is no measure here, but returned: malloc keeps what a hundred threads had at their
    height, and that is never twice the same.
    """
    errors: list[BaseException] = []
    before = holdings()
    running = [threading.Thread(target=cycles, args=(count, errors)) for _ in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    assert not errors, f"{errors}"
    return nothing_is_left(before)


def nothing_is_left(before: Holdings) -> int:
    """Fail if anything is; return by how many bytes the memory has grown."""
    # The kernel needs a moment for each thread.
    wait_until(lambda: holdings().threads <= before.threads, what="the end of all threads")
    after = holdings()
    left = after.descriptors - before.descriptors, after.servers - before.servers
    assert left == (0, 0), f"{left[0]} descriptors and {left[1]} servers are left"
    return after.resident - before.resident
