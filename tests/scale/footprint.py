"""What processes and connections cost the machine, read from /proc.

Lives here: memory of a process, of the kernel, of the machine; open descriptors; sockets by kind.
Does not live here: what is expected of them (hold.py), whether there is enough (plan.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def number_in(path: Path, name: str) -> int:
    """Return the number that stands behind a name in one of the kernel's tables."""
    text = path.read_text()
    found = re.search(rf"\b{re.escape(name)}:?\s+(\d+)", text)
    assert found, f"{path} does not name {name}: {text}"
    return int(found[1])


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes; every page is looked at."""
    return number_in(PROC / str(pid) / "smaps_rollup", "Rss") * 1024


def slab() -> int:
    """Return the bytes of the kernel's objects (sockets, inodes, epoll items, ...), all of them.

    Less the inodes of /proc with their names: whoever lists the descriptors of other processes, as
    monitors do, leaves one for each, and they were a fifth of what was measured. Only root may see
    how many there are; for others they count.
    """
    total = number_in(PROC / "meminfo", "Slab") * 1024
    try:
        rows = [line.split() for line in (PROC / "slabinfo").read_text().splitlines()[2:]]
    except PermissionError:
        return total
    count = {name: int(active) for name, active, *_ in rows}
    size = {name: int(one) for name, _, _, one, *_ in rows}
    if "proc_inode_cache" not in count or "dentry" not in count:
        return total
    return total - count["proc_inode_cache"] * (size["proc_inode_cache"] + size["dentry"])


def tcp_sockets() -> int:
    """Return the TCP sockets that are bound or connected in this namespace of the network."""
    return number_in(PROC / "net" / "sockstat", "TCP: inuse")


def tcp_sockets_everywhere() -> int:
    """Return the TCP sockets for which the kernel holds memory, in all namespaces."""
    table = (PROC / "net" / "sockstat").read_text()
    found = re.search(r"^TCP:.* alloc (\d+)", table, re.M)
    assert found, table
    return int(found[1])


def available() -> int:
    """Return the bytes of memory that can still be used: of the machine, or of the container."""
    limits = [number_in(PROC / "meminfo", "MemAvailable") * 1024]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((CGROUPS / name).read_text()))
        except (OSError, ValueError):
            pass  # no such group of limits, or "max"
    return min(limits)


def descriptors(pid: int) -> dict[int, str]:
    """Return what a process has open, by number."""
    folder = PROC / str(pid) / "fd"
    return {int(name): os.readlink(folder / name) for name in os.listdir(folder)}


def bytes_as_text(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
