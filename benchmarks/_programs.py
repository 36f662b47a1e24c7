"""The programs that are compared: their names, their commands, their versions.

Nothing is started here. A program that cannot run on this machine says why (`missing`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastecho._version import __version__

PYTHON = (sys.executable,)


@dataclass(frozen=True, slots=True)
class Program:
    """A server that can be started; `--ready-fd N` is added to its command."""

    # as the tables print it
    name: str
    command: tuple[str, ...]
    # it takes commands on stdin (peers/hosted.py)
    obeys: bool = False
    # why it cannot run here, "" if it can
    missing: str = ""

    def again(self) -> Program:
        """Return the same program under a second name, to measure it against itself."""
        return Program(f"{self.name} (again)", self.command, self.obeys, self.missing)


def version(distribution: str) -> str:
    """Return the installed version of a distribution, or what is the matter."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def without_uvloop() -> str:
    """Return why uvloop cannot run here, "" if it can."""
    return "" if importlib.util.find_spec("uvloop") else "uvloop is not installed"


def peer(name: str, module: str, *options: str) -> Program:
    """Return a Python peer of benchmarks/peers."""
    missing = without_uvloop() if "uvloop" in options else ""
    command = (*PYTHON, "-m", f"benchmarks.peers.{module}", *options)
    return Program(name, command, module == "hosted", missing)


def fastecho(
    *options: str, name: str = "fastecho", threads: int = 1, bind: str = "127.0.0.1:0"
) -> Program:
    """Return `fastecho serve` on a free loopback port."""
    serve = ("-m", "fastecho", "serve", "--bind", bind, "--threads", str(threads))
    return Program(name, (*PYTHON, *serve, "--log-level", "warning", *options))


def c_peers(programs: Mapping[str, Path]) -> list[Program]:
    """Return the compiled C peers; the best of them is the denominator."""
    return [Program(name, (str(path),)) for name, path in programs.items()]


def hosted(
    server: Literal["fastecho", "asyncio", "uvloop"], *options: str, name: str = ""
) -> Program:
    """Return a Python program around a server, which obeys commands (peers/hosted.py)."""
    return peer(name or server, "hosted", "--server", server, *options)


UVLOOP = peer("uvloop Protocol", "protocol", "--loop", "uvloop")
ASYNCIO = peer("asyncio Protocol", "protocol", "--loop", "asyncio")
ASYNCIO_BUFFERED = peer("asyncio BufferedProtocol", "protocol", "--loop", "asyncio", "--buffered")
STREAMS = peer("asyncio streams", "streams")
THREADS = peer("thread per connection", "threads")
EPOLL_LOOP = peer("pure-Python epoll", "epoll_loop")


def versions() -> dict[str, str]:
    """Return the versions of what the programs are made of, for the head of a report."""
    return {
        "fastecho": __version__,
        "uvloop": version("uvloop"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
