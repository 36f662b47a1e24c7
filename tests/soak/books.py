"""What the peers have seen, and whether the server has counted the same.

Lives here: the account of cycles, what must be true of the server's statistics given it. Does not
live here: when that is looked at (life.py).

What a peer sent that did not end in order may have arrived or not, and may have been answered or
not: there the books have room, by exactly these bytes. Everything else is known to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cycles import KINDS, Cycle
from residents import CONNECTIONS, Residents

if TYPE_CHECKING:
    import fastecho

ERRORS = {"ECONNRESET", "EPIPE"}
"""What a server is told about peers that do not end in order."""
MAY_COUNT = {"ended_by_peer", "ended_by_error"}
"""How a connection may end in a soak."""


@dataclass
class Tally:
    """What some cycles have done."""

    cycles: int = 0
    sent: int = 0
    """Bytes that the kernel has taken from them."""
    received: int = 0
    """Bytes that came back; every one was compared."""
    due: int = 0
    """Bytes that come back when everything that was sent is answered."""

    def add(self, other: Tally) -> None:
        """Add what others have done."""
        self.cycles += other.cycles
        self.sent += other.sent
        self.received += other.received
        self.due += other.due


class Account:
    """What all cycles have done, by kind."""

    def __init__(self) -> None:
        self.by_kind = {kind.name: Tally() for kind in KINDS}

    def add(self, cycle: Cycle) -> None:
        """Add a cycle that has come to its end."""
        done = Tally(1, cycle.sent, cycle.received, cycle.due_for_sent())
        self.by_kind[cycle.kind.name].add(done)

    def of(self, *, clean: bool) -> Tally:
        """Return the sum over the kinds that end in order, or over the others."""
        tally = Tally()
        for kind in KINDS:
            if kind.is_clean == clean:
                tally.add(self.by_kind[kind.name])
        return tally

    @property
    def cycles(self) -> int:
        """Cycles that have come to their end."""
        return sum(tally.cycles for tally in self.by_kind.values())

    def complaints(self, stats: fastecho.Stats, residents: Residents, staying: int) -> list[str]:
        """Say where the statistics differ from what the peers know, when nothing is under way.

        staying: residents that are still there.
        """
        clean, rude = self.of(clean=True), self.of(clean=False)
        known_in = clean.sent + residents.bytes_sent
        known_out = clean.due + residents.bytes_received
        left = CONNECTIONS - staying
        bounds = {
            "connections_accepted": (self.cycles + CONNECTIONS, 0),
            "connections_closed": (self.cycles + left, 0),
            "connections_open": (staying, 0),
            "ended_by_peer": (clean.cycles + left, rude.cycles),
            "ended_by_error": (0, rude.cycles),
            "bytes_pending": (0, 0),
            "bytes_in": (known_in, rude.sent),
            "bytes_out": (known_out, rude.due),
            "bytes_dropped": (0, rude.due),
        }
        return [
            f"{name} is {value}, not {low}" + (f" to {low + room}" if room else "")
            for name, (low, room) in bounds.items()
            for value in [getattr(stats, name)]
            if not low <= value <= low + room
        ] + list(_oddities(stats))


def _oddities(stats: fastecho.Stats) -> Iterator[str]:
    """Yield what must not be, whatever the peers did."""
    ends = {name: getattr(stats, name) for name in dir(stats) if name.startswith("ended_by_")}
    if sum(ends.values()) != stats.connections_closed:
        yield f"{stats.connections_closed} connections were closed, and have ended by {ends}"
    others = [name for name in dir(stats) if name.startswith(("shed_", "accept_"))]
    for name in ["linger_timeouts", "bytes_discarded", *(set(ends) - MAY_COUNT), *others]:
        if getattr(stats, name):
            yield f"{name} is {getattr(stats, name)}, not 0"
    if set(stats.errors) - ERRORS or sum(stats.errors.values()) != stats.ended_by_error:
        yield f"{stats.ended_by_error} connections have ended by errors: {stats.errors}"
