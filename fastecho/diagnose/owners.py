"""Whose a socket is: the processes that have it open, found in /proc/*/fd."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Owners", "find_owners"]


class Owners:
    """Which processes have which sockets open.

    Attributes:
        of: from a socket's inode to (pid, name) of each process, in order of pid.
        hidden: number of processes whose descriptors this user may not see; None without /proc.
    """

    __slots__ = ("hidden", "of")

    def __init__(self, of: dict[int, list[tuple[int, str]]], hidden: int | None) -> None:
        self.of = of
        self.hidden = hidden


def find_owners(inodes: Iterable[int]) -> Owners:
    """Look for the sockets of these numbers in all processes that may be looked into.

    Cost: about a microsecond for each descriptor of the machine.
    """
    found: dict[int, list[tuple[int, str]]] = {}
    links = {f"socket:[{inode}]": inode for inode in inodes}
    hidden = 0
    try:
        names = os.listdir("/proc")
    except OSError:
        return Owners({}, None)
    pids = sorted(int(name) for name in names if name.isdigit())
    for pid in pids:
        try:
            mine = _sockets(pid, links)
        except PermissionError:
            hidden += 1
            continue
        except OSError:
            continue  # it has ended
        if mine:
            name = _name(pid)
            for inode in mine:
                found.setdefault(inode, []).append((pid, name))
    return Owners(found, hidden if pids else None)


def _sockets(pid: int, links: Mapping[str, int]) -> set[int]:
    folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = set()
        for name in os.listdir(folder):
            try:
                # Beside the folder's descriptor: walking the path each time takes a third more.
                link = os.readlink(name, dir_fd=folder)
            except FileNotFoundError:
                continue  # closed meanwhile
            if link in links:
                found.add(links[link])
        return found
    finally:
        os.close(folder)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().removesuffix(b"\n").decode(errors="replace")
    except OSError:
        return "?"
