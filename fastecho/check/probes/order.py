"""Whether many small messages come back in their order, each once.

Each message carries its number and a check of it, so that what came can be told apart: another
order, a loss, a repetition, or changed bytes.
"""

from __future__ import annotations

from fastecho.check.pattern import Plain
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "many small messages keep their order"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "beside", ()
PASSED = "A stream stays a stream: nothing overtakes."
FAILED = (
    "The order of a stream is not kept: something between spreads one connection over several "
    "workers or links and puts it together wrongly, or sends pieces twice."
)
RECORD = 16
"""Bytes of a message."""
BURST = 40
"""Messages, until there is a pause: what comes in pieces is handed on in pieces."""


def record(seed: int, number: int) -> bytes:
    """Return message `number`."""
    check = (number * 2_654_435_761 + seed) >> 4 & 0xFFFFFF
    return b"<%08d%06x>" % (number, check)


def run(path: Path) -> Finding:
    """Send them one by one, in bursts, and look at what came."""
    count = 6000 if path.quick else 20000
    data = b"".join(record(path.seed, number) for number in range(count))
    with path.open() as stream:
        talk = Talk(stream, Plain(data), chunk=RECORD, burst=BURST, keep=True, check=False)
        converse(path, [talk])
    if talk.is_flooded:
        return failed(f"for {len(data):,} bytes more than {talk.received:,} came, without an end")
    came = bytes(talk.data)
    if came == data:
        return passed(f"{count:,} messages of {RECORD} bytes came back in order", messages=count)
    found = Found(path.seed, count, came)
    words = found.words()
    if talk.ending and not talk.is_whole:
        words = f"{words}; {talk.story()}" if words else talk.story()
    return failed(words, **found.values())


class Found:
    """What the messages that came tell."""

    def __init__(self, seed: int, count: int, came: bytes) -> None:
        import re

        self.count = count
        self.numbers = [
            int(one[1])
            for one in re.finditer(rb"<(\d{8})[0-9a-f]{6}>", came)
            if one[0] == record(seed, int(one[1]))
        ]
        there = set(self.numbers)
        self.strange = len(came) - RECORD * len(self.numbers)
        self.lost = count - len(there)
        self.doubled = len(self.numbers) - len(there)
        first = list(dict.fromkeys(self.numbers))
        self.late = [one for i, one in enumerate(first[1:], 1) if one < first[i - 1]]

    def words(self) -> str:
        """Return what is wrong, as a sentence."""
        parts = []
        if self.late:
            parts.append(
                f"{len(self.late):,} of {self.count:,} messages came after later ones, "
                f"the first is number {self.late[0]:,}"
            )
        if self.lost:
            parts.append(f"{self.lost:,} of {self.count:,} messages did not come back whole")
        if self.doubled:
            parts.append(f"{self.doubled:,} messages came more than once")
        if self.strange > 0:
            parts.append(f"{self.strange:,} bytes came that are no message")
        return "; ".join(parts)

    def values(self) -> dict[str, int]:
        """Return what stands in the JSON."""
        return {
            "messages": self.count,
            "reordered": len(self.late),
            "lost": self.lost,
            "doubled": self.doubled,
            "strange_bytes": max(self.strange, 0),
        }
