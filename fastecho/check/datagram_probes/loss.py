"""How many of a train of datagrams do not come back."""

from __future__ import annotations

from fastecho.check.train import SIZE, Train, trains
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "nothing is lost"
GROUP, ORDER, QUICK, PHASE, NEEDS = "path", 11, True, "alone", ()
PASSED = "Of many small datagrams at a modest rate none is lost, there and back."
FAILED = (
    "Datagrams are lost on the way there or back: a bad link, Wi-Fi, a full queue on the way, or a "
    "server that does not read fast enough. UDP says nothing of it: who uses it has to expect it."
)


def run(path: Path) -> Finding:
    """Count what a fast and, if something is missing, a slow train brought back."""
    found = trains(path)
    fast, slow = found.fast, found.slow
    values = {
        "sent": sum(one.sent for one in found.both),
        "lost": sum(one.lost for one in found.both),
        "lost_percent": round(100 * found.loss, 3),
    }
    if slow is None:
        return passed(f"{_how(fast)}: all came back", **values)
    if found.is_limited:
        words = f"{_how(slow)}: {slow.lost or 'none'} did not come back"
        more = f"{words} (faster ones are held back: see what the probe rate says)"
        judge = failed if slow.lost else passed
        return judge(more, **values)
    lost = values["lost"]
    words = f"{lost} of {values['sent']} did not come back ({found.loss:.2%})"
    gap = max(one.longest_gap for one in found.both)
    runs = "" if gap < 2 else f", up to {gap} in a row"
    each = f"{fast.lost} of {_how(fast)}, {slow.lost} of {_how(slow)}"
    return failed(f"{words}{runs}: {each}", longest_gap=gap, **values)


def _how(train: Train) -> str:
    return f"{train.sent} datagrams of {SIZE} bytes at {train.rate:.0f}/s"
