"""Where commands write their results for machines: JSON, JSON lines, .hgrm, a page.

What lives here: which file or stream takes what, checked before the run; for every command,
checking a file without touching it, and writing it. What may not live here: what stands in them
(fastecho.measure), text for people.
"""

from __future__ import annotations

import os
import sys

from fastecho.errors import ConfigError, StartError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from fastecho.measure.compare import Comparison
    from fastecho.measure.model_result import ModelRuns
    from fastecho.measure.result import Interval, Result
    from fastecho.measure.search import Found, Step

__all__ = ["STDOUT", "Outputs", "check_path", "write_text"]

STDOUT = "-"
FLAGS = ("json", "jsonl", "hgrm", "html")


class Outputs:
    """The files that the flags name. A path that cannot be written is told before the run.

    Raises:
        ConfigError: a path cannot be written, or two flags want standard output.
        StartError: standard output is closed, or --html lacks its extra.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._paths: dict[str, str] = {
            flag: path for flag in FLAGS if (path := getattr(args, flag, None)) is not None
        }
        for flag, path in self._paths.items():
            check_path(flag, path)
        wanting = [flag for flag, path in self._paths.items() if path == STDOUT]
        if len(wanting) > 1:
            both = f"is wanted by --{wanting[0]} as well: give one of them a file"
            raise ConfigError(f"--{wanting[1]}", STDOUT, both)
        for i, (flag, path) in enumerate(self._paths.items()):
            for other, taken in list(self._paths.items())[:i]:
                if os.path.realpath(path) == os.path.realpath(taken):
                    raise ConfigError(f"--{flag}", path, f"is the file of --{other} as well")
        # Standard output belongs to a machine.
        self.takes_stdout = bool(wanting)
        if "html" in self._paths:
            import fastecho.measure.page  # noqa: F401 (what it lacks is told before the run)
        # The first line replaces what the file held, the others are appended: a run that does not
        # start leaves it alone.
        self._line_mode = "w"
        # Why lines are no longer written: told when the run is over and shown.
        self._broken: OSError | None = None

    def interval(self, one: Interval) -> None:
        """Write an interval, if lines were asked for."""
        if "jsonl" in self._paths:
            self._line({"event": "interval", **one.to_json()})

    def step(self, one: Step) -> None:
        """Write a step of a search, if lines were asked for."""
        if "jsonl" in self._paths:
            self._line({"event": "step", **one.to_json()})

    def result(self, result: Result, found: Found | None) -> None:
        """Write the result to all files."""
        if not self._paths:
            return
        import json

        data = result.to_json()
        if found is not None:
            data["search"] = found.to_json()
        if "jsonl" in self._paths:
            self._line({"event": "result", **data})
        if "json" in self._paths:
            write_text(self._paths["json"], json.dumps(data, indent=1) + "\n")
        if "hgrm" in self._paths:
            from fastecho.measure.histograms import hgrm

            assert result.latency is not None
            write_text(self._paths["hgrm"], hgrm(result.latency))
        if "html" in self._paths:
            from fastecho.measure.page import page

            write_text(self._paths["html"], page([data]))
        if self._broken is not None:
            raise self._broken

    def comparison(self, found: Sequence[Comparison], results: Sequence[Result]) -> None:
        """Write a comparison, and a page of all its results."""
        if "json" in self._paths:
            import json

            from fastecho._version import __version__

            data = {
                "format": "fastecho-comparison",
                "version": 1,
                "fastecho": __version__,
                "comparisons": [one.to_json() for one in found],
            }
            write_text(self._paths["json"], json.dumps(data, indent=1) + "\n")
        if "html" in self._paths:
            from fastecho.measure.page import page

            write_text(self._paths["html"], page([one.to_json() for one in results]))

    def models(self, runs: ModelRuns, breaks: Mapping[str, str]) -> None:
        """Write the figures of several models, and a page of them; `breaks`: where each breaks."""
        if "json" in self._paths:
            import json

            write_text(self._paths["json"], json.dumps(runs.to_json(), indent=1) + "\n")
        if "html" in self._paths:
            from fastecho.measure.model_page import page

            write_text(self._paths["html"], page(runs, breaks))

    def _line(self, data: dict[str, object]) -> None:
        import json

        path = self._paths["jsonl"]
        if self._broken is not None:
            return
        try:
            write_text(path, json.dumps(data) + "\n", self._line_mode)
        except OSError as error:
            if path == STDOUT:
                raise  # nobody reads any more
            self._broken = error
        self._line_mode = "a"


def check_path(flag: str, path: str) -> None:
    """Refuse a path that could not be written after the run; what is there stays as it is."""
    folder = os.path.dirname(path) or "."
    if path == STDOUT:
        if sys.stdout is None:
            raise StartError(0, f"--{flag}: standard output is closed")
        return
    if not path:
        reason = "is no file: write its name, or - for stdout"
    elif os.path.isdir(path):
        reason = "is a folder"
    elif not os.path.isdir(folder):
        reason = f"is in a folder that does not exist: {folder}"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        reason = "cannot be written: permission denied"
    else:
        return
    raise ConfigError(f"--{flag}", path, reason)


def write_text(path: str, text: str, mode: str = "w") -> None:
    """Write to a file, or to standard output; an error names the file."""
    if path == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:  # one of write(2) does not know its file
        raise OSError(error.errno, error.strerror, path) from None
