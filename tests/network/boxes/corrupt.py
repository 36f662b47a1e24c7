"""Changes one byte in a thousand, and the length of nothing."""

from __future__ import annotations

from random import Random

from boxes.relay import Relay, main

ONE_IN = 1000


class Box(Relay):
    """Flips a bit of some bytes on their way to the server."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._random = Random()

    def change(self, data: bytes, *, outward: bool) -> bytes:
        """Return the bytes, some of them changed."""
        if not outward:
            return data
        changed = bytearray(data)
        for at in range(len(changed)):
            if self._random.randrange(ONE_IN) == 0:
                changed[at] ^= 1 << self._random.randrange(8)
        return bytes(changed)


if __name__ == "__main__":
    main(Box, __doc__)
