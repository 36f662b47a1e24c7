"""How much of the two cores went to programs that are no part of the measurement.

The kernel's count of busy time (/proc/stat, in ticks of 10 ms, the hypervisor's steal included)
less what the harness and its processes used. A tick is too coarse for one turn and good enough for
a round of them. Nothing is decided here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks._servers import Process

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# columns of a cpu line in /proc/stat that are time in which nothing ran
IDLE, IOWAIT = 3, 4

# user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user already
COLUMNS = 8


def busy_seconds(cores: Iterable[int]) -> float:
    """Return the seconds since boot in which something ran on `cores`, or was kept from it."""
    wanted = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *columns = line.split()
        if name in wanted:
            counted = [int(column) for column in columns[:COLUMNS]]
            ticks += sum(counted) - counted[IDLE] - counted[IOWAIT]
    return ticks / TICKS_PER_S


class Neighbours:
    """Watches the cores of one round: made before it, read after it.

    The cores are those that the figure's processes and the harness are pinned to.
    """

    def __init__(self, processes: Iterable[Process]) -> None:
        self.processes = list({process.pid: process for process in processes}.values())
        self.cores = set().union(
            os.sched_getaffinity(0), *(process.cores for process in self.processes)
        )
        self._began = time.monotonic()
        self._busy = busy_seconds(self.cores)
        self._ours = self._our_seconds()

    def _our_seconds(self) -> float:
        ours = sum(one.cpu_ns() for one in self.processes) + time.process_time_ns()
        return ours / 1e9

    def share(self) -> float:
        """Return the share of the cores' time since the start that others used, 0 to 1."""
        ours = self._our_seconds() - self._ours
        busy = busy_seconds(self.cores) - self._busy
        passed = (time.monotonic() - self._began) * len(self.cores)
        return max(0.0, (busy - ours) / passed)
