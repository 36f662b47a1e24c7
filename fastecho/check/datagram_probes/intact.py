"""Whether the bytes of a train come back as they were sent."""

from __future__ import annotations

from fastecho.check.asking import Asked
from fastecho.check.train import SIZE, trains
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "the bytes of many datagrams"
GROUP, ORDER, QUICK, PHASE, NEEDS = "exact", 10, True, "alone", ()
PASSED = "What comes back is what was sent, in each of many datagrams."
FAILED = (
    "Some datagrams are changed between here and there: a rewriting box or a relay with a defect, "
    "memory or a network card that flips bits; over IPv4 a UDP checksum may be missing."
)


def run(path: Path) -> Finding:
    """Look at what the trains brought back."""
    found = trains(path)
    arrived = sum(one.arrived for one in found.both)
    foreign = sum(one.foreign for one in found.both)
    spoilt = [(one, number, data) for one in found.both for number, data in one.spoilt.items()]
    values = {"datagrams": arrived, "spoilt": len(spoilt), "foreign": foreign}
    if not spoilt and not foreign:
        return passed(f"{arrived} datagrams of {SIZE} bytes came back exactly", **values)
    words = f"{len(spoilt)} of {arrived} datagrams came back changed"
    if spoilt:
        train, number, data = spoilt[0]
        asked = Asked(train.data(number))
        asked.wrong.append(data)
        words = f"{words}; of number {number}: {asked.story()}"
    if foreign:
        words = f"{words}; {foreign} came that are none of ours"
    return failed(words, **values)
