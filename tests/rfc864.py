"""The pattern of RFC 864, made as its text says, apart from the headers under test."""

from __future__ import annotations

FIRST_LINES = (
    b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n"
    b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh\r\n"
    b"\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghi\r\n"
)
"""As they are printed where the pattern is shown."""


def _line(number: int) -> bytes:
    """Return line N: characters (0+N mod 95) through (71+N mod 95) of the printing ones."""
    ring = bytes(range(0x20, 0x7F))
    return bytes(ring[(number + i) % 95] for i in range(72)) + b"\r\n"


PERIOD = b"".join(map(_line, range(95)))


def chargen(size: int, start: int = 0) -> bytes:
    """Return so many bytes of the pattern from a place in it on."""
    start %= len(PERIOD)
    return (PERIOD * ((start + size) // len(PERIOD) + 1))[start : start + size]
