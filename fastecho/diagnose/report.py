"""A watch as its result: every listener judged, and the whole as JSON.

Lives here: which listeners are told of, the keys of the JSON (docs/reference/queues.md). Does not
live here: the rules (verdicts.py), text for people (fastecho.cli).
"""

from __future__ import annotations

import time

from fastecho._version import __version__
from fastecho.diagnose.syn_queue import SynQueue, syn_queue
from fastecho.diagnose.verdicts import Verdict, verdict
from fastecho.logs import valid_text

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from fastecho.diagnose.listening import Listening
    from fastecho.diagnose.queues import Look, Seen, Watch

__all__ = ["Judged", "Report"]


class Judged:
    """A listener, what was seen of it, and what is wrong with it.

    Attributes:
        verdict: None where nothing is wrong.
    """

    __slots__ = ("listening", "seen", "syn_queue", "verdict")

    def __init__(self, listening: Listening, seen: Seen, look: Look, seconds: float) -> None:
        self.listening = listening
        self.seen = seen
        self.syn_queue: SynQueue = syn_queue(listening.limit, look.settings)
        self.verdict: Verdict | None = verdict(listening, seen, seconds, look.settings)

    def to_json(self) -> dict[str, Any]:
        one, seen = self.listening, self.seen
        data: dict[str, Any] = {
            "address": valid_text(one.address),
            "kind": one.kind,
            "inode": one.inode,
            "uid": one.uid,
            "processes": [{"pid": pid, "name": name} for pid, name in one.processes],
            "accept_queue": {
                "depth": one.depth,
                "limit": one.limit,
                "holds": one.holds,
                "highest": seen.highest,
            },
        }
        if one.kind == "tcp":
            data["drops"] = {"since_open": one.drops, "new": seen.drops_new}
            data["syn_queue"] = {
                "handshakes": one.handshakes,
                "sharing": one.sharing,
                "holds": self.syn_queue.holds,
                "beyond": self.syn_queue.beyond,
                "rule": self.syn_queue.rule,
            }
        found = self.verdict
        data["verdict"] = found and {
            "kind": found.kind,
            "is_now": found.is_now,
            "sentence": found.sentence,
        }
        return data


class Report:
    """All listeners of a watch's last look that somebody asked for, judged.

    Attributes:
        judged: in the order of the look.
        seconds: the interval that counts as now.
        counters, new: the namespace's counters, and by how much they rose in the interval.
        settings, missing: of the look.
        absent: the places that were asked for and where nobody listens.
    """

    def __init__(
        self,
        watch: Watch,
        wanted: Callable[[Listening], bool],
        absent: Callable[[Iterable[Listening]], list[str]] = lambda _: [],
    ) -> None:
        look = watch.last
        assert look is not None
        self.seconds = watch.seconds
        self.judged = [
            Judged(one, watch.seen(one), look, self.seconds)
            for one in look.listeners
            if wanted(one)
        ]
        self.absent = absent([one.listening for one in self.judged])
        self.counters = look.counters
        self.new = watch.counted()
        self.settings = look.settings
        self.missing = look.missing
        self._time = time.time()

    @property
    def problems(self) -> list[Judged]:
        """Those with something wrong now."""
        return [one for one in self.judged if one.verdict is not None and one.verdict.is_now]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "format": "fastecho-queues",
            "version": 1,
            "fastecho": __version__,
            "time_s": round(self._time, 3),
            "interval_s": round(self.seconds, 3),
            "listeners": [one.to_json() for one in self.judged],
            "namespace": {"counters": self.counters, "new": self.new},
            "settings": self.settings,
            "missing": self.missing,
            "absent": [valid_text(place) for place in self.absent],
        }
