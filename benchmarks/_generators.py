"""The C load generator (peers/load.c) in the place of a Load: what _turns.py asks one for.

Nothing is compared here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._errors import MeasurementError
from benchmarks._servers import Process
from fastecho.measure.result import FAILURES


@dataclass(frozen=True, slots=True)
class Percentiles:
    """What the C generator tells of its latencies, in the place of a Histogram."""

    # percent, and ns
    values: dict[float, float]

    def percentile(self, p: float) -> float:
        """Return the ns that `p` percent of the values do not exceed: 50 or 99."""
        return self.values[p]


class CLoad(Process):
    """A running C generator, connected to a server."""

    def __init__(
        self,
        program: Path,
        address: tuple[str, int],
        core: int,
        connections: int,
        size: int,
        rate: float = 0.0,
    ) -> None:
        """Start `program` and connect it; `rate` in messages/s for an open loop, 0 for a closed."""
        command = (
            str(program), "--port", str(address[1]), "--connections", str(connections),
            "--size", str(size), "--rate", str(rate),
        )  # fmt: skip
        super().__init__("C generator", command, (core,), obeys=True)
        self._last: dict[str, Percentiles] = {}

    def run(self, seconds: float) -> dict[str, Any]:
        """Send for `seconds`; the keys are those of a Load's result. A failure ends the program."""
        answer = self.ask(str(seconds))
        self._last = {
            name: Percentiles({50.0: answer[f"{prefix}p50_ns"], 99.0: answer[f"{prefix}p99_ns"]})
            for name, prefix in (("latency", ""), ("service", "service_"))
        }
        return {**dict.fromkeys(FAILURES, 0), "failures": [], **answer}

    def reset(self) -> None:
        """Do nothing: each run has its own histogram."""

    def histogram(self, name: str = "latency") -> Percentiles:
        """Return the latencies of the last run, or the service times of its open loop."""
        if not self._last:
            raise MeasurementError("the C generator has not run")
        return self._last[name]
