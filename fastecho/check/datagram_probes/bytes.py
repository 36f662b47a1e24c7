"""Whether bytes come back that boxes like to act on."""

from __future__ import annotations

from random import Random

from fastecho.check.asking import ask, tries_for
from fastecho.check.train import trains
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "no byte is special"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "alone", ()
PASSED = "Every value of a byte passes, also in what looks like another protocol."
FAILED = (
    "Something between reads the bytes and changes or drops some: a proxy for another protocol, a "
    "filter that looks inside."
)
DESCRIBED = 3
"""So many that failed are described, the others only named."""


def run(path: Path) -> Finding:
    """Send each sample."""
    trains(path)
    samples = {
        "NUL": bytes(300),
        "0xFF": b"\xff" * 300,
        "all 256 values": bytes(range(256)) + bytes(range(255, -1, -1)),
        "line ends": b"one\ntwo\r\nthree\rfour\n\r\n\r",
        "control characters": b"\x03\x04\x11\x13\x1a\x1b[2J\x7f\x08\x0c\x0e\x0f\x16\x1c",
        "UTF-8 and what is none": b"\xef\xbb\xbf\xc3\xa9\xe2\x82\xac\xc3\x28\xff\xfe\x80\xf5",
        "random bytes": Random(path.seed).randbytes(1000),
        "a DNS query": b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04echo\x07invalid\0\0\x01\0\x01",
        "a STUN request": b"\0\x01\0\0\x21\x12\xa4\x42" + bytes(range(12)),
        "a SIP request": b"OPTIONS sip:echo.invalid SIP/2.0\r\nMax-Forwards: 70\r\n\r\n",
        "an NTP request": b"\x23" + bytes(47),
    }
    asked = ask(path, list(samples.values()), tries=tries_for(path) or 3)
    wrong = {
        name: one.story() for name, one in zip(samples, asked, strict=True) if not one.is_exact
    }
    if not wrong:
        return passed(f"{len(samples)} samples of special bytes came back", samples=len(samples))
    told = [f"{name}: {words}" for name, words in list(wrong.items())[:DESCRIBED]]
    if rest := list(wrong)[DESCRIBED:]:
        told.append(f"also {', '.join(rest)}")
    return failed("; ".join(told), samples=len(samples), wrong=list(wrong))
