"""What a process holds: memory, descriptors, threads; read from outside.

Lives here: the reading, and what has grown between two readings. Does not live here: when that is
read (life.py).

Two figures for memory, and neither may grow. Rss is what is usually meant: all pages that are
there, those of the program and its libraries included, which the kernel may drop and read again
as it likes. Private memory is what the process has written itself, in memory or swapped out: a
leak shows there, whatever else the machine does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Footprint(NamedTuple):
    """What a process holds at one moment."""

    rss: int
    """Bytes resident."""
    private: int
    """Bytes that are its own: anonymous pages, resident or swapped out."""
    descriptors: dict[int, str]
    """What each descriptor is."""
    threads: frozenset[int]
    """Ids."""

    def figures(self) -> tuple[int, int, int, int]:
        """Return bytes resident, private bytes, how many descriptors, how many threads."""
        return self.rss, self.private, len(self.descriptors), len(self.threads)


def footprint(pid: int) -> Footprint:
    """Return what a process holds now. A descriptor that is closed meanwhile is left out."""
    process = Path(f"/proc/{pid}")
    sizes = {}
    for line in (process / "smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split()[:2]
        sizes[name.rstrip(":")] = int(size) * 1024
    descriptors = {}
    for name in os.listdir(process / "fd"):
        try:
            descriptors[int(name)] = os.readlink(process / "fd" / name)
        except FileNotFoundError:
            pass
    threads = frozenset(map(int, os.listdir(process / "task")))
    return Footprint(sizes["Rss"], sizes["Anonymous"] + sizes["Swap"], descriptors, threads)


def growth(before: Footprint, after: Footprint, allowed: int) -> list[str]:
    """Say which memory has grown by more than the bytes allowed; nothing if none has."""
    return [
        f"{name} has grown from {old} to {new} bytes, by {new - old}; {allowed} are allowed"
        for name in ("rss", "private")
        for old, new in [(getattr(before, name), getattr(after, name))]
        if new - old > allowed
    ]


def changes(before: Footprint, after: Footprint) -> list[str]:
    """Say which descriptors and threads have come or gone; nothing if they are the same."""
    descriptors = dict(before.descriptors.items() ^ after.descriptors.items())
    threads = before.threads ^ after.threads
    found = [f"{len(descriptors)} descriptors have changed: {descriptors}"] if descriptors else []
    return found + ([f"{len(threads)} threads have changed"] if threads else [])
