"""The end of the process: it comes within its deadline, whatever the servers are doing.

Every program here ends by itself, with servers that nobody has stopped. Its status must be its
own, and it must complain of nothing.
"""

from __future__ import annotations

import signal
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from peers import connect, exchange, is_reset, read_to_eof
from programs import Program

DEADLINE = 4.0
"""Seconds from the last line to the end: a second for connections, and a busy machine."""


def end_soon(program: Program, status: int = 0) -> float:
    """Wait for the end, and look at how it ended; return the seconds it took."""
    begun = time.monotonic()
    assert program.end(DEADLINE) == status, program.errors()
    return time.monotonic() - begun


def test_a_server_without_connections_does_not_delay_the_end() -> None:
    script = """
        from fastecho import Server

        servers = [Server(threads=2) for _ in range(3)]
        for server in servers:
            server.start()
        print("ready", flush=True)
    """
    with Program(script) as program:
        program.line()
        assert end_soon(program) < 1.0
        assert program.errors() == ""


def test_open_connections_get_fin_before_the_end() -> None:
    """Silent ones, and one whose bytes come at the last moment: echoed, then FIN."""
    script = """
        import sys
        from fastecho import Server

        server = Server(threads=2)
        server.start()
        print(server.address, flush=True)
        sys.stdin.read()
    """
    with Program(script) as program:
        address = program.line()
        peers = [connect(address) for _ in range(20)]
        for peer in peers:
            assert exchange(peer, b"x") == b"x"
        peers[0].sendall(b"last words")
        program.go_on()
        assert read_to_eof(peers[0]) == b"last words"
        for peer in peers:
            assert not is_reset(peer)
            peer.close()
        end_soon(program)
        assert program.errors() == ""


@pytest.mark.parametrize("busy", [False, True], ids=["silent", "busy"])
def test_peers_that_never_close_do_not_keep_the_process(busy: bool) -> None:
    """A silent one gets FIN and does not answer it; a busy one is never quiet."""
    script = """
        import sys
        from fastecho import Server

        server = Server()
        server.start()
        print(server.address, flush=True)
        sys.stdin.read()
    """
    with Program(script) as program, connect(program.line()) as peer:
        over = threading.Event()

        def chat() -> None:
            try:
                while not over.is_set():
                    exchange(peer, b"x")
            except (AssertionError, OSError):
                pass  # FIN or RST

        assert exchange(peer, b"x") == b"x"
        with ThreadPoolExecutor(1) as pool:
            if busy:
                pool.submit(chat)
            try:
                program.go_on()
                end_soon(program)
            finally:
                over.set()
        assert program.errors() == ""


@pytest.mark.parametrize(
    "blocked",
    ["threading.Event().wait()", "time.sleep(1000)", "os.read(pipe[0], 1)"],
    ids=["lock", "sleep", "read"],
)
def test_a_blocked_accept_callback_does_not_keep_the_process(blocked: str) -> None:
    script = f"""
        import os, sys, threading, time
        from fastecho import Server

        pipe = os.pipe()

        def on_accept(peer):
            print("asked", flush=True)
            {blocked}

        server = Server(on_accept=on_accept, threads=2)
        server.start()
        print(server.address, flush=True)
        sys.stdin.read()
    """
    with Program(script) as program:
        address = program.line()
        with connect(address) as first, connect(address) as second:
            assert program.line() == "asked"
            program.go_on()
            end_soon(program)
            assert is_reset(first)
            assert is_reset(second)
        assert program.errors() == ""


def test_a_callback_that_computes_for_ever_does_not_keep_the_process() -> None:
    """It never gives the GIL away by itself."""
    script = """
        import sys
        from fastecho import Server

        def on_accept(peer):
            print("asked", flush=True)
            while True:
                pass

        server = Server(on_accept=on_accept)
        server.start()
        print(server.address, flush=True)
        sys.stdin.read()
    """
    with Program(script) as program:
        with connect(program.line()):
            assert program.line() == "asked"
            program.go_on()
            end_soon(program)
        assert program.errors() == ""


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        ("sys.exit(7)", 7, ""),
        ("sys.exit('a reason')", 1, "a reason\n"),
        ("raise KeyError('mine')", 1, "KeyError: 'mine'\n"),
        ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt\n"),
        ("signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM, ""),
        ("os._exit(5)", 5, ""),
    ],
)
def test_the_exit_status_is_the_program_s_own(ending: str, status: int, said: str) -> None:
    script = f"""
        import os, signal, sys
        from fastecho import Server

        server = Server(threads=2, on_accept=lambda _: None)
        server.start()
        print("ready", flush=True)
        {ending}
    """
    with Program(script) as program:
        program.line()
        end_soon(program, status)
        assert program.errors().endswith(said)
        assert "fastecho:" not in program.errors()
        if not said:
            assert program.errors() == ""


def test_a_drain_that_is_under_way_is_cut_to_the_exit_s_deadline() -> None:
    script = """
        import sys, threading, time
        from fastecho import Server

        server = Server(drain_idle=60.0)
        server.start()
        print(server.address, flush=True)
        sys.stdin.read()
        threading.Thread(target=server.stop, args=(60,), daemon=True).start()
        while server.is_serving():
            time.sleep(0.001)
        print("draining", flush=True)
    """
    with Program(script) as program, connect(program.line()) as peer:
        assert exchange(peer, b"x") == b"x"
        program.go_on()
        assert program.line() == "draining"
        end_soon(program)
        assert program.errors() == ""


def test_the_socket_file_is_gone_after_the_end(tmp_path: Path) -> None:
    script = """
        import sys
        from fastecho import Server

        server = Server(f"unix:{sys.argv[1]}/s")
        server.start()
        print(server.address, flush=True)
    """
    with Program(script, str(tmp_path)) as program:
        program.line()
        end_soon(program)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_nobody_holds_serves_on() -> None:
    """Its threads hold it; the exit ends it as every other."""
    script = """
        import gc
        from fastecho import Server

        def start():
            server = Server()
            server.start()
            return server.address

        address = start()
        gc.collect()
        print(address, flush=True)
        import socket
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), 10) as peer:
            peer.sendall(b"hello")
            print(peer.recv(100), flush=True)
    """
    with Program(script) as program:
        program.line()
        assert program.line() == "b'hello'"
        end_soon(program)
        assert program.errors() == ""


# --- each phase of a server's life --------------------------------------------------------------

PHASES = {
    "not started": """
        server = Server(bind)
    """,
    "could not start": """
        taken = Server("127.0.0.1:0")
        taken.start()
        server = Server([*bind, taken.address])
        try:
            server.start()
        except StartError:
            pass
    """,
    "ended": """
        server = Server(bind)
        server.start()
        server.stop()
    """,
    "closed, with a connection": """
        server = Server(bind)
        server.start()
        peer = meet()
        server.close()
        assert server.wait(0) is False
    """,
    "served by another thread": """
        server = Server(bind)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        await_that(server.is_serving)
        peer = meet()
    """,
    "draining, a busy connection": """
        server = Server(bind, drain_idle=60.0)
        server.start()
        peer = meet()
        threading.Thread(target=keep_busy, args=(peer,), daemon=True).start()
        threading.Thread(target=server.stop, args=(60,), daemon=True).start()
        await_that(lambda: not server.is_serving())
    """,
    "lingering": """
        server = Server(bind, idle_timeout=0.01)
        server.start()
        peer = meet()
        assert peer.recv(1) == b""
        assert server.stats().connections_open == 1
    """,
    "a verdict is due": """
        server = Server(bind, on_accept=lambda peer: asked.set() or threading.Event().wait())
        server.start()
        peer = connect()
        asked.wait()
    """,
    "replies are pending": """
        server = Server(bind, frame="line", prefix=b"p" * 4000, high_water=1 << 24)
        server.start()
        peer = connect()
        peer.sendall(b"\\n" * 2000)
        await_that(lambda: server.stats().bytes_pending)
    """,
}

PHASE = """
    import socket, sys, threading, time, warnings
    from fastecho import Server, StartError

    warnings.simplefilter("ignore", ResourceWarning)  # its peers are never closed
    path = sys.argv[1]
    bind = [f"unix:{path}", "127.0.0.1:0"]
    asked = threading.Event()

    def await_that(condition):
        while not condition():
            time.sleep(0.001)

    def connect():
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        return peer

    def meet():
        peer = connect()
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        return peer

    def keep_busy(peer):
        while True:
            try:
                peer.sendall(b"x")
                peer.recv(100)
            except OSError:
                return
"""


def test_whatever_phase_a_server_is_in_the_process_ends_and_leaves_no_file(tmp_path: Path) -> None:
    """All at once: each takes its time at the end."""
    with ExitStack() as stack:
        programs = {
            phase: stack.enter_context(
                Program(
                    f"{textwrap.dedent(PHASE)}{textwrap.dedent(script)}print('ready', flush=True)",
                    str(tmp_path / phase),
                )
            )
            for phase, script in PHASES.items()
        }
        said = {phase: program.line() for phase, program in programs.items()}
        status = {phase: program.end(2 * DEADLINE) for phase, program in programs.items()}
        errors = {phase: program.errors() for phase, program in programs.items()}
    assert set(said.values()) == {"ready"}
    assert [phase for phase in PHASES if status[phase] != 0 or errors[phase]] == [], errors
    assert list(tmp_path.iterdir()) == []


STARTING = """
    import sys, threading, time
    import fastecho.server
    from fastecho import Server

    def open_slowly(*arguments):
        listeners = open_sockets(*arguments)
        print("starting", flush=True)
        threading.Event().wait(float(sys.argv[2]))
        return listeners

    open_sockets = fastecho.server.open_sockets
    fastecho.server.open_sockets = open_slowly
    server = Server(f"unix:{sys.argv[1]}")
    thread = threading.Thread(target=server.start, daemon=True)
    thread.start()
    while thread.is_alive() and server._starting is None:
        time.sleep(0.001)
"""


@pytest.mark.parametrize("seconds", [0.3, 1000.0], ids=["slowly", "for ever"])
def test_a_server_that_is_starting_does_not_keep_the_process(
    seconds: float, tmp_path: Path
) -> None:
    """One that comes to its end in time is ended in order."""
    with Program(STARTING, str(tmp_path / "s"), str(seconds)) as program:
        assert program.line() == "starting"
        end_soon(program)
        assert program.errors() == ""
    if seconds < 1:
        assert list(tmp_path.iterdir()) == []
