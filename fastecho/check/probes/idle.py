"""How long a connection lives on which nothing happens: a ladder, all rungs at a time."""

from __future__ import annotations

from time import monotonic

from fastecho.check.path import streams_of
from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import UNSERVED, NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "idle connections stay"
GROUP, QUICK, PHASE, NEEDS = "flow", True, "beside", ()
PASSED = "A connection without traffic is neither closed nor forgotten, for so long."
FAILED = (
    "Idle connections are ended or forgotten: the idle timeout of a load balancer, a NAT or a "
    "firewall, or of the server; keepalives or messages more often than that keep them."
)


def run(path: Path) -> Finding:
    """Let a connection rest for each time, after a message; then send another."""
    if not path.idle:
        raise NotTestable("no time was given: --idle 60,300")
    rungs = sorted(path.idle)
    streams = streams_of(path.open_all(len(rungs)))
    try:
        first = [
            Talk(one, Pattern(path.seed, 90 + i, 64), check=False) for i, one in enumerate(streams)
        ]
        converse(path, first)
        for rung, talk in zip(rungs, first, strict=True):
            if not talk.is_whole:
                return failed(f"before it was idle for {rung:g} s: {talk.story()}", UNSERVED)
        began = monotonic()
        alive: list[float] = []
        for i, (rung, stream) in enumerate(zip(rungs, streams, strict=True)):
            path.sleep(max(began + rung - monotonic(), 0))
            talk = Talk(stream, Pattern(path.seed, 190 + i, 64))
            converse(path, [talk])
            if not talk.is_echo:
                return _died(rung, alive, talk)
            alive.append(rung)
    finally:
        for stream in streams:
            stream.close()
    words = ", ".join(f"{rung:g}" for rung in rungs)
    return passed(f"alive after {words} s without a byte", survived_s=rungs)


def _died(rung: float, alive: list[float], talk: Talk) -> Finding:
    before = f"alive after {alive[-1]:g} s, " if alive else ""
    words = f"{before}dead after {rung:g} s without a byte: {talk.story()}"
    return failed(words, survived_s=alive, died_s=rung, ending=talk.ending)
