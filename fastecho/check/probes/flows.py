"""Whether some flows are worse than others: a bundle of links sends each over one member.

Which member is chosen depends on the ports, so many source ports find all of them. A flow is only
bad in comparison: loss that all have is no fault of one.
"""

from __future__ import annotations

import errno
from statistics import mean
from time import monotonic

from fastecho.check.path import Stream
from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.tcp import tcp_info
from fastecho.check.verdict import NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "no flow is worse than the others"
GROUP, ORDER, QUICK, PHASE, NEEDS = "flow", 0, True, "alone", ("tcp",)
PASSED = "All source ports fare alike: no member of a bundle of links or servers is bad."
FAILED = (
    "Some source ports fail, or lose far more than the others: one bad member of a bundle (LACP, "
    "ECMP, several tunnels), or one bad server behind a balancer; the ports tell which flows."
)
FLOWS = 64
SIZE = 700
"""Bytes of a message, which is a segment of its own; small, so that the size is no matter."""
FIRST, THEN = 4, 16
"""Messages of each flow, and of a suspect and some others to compare with."""
FIRST_SECONDS, THEN_SECONDS = 1.5, 3.0
ROUND_TRIPS = 15
CONNECT_SECONDS = 3.3
"""A SYN was sent four times by then, or three times with an older Linux."""
SUSPECT = 3
"""Retransmissions from which on a flow is looked at again."""
BAD, TIMES = 5, 6.0
"""A bad flow has at least so many more, and so many times those of the others."""
COMPARED = 8
LISTED = 16


class Flow:
    """One source port: its connection, and how it fares.

    Attributes:
        port: ours.
        why: why it is dead; "" while it is not.
        before: retransmissions when it was looked at last.
    """

    def __init__(self, path: Path, stream: Stream) -> None:
        self.port = stream.port
        self.stream = stream
        self.why = ""
        self.before = 0
        self._data = Pattern(path.seed, 120, 0)
        self.talk = Talk(stream, self._data, chunk=SIZE, burst=1)

    def more(self, messages: int) -> Talk:
        """Return its talk with so many messages more to send."""
        self.before = self.retransmissions
        self._data.size += messages * SIZE
        self.talk.ending = ""
        return self.talk

    @property
    def retransmissions(self) -> int:
        """So far; 0 where the kernel does not tell."""
        info = tcp_info(self.stream.sock)
        return 0 if info is None else info["total_retrans"]

    @property
    def grown(self) -> int:
        """Retransmissions since it was looked at last."""
        return self.retransmissions - self.before


def run(path: Path) -> Finding:
    """Open flows from as many ports, and look closer at those that stand out."""
    patience = max(CONNECT_SECONDS, ROUND_TRIPS * path.rtt)
    found = path.open_all(FLOWS, ports=[0, None] * (FLOWS // 2), patience=patience)
    flows = [Flow(path, one) for one in found if isinstance(one, Stream)]
    for failure in found:
        if isinstance(failure, OSError) and failure.errno in (errno.EMFILE, errno.ENFILE):
            for flow in flows:
                flow.stream.close()
            raise failure
    dead = {_port(one): one.strerror or str(one) for one in found if isinstance(one, OSError)}
    try:
        lossy = _compare(path, flows)
        dead |= {flow.port: flow.why for flow in flows if flow.why}
        total = sum(flow.retransmissions for flow in flows)
        known = bool(flows) and tcp_info(flows[0].stream.sock) is not None
    finally:
        for flow in flows:
            flow.stream.close()
    if len(dead) > FLOWS // 2:
        why = next(iter(dead.values()))
        raise NotTestable(f"{len(dead)} of {FLOWS} flows fail, so none is worse than most: {why}")
    values = {
        "flows": FLOWS,
        "retransmissions": total,
        "failed_ports": sorted(dead),
        "lossy_ports": sorted(lossy),
    }
    if dead or lossy:
        return failed("; ".join(_told(dead, lossy)), **values)
    if late := [flow.talk for flow in flows if not flow.talk.is_whole]:
        raise NotTestable(
            f"in the time for it {len(late)} of {FLOWS} flows did not echo all, the first: "
            f"{late[0].story()}"
        )
    lost = f"{total} retransmission{'' if total == 1 else 's'}" if known else "losses not known"
    return passed(f"{FLOWS} source ports, all echoed, {lost} in all", **values)


def _port(error: OSError) -> int:
    port: int = getattr(error, "port", 0)
    return port


def _exchange(path: Path, flows: list[Flow], messages: int, seconds: float) -> None:
    until = monotonic() + max(seconds, ROUND_TRIPS * path.rtt)
    converse(path, [one.more(messages) for one in flows], until=until)


def _compare(path: Path, flows: list[Flow]) -> list[int]:
    """Send on all; then again on those that stand out and on some others. Return lossy ports.

    Flows that are dead get their `why`. By chance a flow stands out once, not twice.
    """
    _exchange(path, flows, FIRST, FIRST_SECONDS)
    suspects = [one for one in flows if not one.talk.is_whole or one.retransmissions >= SUSPECT]
    others = [one for one in flows if one not in suspects][:COMPARED]
    if not suspects:
        return []
    if len(suspects) > len(flows) // 2:
        late = [one.more(0) for one in suspects if one.talk.ending == "time"]
        converse(path, late, until=monotonic() + THEN_SECONDS)
        for one in suspects:
            if not one.talk.is_whole and one.talk.ending != "time":
                one.why = one.talk.story()
        return []
    came = {one.port: one.talk.received for one in suspects}
    living = [one for one in suspects if one.talk.ending in ("", "time")]
    _exchange(path, living + others, THEN, THEN_SECONDS)
    usual = mean(one.grown for one in others)
    lossy = []
    for one in suspects:
        if one.talk.is_whole:
            if one.grown >= max(BAD, TIMES * usual):
                lossy.append(one.port)
        elif one.talk.ending != "time" or one.talk.received == came[one.port]:
            one.why = one.talk.story()
        elif all(other.talk.is_whole for other in others):
            lossy.append(one.port)
    return lossy


def _told(dead: dict[int, str], lossy: list[int]) -> list[str]:
    told = []
    if dead:
        why = next(iter(dead.values()))
        told.append(f"{len(dead)} of {FLOWS} source ports failed ({_list(dead)}): {why}")
    if lossy:
        told.append(f"{len(lossy)} of {FLOWS} lose far more than the others ({_list(lossy)})")
    return told


def _list(ports: Iterable[int]) -> str:
    every = sorted(ports)
    few = ", ".join(str(port) for port in every[:LISTED])
    return few if len(every) <= LISTED else f"{few}, ..."
