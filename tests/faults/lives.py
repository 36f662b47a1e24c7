"""Servers in another process, one life after the other, with the shim's plan in charge.

Lives here: the orders as methods, the numbers of the shim by name. Does not live here: the other
end (lifer.py), who talks to the servers (workload.py).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from conftest import SETTLE
from peers import wait_until
from served import ANSWER, Served, read_stats

if TYPE_CHECKING:
    import fastecho

FUNCTIONS = [
    "recv",
    "send",
    "accept4",
    "epoll_ctl",
    "epoll_wait",
    "read",
    "write",
    "close",
    "malloc",
    "calloc",
    "realloc",
    "aligned_alloc",
    "recvmmsg",
    "sendmmsg",
]
"""In the order of shim/shim.h."""
MEMORY = ["malloc", "calloc", "realloc", "aligned_alloc"]


class Fault(NamedTuple):
    """What one call fails with, or that call and all later ones."""

    function: str
    error: str
    is_lasting: bool

    def __str__(self) -> str:
        return f"{self.function} {self.error}{', from there on' if self.is_lasting else ''}"


class Counts(NamedTuple):
    """How often each function was called by the extensions, and how often that was hit."""

    calls: dict[str, int]
    hits: dict[str, int]

    @property
    def memory_hits(self) -> int:
        """How often memory was refused."""
        return sum(self.hits[name] for name in MEMORY)


class Lives(Served):
    """A process in which a server lives and ends, and then the next one.

    Args:
        shim: path of the built shim.
    """

    program = str(Path(__file__).resolve().parent / "lifer.py")
    shim_is_first = True

    def __init__(self, shim: Path) -> None:
        super().__init__(shim)
        self._before = self.ask("belongings")

    def plan_seed(self, seed: int, per_mille: int, *, memory: bool) -> None:
        """Hit calls at random from play(True) on; without `memory`, memory is never refused."""
        chances = [per_mille if memory or name not in MEMORY else 0 for name in FUNCTIONS]
        self.ask("plan", seed=seed, per_mille=chances)

    def plan_number(self, fault: Fault, number: int) -> None:
        """Fail the call of that number, counted from play(True) on."""
        error = getattr(errno, fault.error)
        order = [FUNCTIONS.index(fault.function), number, error, int(fault.is_lasting)]
        self.ask("plan", number=order)

    def play(self, on: bool) -> None:
        """Let the plan run, or rest."""
        self.ask("play", on=on)

    def counts(self) -> Counts:
        """Return what the plan has counted so far."""
        answer = self.ask("counts")
        return Counts(
            dict(zip(FUNCTIONS, answer["calls"], strict=True)),
            dict(zip(FUNCTIONS, answer["hits"], strict=True)),
        )

    def begin(self, **config: Any) -> str | None:
        """Start a server; its address, or None if it could not be started."""
        answer = self.ask("begin", config=config)
        self.address = answer.get("address", "")
        self.udp_addresses: list[str] = answer.get("udp", [])
        # Where malloc serves Python as well (a sanitizer needs that), its own requests fail too.
        own = self.address or "PYTHONMALLOC" in os.environ
        assert own or answer["error"].startswith("OSError: [Errno "), answer["error"]
        return self.address or None

    def finish(self, *, in_order: bool) -> fastecho.Stats:
        """End the server by stop() or by abort(); its last statistics."""
        answer = self.ask("finish", in_order=in_order)
        assert answer["ended"], f"the server did not end within {ANSWER / 2} s"
        return read_stats(answer)

    def left_behind(self) -> str:
        """Return what is there and was not there before the first life; '' for nothing.

        That is descriptors, threads, and memory of the extensions once the server is forgotten.
        Where malloc serves Python as well, memory is a sanitizer's to look at.

        A thread that was joined may be seen for a moment.
        """
        left: list[Any] = []
        kinds = ["descriptors", "threads"]
        if "PYTHONMALLOC" not in os.environ:
            kinds.append("blocks")

        def is_settled() -> bool:
            now = self.ask("belongings")
            left[:] = [one for kind in kinds for one in now[kind] if one not in self._before[kind]]
            return not left

        try:
            wait_until(is_settled, SETTLE)
        except AssertionError:
            return f"{left}"
        return ""

    def leave(self) -> None:
        """End the process in order: a sanitizer looks for leaks then, if it was told to."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(ANSWER) == 0, self.errors()
