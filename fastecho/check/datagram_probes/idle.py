"""Whether a flow is still answered after nothing was sent for a while: a ladder of times."""

from __future__ import annotations

from time import monotonic

from fastecho.check.asking import SPACING_SECONDS, ask_once, tries_for, try_seconds
from fastecho.check.train import answered_socket, trains
from fastecho.check.verdict import NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding
    from fastecho.datagrams import Datagrams

TITLE = "idle flows are still answered"
GROUP, QUICK, PHASE, NEEDS = "path", True, "beside", ()
PASSED = "A flow without traffic is not forgotten, for so long."
FAILED = (
    "After a pause the first datagram of a flow is lost: a NAT, a firewall or a balancer has "
    "forgotten the flow, and what it sends next belongs to no known one. Send something more often."
)


def run(path: Path) -> Finding:
    """Let several flows rest for each time; the first datagram behind it must come back."""
    if not path.idle:
        raise NotTestable("no time was given: --idle 60,300")
    trains(path)
    flows = tries_for(path)
    if not flows:
        raise NotTestable(f"{path.loss:.1%} of all datagrams are lost")
    rungs = sorted(path.idle)
    ladder: list[list[Datagrams]] = []
    try:
        for rung in range(len(rungs)):
            ladder.append([])
            for number in range(flows):
                ladder[-1].append(answered_socket(path, 2 + rung * flows + number))
        return _climb(path, rungs, ladder)
    finally:
        for sockets in ladder:
            for socket in sockets:
                socket.close()


def _climb(path: Path, rungs: list[float], ladder: list[list[Datagrams]]) -> Finding:
    began = monotonic()
    alive: list[float] = []
    for rung, sockets in zip(rungs, ladder, strict=True):
        path.sleep(max(began + rung - monotonic(), 0))
        again = False
        for socket in sockets:
            if _is_answered(path, socket, rung):
                break
            again = _is_answered(path, socket, -rung) or again
        else:
            before = f"alive after {alive[-1]:g} s, " if alive else ""
            words = f"{before}not answered after {rung:g} s without a datagram"
            then = "; the next one was" if again else "; nor was the next one"
            return failed(words + then, survived_s=alive, died_s=rung, comes_back=again)
        alive.append(rung)
    words = ", ".join(f"{rung:g}" for rung in rungs)
    return passed(f"answered after {words} s without a datagram", survived_s=rungs)


def _is_answered(path: Path, socket: Datagrams, rung: float) -> bool:
    path.sleep(SPACING_SECONDS)
    data = b"still here %d %g\n" % (path.seed, rung)
    return ask_once(path, socket, data, try_seconds(path)) is not None
