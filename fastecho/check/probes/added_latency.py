"""How much time the path adds, compared with a direct one."""

from __future__ import annotations

from fastecho.check.pings import ping, spread
from fastecho.check.verdict import NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "time that the path adds"
GROUP, QUICK, PHASE, NEEDS = "flow", True, "alone", ("direct",)
PASSED = "For information: what lies between costs so much for each message."
FAILED = "A connection that only exchanges small messages broke."


def run(path: Path) -> Finding:
    """Send by turns on a connection here and on one there, so that both see the same moments."""
    direct = path.direct
    assert direct is not None
    try:
        other = direct.open()
    except OSError as error:
        raise NotTestable(f"the direct way: {error.strerror or error}") from None
    here, there = [], []
    with path.open() as stream, other:
        for number in range(10 if path.quick else 200):
            took = ping(path, stream, number)
            if isinstance(took, str):
                return failed(f"message {number + 1}: {took}", messages=number)
            here.append(took)
            took = ping(direct, other, number)
            if isinstance(took, str):
                raise NotTestable(f"the direct way, message {number + 1}: {took}")
            there.append(took)
    _, path_ms = spread(here)
    _, direct_ms = spread(there)
    _, added_ms = spread([one - two for one, two in zip(here, there, strict=True)])
    added = added_ms["median_ms"]
    words = (
        f"{added:+.3f} ms at the median ({added_ms['p25_ms']:+.3f} to {added_ms['p75_ms']:+.3f} "
        f"between the quartiles): {path_ms['median_ms']:.3f} ms against "
        f"{direct_ms['median_ms']:.3f} ms, {len(here)} messages each, by turns"
    )
    return passed(
        words, messages=len(here), added_ms=added_ms, path_ms=path_ms, direct_ms=direct_ms
    )
