"""Which sizes come back as they were sent; if large ones do not, up to which."""

from __future__ import annotations

from fastecho.check.asking import Asked, ask, tries_for, try_seconds
from fastecho.check.pattern import Pattern
from fastecho.check.train import trains
from fastecho.check.verdict import NotTestable, OutOfTime, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "datagrams of every size come back"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "beside", ()
PASSED = "From one byte to the largest datagram there is, also in fragments, all come back."
FAILED = (
    "Datagrams above some size do not come back: fragments are dropped (a firewall, a NAT, a "
    "tunnel whose path MTU nobody is told), or a relay or server has a smaller buffer. Keep "
    "datagrams at or below the size named."
)
CUT = "Something cuts datagrams: the buffer of a relay or of the server is smaller than they are."
CHANGED = "Bytes are changed in datagrams of these sizes: a proxy with a defect, a rewriting box."
HERE = "this system does not send datagrams of {:,} bytes: {}"
SIZES = (1, 64, 512, 1200, 1400, 1472, 1473, 9000, 65507)
AT_ONCE = 12
"""Sizes that are tried at a time in the search."""


def run(path: Path) -> Finding:
    """Send each size; if one does not come back, search the largest that does."""
    trains(path)  # how much is lost anyway
    asked = _ask(path, list(SIZES))
    unsent = [one for one in asked if one.is_unsent]
    tried = [one for one in asked if not one.is_unsent]
    good = [len(one.data) for one in tried if one.is_exact]
    bad = [one for one in tried if not one.is_exact]
    if not bad:
        if not good:
            raise NotTestable(HERE.format(len(unsent[0].data), unsent[0].story()))
        sizes = ", ".join(f"{size:,}" for size in good)
        here = f"; {HERE.format(len(unsent[0].data), unsent[0].story())}" if unsent else ""
        return passed(f"came back exactly: {sizes} bytes{here}", exact_bytes=good)
    values = {"exact_bytes": good, "failed_bytes": [len(one.data) for one in bad]}
    first = bad[0]
    words = f"{len(first.data):,} bytes: {first.story()}"
    if first.wrong:
        is_cut = len(first.wrong[0]) < len(first.data)
        return failed(words, CUT if is_cut else CHANGED, **values)
    if any(tries_for(path, len(one.data)) == 0 for one in bad if one.is_mute):
        lost = f"{path.loss:.1%} of small datagrams are lost"
        raise NotTestable(f"{words}; but {lost}, which large ones do not survive")
    if max(good, default=0) > len(first.data):
        sizes = ", ".join(f"{len(one.data):,}" for one in bad)
        return failed(f"these do not come back, though others do: {sizes} bytes", **values)
    return _search(path, max(good, default=0), len(first.data), words, values)


def _ask(path: Path, sizes: list[int], patience: float | None = None) -> list[Asked]:
    """Send one of each size, as often as loss asks for, those that loss is worst for most often."""
    datas = [Pattern(path.seed, 320 + size % 97, size).take(0, size) for size in sizes]
    tries = max(tries_for(path, size) or 3 for size in sizes)
    return ask(path, datas, tries=tries, patience=patience)


def _search(path: Path, low: int, high: int, words: str, values: dict[str, list[int]]) -> Finding:
    """Narrow down the largest size that comes back; if the time is over, say how far."""
    wait = try_seconds(path)
    try:
        while high - low > 1:
            step = max((high - low) // (AT_ONCE + 1), 1)
            sizes = list(range(low + step, high, step))[:AT_ONCE]
            came = {len(one.data) for one in _ask(path, sizes, wait) if one.is_exact}
            high = min([*(size for size in sizes if size not in came), high])
            low = max([size for size in came if size < high], default=low)
    except OutOfTime:
        pass
    most = f"the largest that comes back is {low:,} bytes, {high:,} does not"
    if high - low > 1:
        most = f"up to {low:,} bytes come back, {high:,} do not; then the time was over"
    return failed(f"{words}; {most}", largest_bytes=low, lost_bytes=high, **values)
