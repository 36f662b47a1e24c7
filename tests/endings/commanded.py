"""A command of `fastecho`, interrupted at one moment: a program of its own.

Arguments: the moment; a file, to which the place is written before the signal is sent; and what
`fastecho` is given. Moments are counted in the package's own code, from the beginning of its
main() to the end of the process, what runs at exit included.
"""

from __future__ import annotations

import sys
from pathlib import Path

from moments import Interruption

import fastecho
from fastecho.cli import main


def interrupt(number: int, file: str) -> None:
    """From here on count moments; at the one of that number, interrupt."""
    folder = str(Path(fastecho.__file__).parent)
    Interruption(number, folder, Path(file).write_text).begin()


if __name__ == "__main__":
    number, file = int(sys.argv[1]), sys.argv[2]
    sys.argv[1:] = sys.argv[3:]
    interrupt(number, file)
    sys.exit(main())
