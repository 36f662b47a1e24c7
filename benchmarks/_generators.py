"""The C load generator (peers/load.c) in the place of a Load: what _turns.py asks one for.

Nothing is compared here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._errors import MeasurementError
from benchmarks._servers import Process, Server
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
        self, program: Path, server: Server, core: int, connections: int, size: int
    ) -> None:
        command = (
            str(program), "--port", str(server.address[1]), "--connections", str(connections),
            "--size", str(size),
        )  # fmt: skip
        super().__init__("C generator", command, (core,), obeys=True)
        self._last = Percentiles({})

    def run(self, seconds: float) -> dict[str, Any]:
        """Send for `seconds`; the keys are those of a Load's result. A failure ends the program."""
        answer = self.ask(str(seconds))
        self._last = Percentiles({50.0: answer["p50_ns"], 99.0: answer["p99_ns"]})
        return {**dict.fromkeys(FAILURES, 0), "failures": [], **answer}

    def reset(self) -> None:
        """Do nothing: each run has its own histogram."""

    def histogram(self) -> Percentiles:
        """Return the latencies of the last run."""
        if not self._last.values:
            raise MeasurementError("the C generator has not run")
        return self._last
