"""Whether some flows are worse than others: a bundle of links sends each over one member.

Which member is chosen depends on the ports, so many source ports find all of them. A flow is only
bad in comparison: loss that all have is no fault of one.
"""

from __future__ import annotations

from statistics import mean

from fastecho.check.path import Stream
from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.tcp import tcp_info
from fastecho.check.verdict import NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "no flow is worse than the others"
GROUP, QUICK, PHASE, NEEDS = "flow", True, "alone", ("tcp",)
PASSED = "All source ports fare alike: no member of a bundle of links or servers is bad."
FAILED = (
    "Some source ports fail, or lose far more than the others: one bad member of a bundle (LACP, "
    "ECMP, several tunnels), or one bad server behind a balancer; the ports tell which flows."
)
FLOWS = 64
MESSAGES, SIZE = 4, 700
"""Of each flow at first; small, so that the size is no matter."""
SUSPECT = 3
"""Retransmissions from which on a flow is looked at again."""
AGAIN = 16
"""Messages of a suspect, one after the other, and of some others to compare with."""
BAD = 5
TIMES = 6.0
"""A bad flow has at least so many retransmissions, and so many times those of the others."""
COMPARED = 8
LISTED = 16


def run(path: Path) -> Finding:
    """Open flows from as many ports, and look closer at those that stand out."""
    found = path.open_all(FLOWS, ports=[0] * FLOWS)
    streams = [one for one in found if isinstance(one, Stream)]
    try:
        dead = {_port(one): one.strerror or str(one) for one in found if isinstance(one, OSError)}
        dead = _still_dead(path, dead)
        dead |= _exchange(path, streams, MESSAGES)
        return _verdict(path, [one for one in streams if one.port not in dead], dead)
    finally:
        for stream in streams:
            stream.close()


def _port(error: OSError) -> int:
    port: int = getattr(error, "port", 0)
    return port


def _still_dead(path: Path, dead: dict[int, str]) -> dict[int, str]:
    """Return those that do not connect from the same port a second time either."""
    ports = [port for port in dead if port]
    if not ports:
        return dead
    again = path.open_all(len(ports), ports=ports)
    for port, one in zip(ports, again, strict=True):
        if isinstance(one, Stream):
            one.reset()
            del dead[port]
    return dead


def _exchange(path: Path, streams: list[Stream], times: int) -> dict[int, str]:
    """Send messages on all, one after the other on each; return ports that failed, with why."""
    wrong: dict[int, str] = {}
    for number in range(times):
        talks = [
            Talk(one, Pattern(path.seed, 120 + number, SIZE))
            for one in streams
            if one.port not in wrong
        ]
        converse(path, talks)
        wrong |= {talk.stream.port: talk.story() for talk in talks if not talk.is_whole}
    return wrong


def _verdict(path: Path, streams: list[Stream], dead: dict[int, str]) -> Finding:
    counts = {one.port: _retransmissions(one) for one in streams}
    known = {port: count for port, count in counts.items() if count is not None}
    lossy: dict[int, int] = {}
    suspects = [one for one in streams if known.get(one.port, 0) >= SUSPECT]
    if suspects and len(suspects) <= len(streams) // 2:
        others = [one for one in streams if one not in suspects][:COMPARED]
        more = _exchange(path, suspects + others, AGAIN)
        dead |= {port: why for port, why in more.items() if port in {s.port for s in suspects}}
        grown = {
            one.port: (_retransmissions(one) or 0) - known[one.port] for one in suspects + others
        }
        usual = mean(grown[one.port] for one in others)
        lossy = {
            one.port: grown[one.port]
            for one in suspects
            if one.port not in dead and grown[one.port] >= max(BAD, TIMES * usual)
        }
    total = sum(known.values())
    values = {
        "flows": FLOWS,
        "retransmissions": total,
        "failed_ports": sorted(dead),
        "lossy_ports": sorted(lossy),
    }
    if len(dead) > FLOWS // 2:
        why = next(iter(dead.values()))
        raise NotTestable(f"{len(dead)} of {FLOWS} flows fail, so none is worse than most: {why}")
    if not dead and not lossy:
        lost = f"{total} retransmission{'' if total == 1 else 's'}" if known else "losses not known"
        return passed(f"{FLOWS} source ports, all echoed, {lost} in all", **values)
    told = []
    if dead:
        why = next(iter(dead.values()))
        told.append(f"{len(dead)} of {FLOWS} source ports failed ({_list(dead)}): {why}")
    if lossy:
        told.append(f"{len(lossy)} of {FLOWS} lose far more than the others ({_list(lossy)})")
    return failed("; ".join(told), **values)


def _list(ports: dict[int, str] | dict[int, int]) -> str:
    few = ", ".join(str(port) for port in sorted(ports)[:LISTED])
    return few if len(ports) <= LISTED else f"{few}, ..."


def _retransmissions(stream: Stream) -> int | None:
    info = tcp_info(stream.sock)
    return None if info is None else info["total_retrans"]
