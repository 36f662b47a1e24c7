"""What the kernel knows of a connection."""

from __future__ import annotations

from fastecho.check.pings import SIZE, ping
from fastecho.check.tcp import tcp_info
from fastecho.check.verdict import NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "the kernel's own figures"
GROUP, QUICK, PHASE, NEEDS = "tcp", True, "alone", ("tcp",)
PASSED = "For information: retransmissions alone are no fault."
FAILED = (
    "Most of what is sent has to be sent again: a path that loses nearly all, or answers too late "
    "to be believed."
)
UNECHOED = (
    "The kernel was not asked, because a small message did not come back as it was sent: see what "
    "the probes latency and echo say."
)
LEAST_SEGMENTS = 10


def run(path: Path) -> Finding:
    """Exchange some messages, and ask."""
    with path.open() as stream:
        number = 5 if path.quick else 50
        for i in range(number):
            took = ping(path, stream, i)
            if isinstance(took, str):
                return failed(f"message {i + 1}: {took}", UNECHOED)
        info = tcp_info(stream.sock)
    if info is None:
        raise NotTestable("the kernel does not tell (no TCP_INFO)")
    again, sent = info["total_retrans"], info["data_segs_out"]
    values = {
        "rtt_ms": info["rtt_us"] / 1e3,
        "rttvar_ms": info["rttvar_us"] / 1e3,
        "retransmissions": again,
        "data_segments": sent,
    }
    words = (
        f"rtt {values['rtt_ms']:.3f} ms, rttvar {values['rttvar_ms']:.3f} ms, "
        f"{again} of {sent} segments sent again ({number} messages of {SIZE} bytes)"
    )
    if sent >= LEAST_SEGMENTS and again > sent // 2:
        return failed(words, **values)
    return passed(words, **values)
