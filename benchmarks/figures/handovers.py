"""A server that hands its listeners over to the next one: `fastecho serve --handover`."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._restarts import figure, storm_through
from benchmarks._servers import ROOT, START_TIMEOUT, environment, pinned
from benchmarks.startup import await_end, fastecho_command

RESTARTS = 10
KINDS = {
    "one listener": ["--threads", "2"],
    "reuse_port": ["--threads", "2", "--reuse-port"],
    "unix": ["--threads", "2"],
}
"""Servers by name, and their options; "unix" listens on a Unix socket."""


class Generations:
    """One server after the other at one address; the last one is ended with the block.

    Args:
        folder: of its sockets; it exists.
        cores: of the servers.
    """

    def __init__(self, folder: Path, kind: str, cores: list[int]) -> None:
        if kind == "unix":
            self.address = f"unix:{folder}/echo"
        else:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._command = [*fastecho_command(), "serve", "--bind", self.address, *KINDS[kind]]
        self._command += ["--handover", f"unix:{folder}/handover", "--log-level", "warning"]
        self._cores = cores
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the next one, wait until it serves, and until the one before has ended."""
        with pinned(self._cores):
            process = subprocess.Popen(
                [*self._command, "--ready-fd", "1"],
                cwd=ROOT,
                env=environment(),
                stdout=subprocess.PIPE,
            )
        before, self._running = self._running, process
        assert process.stdout is not None
        process.stdout.read()  # it is closed when it serves
        if before is not None:
            await_end(before)
            if before.wait(START_TIMEOUT):
                raise RuntimeError(f"the server before ended with {before.returncode}")

    def end(self) -> None:
        """End the last one."""
        if self._running is not None:
            self._running.terminate()
            self._running.wait(START_TIMEOUT)


def handover(plan: Plan) -> Figure:
    """Return what handing over does to a storm."""
    storms = {}
    times = 2 if plan.quick else RESTARTS
    for kind in KINDS:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastecho-")))
            servers = Generations(folder, kind, [plan.server_core, plan.load_core])
            stack.callback(servers.end)
            servers.start()
            storms[kind] = (times, storm_through(servers.address, servers.start, times))
    return figure("handover", "replaced by serve --handover", storms)


FIGURES = {"handover": handover}
