"""Whether TCP keepalives are answered, and a connection that sends them stays."""

from __future__ import annotations

import socket

from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.tcp import tcp_info
from fastecho.check.verdict import UNSERVED, NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "keepalives are answered"
GROUP, QUICK, PHASE, NEEDS = "tcp", True, "beside", ("tcp",)
PASSED = "Keepalives reach something that answers: the next host that ends TCP, at least."
FAILED = (
    "A connection ends although keepalives are sent, or they are dropped: a firewall that drops "
    "segments without data, or an idle timeout that counts only data."
)
QUICK_SECONDS, FULL_SECONDS = 2.2, 6.5
LOST = 4
"""So many in a row are not lost by chance."""


def run(path: Path) -> Finding:
    """Ask every second, and look whether an answer came."""
    with path.open() as stream:
        first = Talk(stream, Pattern(path.seed, 110, 64), check=False)
        converse(path, [first])
        if not first.is_whole:
            return failed(f"before keepalives were sent: {first.story()}", UNSERVED)
        sock = stream.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("KEEPIDLE", 1), ("KEEPINTVL", 1), ("KEEPCNT", 20)):
            if (option := getattr(socket, f"TCP_{name}", None)) is None:
                raise NotTestable("this system does not let a program choose the time")
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        seconds = QUICK_SECONDS if path.quick else FULL_SECONDS
        path.sleep(seconds)
        info = tcp_info(sock)
        if info is None:
            raise NotTestable("the kernel does not tell (no TCP_INFO)")
        talk = Talk(stream, Pattern(path.seed, 111, 64))
        converse(path, [talk])
    unanswered = info["keepalive_probes"]
    values = {"idle_s": seconds, "unanswered": unanswered}
    if not talk.is_echo:
        return failed(f"with keepalives for {seconds:g} s: {talk.story()}", **values)
    if unanswered >= LOST:
        return failed(
            f"the last {unanswered} keepalives had no answer, data still passes", **values
        )
    if unanswered:
        raise NotTestable(
            f"the last {unanswered} had no answer, which a lossy path does too; data passes"
        )
    ago = info["last_ack_recv_ms"] / 1e3
    return passed(
        f"asked every second for {seconds:g} s, the last answer is {ago:.1f} s old", **values
    )
