"""The files by which shells complete `fastecho` and `man` shows it, as a wheel holds them.

Lives here: their names below `share`, and the program that writes them all: setup.py runs
`python -m manual.shell_files FOLDER` when it builds. Does not live here: what a shell's file looks
like (the library shtab knows).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import shtab

from .commands import tree
from .man_page import man_page

SHELLS = {
    "bash": "share/bash-completion/completions/fastecho",
    "zsh": "share/zsh/site-functions/_fastecho",
    "fish": "share/fish/vendor_completions.d/fastecho.fish",
}
"""Where each shell looks below a prefix such as /usr/local."""
MAN = "share/man/man1/fastecho.1"


def files() -> dict[str, str]:
    """Return the text of every file, by its name."""
    # argparse asks for both: what is built may depend on neither terminal nor colours.
    os.environ.update(COLUMNS="100", PYTHON_COLORS="0", NO_COLOR="1")
    made = {path: shtab.complete(tree(), shell) for shell, path in SHELLS.items()}
    return {**made, MAN: man_page()}


def main(folder: str) -> None:
    """Write every file below a folder."""
    for name, text in files().items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
