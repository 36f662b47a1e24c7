"""The pytest plugin: its fixtures, used here as anybody uses them, and whole sessions of pytest.

What concerns a whole session (an error at the end of a test, other plugins, what is imported) runs
in a process of its own, by `pytester`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Join, open_descriptors
from peers import (
    DEADLINE,
    connect,
    exchange,
    has_ipv6,
    is_reset,
    is_turned_away,
    read_to_eof,
    recv_exactly,
    wait_until,
)

import fastecho
from fastecho import Connection
from fastecho.refused import RefusedAddress
from fastecho.testing import EchoServer

pytest_plugins = ["pytester"]

MakeEchoServer = Callable[..., EchoServer]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run_pytest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Run the tests in a text in a pytest of its own, with this package."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))

    def run(text: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=50)

    return run


# --- what the fixtures give -------------------------------------------------------------------


def test_echo_server_echoes_and_keeps_what_came(echo_server: EchoServer, join: Join) -> None:
    assert echo_server.address == f"{echo_server.host}:{echo_server.port}"
    assert echo_server.url == f"tcp://127.0.0.1:{echo_server.port}"
    first, second = join(echo_server), join(echo_server)
    assert exchange(second, b"two") == b"two"
    assert exchange(first, b"one") == b"one"
    assert echo_server.received == b"twoone"
    assert exchange(first, b"three") == b"three"
    assert echo_server.received == b"twoonethree"
    assert echo_server.received_by == {1: b"onethree", 2: b"two"}
    assert list(echo_server.received_by) == [1, 2]
    assert echo_server.stats().bytes_in == 11
    first.shutdown(socket.SHUT_WR)
    assert read_to_eof(first) == b""
    echo_server.wait_for(connections=2, bytes=11, closed=1)


def test_every_method_of_a_server_is_there(echo_server: EchoServer) -> None:
    echo_server.set_limits(max_connections=1)
    assert isinstance(echo_server, fastecho.Server)
    assert echo_server.is_serving()
    echo_server.close()
    assert not echo_server.is_serving()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_make_echo_server_takes_addresses_and_settings(
    make_echo_server: MakeEchoServer, join: Join, tmp_path: Path
) -> None:
    ipv6 = make_echo_server("[::1]:0", frame="length")
    assert ipv6.url == f"tcp://[::1]:{ipv6.port}"
    assert exchange(join(ipv6), b"\0\0\0\2hi") == b"\0\0\0\2hi"
    assert ipv6.received == b"hi"
    unix = make_echo_server(f"unix:{tmp_path}/s", frame="line", suffix=b"!", prefix=b"> ")
    assert unix.url == f"unix://{tmp_path}/s"
    assert exchange(join(unix), b"hi\n", 6) == b"> hi!\n"
    for name in ("host", "port"):
        with pytest.raises(RuntimeError, match=name):
            getattr(unix, name)
    with pytest.raises(RuntimeError, match="nothing is captured"):
        _ = unix.received
    unix.wait_for(bytes=3)


def test_callbacks_of_the_test_are_captured_as_well(
    make_echo_server: MakeEchoServer, join: Join
) -> None:
    def answer(connection: Connection, data: memoryview) -> bytes:
        return bytes(data).upper()

    server = make_echo_server(on_message=answer, memoryviews=True, on_accept=lambda peer: None)
    assert exchange(join(server), b"abc") == b"ABC"
    assert server.received == b"abc"


def test_nothing_is_captured_on_demand_and_then_no_callback_runs(
    make_echo_server: MakeEchoServer, join: Join
) -> None:
    server = make_echo_server(capture=0)
    assert exchange(join(server), b"abc") == b"abc"
    server.wait_for(connections=1, bytes=3)
    with pytest.raises(RuntimeError, match="nothing is captured with capture=0"):
        _ = server.received
    assert server.take_error() is None


def test_a_capture_that_is_full_says_so(make_echo_server: MakeEchoServer, join: Join) -> None:
    server = make_echo_server(capture=4)
    peer = join(server)
    assert exchange(peer, b"abcd") == b"abcd"
    assert server.received == b"abcd"
    assert exchange(peer, b"ef") == b"ef"
    server.wait_for(bytes=6)
    with pytest.raises(AssertionError, match="peers sent 6 bytes, more than capture=4 keeps"):
        _ = server.received


def test_wait_for_ends_when_it_has_happened_and_tells_how_far_it_came(
    echo_server: EchoServer, join: Join
) -> None:
    waiting = threading.Thread(target=echo_server.wait_for, kwargs={"connections": 1, "bytes": 2})
    waiting.start()
    peer = join(echo_server)
    assert exchange(peer, b"ab") == b"ab"
    waiting.join()
    with pytest.raises(AssertionError, match=r"saw 1 of 2 connections, 2 of 3 bytes within 0.01 s"):
        echo_server.wait_for(connections=2, bytes=3, timeout=0.01)


def test_a_failed_callback_fails_on_leaving_and_can_be_taken(join: Join) -> None:
    def answer(connection: Connection, data: bytes) -> bytes:
        raise ValueError(data)

    def try_it(server: EchoServer) -> None:
        with join(server) as peer:
            peer.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                recv_exactly(peer, 1)

    fails = pytest.raises(AssertionError, match=r"a callback of .* raised ValueError\(b'x'\)")
    with fails as told, EchoServer(on_message=answer) as server:
        try_it(server)
        try_it(server)
    assert isinstance(told.value.__cause__, ValueError)
    with EchoServer(on_message=answer) as server:
        try_it(server)
        assert isinstance(server.take_error(), ValueError)
    # What the test itself raises is not covered up.
    with pytest.raises(KeyError), EchoServer(on_message=answer) as server:
        try_it(server)
        raise KeyError


def test_a_failed_accept_callback_fails_as_well() -> None:
    fails = pytest.raises(AssertionError, match="ZeroDivisionError")
    with fails, EchoServer(on_accept=lambda peer: 1 / 0) as server:
        assert is_turned_away(server)


def test_what_is_no_callback_is_refused_as_by_a_server() -> None:
    with pytest.raises(TypeError, match="on_message must be callable, not int"):
        EchoServer(on_message=7)
    with pytest.raises(TypeError, match="on_accept must be callable, not int"):
        EchoServer(on_accept=7)
    with pytest.raises(TypeError, match=r"on_message must take \(connection, data\)"):
        EchoServer(on_message=lambda data: data)
    with pytest.raises(TypeError, match=r"on_accept must take \(peer\)"):
        EchoServer(on_accept=lambda: True)
    unfinished = EchoServer.__new__(EchoServer)  # as a debugger shows one whose arguments are wrong
    assert repr(unfinished) == "<fastecho.Server not made>"


def test_a_callback_that_asks_for_the_end_fails_the_test(join: Join) -> None:
    def leave(*_: object) -> None:
        raise SystemExit(3)

    fails = pytest.raises(AssertionError, match=r"a callback of .* raised SystemExit\(3\)")
    with fails, EchoServer(on_message=leave) as server, join(server) as peer:
        peer.sendall(b"x")
        assert server.wait(5)


class FalsyError(Exception):
    """An exception that is false, as one that counts its errors may be."""

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("name", ["on_message", "on_accept"])
def test_the_first_exception_counts_even_one_that_is_false(join: Join, name: str) -> None:
    errors = iter([FalsyError("first"), ValueError("second")])

    def fail(*_: object) -> None:
        raise next(errors)

    callbacks: dict[str, Any] = {name: fail}
    with EchoServer(**callbacks) as server:
        for _ in range(2):
            with connect(server) as peer:
                if name == "on_message":
                    peer.send(b"x")
                assert is_reset(peer)
        assert isinstance(server.take_error(), FalsyError)
        assert server.take_error() is None


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return what callbacks wait for that must not return in time; short times to end in."""
    monkeypatch.setattr("fastecho.server.CLOSE_WAIT", 0.1)
    monkeypatch.setattr("fastecho.testing.END_WAIT", 0.1)
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("name", ["on_message", "on_accept", "on_close"])
def test_a_callback_that_does_not_return_fails_the_test(
    release: threading.Event, name: str
) -> None:
    called = threading.Event()

    def hang(*_: object) -> None:
        called.set()
        release.wait(DEADLINE)

    callbacks: dict[str, Any] = {name: hang}
    fails = pytest.raises(AssertionError, match=r"does not end: a callback has not returned$")
    with fails, EchoServer(capture=0, **callbacks) as server, connect(server) as peer:
        peer.send(b"x")
        peer.shutdown(socket.SHUT_WR)
        assert called.wait(DEADLINE)
    release.set()
    assert server.wait(DEADLINE)


def test_a_callback_that_does_not_return_hides_no_exception(release: threading.Event) -> None:
    called = threading.Event()

    def hang(*_: object) -> None:
        called.set()
        release.wait(DEADLINE)

    text = r"does not end: a callback has not returned; a callback of .* raised ZeroDivisionError"
    with (
        pytest.raises(AssertionError, match=text) as told,
        EchoServer(on_accept=hang, on_message=lambda *_: 1 / 0) as server,
    ):
        release.set()
        with connect(server) as peer:
            peer.send(b"x")
            assert is_reset(peer)
        release.clear()
        called.clear()
        with connect(server):
            assert called.wait(DEADLINE)
    assert isinstance(told.value.__cause__, ZeroDivisionError)


def test_the_end_waits_for_an_accept_callback_that_is_under_way() -> None:
    called = threading.Event()

    def fail_late(_: fastecho.Peer) -> None:
        called.set()
        wait_until(lambda: not server.is_serving())
        time.sleep(0.3)  # longer than a server waits for it
        raise ValueError("late")

    fails = pytest.raises(AssertionError, match="raised ValueError")
    with fails, EchoServer(on_accept=fail_late) as server, connect(server):
        assert called.wait(DEADLINE)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_that_leaves_the_block_ends_nothing(
    echo_server: EchoServer, join: Join
) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            echo_server.__exit__(None)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert exchange(join(echo_server), b"x") == b"x"


@pytest.mark.parametrize("capture", [-1, True, 1.5, "x", None])
def test_what_is_no_number_of_bytes_is_refused(capture: object) -> None:
    with pytest.raises(
        fastecho.ConfigError, match=f"^capture '?{capture}'? must be a whole number"
    ):
        EchoServer(capture=capture)  # type: ignore[arg-type]


@pytest.mark.parametrize("frame", ["line", "length"])
def test_bytes_that_were_waited_for_are_in_received(
    make_echo_server: MakeEchoServer, join: Join, frame: str
) -> None:
    called, go_on = threading.Event(), threading.Event()

    def slow_to_answer(_: Connection, data: bytes) -> bytes:
        called.set()
        assert go_on.wait(DEADLINE)
        return data

    server = make_echo_server(frame=frame, on_message=slow_to_answer)
    one = b"slow\n" if frame == "line" else b"\0\0\0\5slow\n"
    peer = join(server)
    try:
        peer.sendall(one + one)
        assert called.wait(DEADLINE)
        with pytest.raises(AssertionError, match="saw 5 of 10 bytes"):
            server.wait_for(bytes=10, timeout=0.05)
    finally:
        go_on.set()
    server.wait_for(bytes=10)
    assert server.received == b"slow\nslow\n"


@pytest.mark.parametrize("settings", [{}, {"capture": 0}])
def test_on_close_of_those_that_closed_has_returned(
    make_echo_server: MakeEchoServer, join: Join, settings: dict[str, int]
) -> None:
    ends: list[int] = []
    go_on = threading.Event()

    def slow_to_end(connection: Connection, _: fastecho.Reason) -> None:
        time.sleep(0.03)
        if connection.id == 3:
            assert go_on.wait(DEADLINE)
        ends.append(connection.id)

    server = make_echo_server(on_close=slow_to_end, **settings)
    for number in (1, 2):
        join(server).close()
        server.wait_for(closed=number)
        assert len(ends) == number
    join(server).close()
    try:
        with pytest.raises(
            AssertionError, match="saw 3 of 3 closed, but on_close has not returned"
        ):
            server.wait_for(closed=3, timeout=0.1)
    finally:
        go_on.set()
    server.wait_for(closed=3)
    assert ends == [1, 2, 3]
    server.abort()
    server.wait_for(closed=3)


def test_a_fault_that_duplicates_needs_a_server_that_does_not_capture(
    make_echo_server: MakeEchoServer, join: Join
) -> None:
    with pytest.raises(fastecho.ConfigError, match="captures nothing: capture=0"):
        make_echo_server(frame="line").set_fault("duplicate=1")
    server = make_echo_server(frame="line", capture=0)
    server.set_fault("duplicate=1")
    peer = join(server)
    peer.sendall(b"x\n")
    assert recv_exactly(peer, 4) == b"x\nx\n"


def test_a_fault_may_be_set_at_any_time_and_what_came_is_captured(
    make_echo_server: MakeEchoServer, join: Join
) -> None:
    server = make_echo_server(frame="line")
    assert exchange(join(server), b"first\n") == b"first\n"
    with pytest.raises(fastecho.ConfigError, match="nonsense"):
        server.set_fault("nonsense")
    server.set_fault("silent,fail_first=2")
    lost = join(server)
    lost.sendall(b"lost\n")
    server.wait_for(bytes=11)
    server.set_fault(None)
    assert exchange(join(server), b"found\n") == b"found\n"
    assert server.received_by == {1: b"first\n", 2: b"lost\n", 3: b"found\n"}


def test_a_wrong_answer_of_an_accept_callback_fails_the_test(
    make_echo_server: MakeEchoServer,
) -> None:
    server = make_echo_server(on_accept=lambda peer: "deny")
    assert is_turned_away(server)
    assert "not 'deny'" in str(server.take_error())


def test_waiting_for_nothing_is_a_mistake(make_echo_server: MakeEchoServer) -> None:
    with pytest.raises(TypeError, match="needs connections, bytes or closed"):
        make_echo_server().wait_for()


def test_faults_of_a_configuration_and_of_an_accept_callback(
    make_echo_server: MakeEchoServer, join: Join
) -> None:
    assert read_to_eof(join(make_echo_server(fault="close_after=0"))) == b""
    server = make_echo_server(on_accept=lambda peer: fastecho.Fault(close_after=2))
    peer = join(server)
    peer.sendall(b"abc")
    assert read_to_eof(peer) == b"ab"
    assert server.received == b"abc"
    server = make_echo_server(frame="line", fault="duplicate=1")
    assert exchange(join(server), b"x\n", 4) == b"x\nx\n"
    with pytest.raises(RuntimeError, match="nothing is captured"):
        _ = server.received


def test_black_hole_and_refused_address(
    black_hole: fastecho.black_hole, refused_address: RefusedAddress
) -> None:
    with pytest.raises(TimeoutError):
        socket.create_connection((black_hole.host, black_hole.port), timeout=0.02)
    assert str(refused_address) == f"{refused_address.host}:{refused_address.port}"
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((refused_address.host, refused_address.port))
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        other.bind((refused_address.host, refused_address.port))


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_refused_address_of_ipv6() -> None:
    with RefusedAddress("::1") as refused:
        assert refused.address == f"[::1]:{refused.port}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((refused.host, refused.port))


@pytest.mark.parametrize(
    "host", ["localhost", "a" * 300, "127.0.0.1\0", "\udc80", "", None, b"::1"]
)
def test_a_refused_address_is_numeric(host: Any) -> None:
    with pytest.raises(
        fastecho.ConfigError, match=r"^host .* must be a numeric IPv4 or IPv6 address"
    ):
        RefusedAddress(host)


def test_a_refused_address_of_another_machine_leaves_nothing_open() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="Cannot assign requested address") as failed:
        RefusedAddress("192.0.2.1")
    assert open_descriptors() == before, failed  # which keeps what its frames hold


def test_an_event_loop_waits_in_a_thread(echo_server: EchoServer) -> None:
    async def main() -> None:
        reader, writer = await asyncio.open_connection(echo_server.host, echo_server.port)
        writer.write(b"hello")
        await asyncio.to_thread(echo_server.wait_for, bytes=5)
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())


def test_start_and_end_take_at_most_two_milliseconds() -> None:
    def once() -> float:
        began = time.perf_counter()
        with EchoServer():
            pass
        return time.perf_counter() - began

    # One of many: a neighbour on the same core can only add to it.
    assert any(once() <= 0.002 for _ in range(200))


# --- sessions ---------------------------------------------------------------------------------


def test_a_session_that_uses_no_fixture_imports_next_to_nothing(
    run_pytest: Callable[..., pytest.RunResult],
) -> None:
    result = run_pytest("""
        import sys

        def test_loaded():
            ours = {name for name in sys.modules if name.startswith("fastecho")}
            assert ours == {"fastecho", "fastecho._version", "fastecho.pytest_plugin"}
        """)
    result.assert_outcomes(passed=1)


def test_a_callback_that_raised_is_an_error_of_its_test(
    run_pytest: Callable[..., pytest.RunResult],
) -> None:
    result = run_pytest("""
        import socket

        def answer(connection, data):
            raise ValueError("from the callback")

        def test_bad(make_echo_server):
            server = make_echo_server(on_message=answer)
            with socket.create_connection((server.host, server.port)) as sock:
                sock.sendall(b"x")
                server.wait_for(closed=1)

        def test_good(echo_server, black_hole, refused_address):
            with socket.create_connection((echo_server.host, echo_server.port)) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
        """)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines([
        "*ValueError: from the callback", "*AssertionError: a callback of * raised ValueError*"
    ])  # fmt: skip


def test_workers_of_xdist_and_coroutines_of_pytest_asyncio(
    run_pytest: Callable[..., pytest.RunResult],
) -> None:
    pytest.importorskip("xdist")
    pytest.importorskip("pytest_asyncio")
    result = run_pytest(
        """
        import asyncio
        import pytest

        @pytest.mark.parametrize("turn", range(6))
        @pytest.mark.asyncio
        async def test_stream(echo_server, turn):
            reader, writer = await asyncio.open_connection(echo_server.host, echo_server.port)
            writer.write(b"x" * turn + b".")
            assert await reader.readexactly(turn + 1) == b"x" * turn + b"."
            assert echo_server.received == b"x" * turn + b"."
            writer.close()
            await writer.wait_closed()
        """,
        *("-n", "2", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"),
    )
    result.assert_outcomes(passed=6)
