"""Whether bytes come back that middle boxes like to act on."""

from __future__ import annotations

from random import Random

from fastecho.check.samples import come_back

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "no byte is special"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "beside", ()
PASSED = "Every value of a byte passes, whatever stands around it."
FAILED = (
    "Something between reads the bytes as text or as a terminal would, and changes some: a proxy "
    "for another protocol, a serial or telnet gateway, a filter."
)


LATE_LINES = b"a line of a longer stream, as texts have it\r\n" * 1500
LATE_END = b"\0\0\xff\xff\xff\xf4\x13\x11\n\r\r\n\n"


def run(path: Path) -> Finding:
    """Send each sample on a connection of its own."""
    samples = {
        "NUL": bytes(300),
        "0xFF": b"\xff" * 300,
        "all 256 values": bytes(range(256)) * 4 + bytes(range(255, -1, -1)),
        "LF": b"one\ntwo\n\nthree\n",
        "CR LF": b"one\r\ntwo\r\n\r\nthree\r\n",
        "CR": b"one\rtwo\r\rthree\r",
        "LF CR": b"one\n\rtwo\n\r\n\rthree",
        "telnet IAC": b"\xff\xfd\x01\xff\xfb\x03\xff\xff\xff\xf4\xff\xf2 \xff\xf0",
        "XON and XOFF": b"stop\x13go\x11stop\x13\x13go\x11\x11",
        "control characters": b"\x03\x04\x1a\x1b[2J\x7f\x08\x08\x0c\x0e\x0f\x16\x1c",
        "UTF-8 and what is none": b"\xef\xbb\xbf\xc3\xa9\xe2\x82\xac\xc3\x28\xff\xfe\x80\xf5",
        "random bytes": Random(path.seed).randbytes(20000),
        # Some boxes look closer, or lose their place, only when a stream has run for a while.
        "special bytes behind 64 KiB": LATE_LINES + Random(path.seed).randbytes(4000) + LATE_END,
    }
    return come_back(path, samples, "samples of special bytes", FAILED)
