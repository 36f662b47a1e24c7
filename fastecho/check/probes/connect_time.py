"""How long connecting takes, and whether it works each time."""

from __future__ import annotations

from statistics import median

from fastecho.check.tcp import tcp_info
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "connecting works each time"
GROUP, QUICK, PHASE, NEEDS = "reach", True, "alone", ()
PASSED = "Each connection was accepted."
FAILED = (
    "Some connections are not accepted: a full accept queue, a limit on connections, or one of "
    "several servers behind the address is down."
)


def run(path: Path) -> Finding:
    """Connect some times, one after the other."""
    times, again = [], 0
    for number in range(5 if path.quick else 20):
        try:
            with path.open() as stream:
                times.append(stream.connect_s * 1e3)
                if info := tcp_info(stream.sock):
                    again += info["total_retrans"]
        except OSError as error:
            words = error.strerror or str(error)
            return failed(f"connection {number + 1}: {words}", connected=number)
    least, middle, most = min(times), median(times), max(times)
    what = f"{len(times)} connections, min/median/max = {least:.3f}/{middle:.3f}/{most:.3f} ms"
    if again:
        what += f"; {again} SYN{'' if again == 1 else 's'} had to be sent again"
    return passed(
        what,
        connected=len(times),
        min_ms=least,
        median_ms=middle,
        max_ms=most,
        syn_retransmissions=again,
    )
