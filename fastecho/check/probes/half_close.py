"""Whether our half-close is respected: all that was sent comes back, then FIN."""

from __future__ import annotations

from fastecho.check.path import streams_of
from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import SPOILED, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "our half-close is respected"
GROUP, QUICK, PHASE, NEEDS = "close", True, "beside", ()
PASSED = "Who sends FIN still gets all that is due, and then a FIN."
FAILED = (
    "A half-close is not carried: a proxy that closes both ways at the first FIN cuts replies "
    "off, one that keeps the FIN to itself makes both ends wait for ever; or the server closes, "
    "or stays open, when its peer has sent FIN."
)
SIZES = (0, 1, 100, 1000, 10_000, 50_000, 100_000, 200_000)


def run(path: Path) -> Finding:
    """Send some bytes and FIN at once, on several connections, and read to the end."""
    streams = streams_of(path.open_all(len(SIZES)))
    talks = [
        Talk(stream, Pattern(path.seed, 50 + i, size), fin=True, eof=True, lazy=True)
        for i, (stream, size) in enumerate(zip(streams, SIZES, strict=True))
    ]
    try:
        converse(path, talks)
    finally:
        for stream in streams:
            stream.close()
    wrong = [talk for talk in talks if not talk.is_whole]
    if not wrong:
        words = f"{len(SIZES)} times up to {SIZES[-1]:,} bytes, FIN: all came back, then FIN"
        return passed(words, connections=len(SIZES))
    talk = wrong[-1]
    words = f"after {talk.out.size:,} bytes and our FIN {talk.story()}"
    spoiled = all(one.difference() is not None for one in wrong)
    more = f" ({len(wrong)} of {len(SIZES)} connections)"
    return failed(
        words + more,
        SPOILED if spoiled else "",
        connections=len(SIZES),
        wrong=len(wrong),
        ending=talk.ending,
    )
