"""Reads bytes as text would: drops NUL, doubles 0xFF as telnet does, makes LF of CR LF."""

from __future__ import annotations

from boxes.relay import Relay, parser, place, run

MANGLES = {"nul": (b"\0", b""), "ff": (b"\xff", b"\xff\xff"), "crlf": (b"\r\n", b"\n")}


class Box(Relay):
    """Changes what it takes for text, on the way to the server."""

    kinds = tuple(MANGLES)

    def change(self, data: bytes, *, outward: bool) -> bytes:
        """Return the bytes as text."""
        for kind in self.kinds if outward else ():
            data = data.replace(*MANGLES[kind])
        return data


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--kind", choices=MANGLES, help="only this (default: all)")
    options = made.parse_args()
    box = Box(*place(options.to))
    if options.kind:
        box.kinds = (options.kind,)
    run(box, options)
