"""Life cycle of a Server inside one process: start, close, stop, abort, wait, context managers.

How connections end in a drain is test_drain.py, signals are test_serve_forever.py, the end of
the process is test_exit.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from conftest import Join, MakeServer
from peers import connect, exchange, is_refused, is_reset, is_turned_away, read_to_eof, wait_until

import fastecho
from fastecho import Server, StartError
from fastecho.opening import open_sockets

BLOCKED_NOT = (
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGPROF,
)


# --- stop and abort --------------------------------------------------------------------------


def test_stop_is_idempotent_and_frees_the_port(make_server: MakeServer) -> None:
    server = make_server()
    assert server.stop() is True
    assert server.stop() is True
    server.abort()
    server.close()
    assert server.wait(0) is True
    assert not server.is_serving()
    assert server.sockets == ()
    assert is_refused(server)
    again = make_server(f"127.0.0.1:{server.port}")
    assert again.port == server.port


def test_an_ended_server_still_tells_where_it_was(make_server: MakeServer) -> None:
    server = make_server()
    address = server.address
    server.stop()
    assert (server.address, server.addresses) == (address, [address])
    assert str(server.listeners[0].address) == address


def test_its_representation_tells_where_and_whether_it_listens(make_server: MakeServer) -> None:
    assert repr(fastecho.Server()) == "<fastecho.Server not started>"
    server = make_server()
    assert repr(server) == f"<fastecho.Server {server.address} listening>"
    server.stop()
    assert repr(server) == f"<fastecho.Server {server.address} ended>"


def test_abort_resets_and_is_idempotent(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    peers = [join(server) for _ in range(50)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    server.abort()
    assert server.wait(0) is True
    server.abort()
    assert all(is_reset(peer) for peer in peers)
    assert server.stats().ended_by_abort == 50


def test_abort_cuts_a_drain_short(make_server: MakeServer, join: Join) -> None:
    server = make_server(drain_idle=30.0)
    peer = join(server)
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(server.stop, 60)
        wait_until(lambda: not server.is_serving(), what="the drain")
        server.abort()
        assert stopped.result(10) is False
    assert is_reset(peer)


def test_a_second_stop_waits_for_the_same_end(make_server: MakeServer, join: Join) -> None:
    """It neither moves the deadline nor makes quiet connections wait anew."""
    server = make_server(drain_idle=30.0)
    peer = join(server)
    begun = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(server.stop, 0.5)]
        wait_until(lambda: not server.is_serving(), what="the drain")
        results += [pool.submit(server.stop, timeout) for timeout in (30, None)]
        assert [result.result(20) for result in results] == [False] * 3
    assert 0.5 <= time.monotonic() - begun < 5
    assert is_reset(peer)


def test_a_second_stop_can_bring_the_deadline_forward(make_server: MakeServer, join: Join) -> None:
    server = make_server(drain_idle=30.0)
    peer = join(server)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.stop, 30)
        wait_until(lambda: not server.is_serving(), what="the drain")
        assert server.stop(0) is False
        assert first.result(5) is False
    assert is_reset(peer)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_a_wrong_timeout_is_refused(make_server: MakeServer, timeout: float) -> None:
    server = make_server()
    with pytest.raises(ValueError, match="timeout"):
        server.stop(timeout)
    with pytest.raises(ValueError, match="timeout"):
        server.wait(timeout)
    assert server.is_serving()


# --- close -----------------------------------------------------------------------------------


def test_close_frees_the_port_and_connections_live_on(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    peers = [join(server) for _ in range(4)]
    for peer in peers:
        assert exchange(peer, b"before") == b"before"
    server.close()
    assert (server.is_serving(), server.sockets) == (False, ())
    assert is_refused(server)
    server.close()
    assert make_server(f"127.0.0.1:{server.port}").port == server.port
    for peer in peers:
        assert exchange(peer, b"after") == b"after"
    assert server.wait(0) is False


def test_close_serves_what_was_in_the_accept_queue(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    peers = [join(server) for _ in range(100)]
    server.close()
    for peer in peers:
        assert exchange(peer, b"x") == b"x"


def test_a_closed_server_ends_with_its_last_connection(make_server: MakeServer, join: Join) -> None:
    """As asyncio's does: nothing can ever come again, and whoever waits goes on."""
    server = make_server(threads=2)
    peers = [join(server) for _ in range(4)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    server.close()
    for peer in peers:
        assert server.wait(0) is False
        peer.close()
    assert server.wait(5) is True
    assert server.stats().ended_by_peer == 4


def test_a_server_that_is_closed_without_connections_ends(make_server: MakeServer) -> None:
    server = make_server(threads=3)
    server.close()
    assert server.wait(5) is True
    assert server.stop() is True


# --- wait ------------------------------------------------------------------------------------


def test_wait_tells_whether_it_has_ended(make_server: MakeServer) -> None:
    server = make_server()
    begun = time.monotonic()
    assert server.wait(0.05) is False
    assert time.monotonic() - begun >= 0.05
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(server.wait, timeout) for timeout in (None, None, 20, 20)]
        server.abort()
        assert [one.result(10) for one in waiting] == [True] * 4


def test_wait_closed_returns_at_the_end(make_server: MakeServer) -> None:
    server = make_server()

    async def main() -> None:
        waiting = [asyncio.create_task(server.wait_closed()) for _ in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=0.05)
        assert not done
        await asyncio.to_thread(server.stop)
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        await asyncio.wait_for(server.wait_closed(), 10)

    asyncio.run(main())


def test_a_coroutine_that_no_longer_waits_does_no_harm(make_server: MakeServer) -> None:
    """One was cancelled; another one's loop is closed by the time the server ends."""
    server = make_server()

    async def cancelled() -> None:
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancelled())
    assert server._ended._calls == []
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(server.wait_closed())
    loop.run_until_complete(asyncio.sleep(0))
    assert len(server._ended._calls) == 1
    wakers = list(server._ended._calls)
    waiting.cancel()
    loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    loop.close()
    server._ended._calls += wakers  # as if the loop had been closed without ending its tasks
    assert server.stop() is True
    assert server.wait(0) is True


def test_a_coroutine_that_is_cancelled_as_the_server_ends_does_no_harm(
    make_server: MakeServer,
) -> None:
    server = make_server()
    told: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        server.abort()  # the loop is told, and stands still meanwhile
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0)

    asyncio.run(main())
    assert told == []


# --- context managers ------------------------------------------------------------------------


def close_at_eof(peer: socket.socket) -> bytes:
    """Read to FIN, close, and return what came before it."""
    with peer:
        return read_to_eof(peer)


def test_leaving_with_drains(join: Join) -> None:
    with Server(drain_idle=0.05) as server:
        peer = join(server)
        assert exchange(peer, b"inside") == b"inside"
        closing = ThreadPoolExecutor(1)
        ended = closing.submit(close_at_eof, peer)
    assert ended.result(10) == b""
    closing.shutdown()
    assert server.wait(0) is True
    assert (server.stats().ended_by_drain, server.stats().ended_by_abort) == (1, 0)


def test_an_exception_inside_with_aborts_and_goes_on(join: Join) -> None:
    with pytest.raises(KeyError, match="mine"), Server(drain_idle=30.0) as server:
        peer = join(server)
        assert exchange(peer, b"inside") == b"inside"
        begun = time.monotonic()
        raise KeyError("mine")
    assert server.wait(0) is True
    assert time.monotonic() - begun < 5
    assert is_reset(peer)


def test_with_that_cannot_start_raises_and_never_enters(make_server: MakeServer) -> None:
    taken = make_server()
    with pytest.raises(StartError), Server(taken.address):
        pytest.fail("entered")


def test_async_with_drains_without_blocking_the_loop() -> None:
    async def main() -> None:
        async with Server(drain_idle=0.1) as server:
            assert server.host is not None
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"inside")
            assert await reader.readexactly(6) == b"inside"

            async def close_at_eof() -> None:
                # Runs while the block is being left: the loop must not stand still there.
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()

            closing = asyncio.create_task(close_at_eof())
        assert server.wait(0) is True
        await asyncio.wait_for(closing, 10)
        assert (server.stats().ended_by_drain, server.stats().linger_timeouts) == (1, 0)

    asyncio.run(main())


def test_an_exception_inside_async_with_aborts() -> None:
    async def main() -> None:
        with pytest.raises(KeyError, match="mine"):
            async with Server(drain_idle=30.0) as server:
                assert server.host is not None
                reader, writer = await asyncio.open_connection(server.host, server.port)
                raise KeyError("mine")
        assert server.wait(0) is True
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("name", ["stop", "abort"])
def test_ctrl_c_while_with_is_left_ends_it_all_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has it any more who could stop it."""
    end = getattr(Server, name)

    def interrupted(server: Server) -> None:
        monkeypatch.setattr(Server, name, end)
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, name, interrupted)
    with pytest.raises(KeyboardInterrupt), Server() as server:
        if name == "abort":
            raise KeyError
    assert server.wait(0) is True


def test_a_task_that_is_cancelled_while_it_starts_a_server_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As asyncio does with Ctrl-C. The start goes on in its thread, and nobody will stop it."""
    opening, go_on = threading.Event(), threading.Event()

    def open_slowly(*arguments: Any) -> Any:
        opening.set()
        assert go_on.wait(10)
        return open_sockets(*arguments)

    async def serve() -> None:
        async with server:
            pytest.fail("entered")

    async def main() -> None:
        serving = asyncio.create_task(serve())
        await asyncio.to_thread(opening.wait)
        serving.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await serving

    monkeypatch.setattr("fastecho.server.open_sockets", open_slowly)
    server = Server()
    asyncio.run(main())
    assert server.wait(5) is True


def test_a_task_that_is_cancelled_while_it_leaves_a_server_does_not_wait(join: Join) -> None:
    """What is left is reset."""

    async def serve() -> None:
        async with server:
            peers.append(join(server))
            assert await asyncio.to_thread(exchange, peers[0], b"x") == b"x"

    async def main() -> None:
        serving = asyncio.create_task(serve())
        while not server.listeners or server.is_serving():
            await asyncio.sleep(0.001)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    peers: list[socket.socket] = []
    server = Server(drain_idle=30.0, graceful_timeout=30.0)
    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < 10
    assert server.wait(0) is True
    assert is_reset(peers[0])


# --- from the accept callback ----------------------------------------------------------------


@pytest.mark.parametrize("end", [Server.stop, Server.abort], ids=["stop", "abort"])
def test_ending_in_the_accept_callback_only_signals(
    make_server: MakeServer, join: Join, end: Callable[[Server], object]
) -> None:
    results: SimpleQueue[object] = SimpleQueue()

    def on_accept(peer: fastecho.Peer) -> bool:
        results.put(end(server))
        return False

    server: Server = make_server(on_accept=on_accept, threads=2, drain_idle=0.05)
    assert is_turned_away(server)
    assert results.get(timeout=10) in (False, None)
    assert server.wait(10) is True
    assert is_refused(server)


def test_close_in_the_accept_callback_closes(make_server: MakeServer, join: Join) -> None:
    server: Server = make_server(on_accept=lambda _: server.close())
    peer = join(server)
    assert exchange(peer, b"accepted") == b"accepted"
    assert not server.is_serving()
    assert is_refused(server)
    assert exchange(peer, b"and served") == b"and served"


def test_wait_in_the_accept_callback_raises(make_server: MakeServer, join: Join) -> None:
    raised: SimpleQueue[BaseException] = SimpleQueue()

    def on_accept(peer: fastecho.Peer) -> None:
        try:
            server.wait()
        except RuntimeError as error:
            raised.put(error)

    server: Server = make_server(on_accept=on_accept)
    peer = join(server)
    assert exchange(peer, b"x") == b"x"
    assert "wait for itself" in str(raised.get(timeout=10))


# --- threads ---------------------------------------------------------------------------------


def test_threads_are_daemons_with_names(make_server: MakeServer) -> None:
    before = set(threading.enumerate())
    make_server(threads=2, on_accept=lambda _: None)
    made = set(threading.enumerate()) - before
    assert {thread.name for thread in made} == {
        "fastecho-0",
        "fastecho-1",
        "fastecho-accept",
        "fastecho-log",
    }
    assert all(thread.daemon for thread in made)


def blocked(tid: int | None) -> set[int]:
    """Return the numbers of the signals that a thread blocks, by its number in the kernel."""
    status = Path(f"/proc/self/task/{tid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")]
    # The C library keeps 32 and 33 for itself.
    return {n for n in range(1, 65) if int(mask, 16) >> (n - 1) & 1} - {32, 33}


def await_masks(threads: set[threading.Thread]) -> None:
    """Wait until these threads block what they are to block."""
    wanted = {int(n) for n in signal.valid_signals()}
    wanted -= {*BLOCKED_NOT, signal.SIGKILL, signal.SIGSTOP}

    def is_masked(thread: threading.Thread) -> bool:
        return blocked(thread.native_id) == wanted

    for thread in threads:
        wait_until(partial(is_masked, thread), what=f"{thread.name}'s mask")


def test_threads_block_all_signals_but_their_own_faults(make_server: MakeServer) -> None:
    before = set(threading.enumerate())
    make_server(threads=2, on_accept=lambda _: None)
    await_masks(set(threading.enumerate()) - before)


def test_a_signal_is_left_for_the_main_thread(make_server: MakeServer, join: Join) -> None:
    """The main thread blocks it and fetches it later: if a worker took it, nothing is left."""

    def others_block_it() -> bool:
        """None of the process' threads would take it; of those that are about to end, too."""
        others = set(map(int, os.listdir("/proc/self/task"))) - {threading.get_native_id()}
        try:
            return all(signal.SIGUSR1 in blocked(tid) for tid in others)
        except (FileNotFoundError, ProcessLookupError):
            return False

    server = make_server(threads=2, on_accept=lambda _: None)
    assert exchange(join(server), b"x") == b"x"
    wait_until(others_block_it)
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert exchange(join(server), b"x") == b"x"
        assert signal.sigtimedwait({signal.SIGUSR1}, 5) is not None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_start_and_end_leave_signal_handlers_alone(make_server: MakeServer) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    server = make_server()
    assert [signal.getsignal(number) for number in numbers] == before
    server.stop()
    assert [signal.getsignal(number) for number in numbers] == before


def test_many_servers_one_after_the_other(make_server: MakeServer) -> None:
    """Each is gone when stop() returns: its port can be taken by the next one."""
    port = 0
    for _ in range(30):
        server = make_server(("127.0.0.1", port), threads=2)
        port = port or server.port or 0
        assert server.port == port
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
        assert server.stop(10) is True
