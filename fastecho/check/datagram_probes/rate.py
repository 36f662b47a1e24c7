"""Whether datagrams at a modest rate are held back by a limit."""

from __future__ import annotations

from fastecho.check.train import trains
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "no limit of the rate"
GROUP, ORDER, QUICK, PHASE, NEEDS = "path", 12, True, "alone", ()
PASSED = "At this rate nothing is held back that a lower one would bring through."
FAILED = (
    "Something lets only so many datagrams a second through: a policer, a firewall against floods, "
    "or the guards of a server (fastecho serve --udp-rate answers each source 1,000 a second)."
)


def run(path: Path) -> Finding:
    """Compare what a fast and a slow train lost."""
    found = trains(path)
    fast, slow = found.fast, found.slow
    values = {"rate_per_s": fast.rate, "lost_percent": round(100 * fast.share, 3)}
    if slow is None or not found.is_limited:
        return passed(f"no limit was seen up to {fast.rate:.0f} datagrams a second", **values)
    passing = fast.last_rate
    words = (
        f"at {fast.rate:.0f}/s {fast.lost} of {fast.sent} were lost, at {slow.rate:.0f}/s "
        f"{slow.lost} of {slow.sent}; about {passing:.0f}/s pass"
    )
    slower = {"slow_rate_per_s": slow.rate, "slow_lost_percent": round(100 * slow.share, 3)}
    return failed(words, passing_per_s=round(passing), **slower, **values)
