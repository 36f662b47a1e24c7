"""What measuring several servers has found: figures of each at each number of connections.

Lives here: Turn, Figures, ModelRuns and their JSON (docs/reference/models.md lists its keys). Does
not live here: how they are measured (model_runs.py), what they mean in words (model_words.py).
Attributes are in seconds and bytes; JSON has units in its keys.
"""

from __future__ import annotations

from fastecho._version import __version__

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from fastecho._load import Histogram

__all__ = ["Figures", "ModelRuns", "Turn"]

FORMAT, VERSION = "fastecho-models", 1
BUSY = 0.9
"""Of a core: a load that works for so much of its time is the limit of a rate."""


class Turn:
    """What one short run of the load showed.

    Attributes:
        messages: right replies; messages_per_s: those of the window by its length.
        cpu: seconds of CPU of the server.
        busy: share of the time that the load worked, 0..1.
    """

    __slots__ = ("busy", "cpu", "messages", "messages_per_s")

    def __init__(self, messages: int, messages_per_s: float, cpu: float, busy: float) -> None:
        self.messages = messages
        self.messages_per_s = messages_per_s
        self.cpu = cpu
        self.busy = busy

    @property
    def cpu_per_message(self) -> float:
        """Seconds of CPU of the server for each message."""
        return self.cpu / self.messages if self.messages else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the values with units in their keys."""
        return {
            "messages": self.messages,
            "messages_per_s": round(self.messages_per_s, 3),
            "cpu_per_message_us": round(self.cpu_per_message * 1e6, 4),
            "load_busy": round(self.busy, 4),
        }


class Figures:
    """What one model showed at one number of connections; None is what was not measured.

    Attributes:
        model, connections: whose figures, and how many peers came.
        served: how many of them were answered, all being there at once; None: not tried.
        driven: connections that carried the load: those that are served.
        turns: each of its turns; the figures below are their medians.
        latency: of the replies of all turns, in ns, or None.
        kernel_share: of its CPU under load, the share spent in the kernel.
        lone_cpu_per_message: seconds of CPU for each message while one of the peers talks and the
            others, connected as well, are silent.
        idle_cpu: share of a core while all are connected and nobody talks.
        threads: of the process, with all connected.
        memory_per_connection: bytes by which its resident memory grew, for each peer served.
        problem: what went wrong, as a predicate without its subject, or "".
    """

    __slots__ = (
        "connections", "driven", "idle_cpu", "kernel_share", "latency", "lone_cpu_per_message",
        "memory_per_connection", "model", "problem", "served", "threads", "turns",
    )  # fmt: skip

    def __init__(self, model: str, connections: int) -> None:
        self.model = model
        self.connections = connections
        self.served: int | None = None
        self.driven = 0
        self.turns: list[Turn] = []
        self.latency: Histogram | None = None
        self.kernel_share: float | None = None
        self.lone_cpu_per_message: float | None = None
        self.idle_cpu: float | None = None
        self.threads: int | None = None
        self.memory_per_connection: float | None = None
        self.problem = ""

    def _median(self, of: Callable[[Turn], float]) -> float | None:
        values = sorted(map(of, self.turns))
        if not values:
            return None
        middle = len(values) // 2
        return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2

    @property
    def serves_all(self) -> bool:
        """Whether every peer was answered."""
        return self.served == self.connections

    @property
    def messages_per_s(self) -> float | None:
        """Right replies a second."""
        return self._median(lambda turn: turn.messages_per_s)

    @property
    def cpu_per_message(self) -> float | None:
        """Seconds of CPU of the server for each message, all its peers talking."""
        return self._median(lambda turn: turn.cpu_per_message)

    @property
    def load_busy(self) -> float | None:
        """Share of the time that the load worked."""
        return self._median(lambda turn: turn.busy)

    @property
    def load_limits(self) -> bool:
        """Whether the rate is that of the load, not of the server."""
        return (self.load_busy or 0.0) >= BUSY

    def percentile(self, percent: float) -> float | None:
        """Return the seconds that about so many percent of the replies did not exceed."""
        if self.latency is None or not self.latency.count:
            return None
        return self.latency.percentile(percent) / 1e9

    def to_json(self) -> dict[str, Any]:
        """Return the figures with units in their keys."""
        return {
            "model": self.model,
            "connections": self.connections,
            "served": self.served,
            "driven": self.driven,
            "messages_per_s": _rounded(self.messages_per_s, 1, 3),
            "latency_us": {
                f"p{percent:g}": _rounded(self.percentile(percent), 1e6, 3) for percent in (50, 99)
            },
            "cpu_per_message_us": _rounded(self.cpu_per_message, 1e6, 4),
            "kernel_share": _rounded(self.kernel_share, 1, 4),
            "lone_cpu_per_message_us": _rounded(self.lone_cpu_per_message, 1e6, 4),
            "idle_cpu": _rounded(self.idle_cpu, 1, 5),
            "threads": self.threads,
            "memory_per_connection_bytes": _rounded(self.memory_per_connection, 1, 1),
            "load_busy": _rounded(self.load_busy, 1, 4),
            "load_limits": self.load_limits,
            "problem": self.problem,
            "turns": [turn.to_json() for turn in self.turns],
        }

    def __repr__(self) -> str:
        return f"<Figures {self.to_json()}>"


def _rounded(value: float | None, scale: float, digits: int) -> float | None:
    return None if value is None else round(value * scale, digits)


class ModelRuns:
    """The figures of all models at all sizes.

    Attributes:
        models, sizes: what was asked for, in order.
        core: the model among them that is compiled, or "".
        figures: in the order in which they were measured; after Ctrl-C some are missing.
        started_at: seconds since 1970.
        host: name, system and number of CPUs of the machine.
        duration: seconds of load for each model and size.
        at_most: seconds within which all had to end.
        elapsed: seconds that it took.
        pinned: the servers had one core, the load another.
        interrupted: Ctrl-C ended it early.
    """

    __slots__ = (
        "at_most", "core", "duration", "elapsed", "figures", "host", "interrupted", "models",
        "pinned", "sizes", "started_at",
    )  # fmt: skip

    def __init__(
        self,
        models: Sequence[str],
        sizes: Sequence[int],
        *,
        core: str = "",
        started_at: float = 0.0,
        host: Mapping[str, Any] | None = None,
        duration: float = 0.0,
        at_most: float = 0.0,
    ) -> None:
        self.models = list(models)
        self.sizes = list(sizes)
        self.core = core
        self.figures: list[Figures] = []
        self.started_at = started_at
        self.host = dict(host or {})
        self.duration = duration
        self.at_most = at_most
        self.elapsed = 0.0
        self.pinned = False
        self.interrupted = False

    def at(self, connections: int) -> list[Figures]:
        """Return the figures at one size, in the order of the models."""
        found = [one for one in self.figures if one.connections == connections]
        return sorted(found, key=lambda one: self.models.index(one.model))

    @property
    def largest(self) -> int | None:
        """The largest size at which something was measured."""
        return max((one.connections for one in self.figures if one.turns), default=None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a plain dict for json.dumps; the keys carry their units."""
        from .model_words import sentences

        return {
            "format": FORMAT,
            "version": VERSION,
            "fastecho": __version__,
            "started_at": _utc_text(self.started_at),
            "host": dict(self.host),
            "models": list(self.models),
            "connections": list(self.sizes),
            "duration_s": self.duration,
            "at_most_s": round(self.at_most, 3),
            "elapsed_s": round(self.elapsed, 3),
            "pinned": self.pinned,
            "interrupted": self.interrupted,
            "sentences": sentences(self),
            "figures": [one.to_json() for size in self.sizes for one in self.at(size)],
        }


def _utc_text(seconds: float) -> str:
    """Return a time as 2026-11-25T07:00:00Z."""
    from time import gmtime, strftime

    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(seconds))
