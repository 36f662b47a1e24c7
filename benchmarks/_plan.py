"""What one run of a command is given: the cores, the length, the C peers. No measuring."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from benchmarks._errors import SetupError
from benchmarks._programs import Program
from benchmarks._ratios import LEAST_ROUNDS
from benchmarks._turns import Stage


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure, and where."""

    server_core: int
    load_core: int
    # a short run: shows that everything works, its figures are rough
    quick: bool
    c_programs: tuple[Program, ...]
    # a C peer that is slow on purpose, for the reader; no denominator
    late: tuple[Program, ...] = ()

    @property
    def c_names(self) -> list[str]:
        """The C peers' names."""
        return [one.name for one in self.c_programs]

    def rounds(self, full: int) -> int:
        """Return how many rounds to take where a whole run takes `full`."""
        return max(LEAST_ROUNDS, full // 8) if self.quick else full

    def seconds(self, full: float) -> float:
        """Return how long a turn is where a whole run takes `full` seconds for it."""
        return full / 2 if self.quick else full

    def stage(self) -> Stage:
        """Return an empty stage on this plan's cores."""
        return Stage(self.server_core, self.load_core)


def cores() -> tuple[int, int]:
    """Return the core of the server and that of the load."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SetupError("two CPUs are needed, one for the server and one for the load; got one")
    return usable[0], usable[1]


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, for the load and the servers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
