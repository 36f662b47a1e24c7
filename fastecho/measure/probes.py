"""The bytes of probes: they follow from a probe's number, so nothing has to be remembered.

Lives here: making them, finding what is wrong with a reply. Does not live here: sending and
receiving (pinger.py), the messages of the native load (src_c/pattern.h).

The bytes are noise, cut at a place that the number chooses: 65,521 successive probes of 8 bytes or
more differ from each other, and neighbours have nothing in common. The last byte of a probe is a
newline, and no other is: a server that echoes line by line answers as well. A probe of one byte has
no newline, and one in about 270 is like the one before (shorter probes are alike by chance).
"""

from __future__ import annotations

__all__ = ["PERIOD", "SIZE_LIMIT", "Probes"]

SIZE_LIMIT = 1 << 20
"""Largest probe, in bytes."""

PERIOD = 65521
"""So many successive probes differ; a prime, so that every stride reaches every place."""

STRIDE = 25033
"""From one probe to the next the place moves so far on: far more than usual sizes."""

NEAR = 100
"""How far off a reply that belongs to another probe is looked for."""


class Probes:
    """Probes of one size, `size` bytes."""

    __slots__ = ("_noise", "size")

    def __init__(self, size: int) -> None:
        from hashlib import shake_128

        self.size = size
        noise = shake_128(b"fastecho ping").digest(PERIOD + size)
        self._noise = noise.replace(b"\n", b"\v")

    def bytes_of(self, number: int) -> bytes:
        """Return the bytes of a probe."""
        at = number * STRIDE % PERIOD
        if self.size == 1:
            return self._noise[at : at + 1]
        return self._noise[at : at + self.size - 1] + b"\n"

    def number_of(self, reply: bytes, about: int) -> int | None:
        """Return which probe not long before or after `about` has these bytes.

        None for none, and for replies too short to tell.
        """
        if len(reply) < max(self.size, 8):
            return None
        near = range(max(about - NEAR, 1), about + NEAR)
        return next((number for number in near if self.bytes_of(number) == reply), None)

    def difference(self, reply: bytes, number: int) -> str:
        """Say where a reply, whole or not, first differs from the probe that it should be."""
        expected = self.bytes_of(number)
        at = next(i for i, byte in enumerate(reply) if byte != expected[i])
        return f"byte {at} is 0x{reply[at]:02x}, not 0x{expected[at]:02x}"
