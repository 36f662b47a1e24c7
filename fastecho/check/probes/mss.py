"""Which segment size both ends agreed on."""

from __future__ import annotations

from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.tcp import tcp_info
from fastecho.check.verdict import NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "segment size"
GROUP, QUICK, PHASE, NEEDS = "tcp", True, "beside", ("tcp",)
PASSED = "For information: whole segments have so many bytes."
FAILED = (
    "Segments are far smaller than any link needs: a wrong MSS clamp, or a host that sends no MSS "
    "option."
)
LEAST = 488
"""Bytes: 536, which every host takes, less options."""


def run(path: Path) -> Finding:
    """Ask the kernel, after something was sent."""
    with path.open(tcp=[{}]) as stream:  # without the limit that path-mtu has set
        converse(path, [Talk(stream, Pattern(path.seed, 130, 64 if path.mss else 4000))])
        info = tcp_info(stream.sock)
    if info is None:
        raise NotTestable("the kernel does not tell (no TCP_INFO)")
    ours, theirs = info["snd_mss"], info["advmss"]
    values = {
        "send_mss_bytes": ours,
        "advertised_mss_bytes": theirs,
        "path_mtu_bytes": info["pmtu"],
    }
    words = (
        f"we send {ours:,} bytes a segment, and take {theirs:,}; path MTU {info['pmtu']:,} bytes"
    )
    return failed(words, **values) if ours < LEAST else passed(words, **values)
