"""What a run of probes has shown: counts, times, gaps, and its JSON.

Lives here: adding them up. Does not live here: when something counts as what (pinger.py,
docs/decisions/0008-measuring.md), text for people (cli/ping.py). docs/reference/ping.md lists the
keys of the JSON.
"""

from __future__ import annotations

import time

from fastecho._version import __version__

from .instances import MOST_NAMES, OTHERS, place_of
from .timings import Timings

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Any

    from fastecho.identity import Identity

    from .ping_events import Failure
    from .route import Line

__all__ = ["KINDS", "PingResult", "Tally"]

KINDS = (
    "late", "corrupt", "misplaced", "lost", "timed_out", "extra_bytes",
    "reset", "closed", "refused", "connect_timed_out", "other",
    "duplicates", "reordered", "foreign",
)  # fmt: skip
"""One name for each way to fail: of probes, then of connections, those of a load's result; and of
datagrams."""

DESCRIBED = 10
"""So many failures are kept as sentences."""


class Tally:
    """What one instance has answered: on how many connections, and how many probes."""

    __slots__ = ("connections", "received")

    def __init__(self) -> None:
        self.connections = self.received = 0


class PingResult:
    """Everything that was counted; plain attributes, to_json() for the rest of the world.

    Attributes:
        plan: what was asked for, as it stands in the JSON.
        peer, local: both ends of the first connection, as text.
        started_at: seconds since 1970; 0 until there was a connection.
        elapsed_ns: from the first connection to the end.
        probes: how many were due. Those that are neither received nor in `failures` were still
            unanswered at the end.
        transmitted: of these, how many were sent; received: the right bytes came back.
        unanswered: under way, or waiting for the one under way, when it was stopped.
        failures: how many of each of KINDS; bytes for extra_bytes.
        described: the first failures, a sentence each.
        timings: of replies; connect_timings: of all connections.
        gaps, gap_ns, longest_gap_ns: how often, and how long, nothing echoed; one that lasts to the
            end counts from then on.
        still_away: why it is not back, "" if it is.
        still_away_ns: at the end, how long the gap that lasted until then was; 0 without one.
        tcp_rtt_ns, tcp_rttvar_ns: what the kernel says of the last connection; None without TCP.
        retransmissions: of all connections; None without TCP.
        instances: by name, what each instance has answered; empty if nobody asked who answers.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.peer = self.local = ""
        self.started_at = 0.0
        self._began_ns: int | None = None
        self.elapsed_ns = 0
        self.probes = self.transmitted = self.received = self.unanswered = 0
        self.failures = dict.fromkeys(KINDS, 0)
        self.described: list[str] = []
        self.timings = Timings()
        self.connect_timings = Timings()
        self.gaps = self.gap_ns = self.longest_gap_ns = 0
        self.still_away = ""
        self.still_away_ns = 0
        self.tcp_rtt_ns: int | None = None
        self.tcp_rttvar_ns: int | None = None
        self.retransmissions: int | None = None
        self.instances: dict[str, Tally] = {}

    @property
    def lost(self) -> int:
        """Probes that never had an answer."""
        return self.failures["lost"] + self.failures["timed_out"]

    @property
    def lost_percent(self) -> float:
        """Of the probes whose fate is known, how many were lost."""
        known = self.probes - self.unanswered
        return 100 * self.lost / known if known else 0.0

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong."""
        return not any(self.failures.values())

    # What a rule asks of a load's result, it can ask of this one as well (rules.py).

    @property
    def failed(self) -> int:
        """The sum of all failures."""
        return sum(self.failures.values())

    @property
    def latency(self) -> Timings:
        """Times of the replies."""
        return self.timings

    @property
    def connect(self) -> Timings:
        """Times of connecting."""
        return self.connect_timings

    def begin(self, line: Line) -> int:
        """Note the first connection; return the time by the clock."""
        self.started_at = time.time()
        self._began_ns = time.perf_counter_ns()
        self.peer, self.local = line.peer, line.local
        return self._began_ns

    def opened(self, line: Line) -> None:
        """Count a connection."""
        self.connect_timings.add(line.connect_ns)
        tally = self.tally_of(line.identity)
        if tally is not None:
            tally.connections += 1

    def tally_of(self, identity: Identity | None) -> Tally | None:
        """Return where the answers of an instance are counted; None: nobody asked who answers."""
        if identity is None:
            return None
        name = identity.instance
        if name not in self.instances and len(self.instances) >= MOST_NAMES:
            name = OTHERS
        return self.instances.setdefault(name, Tally())

    def sorted_instances(self) -> list[tuple[str, Tally]]:
        """Return the instances by name; those that have none here come last."""
        return sorted(self.instances.items(), key=lambda one: place_of(one[0]))

    def end(self) -> None:
        """Note how long it took."""
        if self._began_ns is not None:
            self.elapsed_ns = time.perf_counter_ns() - self._began_ns

    def told(self, failure: Failure) -> Failure:
        """Keep the sentence of a failure, if there is room, and return it."""
        if len(self.described) < DESCRIBED and self._began_ns is not None:
            seconds = (time.perf_counter_ns() - self._began_ns) / 1e9
            self.described.append(f"{seconds:.3f} s, {failure}")
        return failure

    def add_gap(self, ns: int) -> None:
        """Count a time in which nothing echoed."""
        self.gaps += 1
        self.gap_ns += ns
        self.longest_gap_ns = max(self.longest_gap_ns, ns)

    def add_kernel_view(self, rtt_us: int, rttvar_us: int, retransmissions: int) -> None:
        """Take what TCP_INFO says of a connection at its end."""
        self.tcp_rtt_ns, self.tcp_rttvar_ns = rtt_us * 1000, rttvar_us * 1000
        self.retransmissions = (self.retransmissions or 0) + retransmissions

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types; every key carries its unit."""
        millis = int(self.started_at * 1000)
        started = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000))
        tcp = None
        if self.tcp_rtt_ns is not None and self.tcp_rttvar_ns is not None:
            tcp = {
                "rtt_us": self.tcp_rtt_ns / 1000,
                "rttvar_us": self.tcp_rttvar_ns / 1000,
                "retransmissions": self.retransmissions,
            }
        instances = {
            name: {"connections": tally.connections, "received": tally.received}
            for name, tally in self.sorted_instances()
        }
        return {
            "format": "fastecho-ping",
            "version": 1,
            "fastecho": __version__,
            "started_at": f"{started}.{millis % 1000:03d}Z",
            "plan": self.plan,
            "peer": self.peer,
            "local": self.local,
            "elapsed_s": self.elapsed_ns / 1e9,
            "probes": self.probes,
            "transmitted": self.transmitted,
            "received": self.received,
            "unanswered": self.unanswered,
            "lost_percent": self.lost_percent,
            "failures": dict(self.failures),
            "described": list(self.described),
            "connects": self.connect_timings.count,
            "gaps": self.gaps,
            "gap_ms": self.gap_ns / 1e6,
            "longest_gap_ms": self.longest_gap_ns / 1e6,
            "still_away": self.still_away,
            "still_away_ms": self.still_away_ns / 1e6,
            "latency_us": self.timings.to_json(),
            "jitter_us": round(self.timings.jitter_ns / 1000, 3),
            "connect_us": self.connect_timings.to_json(),
            "tcp_info": tcp,
            "instances": instances if self.plan.get("identify") else None,
        }
