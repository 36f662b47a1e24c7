"""The argument parser that every sub-command gets; it knows no option of its own but --help."""

from __future__ import annotations

import argparse

from fastecho.cli import complain

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from _typeshed import SupportsWrite

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, no abbreviations, and the nearest name for a typo."""

    def __init__(self, prog: str) -> None:
        super().__init__(
            prog=prog, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the parsed arguments; what is wrong with them ends the command with code 2."""
        args, rest = self.parse_known_args(arguments)
        if rest:
            strange = next((one for one in rest if one.startswith("-")), rest[0])
            self.error(self._strange(strange))
        return args

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Write the help; unlike argparse's own, this does not hide that writing failed."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        """Write the message as one line and exit with code 2."""
        text = message.removeprefix("argument ")
        if text.endswith(": expected one argument"):
            option = text.partition(":")[0].rpartition("/")[2]
            text = f"{option} needs a value (one that starts with - is written {option}=-...)"
        elif ": ignored explicit argument " in text:
            option, _, value = text.partition(": ignored explicit argument ")
            option = option.partition("/--no-")[0].rpartition("/")[2]
            text = f"{option} takes no value, and was given {value}"
        complain(self.prog, text)
        raise SystemExit(2)

    def _strange(self, argument: str) -> str:
        option = argument.partition("=")[0]
        if not option.startswith("-") or option == "-":
            return f"unexpected argument {argument!r}: see {self.prog} --help"
        from difflib import get_close_matches

        near = get_close_matches(option, list(self._option_string_actions), n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        return f"there is no option {option!r}: {hint}"
