"""How many connections over how many processes, and whether the machine has room for them.

Lives here: what a phase is asked to do, and the estimate of what it takes. Does not live here:
doing it (hold.py), the command's options (scale.py).
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import NamedTuple

from footprint import available, bytes_as_text

MESSAGE = 256
"""Bytes that are echoed on each connection."""
SPARE = 100
"""Descriptors that a process of many leaves for itself; it needs about 10."""
MOST = 20_000
"""Connections of one process of many, however many it could have."""
PAIR_BYTES = 10_500
"""What a pair of connected sockets takes: in the kernel 8,200 to 8,700 measured, both ends, epoll
included, and 1,800 where a monitor lists all descriptors; about 150 in the two processes. Their
buffers are empty, but for those that echo at the moment: tcp_mem is no limit."""
PROCESS_BYTES = 16 << 20
"""What a process takes before its first connection: 12 MiB of its own measured, and page tables,
stacks and descriptors in the kernel."""


class Plan(NamedTuple):
    """What one phase does."""

    servers: int
    """Processes with one server each."""
    holders: int
    """Processes that connect: one for each server, or several for the only one."""
    connections: int
    """Of all processes together; 0: as many as the only server has descriptors for."""
    idle: float
    """Seconds that the connections are held without a byte."""
    is_apart: bool
    """In a namespace of the network of its own."""

    def share(self, holder: int, connections: int) -> int:
        """Return how many of all connections one of the holders opens."""
        return connections // self.holders + (holder < connections % self.holders)


def most_descriptors() -> int:
    """Return how many descriptors a process may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    kernel = int(Path("/proc/sys/fs/nr_open").read_text())
    return kernel if hard == resource.RLIM_INFINITY else min(hard, kernel)


def refusal(plan: Plan, option: str) -> str | None:
    """Return one sentence when a plan does not fit into the memory that is left, or None.

    option: what chooses fewer connections.
    """
    count = plan.connections or most_descriptors()
    processes = plan.servers + plan.holders
    needed, left = count * PAIR_BYTES + processes * PROCESS_BYTES, available()
    if needed <= left:
        return None
    return (
        f"{count:,} connections over {processes} processes need about {bytes_as_text(needed)} of"
        f" memory, and {bytes_as_text(left)} are available: choose fewer with {option}"
    )
