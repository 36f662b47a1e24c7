"""How many CPUs this process may use."""

from __future__ import annotations

import os

__all__ = ["usable_cpus"]


def usable_cpus() -> int:
    """Return how many CPUs the process may use: its affinity, and its control group's quota."""
    cpus = len(os.sched_getaffinity(0))
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            group = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "")
        while group:
            cpus = min(cpus, _quota(f"/sys/fs/cgroup{group.rstrip('/')}/cpu.max", cpus))
            group = "" if group == "/" else os.path.dirname(group)
    except (OSError, ValueError):
        pass  # no control groups, or not the second version
    return max(cpus, 1)


def _quota(path: str, otherwise: int) -> int:
    """Return the CPUs that a cpu.max file allows, rounded up; `otherwise` if it sets no limit."""
    try:
        with open(path, encoding="ascii") as file:
            quota, period = file.read().split()
    except FileNotFoundError:
        return otherwise  # the root group has no such file
    return otherwise if quota == "max" else -(-int(quota) // int(period))
