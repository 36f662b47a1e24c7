"""Starting a Server: what is there before, what is there after, what a failure leaves behind."""

from __future__ import annotations

import errno
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Join, MakeServer, open_descriptors
from peers import connect, exchange, is_refused, is_reset, wait_until

from fastecho import Server, StartError
from fastecho.opening import open_sockets

# --- before the start, and the start ---------------------------------------------------------


def test_before_start_there_is_a_server_without_an_address() -> None:
    server = Server(threads=3)
    assert not server.is_serving()
    assert (server.addresses, server.sockets, server.listeners) == ([], (), ())
    assert server.threads == 3
    for read in (lambda: server.address, lambda: server.host, lambda: server.port):
        with pytest.raises(RuntimeError, match="before start"):
            read()
    assert server.stats().connections_accepted == 0
    assert server.stats().workers == ()
    assert server.wait(0) is False


def test_after_start_it_accepts_at_its_address(make_server: MakeServer) -> None:
    server = make_server()
    assert server.is_serving()
    assert server.address == f"127.0.0.1:{server.port}"
    assert server.addresses == [server.address]
    assert server.host == "127.0.0.1"
    assert [sock.getsockname() for sock in server.sockets] == [("127.0.0.1", server.port)]
    with connect(server) as peer:
        assert exchange(peer, b"at once") == b"at once"


def test_start_twice_is_refused_and_the_server_goes_on(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    with pytest.raises(RuntimeError, match="once"):
        server.start()
    assert exchange(join(server), b"still here") == b"still here"


@pytest.mark.parametrize("end", [Server.stop, Server.abort], ids=["stop", "abort"])
def test_a_server_is_used_once(make_server: MakeServer, end: Callable[[Server], object]) -> None:
    server = make_server()
    end(server)
    with pytest.raises(RuntimeError, match="another one"):
        server.start()


@pytest.mark.parametrize("end", [Server.stop, Server.abort], ids=["stop", "abort"])
def test_ending_before_start_ends_it_for_good(end: Callable[[Server], object]) -> None:
    server = Server()
    assert end(server) in (True, None)
    assert end(server) in (True, None)
    assert server.wait(0) is True
    with pytest.raises(RuntimeError, match="another one"):
        server.start()


def test_close_before_start_does_nothing(make_server: MakeServer, join: Join) -> None:
    server = Server()
    server.close()
    server.start()
    try:
        with connect(server) as peer:
            assert exchange(peer, b"x") == b"x"
    finally:
        server.abort()


def test_two_servers_in_one_process_do_not_touch_each_other(
    make_server: MakeServer, join: Join
) -> None:
    one = make_server(frame="line", prefix=b"one ", threads=2)
    two = make_server(frame="line", prefix=b"two ")
    peer_of_one, peer_of_two = join(one), join(two)
    assert exchange(peer_of_one, b"a\n", 6) == b"one a\n"
    assert exchange(peer_of_two, b"a\n", 6) == b"two a\n"
    one.abort()
    assert is_reset(peer_of_one)
    assert exchange(peer_of_two, b"b\n", 6) == b"two b\n"
    assert (one.stats().messages, two.stats().messages) == (1, 2)


# --- a start that fails ----------------------------------------------------------------------


def test_a_port_in_use_fails_and_leaves_nothing_behind(make_server: MakeServer) -> None:
    taken = make_server()
    before = open_descriptors()
    server = Server(["127.0.0.1:0", taken.address])
    with pytest.raises(StartError, match="in use"):
        server.start()
    assert open_descriptors() == before
    assert not server.is_serving()


def test_a_start_that_failed_can_be_tried_again(make_server: MakeServer) -> None:
    taken = make_server()
    server = Server(taken.address)
    with pytest.raises(StartError, match="in use"):
        server.start()
    taken.abort()
    server.start()
    try:
        with connect(server) as peer:
            assert exchange(peer, b"now") == b"now"
    finally:
        server.abort()


def test_a_unix_socket_file_is_removed_when_a_later_address_fails(
    make_server: MakeServer, tmp_path: Path
) -> None:
    taken = make_server()
    with pytest.raises(StartError, match="in use"):
        Server([f"unix:{tmp_path / 's'}", taken.address]).start()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refused", ["fastecho-0", "fastecho-1", "fastecho-2", "fastecho-accept"])
def test_a_thread_that_is_refused_ends_the_others(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptors and threads are gone although the server is still there."""
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    before = open_descriptors()
    threads = threading.active_count()
    server = Server(threads=3, on_accept=lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_or_not)
        with pytest.raises(OSError, match="thread"):
            server.start()
    wait_until(lambda: threading.active_count() == threads, timeout=3, what="the threads' end")
    wait_until(lambda: open_descriptors() == before, timeout=3, what="the descriptors' end")
    assert server.wait(5)
    assert not server.is_serving()
    assert is_refused(server)


@pytest.mark.parametrize("config", [{}, {"threads": 2}, {"on_accept": lambda _: None}])
def test_a_descriptor_that_is_refused_leaves_nothing_behind(config: dict[str, Any]) -> None:
    """Whichever descriptor of the start it is: one more is allowed at each try."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    first = next(n for n in range(hard) if n not in before)
    failures = 0
    for limit in range(first, first + 100):
        server = Server(**config)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            server.start()
        except OSError as error:
            refusal = error.errno
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        failures += 1
        assert refusal == errno.EMFILE
        assert open_descriptors() == before
    # At least a listener, the admissions, and for each worker epoll, mailbox and reserve.
    assert failures >= 5
    server.abort()
    assert server.wait(5)


def test_stop_during_start_leaves_no_server_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start hangs in the resolver while somebody else stops it."""
    resolving, go_on = threading.Event(), threading.Event()

    def resolve_slowly(*arguments: Any) -> Any:
        resolving.set()
        assert go_on.wait(10)
        return open_sockets(*arguments)

    monkeypatch.setattr("fastecho.server.open_sockets", resolve_slowly)
    server = Server()
    with ThreadPoolExecutor(2) as pool:
        started = pool.submit(server.start)
        assert resolving.wait(10)
        stopped = pool.submit(server.stop)
        go_on.set()
        assert stopped.result(10) is True
        try:
            started.result(10)
        except RuntimeError:
            pass  # stopped before it was up: refused
    assert server.wait(5)
    assert not server.is_serving()
