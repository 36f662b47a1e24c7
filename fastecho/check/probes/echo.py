"""Whether every size comes back, byte for byte."""

from __future__ import annotations

from time import monotonic

from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "every size comes back exactly"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "bulk", ()
PASSED = "Bytes come back unchanged, none lost, doubled or moved."
FAILED = (
    "Bytes are changed, lost or moved between here and there: a proxy with a defect, a rewriting "
    "box, or memory or a network card that flips bits behind the checksum."
)
SIZES = (1, 2, 3, 100, 1459, 1460, 1461, 4095, 4096, 4097, 16384, 65535, 65536, 65537)
LARGE = (1 << 18, 1 << 20)
LARGEST = (1 << 22, 1 << 24, 1 << 26)
QUICK_SECONDS = 4.0
SPARE_SECONDS = 0.5
FULL_SECONDS = 120.0


def run(path: Path) -> Finding:
    """Send each size on one connection; the largest ones only as far as the time allows."""
    until = monotonic() + (QUICK_SECONDS if path.quick else FULL_SECONDS)
    if path.end is not None:
        until = min(until, path.end - SPARE_SECONDS)
    sizes = SIZES + LARGE + (() if path.quick else LARGEST)
    total = largest = part = 0
    with path.open() as stream:
        for number, size in enumerate(sizes):
            if monotonic() >= until:
                break
            talk = Talk(stream, Pattern(path.seed, number, size))
            converse(path, [talk], until=until)
            if talk.ending == "time" and talk.difference() is None:
                part = talk.received
                break
            if not talk.is_whole:
                what = "1 byte" if size == 1 else f"{size:,} bytes"
                words, found = f"{what}: {talk.story()}", talk.difference()
                more = {} if found is None else {"difference": found.to_json()}
                return failed(words, size_bytes=size, exact_up_to_bytes=largest, **more)
            largest, total = size, total + size
    if not largest:
        raise NotTestable("the time was over before a byte came back")
    what = f"exact from 1 byte to {largest:,} bytes, {total:,} in all"
    if largest < sizes[-1]:
        rest = sizes[sizes.index(largest) + 1]
        what += f"; then the time was over, {part:,} of {rest:,} bytes had come back right"
    return passed(what, largest_bytes=largest, total_bytes=total + part)
