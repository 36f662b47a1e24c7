"""Fixtures: servers on port 0 and peers that are closed; and the proof that nothing is left over.

Lives here: what every test may ask for. Does not live here: helpers to talk to a server
(peers.py, imported as `from peers import ...`).

    server                  a fastecho.Server with default settings, started
    make_server(**config)   starts as many as you like; on_accept=, bind=, threads=, ...
    peer                    a socket connected to `server`
    join(server, ...)       connects a socket that is closed at the end (arguments of connect())
    serve_apart(**config)   a server in a process of its own (served.py)
    serve_shimmed(**config) the same, with the shim before its socket calls
    served                  one of these; its configuration is the (indirect) parameter, if any

Every test, whatever it asks for, ends with a look at the process: descriptors and threads are
those from before. Servers are ended by abort(), unless the test ended them, and their books must
balance: what was accepted has been closed, for exactly one reason.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from peers import connect
from sanitize import LEAKS_OF_PYTHON, NOT_UNDER, chosen, reason_in, watching
from served import Served
from shimmed import build_shim, has_compiler

if TYPE_CHECKING:
    import fastecho

MakeServer = Callable[..., "fastecho.Server"]
Join = Callable[..., socket.socket]
Serve = Callable[..., Served]

settings.register_profile("fuzz")  # `make fuzz` asks for it; test_state_machine.py obeys

SETTLE = 5.0
"""Seconds that descriptors and threads have to go away; they usually need none."""


def place_of(item: pytest.Item) -> str:
    """Return a test's id as the tables of sanitize.py spell it."""
    folder = Path(__file__).resolve().parent
    return f"{item.path.relative_to(folder)}{item.nodeid.partition('.py')[2]}"


def pytest_configure(config: pytest.Config) -> None:
    """Name what `make test-models` leaves out of the conformance suite."""
    config.addinivalue_line("markers", "no_model: its server is none of the I/O models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is no use under what watches this process, if anything does."""
    names = watching()
    for item in items if names else ():
        if reason := reason_in(NOT_UNDER, place_of(item), names):
            item.add_marker(pytest.mark.skip(reason=f"under {','.join(names)}: {reason}"))


@pytest.fixture(autouse=True)
def leaks_of_python(request: pytest.FixtureRequest) -> Iterator[None]:
    """Do not search the processes of some tests for leaks (see sanitize.py)."""
    if not reason_in(LEAKS_OF_PYTHON, place_of(request.node), chosen()):
        yield
        return
    before = os.environ["ASAN_OPTIONS"]
    os.environ["ASAN_OPTIONS"] = f"{before}:detect_leaks=0"
    yield
    os.environ["ASAN_OPTIONS"] = before


def open_descriptors(pid: int | None = None) -> dict[int, str]:
    """Return the descriptors of a process, this one if None, with what each of them is."""
    found, place = {}, f"/proc/{'self' if pid is None else pid}/fd"
    for name in os.listdir(place):
        try:
            found[int(name)] = os.readlink(f"{place}/{name}")
        except FileNotFoundError:
            pass  # the listing's own
    return found


def running_threads() -> dict[int, str]:
    """Return this process's kernel threads by id, with their names."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    return {int(tid): names.get(int(tid), "unknown") for tid in os.listdir("/proc/self/task")}


@pytest.fixture(scope="session", autouse=True)
def first_thread() -> None:
    """Start a thread before any is counted: with the first, ThreadSanitizer starts its own."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


@pytest.fixture(autouse=True)
def nothing_left_behind(first_thread: None) -> Iterator[None]:
    """After the test, descriptors and threads are those from before."""
    descriptors, threads = open_descriptors(), running_threads()
    yield
    deadline = time.monotonic() + SETTLE
    while True:
        fds = {n: what for n, what in open_descriptors().items() if descriptors.get(n) != what}
        tids = {n: what for n, what in running_threads().items() if n not in threads}
        if not fds and not tids:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: descriptors {fds}, threads {tids}")
        time.sleep(0.002)


def check_books(stats: fastecho.Stats) -> None:
    """Hold what must be true of the counters of every server that has ended."""
    assert stats.connections_open == 0
    assert stats.bytes_pending == 0
    assert stats.connections_accepted == stats.connections_closed
    reasons = {name: getattr(stats, name) for name in dir(stats) if name.startswith("ended_by_")}
    assert sum(reasons.values()) == stats.connections_closed, reasons
    assert [worker.connections_open for worker in stats.workers] == [0] * len(stats.workers)


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Start servers; at the end each one is ended, and its books are checked."""
    from fastecho import Server

    servers: list[fastecho.Server] = []

    def make(bind: Any = "127.0.0.1:0", **config: Any) -> fastecho.Server:
        server = Server(bind, **config)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in reversed(servers):
        server.abort()
        assert server.wait(SETTLE), f"{server.address} did not end"
        check_books(server.stats())


@pytest.fixture
def server(make_server: MakeServer) -> fastecho.Server:
    """Return a running server with default settings, on a free port of 127.0.0.1."""
    return make_server()


@pytest.fixture
def join() -> Iterator[Join]:
    """Connect sockets; at the end they are closed."""
    sockets: list[socket.socket] = []

    def open_one(target: Any, **options: Any) -> socket.socket:
        sockets.append(connect(target, **options))
        return sockets[-1]

    yield open_one
    for sock in sockets:
        sock.close()


@pytest.fixture
def peer(server: fastecho.Server, join: Join) -> socket.socket:
    """Return a socket that is connected to `server`."""
    return join(server)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library that stands between a process and its socket calls."""
    if not has_compiler():
        pytest.skip("the shim needs a C compiler")
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def serve_apart() -> Iterator[Serve]:
    """Start servers in processes of their own; at the end each is ended in order."""
    with ExitStack() as stack:

        def serve(**config: Any) -> Served:
            served = Served(**config)
            stack.callback(served.kill)
            stack.callback(lambda: check_books(served.end()))
            return served

        yield serve


@pytest.fixture
def serve_shimmed(serve_apart: Serve, shim: Path) -> Serve:
    """Start servers in processes of their own, with the shim before their socket calls."""
    return lambda **config: serve_apart(shim=shim, **config)


@pytest.fixture
def served(serve_shimmed: Serve, request: pytest.FixtureRequest) -> Served:
    """Return a shimmed server with one worker, or with the configuration that is its parameter."""
    return serve_shimmed(**getattr(request, "param", {}))
