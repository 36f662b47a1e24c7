"""The queues of all listeners: a look at one moment, and what several looks have seen.

Lives here: putting together what sock_diag, /proc and the processes tell, each of which may be
missing. Does not live here: judging it (verdicts.py), asking the kernel (sock_diag.py, proc_net.py,
owners.py), showing it (fastecho.cli.queues).
"""

from __future__ import annotations

import os
import time

from fastecho.diagnose import proc_net, sock_diag
from fastecho.diagnose.owners import find_owners

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastecho.diagnose.listening import Listening

__all__ = ["Look", "Seen", "Watch", "look", "look_closely", "name_processes"]

PORTS_APART = 4
"""With more ports at which somebody waits, all connections are looked at together."""


class Look:
    """All listeners of a network namespace at one moment.

    Attributes:
        at: seconds of the monotonic clock.
        listeners: TCP first, each kind in order of its address.
        counters: the namespace's, by the names of proc_net.COUNTERS.
        settings: by the names of proc_net.SETTINGS.
        missing: what could not be seen, a sentence for each.
    """

    __slots__ = ("at", "counters", "listeners", "missing", "settings")

    def __init__(
        self,
        at: float,
        listeners: list[Listening],
        counters: dict[str, int],
        settings: dict[str, int],
        missing: list[str],
    ) -> None:
        self.at = at
        self.listeners = listeners
        self.counters = counters
        self.settings = settings
        self.missing = missing


def look() -> Look:
    """Look at all listeners, without their processes (name_processes).

    Raises:
        OSError: neither sock_diag nor /proc/net/tcp can be asked.
    Cost: some milliseconds with 1,000 listeners.
    """
    missing = list[str]()
    at = time.monotonic()
    try:
        listeners, handshakes = sock_diag.tcp_listeners(), sock_diag.handshakes()
    except OSError as error:
        listeners, handshakes = proc_net.tcp_sockets()
        missing.append(f"limits and drops: the kernel's sock_diag says {error.strerror}")
    # A dump while sockets come and go can show one twice.
    listeners = list({one.inode: one for one in listeners}.values())
    _give_handshakes(listeners, handshakes)
    try:
        listeners += sock_diag.unix_listeners()
    except OSError as error:
        missing.append(f"Unix listeners: the kernel's unix_diag says {error.strerror}")
    counters, settings = proc_net.counters(), proc_net.settings()
    if not counters:
        missing.append("counters of the namespace: /proc/net/netstat cannot be read")
    if len(settings) < len(proc_net.SETTINGS):
        lacking = ", ".join(name for name in proc_net.SETTINGS if name not in settings)
        missing.append(f"{lacking}: not to be read below /proc/sys/net")
    listeners.sort(key=_order)
    return Look(at, listeners, counters, settings, missing)


def _order(one: Listening) -> tuple[str, str, int, str, int]:
    return one.kind, one.host or "", one.port or 0, one.path or "", one.inode


class _Places:
    """Finds the listeners to which a connection's own address belongs."""

    def __init__(self, listeners: Iterable[Listening]) -> None:
        self._by_address = dict[tuple[str, int], list["Listening"]]()
        for one in listeners:
            assert one.host is not None and one.port is not None
            self._by_address.setdefault((one.host, one.port), []).append(one)

    def sharing(self, one: Listening) -> list[Listening]:
        """Return those that have a listener's very address, itself among them."""
        return self._by_address[one.host or "", one.port or 0]

    def at(self, host: str, port: int) -> list[Listening]:
        """Return them: more than one where they share an address (SO_REUSEPORT)."""
        wild = "::" if ":" in host else "0.0.0.0"
        for key in ((host, port), (wild, port), ("", port)):
            if key in self._by_address:
                return self._by_address[key]
        return []


def _give_handshakes(listeners: Iterable[Listening], counts: dict[tuple[str, int], int]) -> None:
    """Give each listener the handshakes at its address; those of one address share them."""
    places = _Places(listeners)
    for one in listeners:
        one.handshakes = 0
        one.sharing = len(places.sharing(one))
    for (host, port), count in counts.items():
        for one in places.at(host, port):
            assert one.handshakes is not None
            one.handshakes += count


def look_closely(found: Look, wanted: Callable[[Listening], bool]) -> None:
    """See who waits at the wanted TCP listeners, where somebody does.

    Cost: the kernel walks all connections, once for each port, or once for all.
    """
    tcp = [one for one in found.listeners if one.kind == "tcp"]
    places = _Places(tcp)
    ports = {one.port or 0 for one in tcp if one.depth and wanted(one)}
    seen = dict[int, set[bytes]]()
    try:
        for port in ports if len(ports) <= PORTS_APART else [0]:
            for (host, at), cookies in sock_diag.unaccepted(port).items():
                there = places.at(host, at)
                if len(there) == 1:
                    seen.setdefault(there[0].inode, set()).update(cookies)
    except OSError:
        return  # it is missing, and was told of
    for one in tcp:
        if one.port in ports and one.sharing == 1:
            one.waiting = frozenset(seen.get(one.inode, ()))


def name_processes(one: Look, wanted: Callable[[Listening], bool]) -> None:
    """Find the processes of the wanted listeners; those that are not seen are told of."""
    chosen = [listener for listener in one.listeners if wanted(listener)]
    owners = find_owners({listener.inode for listener in chosen})
    for listener in chosen:
        listener.processes = tuple(owners.of.get(listener.inode, ()))
    nameless = sum(1 for listener in chosen if not listener.processes)
    whose = f"processes of {nameless} listener{'s' if nameless != 1 else ''}"
    if owners.hidden is None:
        one.missing.append("processes: /proc cannot be read")
    elif nameless and owners.hidden and os.geteuid() == 0:
        others = f"{owners.hidden} process{'es' if owners.hidden != 1 else ''}"
        one.missing.append(f"{whose}: {others} may not be looked into (CAP_SYS_PTRACE is missing)")
    elif nameless and owners.hidden:
        one.missing.append(f"{whose}: they belong to other users (root sees them)")
    elif nameless:
        why = "the kernel's own, of another PID namespace, closed meanwhile, or hidden (hidepid)"
        one.missing.append(f"{whose}: {why}")


class Seen:
    """What was seen of one listener while it was watched.

    Attributes:
        highest: deepest accept queue since the watch began.
        deepest: the same in the last interval.
        was_full: whether it was full at any look of the last interval.
        taken: whether somebody was seen to accept in the last interval, or nobody waited.
        is_sure: whether that nobody was taken is known, and not only that the depth never sank:
            accepted as fast as newcomers come, a queue keeps its depth.
        drops_new: drops in the last interval; None where they are not known.
    """

    __slots__ = (
        "_depth", "_drops", "_drops_before", "_reset", "_waiting", "deepest", "highest", "is_sure",
        "taken", "was_full",
    )  # fmt: skip

    def __init__(self) -> None:
        self.highest = 0
        self._depth = 0
        self._drops: int | None = None
        self.begin()

    def begin(self) -> None:
        """Begin a new interval at the last look."""
        self.was_full = self.taken = self.is_sure = False
        self._waiting: frozenset[bytes] | None = None
        self.deepest = 0
        self._drops_before = self._drops

    def add(self, one: Listening) -> None:
        """Another look at the listener."""
        self.taken = self.taken or one.depth == 0 or one.depth < self._depth
        if one.waiting is not None:
            self._compare(one.depth, one.waiting)
        self.was_full = self.was_full or one.is_full
        self.deepest = max(self.deepest, one.depth)
        self.highest = max(self.highest, self.deepest)
        self._depth = one.depth
        self._drops = one.drops
        if self._drops_before is None:
            self._drops_before = one.drops

    def _compare(self, depth: int, waiting: frozenset[bytes]) -> None:
        """See whether those who waited at the first close look wait still."""
        # One that was reset stays in the queue, but is no connection any more.
        reset = depth - len(waiting)
        if self._waiting is None:
            self._waiting, self._reset = waiting, reset
            return
        gone = len(self._waiting - waiting)
        self.taken = self.taken or gone > max(reset - self._reset, 0)
        self.is_sure = True

    @property
    def drops_new(self) -> int | None:
        if self._drops is None or self._drops_before is None:
            return None
        return self._drops - self._drops_before & 0xFFFFFFFF  # the kernel's counter is of 32 bits


class Watch:
    """Several looks at the same listeners, in intervals.

    Attributes:
        last: the last look.
        seconds: from the first to the last look of the interval.
    """

    def __init__(self) -> None:
        self.last: Look | None = None
        self._first: Look | None = None
        self._seen: dict[int, Seen] = {}

    def begin(self) -> None:
        """Begin a new interval at the last look."""
        self._first = self.last
        for seen in self._seen.values():
            seen.begin()

    def add(self, one: Look) -> None:
        """Add a look; listeners that are gone are forgotten."""
        self._seen = {
            listener.inode: self._seen.get(listener.inode) or Seen() for listener in one.listeners
        }
        for listener in one.listeners:
            self._seen[listener.inode].add(listener)
        self.last = one
        if self._first is None:
            self._first = one

    def seen(self, one: Listening) -> Seen:
        """Return what was seen of a listener of the last look."""
        return self._seen[one.inode]

    @property
    def seconds(self) -> float:
        if self.last is None or self._first is None:
            return 0.0
        return self.last.at - self._first.at

    def counted(self) -> dict[str, int]:
        """Return by how much the namespace's counters rose in the interval."""
        if self.last is None or self._first is None:
            return {}
        before = self._first.counters
        return {
            name: value - before[name]
            for name, value in self.last.counters.items()
            if name in before
        }
