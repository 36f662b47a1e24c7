"""Fork: a child holds duplicates of every descriptor, and must not matter to anybody.

A duplicate keeps a socket open after the parent has closed it, and keeps it in the parent's
epoll: without care the parent spins on events of connections that are long gone, and peers never
see FIN. Python's own fork runs hooks in the child (it closes its copies); a fork made by C code
does not (`without hooks`), and then the duplicates stay as long as the child lives.

Children here never return into the tests: each does what it was told, answers through a pipe,
waits until it is released, and exits without any clean-up of Python's.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import Join, MakeServer, open_descriptors
from peers import connect, exchange, is_reset, read_to_eof, recv_exactly, wait_until
from programs import Program, many_descriptors

from fastecho import ForkedError, Server

if TYPE_CHECKING:
    import fastecho

# From 3.12 on, os.fork warns when there are threads; that is what is tested here.
THREADED = "ignore:This process .* is multi-threaded:DeprecationWarning"
pytestmark = pytest.mark.filterwarnings(THREADED)

ANSWER = 20.0
"""Seconds within which a child must answer."""


def fork_without_hooks() -> int:
    """Fork as C code does. PyDLL keeps the GIL: the child goes on with it."""
    return int(ctypes.PyDLL(None).fork())


FORKS: dict[str, Callable[[], int]] = {"with hooks": os.fork, "without hooks": fork_without_hooks}


@pytest.fixture(params=list(FORKS))
def fork(request: pytest.FixtureRequest) -> Callable[[], int]:
    """Return a way to fork."""
    return FORKS[request.param]


class Child:
    """A forked child, seen from the parent."""

    def __init__(self, pid: int, answer: int, release: int) -> None:
        self.pid = pid
        self._answer = answer
        self._release = release

    def answer(self) -> str:
        """Return what its function returned; fails if that raised."""
        text = b""
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(self._answer, select.POLLIN)
        while not text.endswith(b"\0"):
            assert poll.poll(ANSWER * 1000), "the child does not answer"
            data = os.read(self._answer, 65536)
            assert data, "the child has died"
            text += data
        said = text[:-1].decode()
        assert said.startswith("ok:"), said
        return said.removeprefix("ok:")

    def end(self) -> None:
        """Let it exit, and wait for that."""
        os.close(self._release)
        os.close(self._answer)
        deadline = time.monotonic() + ANSWER
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        while not ended and time.monotonic() < deadline:
            select.select([], [], [], 0.001)
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        assert ended, "the child does not end"
        assert status == 0, status


@contextmanager
def child_of(fork: Callable[[], int], act: Callable[[], object]) -> Iterator[Child]:
    """Fork; the child calls act() and lives as long as the block."""
    answer, answer_end = os.pipe()
    release_end, release = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            os.close(release)
            try:
                said = f"ok:{act()}"
            except BaseException:
                said = traceback.format_exc()
            os.write(answer_end, said.encode() + b"\0")
            os.read(release_end, 1)
        finally:
            os._exit(0)
    os.close(answer_end)
    os.close(release_end)
    child = Child(pid, answer, release)
    try:
        yield child
    finally:
        child.end()


def nothing() -> None:
    """What a child does that only lives."""


def assert_server_sleeps(server: fastecho.Server) -> None:
    """Hold that its workers sleep: a stale registration would wake them all the time."""
    wait_until(lambda: is_still(server, 0.02), what="the workers to be still")
    assert is_still(server, 0.2)


def is_still(server: fastecho.Server, seconds: float) -> bool:
    """Tell whether no worker's loop goes round for some time."""
    before = server.stats().iterations
    select.select([], [], [], seconds)
    return server.stats().iterations == before


# --- the parent ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["fin", "rst"])
def test_1000_connections_close_while_a_child_keeps_duplicates(
    make_server: MakeServer, join: Join, fork: Callable[[], int], ending: str
) -> None:
    """Every peer sees our FIN although the child lives; no stale wake-up; all are unharmed."""
    with many_descriptors(4096):
        server = make_server(threads=2)
        peers = [join(server) for _ in range(1000)]
        for peer in peers:
            peer.sendall(b"x")
            assert recv_exactly(peer, 1) == b"x"
        with child_of(fork, os.getpid) as child:
            assert child.answer() == str(child.pid)
            for peer in peers:
                if ending == "fin":
                    # shutdown, because the child holds duplicates of these sockets as well.
                    peer.shutdown(socket.SHUT_WR)
                    assert read_to_eof(peer) == b""
                else:
                    disconnect(peer)
            wait_until(lambda: server.stats().connections_closed == 1000)
            stats = server.stats()
            by_peer, by_error = (1000, 0) if ending == "fin" else (0, 1000)
            assert (stats.ended_by_peer, stats.ended_by_error) == (by_peer, by_error)
            assert_server_sleeps(server)
            with connect(server) as newcomer:
                newcomer.sendall(b"and now")
                assert recv_exactly(newcomer, 7) == b"and now"


def disconnect(sock: socket.socket) -> None:
    """Send RST at once, whoever holds duplicates: connect(2) to AF_UNSPEC dissolves it."""
    libc = ctypes.CDLL(None, use_errno=True)
    nowhere = ctypes.create_string_buffer(16)  # sa_family 0
    assert libc.connect(sock.fileno(), nowhere, 16) == 0, os.strerror(ctypes.get_errno())


def test_a_drain_ends_quiet_connections_while_a_child_lives(
    make_server: MakeServer, join: Join, fork: Callable[[], int]
) -> None:
    server = make_server(threads=2, drain_idle=0.05)
    peers = [join(server) for _ in range(20)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    with child_of(fork, nothing) as child, ThreadPoolExecutor(1) as pool:
        child.answer()
        stopped = pool.submit(server.stop, 20)
        for peer in peers:
            assert read_to_eof(peer) == b""
            peer.shutdown(socket.SHUT_WR)
        assert stopped.result(10) is True
        assert server.stats().linger_timeouts == 0


def test_an_idle_connection_gets_fin_while_a_child_lives(
    make_server: MakeServer, join: Join, fork: Callable[[], int]
) -> None:
    server = make_server(idle_timeout=0.2)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    with child_of(fork, nothing) as child:
        child.answer()
        assert not is_reset(peer)
        peer.shutdown(socket.SHUT_WR)
        wait_until(lambda: server.stats().connections_closed == 1)
        assert_server_sleeps(server)


def test_abort_resets_while_a_child_lives(
    make_server: MakeServer, join: Join, fork: Callable[[], int]
) -> None:
    server = make_server(threads=2)
    peers = [join(server) for _ in range(10)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    with child_of(fork, nothing) as child:
        child.answer()
        server.abort()
        assert all(is_reset(peer) for peer in peers)


def test_the_port_is_free_while_a_child_lives(make_server: MakeServer, join: Join) -> None:
    """With hooks: the child has closed its copy of the listener."""
    server = make_server()
    with child_of(os.fork, nothing) as child:
        child.answer()
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        assert make_server(server.address).port == server.port


def test_forks_under_load_disturb_nobody(make_server: MakeServer) -> None:
    """Every byte of every reply is right while children come and go."""
    from fastecho._load import Load

    server = make_server(threads=2)
    assert server.host is not None and server.port is not None
    address = (server.host, server.port)
    echoing = Load([(socket.AF_INET, address)], connections=50)
    coming = Load([(socket.AF_INET, address)], connections=4, mode="reconnect")
    echoing.connect()
    try:
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(load.run, 30.0) for load in (echoing, coming)]
            began, forks = time.monotonic(), 0
            while forks < 10 or time.monotonic() < began + 2:
                # The child's own descriptors must survive what it closes.
                with child_of(os.fork, lambda: [os.fstat(n).st_mode > 0 for n in (0, 1, 2)]) as one:
                    assert one.answer() == "[True, True, True]"
                forks += 1
            assert not any(run.done() for run in runs)
            for load in (echoing, coming):
                load.stop()
        for run in runs:
            result = run.result()
            wrong = (
                "late", "corrupt", "misplaced", "lost", "extra_bytes", "timed_out", "reset",
                "refused", "connect_timed_out", "other",
            )  # fmt: skip
            assert {name: result[name] for name in wrong if result[name]} == {}  # type: ignore[literal-required]
            assert result["messages"] > 100
    finally:
        echoing.close()
        coming.close()


# --- the child -------------------------------------------------------------------------------


def touch_everything(server: fastecho.Server) -> str:
    """Use a server in every way; return the ways that did not raise ForkedError."""
    ways: dict[str, Callable[[], object]] = {
        name: partial(getattr, server, name)
        for name in ("listeners", "sockets", "addresses", "address", "host", "port")
    }
    for name in ("start", "is_serving", "stats", "close", "stop", "abort", "wait"):
        ways[name] = getattr(server, name)
    ways["serve_forever"] = server.serve_forever
    ways["with"] = server.__enter__
    ways["wait_closed"] = lambda: asyncio.run(server.wait_closed())
    wrong = []
    for name, way in ways.items():
        try:
            way()
        except ForkedError as error:
            if "forked child" not in str(error):
                wrong.append(f"{name}: {error}")
        else:
            wrong.append(name)
    return ", ".join(wrong)


def test_a_child_that_touches_the_server_is_told(
    make_server: MakeServer, join: Join, fork: Callable[[], int]
) -> None:
    """And the parent's server does not notice."""
    server = make_server(threads=2)
    peer = join(server)
    assert exchange(peer, b"before") == b"before"
    with child_of(fork, lambda: touch_everything(server)) as child:
        assert child.answer() == ""
        assert exchange(peer, b"while it lives") == b"while it lives"
    with child_of(fork, lambda: repr(server)) as child:
        assert child.answer() == f"<fastecho.Server {server.address} of process {os.getpid()}>"
    assert exchange(peer, b"after") == b"after"
    assert server.is_serving()
    assert exchange(join(server), b"a newcomer") == b"a newcomer"


def test_a_server_that_was_not_started_belongs_to_its_process_as_well() -> None:
    server = Server()
    with child_of(os.fork, lambda: touch_everything(server)) as child:
        assert child.answer() == ""


def test_a_child_keeps_none_of_the_server_s_descriptors(
    make_server: MakeServer, join: Join
) -> None:
    """Listeners, connections, epoll, mailboxes, reserve: all copies are closed."""
    before = open_descriptors()
    server = make_server(threads=2, on_accept=lambda _: None)
    peers = [join(server) for _ in range(10)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    known = {*before, *(peer.fileno() for peer in peers)}
    with child_of(os.fork, lambda: len(set(open_descriptors()) - known)) as child:
        # Both ends of the pipe for its answer, and one of that for its release.
        assert child.answer() == "3"


def test_a_child_can_have_a_server_of_its_own(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    peer = join(server)

    def serve() -> str:
        with Server(threads=2, drain_idle=0.05) as own, connect(own) as mine:
            return exchange(mine, b"in the child").decode()

    with child_of(os.fork, serve) as child:
        assert child.answer() == "in the child"
    assert exchange(peer, b"in the parent") == b"in the parent"


SCRIPT = textwrap.dedent("""
    import os, sys, warnings
    from fastecho import ForkedError, Server

    warnings.simplefilter("ignore", DeprecationWarning)
    server = Server(sys.argv[1], threads=2)
    server.start()
    print(server.address, flush=True)
    sys.stdin.readline()
""")


@pytest.mark.parametrize("way", ["os.fork", "ctypes.PyDLL(None).fork"])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_the_exit_of_a_child_does_not_disturb_the_parent(
    family: str, way: str, tmp_path: Path
) -> None:
    """It leaves by the whole way out of the interpreter, atexit and all."""
    script = f"""
    import ctypes

    pid = {way}()
    if pid == 0:
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    sys.stdin.read()
    print(server.stop(10), flush=True)
    """
    bind = "127.0.0.1:0" if family == "tcp" else f"unix:{tmp_path / 's'}"
    with Program(SCRIPT + textwrap.dedent(script), bind) as program:
        address = program.line()
        with connect(address) as peer:
            assert exchange(peer, b"before") == b"before"
            program.tell("fork")
            assert program.line() == "7"
            assert exchange(peer, b"after") == b"after"
        with connect(address) as newcomer:
            assert exchange(newcomer, b"a newcomer") == b"a newcomer"
        program.go_on()
        assert program.line() == "True"
        assert program.end() == 0
        assert program.errors() == ""


def test_a_child_that_leaves_with_goes_its_own_way() -> None:
    """`with` must not turn its exit into an error, nor end the parent's server."""
    script = """
    with Server() as inner:
        pid = os.fork()
        if pid == 0:
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), inner.is_serving(), flush=True)
    """
    with Program(SCRIPT + textwrap.dedent(script), "127.0.0.1:0") as program:
        program.line()
        program.tell("fork")
        assert program.line() == "7 True"
        assert program.end() == 0
        assert program.errors() == ""


def test_multiprocessing_by_fork_works_beside_a_server() -> None:
    script = """
    import multiprocessing

    def work(number):
        try:
            server.stats()
        except ForkedError:
            return number * number

    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(pool.map(work, range(5)), flush=True)
    process = multiprocessing.get_context("fork").Process(target=server.is_serving)
    sys.stderr = open(os.devnull, "w")
    process.start()
    process.join()
    print(process.exitcode, flush=True)
    """
    with (
        Program(SCRIPT + textwrap.dedent(script), "127.0.0.1:0") as program,
        connect(program.line()) as peer,
    ):
        assert exchange(peer, b"before") == b"before"
        program.tell("fork")
        assert program.line() == "[0, 1, 4, 9, 16]"
        assert program.line() == "1"


def by_subprocess(command: list[str], answer: int) -> int:
    """Start a program as most do; answer: its standard output."""
    return subprocess.Popen(command, stdout=answer, close_fds=False).wait(ANSWER)


def by_fork_and_exec(command: list[str], answer: int) -> int:
    """Start a program step by step."""
    pid = os.fork()
    if pid == 0:
        os.dup2(answer, 1)
        os.execv(command[0], command)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def by_spawn(command: list[str], answer: int) -> int:
    """Start a program without any hook."""
    actions = [(os.POSIX_SPAWN_DUP2, answer, 1)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("start", [by_subprocess, by_fork_and_exec, by_spawn])
def test_a_program_that_is_started_inherits_no_descriptor(
    make_server: MakeServer, join: Join, start: Callable[[list[str], int], int]
) -> None:
    """Everything is closed on exec, also what workers open while they run."""
    listing = (
        "import os\n"
        "for n in os.listdir('/proc/self/fd'):\n"
        "    if os.path.exists(f'/proc/self/fd/{n}'):\n"
        "        print(n, os.readlink(f'/proc/self/fd/{n}'))\n"
    )

    def inherited() -> set[str]:
        with tempfile.TemporaryFile() as said:
            assert start([sys.executable, "-c", listing], said.fileno()) == 0
            said.seek(0)
            return {line for line in said.read().decode().splitlines() if line[:2] != "1 "}

    before = inherited()
    server = make_server(threads=2, on_accept=lambda _: None)
    peers = [join(server) for _ in range(3)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    assert inherited() == before
    for peer in peers:
        assert exchange(peer, b"still here") == b"still here"


def test_a_program_that_replaces_itself_lets_go_of_everything(tmp_path: Path) -> None:
    """No hook runs before exec: the kernel closes, peers see the end, and both places are free."""
    script = """
    bind = [f"unix:{sys.argv[1]}", sys.argv[2]]
    with Server(bind, threads=2, on_accept=lambda _: None) as again:
        print(*again.addresses, flush=True)
        sys.stdin.readline()
        words = ["-c", sys.argv[3], sys.argv[1], again.addresses[1], sys.argv[3]]
        os.execv(sys.executable, [sys.executable, *words])
    """
    source = "import os, sys\nfrom fastecho import Server\n" + textwrap.dedent(script)
    with Program(source, str(tmp_path / "s"), "127.0.0.1:0", source) as program:
        for _ in range(3):
            addresses = program.line().split()
            with ExitStack() as stack:
                peers = [stack.enter_context(connect(address)) for address in addresses]
                for peer in peers:
                    assert exchange(peer, b"x") == b"x"
                program.tell("again")
                assert [read_to_eof(peer) for peer in peers] == [b"", b""]
