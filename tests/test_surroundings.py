"""Whatever surrounds the process: it echoes, ends in order, and leaves nothing in the way.

As the first process of a container, without standard streams, behind a full disk, after SIGKILL,
and in other interpreters. (Signals and exit codes: test_cli_serve.py; fork: test_fork.py; the
interpreter's exit: test_exit.py; clocks: test_clock.py.)
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from commands import COMMAND, Serving, environment, serving
from namespaces import can_unshare
from peers import connect, exchange, has_ipv6, wait_until
from programs import Program

ROOT = Path(__file__).resolve().parent.parent


def child_of(pid: int) -> int:
    """Return the only child of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: children.read_text().split())
    (child,) = children.read_text().split()
    return int(child)


# --- the process -----------------------------------------------------------------------------


@pytest.mark.skipif(not can_unshare("--pid", "--fork"), reason="needs a namespace of processes")
def test_the_first_process_of_a_container_drains_at_sigterm() -> None:
    """The kernel ignores signals that process 1 has no handler for."""
    command = ["unshare", "--pid", "--fork", "--kill-child", *COMMAND, "serve"]
    process = subprocess.Popen(
        [*command, "--bind=127.0.0.1:0", "--drain-idle=0.05"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().split()[3]
            with connect(address) as client:
                assert exchange(client, b"hello") == b"hello"
                os.kill(child_of(process.pid), signal.SIGTERM)
                assert client.recv(1) == b""
            said = process.communicate(timeout=20)[1].splitlines()
        finally:
            process.kill()
    assert process.returncode == 0
    assert said[-1] == "fastecho: drained: connections 1, bytes in 5, bytes out 5"


def talkative(tmp_path: Path) -> list[str]:
    """Return the options of a server that has something to say all the time."""
    file = tmp_path / "fastecho.toml"
    file.write_text('bind = "127.0.0.1:0"\n')
    return [f"--config={file}", "--access-log", "--drain-idle=0.05"]


def serves_and_ends(server: Serving) -> None:
    """Hold that it serves whatever becomes of what it says, and that its end is in order."""
    for _ in range(3):
        with server.connect() as client:
            assert exchange(client, b"hello") == b"hello"
            server.process.send_signal(signal.SIGHUP)
            assert exchange(client, b"hello") == b"hello"
    assert server.end(signal.SIGTERM)[0] == 0


REDIRECTED = {
    "no stdin": "<&-",
    "no stdout": ">&-",
    "no stderr": "2>&-",
    "no stream at all": "<&- >&- 2>&-",
    "a full disk": ">/dev/full 2>/dev/full",
}


@pytest.mark.parametrize("how", REDIRECTED)
def test_standard_streams_may_be_closed_or_full(how: str, tmp_path: Path) -> None:
    shell = ("sh", "-c", f'exec "$@" {REDIRECTED[how]}', "sh", *COMMAND)
    with serving(*talkative(tmp_path), program=shell) as server:
        serves_and_ends(server)


CLOSED_PIPE = """
import os, sys

reader, writer = os.pipe()
os.close(reader)
for stream in (1, 2):
    os.dup2(writer, stream)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_standard_streams_may_be_pipes_that_nobody_reads(tmp_path: Path) -> None:
    with serving(
        *talkative(tmp_path), program=(sys.executable, "-c", CLOSED_PIPE, *COMMAND[1:])
    ) as one:
        serves_and_ends(one)


def test_whoever_read_its_log_may_be_gone(tmp_path: Path) -> None:
    with serving(*talkative(tmp_path)) as server, server.connect() as client:
        assert server.process.stderr is not None
        server.process.stderr.close()
        server.process.send_signal(signal.SIGHUP)
        assert exchange(client, b"hello") == b"hello"
        server.process.send_signal(signal.SIGTERM)
        assert client.recv(1) == b""
        client.close()
        assert server.process.wait(20) == 0


BINDS = ["127.0.0.1", "[::1]", "unix"]


@pytest.fixture(params=BINDS)
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return an address that is free, with a port that nobody else is given."""
    if request.param == "unix":
        yield f"unix:{tmp_path}/s"
        return
    if request.param == "[::1]" and not has_ipv6():
        pytest.skip("needs IPv6")
    family = socket.AF_INET if request.param == "127.0.0.1" else socket.AF_INET6
    with socket.socket(family) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((request.param.strip("[]"), 0))
        yield f"{request.param}:{taken.getsockname()[1]}"


def test_after_sigkill_it_serves_again_within_a_second(bind: str) -> None:
    """Fifty connections were open, some with bytes under way; the peers have not closed theirs."""
    with ExitStack() as stack:
        with serving("--bind", bind) as server:
            peers = [stack.enter_context(server.connect()) for _ in range(50)]
            for peer in peers:
                assert exchange(peer, b"x") == b"x"
            for peer in peers[:10]:
                peer.sendall(bytes(10_000))
            server.process.kill()
            server.process.wait(20)
        begun = time.monotonic()
        with serving("--bind", bind) as again:
            took = time.monotonic() - begun
            with again.connect() as client:
                assert exchange(client, b"again") == b"again"
            assert again.end(signal.SIGTERM)[0] == 0
    assert took < 1


# --- other interpreters ------------------------------------------------------------------------

OTHERS = """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    import sys, threading
    import fastecho

    def live(address, said):
        other = interpreters.create()
        interpreters.run_string(other, f'''if True:
            import fastecho, os
            try:
                fastecho.Server
            except fastecho.ExtensionMissingError as error:
                said = str(error)
            with fastecho.Client({address!r}, timeout=20) as client:
                said += client.echo(b" (by way of the server)").decode()
            os.write({said}, said.encode() + b"\\\\n")
        ''')
        interpreters.destroy(other)

    with fastecho.Server(on_accept=lambda peer: None) as server:
        threads = [threading.Thread(target=live, args=(server.address, 1)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = interpreters.create()  # and is there at the end
        interpreters.run_string(left, "import fastecho")
        with fastecho.Client(server.address, timeout=20) as client:
            print(client.echo(b"still here"), flush=True)
"""


def test_other_interpreters_are_told_and_do_no_harm() -> None:
    """Four at the same time, and one that is left. In them the pure part works."""
    with Program(OTHERS) as program:
        for _ in range(4):
            assert program.line() == (
                "fastecho.Server needs the compiled core, which works in the main interpreter of"
                " a process only (by way of the server)"
            )
        assert program.line() == "b'still here'"
        assert (program.end(), program.errors()) == (0, "")
