"""A `fastecho serve` of its own for the time of a measurement: `bench --server`, `models --run`.

What lives here: its command and environment; for `bench --server`, starting it on a free port,
waiting until it is ready, ending it. What may not live here: what it serves (serve.py), measuring.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

from fastecho.errors import StartError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastecho.measure.plan import Plan

__all__ = ["environment", "local_server", "server_command"]

READY_SECONDS = 20.0
END_SECONDS = 5.0
USUAL_FRAME = 65536
"""The longest frame of a server that is told nothing."""

# If this process is killed, the server gets a signal (PR_SET_PDEATHSIG) and does not stay behind.
PROGRAM = """\
import signal, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.{}))
except (ImportError, OSError, AttributeError):
    pass
from fastecho.cli import main
sys.exit(main())
"""


def server_command(*words: str, last_signal: str = "SIGTERM") -> list[str]:
    """Return what starts `fastecho serve` with these options.

    Args:
        last_signal: what it gets when this process has ended without ending it.
    """
    return [sys.executable, "-P", "-c", PROGRAM.format(last_signal), "serve", *words]


@contextmanager
def local_server(plan: Plan) -> Iterator[str]:
    """Start a server that fits the plan; give its address; end it when the block ends.

    Raises:
        StartError: it did not start; it has said why on stderr.
    """
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            server_command(f"--ready-fd={writer}", *_words(plan)),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[writer],
            # Ctrl-C is for the load: the server is ended after it.
            start_new_session=True,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        yield _address(reader)
    finally:
        os.close(reader)
        _end(process)


def _words(plan: Plan) -> list[str]:
    """Return the server's options."""
    words = ["--bind=127.0.0.1:0", "--log-level=warning", "--drain-idle=0", f"--frame={plan.frame}"]
    if plan.udp:
        # All of the load comes from one address.
        words = ["--bind=udp://127.0.0.1:0", "--log-level=warning", "--udp-rate=none"]
        if plan.prefix or plan.suffix:
            words += [
                f"--prefix={os.fsdecode(plan.prefix)}", f"--suffix={os.fsdecode(plan.suffix)}"
            ]  # fmt: skip
    if plan.frame != "recv":
        sizes = plan.sizes
        largest = sizes if isinstance(sizes, int) else max(sizes)
        if largest > USUAL_FRAME:
            words += [f"--max-frame={largest}", f"--high-water={4 * largest}"]
        words += [f"--prefix={os.fsdecode(plan.prefix)}", f"--suffix={os.fsdecode(plan.suffix)}"]
    if plan.send_proxy is not None:
        words.append("--proxy-protocol=required")
    if plan.identify:
        words.append("--identify")
    return words


def environment() -> dict[str, str]:
    """Return an environment in which the server is this very package, and has no other settings."""
    import fastecho

    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTECHO_")}
    path = os.path.dirname(os.path.dirname(os.path.abspath(fastecho.__file__)))
    before = kept.get("PYTHONPATH")
    return {**kept, "PYTHONPATH": f"{path}{os.pathsep}{before}" if before else path}


def _address(reader: int) -> str:
    """Return the address that the server tells when it listens."""
    from select import select
    from time import monotonic

    data, deadline = b"", monotonic() + READY_SECONDS
    while select([reader], [], [], max(deadline - monotonic(), 0))[0]:
        if not (chunk := os.read(reader, 4096)):
            break
        data += chunk
    if not data.endswith(b"\n"):
        raise StartError(0, "the server of --server did not start")
    return data.decode().split("\n")[0]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server by SIGTERM, and by SIGKILL if it takes too long."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
