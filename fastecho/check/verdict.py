"""Finding: what a probe has found; and the ways in which a probe ends without one.

Lives here: the verdicts, what stands in the JSON of one probe. Does not live here: how anything
is found (probes/), text for people (report.py).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "FAILED",
    "NOT_TESTABLE",
    "PASSED",
    "SPOILED",
    "UNSERVED",
    "Cancelled",
    "Failed",
    "Finding",
    "NotTestable",
    "OutOfTime",
    "failed",
    "hopeless",
    "not_testable",
    "passed",
]

PASSED, FAILED, NOT_TESTABLE = "passed", "failed", "not testable"


SPOILED = (
    "What this looks for was not seen, but bytes did not come back as they were sent: see what the "
    "probes echo and order say."
)
"""The meaning of a failure that is another one's matter."""
UNSERVED = (
    "What this looks for was not seen, because the connection was not served before: see what the "
    "probes connections, latency and echo say."
)
"""The same, of a probe whose first message got no echo."""


class NotTestable(Exception):  # noqa: N818 (an outcome, no error)
    """A probe cannot tell; the text says why, as a sentence without its full stop."""


class Failed(Exception):  # noqa: N818 (an outcome, no error)
    """A probe failed; the text is the evidence, a sentence without its full stop.

    Attributes:
        meaning: as of a Finding; "" for the probe's own.
    """

    def __init__(self, evidence: str, meaning: str = "") -> None:
        super().__init__(evidence)
        self.meaning = meaning


class OutOfTime(Exception):  # noqa: N818 (an outcome, no error)
    """The time of the whole check is over, before a probe could tell."""


class Cancelled(Exception):  # noqa: N818 (an outcome, no error)
    """Somebody ended the check."""


class Finding:
    """What one probe has found.

    Attributes:
        verdict: "passed", "failed" or "not testable".
        evidence: one sentence with figures; of "not testable", the reason.
        meaning: one sentence: what it means, and what usually causes it; "" if nothing is known.
        values: the figures, as JSON takes them, with units in their keys.
        ends_all: a failure after which no other probe could tell anything.
        name, title, group: of the probe; the runner sets them.
        elapsed: seconds that it took; the runner sets it.
    """

    __slots__ = (
        "elapsed", "ends_all", "evidence", "group", "meaning", "name", "title", "values", "verdict",
    )  # fmt: skip

    def __init__(
        self,
        verdict: str,
        evidence: str,
        meaning: str = "",
        *,
        ends_all: bool = False,
        values: dict[str, Any] | None = None,
    ) -> None:
        self.verdict = verdict
        self.evidence = evidence
        self.meaning = meaning
        self.ends_all = ends_all
        self.values = values or {}
        self.name = self.title = self.group = ""
        self.elapsed = 0.0

    def __repr__(self) -> str:
        return f"<Finding {self.name}: {self.verdict}, {self.evidence}>"

    def to_json(self) -> dict[str, Any]:
        """Return what stands in the JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "group": self.group,
            "verdict": self.verdict.replace(" ", "_"),
            "evidence": self.evidence,
            "meaning": self.meaning,
            "elapsed_ms": round(self.elapsed * 1e3, 3),
            "values": self.values,
        }


def passed(evidence: str, meaning: str = "", /, **values: Any) -> Finding:
    """Return a finding; without a meaning it has the probe's own."""
    return Finding(PASSED, evidence, meaning, values=values)


def failed(evidence: str, meaning: str = "", /, **values: Any) -> Finding:
    """Return a finding; without a meaning it has the probe's own."""
    return Finding(FAILED, evidence, meaning, values=values)


def hopeless(evidence: str, meaning: str = "", /, **values: Any) -> Finding:
    """Return the finding of a gate that failed: no other probe could tell anything."""
    return Finding(FAILED, evidence, meaning, ends_all=True, values=values)


def not_testable(reason: str) -> Finding:
    """Return a finding of a probe that could not tell."""
    return Finding(NOT_TESTABLE, reason)
