"""Handover: a running server's listeners go to the next one, and nobody who connects notices.

Here two servers of one process hand over to each other, or a test plays one side of the talk and
leaves it at each step. (Two commands, with signals and files: test_handover_cli.py.)
"""

from __future__ import annotations

import os
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeServer
from peers import connect, exchange, read_to_eof, wait_until

import fastecho
from benchmarks._storm import Storm
from fastecho.address import Address
from fastecho.errors import StartError
from fastecho.handover import give, take
from fastecho.handover.part import Handover
from fastecho.handover.wire import PROTOCOL, Channel, GoneError

SECONDS = 10.0


class Line:
    """Servers in a row, each of which takes over from the one before, at `path`."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._address = Address("unix", path=str(path))
        self._stack = stack

    def start(self, bind: Any = "127.0.0.1:0", **config: Any) -> fastecho.Server:
        """Start the next one; it serves, and the one before has left."""
        handover = Handover(self._address, ())
        self._stack.callback(handover.close)
        server = fastecho.Server(bind, **config)
        server._offers = handover.echo
        self._stack.callback(server.abort)
        server.start()
        handover.complete(server, None)
        return server

    def call(self) -> Channel:
        """Return the talk of a successor that has said nothing yet."""
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(str(self.path))
        channel = Channel(sock)
        self._stack.callback(channel.close)
        return channel


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a row without a server."""
    with ExitStack() as stack:
        yield Line(tmp_path / "handover", stack)


def has_begun(storm: Storm, count: int) -> bool:
    """Tell whether a storm has begun so many connections."""
    return storm.begun >= count


def say_hello(channel: Channel) -> dict[str, Any]:
    """Say hello, return the answer."""
    channel.send(SECONDS, protocol=PROTOCOL, version="", process=os.getpid())
    return channel.receive(SECONDS)


def take_all(channel: Channel) -> list[dict[str, Any]]:
    """Say hello, take everything, close it; return what was said of it."""
    count = say_hello(channel)["listeners"]
    said = [channel.receive(SECONDS) for _ in range(count)]
    for _ in said:
        os.close(channel.take_descriptor())
    return said


# --- a whole handover ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix", "reuse_port"])
def test_storm_notices_nothing(kind: str, line: Line, tmp_path: Path) -> None:
    bind = f"unix:{tmp_path}/echo" if kind == "unix" else "127.0.0.1:0"
    more = {"reuse_port": True} if kind == "reuse_port" else {}
    server = line.start(bind, threads=2, **more)
    with Storm(server.address) as storm:
        for threads in (3, 2, 2, 1):  # of copies of a port, none may be left without a worker
            before, begun = server, storm.begun
            wait_until(partial(has_begun, storm, begun + 100), what="the storm")
            server = line.start(bind, threads=threads, **more)
            assert server.address == before.address
            assert not before.is_serving()
            assert before.wait(SECONDS)
            assert before.stats().ended_by_abort == 0
        wait_until(lambda: server.stats().connections_accepted > 50, what="the last one's share")
    assert storm.harmed == 0, storm.seen
    assert storm.seen["echoed"] == storm.begun
    assert server.stop(SECONDS)
    assert not list(tmp_path.glob("echo"))


def test_who_is_connected_stays_with_the_server_before(line: Line) -> None:
    before = line.start(drain_idle=60)
    with connect(before.address) as peer:
        assert exchange(peer, b"one") == b"one"
        after = line.start()
        assert exchange(peer, b"two") == b"two"
        assert (before.stats().connections_open, after.stats().connections_open) == (1, 0)
        with connect(after.address) as newcomer:
            assert exchange(newcomer, b"new") == b"new"
            assert after.stats().connections_open == 1
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert before.wait(SECONDS)


def test_what_was_taken_is_owned(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "echo"
    before = line.start(["127.0.0.1:0", f"unix:{path}"], backlog=5)
    after = line.start(["127.0.0.1:0", f"unix:{path}"], backlog=7, keepalive=30)
    assert before.wait(SECONDS)
    assert path.is_socket()
    assert [one.owned for one in after.listeners] == [True, True]
    assert [one.backlog_effective for one in after.listeners] == [7, 7]
    tcp = after.listeners[0].socket
    assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert after.stop(SECONDS)
    assert not path.exists()


def test_one_that_took_over_is_drained_as_any_other(line: Line) -> None:
    line.start(threads=2)
    server = line.start(threads=2)
    with Storm(server.address) as storm:
        wait_until(lambda: storm.begun > 200, what="the storm")
        assert server.stop(SECONDS)
        wait_until(lambda: storm.seen["refused"] > 0, what="the end")
    assert storm.seen["reset"] == storm.seen["lost"] == 0, storm.seen


def test_what_is_not_wanted_any_more_is_drained_and_closed(line: Line) -> None:
    before = line.start(["127.0.0.1:0", "127.0.0.2:0"])
    stays, goes = before.addresses
    after = line.start([stays, "127.0.0.3:0"])
    assert before.wait(SECONDS)
    assert after.addresses[0] == stays
    for address in after.addresses:
        with connect(address) as peer:
            assert exchange(peer, b"x") == b"x"
    with pytest.raises(ConnectionRefusedError):
        connect(goes)


def test_an_address_is_found_by_what_it_is_bound_to(line: Line) -> None:
    before = line.start("localhost:0")
    addresses = before.addresses
    after = line.start([str(one) for one in addresses])
    assert before.wait(SECONDS)
    assert after.addresses == addresses
    assert [one.owned for one in after.listeners] == [True] * len(addresses)


def test_two_of_port_0_keep_their_ports(line: Line) -> None:
    before = line.start(["127.0.0.1:0", "127.0.0.1:0"])
    after = line.start(["127.0.0.1:0", "127.0.0.1:0"])
    assert after.addresses == before.addresses


def test_file_that_leads_elsewhere_is_not_taken(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "echo"
    before = line.start(f"unix:{path}")
    path.unlink()
    line.start(f"unix:{path}")
    assert before.wait(SECONDS)
    with connect(f"unix:{path}") as peer:
        assert exchange(peer, b"x") == b"x"


def test_an_inherited_socket_stays_somebody_elses(line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as parent:
        address = f"127.0.0.1:{parent.getsockname()[1]}"
        line.start(f"fd://{parent.fileno()}")
        after = line.start(address)
        assert after.addresses == [address]
        assert not after.listeners[0].owned
        assert after.stop(SECONDS)
        parent.settimeout(SECONDS)
        with connect(address):  # it was not shut down
            parent.accept()[0].close()


class Datagrams:
    """Peers that send datagrams one after the other, each when its reply has come or is lost."""

    def __init__(self, address: str, peers: int = 8) -> None:
        host, _, port = address.removeprefix("udp://").rpartition(":")
        self._peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(peers)]
        for peer in self._peers:
            peer.connect((host, int(port)))
            peer.settimeout(2)
        self.sent = self.lost = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            for peer in self._peers:
                peer.send(data := self.sent.to_bytes(8, "big"))
                self.sent += 1
                try:
                    self.lost += peer.recv(100) != data
                except OSError:
                    self.lost += 1

    def have_been_sent(self, count: int) -> bool:
        """Tell whether it were so many."""
        return self.sent >= count

    def __enter__(self) -> Datagrams:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for peer in self._peers:
            peer.close()


def test_datagrams_notice_nothing(line: Line) -> None:
    server = line.start("udp://127.0.0.1:0", threads=2)
    with Datagrams(server.address) as datagrams:
        for threads in (3, 1, 1, 2):
            sent = datagrams.sent
            wait_until(partial(datagrams.have_been_sent, sent + 50), what="datagrams")
            before, server = server, line.start("udp://127.0.0.1:0", threads=threads)
            assert server.address == before.address
            assert before.wait(SECONDS)
        wait_until(lambda: server.stats().datagrams_in > 50, what="the last one's share")
    assert datagrams.lost == 0
    assert all(one.owned for one in server.datagram_sockets)


def test_a_receive_buffer_that_nobody_mentions_stays(line: Line) -> None:
    size = 6 * 1024 * 1024
    before = line.start("udp://127.0.0.1:0", receive_buffer=size)
    (first,) = before.datagram_sockets
    in_force = first.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert first.receive_buffer == in_force
    after = line.start("udp://127.0.0.1:0")
    assert [one.receive_buffer for one in after.datagram_sockets] == [in_force]


def test_both_datagrams_and_connections_go_along(line: Line) -> None:
    binds = ["udp://127.0.0.1:0", "127.0.0.1:0", "udp://[::1]:0"]
    before = line.start(binds)
    after = line.start(binds)
    assert before.wait(SECONDS)
    assert after.addresses == before.addresses


# --- a successor that fails ----------------------------------------------------------------


def leave_at_once(channel: Channel) -> None:
    """Say nothing."""


def leave_after_hello(channel: Channel) -> None:
    """Be killed before anything has come."""
    channel.send(SECONDS, protocol=PROTOCOL, version="", process=1)


def leave_with_descriptors(channel: Channel) -> None:
    """Be killed while starting."""
    take_all(channel)


def talk_nonsense(channel: Channel) -> None:
    """Be something else."""
    channel._sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(GoneError):
        channel.receive(SECONDS)


def nest(channel: Channel) -> None:
    """Send JSON that no parser likes."""
    channel._sock.sendall(b"[" * 60000 + b"\n")
    with pytest.raises(GoneError):
        channel.receive(SECONDS)


def want_what_is_not_there(channel: Channel) -> None:
    """Take a number too high."""
    take_all(channel)
    channel.send(SECONDS, serving=[99])
    with pytest.raises(GoneError):
        channel.receive(SECONDS)


def be_of_another_age(channel: Channel) -> None:
    """Speak another protocol."""
    channel.send(SECONDS, protocol=PROTOCOL + 1)
    assert channel.receive(SECONDS)["refused"].startswith("it speaks protocol 1 of handovers")


@pytest.mark.parametrize(
    "fail",
    [
        leave_at_once, leave_after_hello, leave_with_descriptors, talk_nonsense, nest,
        want_what_is_not_there, be_of_another_age,
    ],
)  # fmt: skip
def test_one_that_fails_changes_nothing(fail: Any, line: Line, tmp_path: Path) -> None:
    server = line.start(["127.0.0.1:0", f"unix:{tmp_path}/echo"])
    with Storm(server.address) as storm, Storm(server.addresses[1]) as other:
        wait_until(lambda: storm.begun > 50, what="the storm")
        for _ in range(3):
            channel = line.call()
            fail(channel)
            channel.close()
        wait_until(lambda: storm.begun > 200, what="the storm")
    assert storm.harmed == other.harmed == 0
    assert server.is_serving()
    after = line.start(["127.0.0.1:0", f"unix:{tmp_path}/echo"])  # and the next one may come
    assert after.addresses == server.addresses
    assert server.wait(SECONDS)


def test_one_that_is_killed_as_it_serves_changes_nothing(line: Line) -> None:
    server = line.start()
    first, second = line.call(), line.call()
    take_all(first)  # the server talks to this one: what the other says is all there when it comes
    second.send(SECONDS, protocol=PROTOCOL)
    second.send(SECONDS, serving=[0, 1])
    second._sock.shutdown(socket.SHUT_WR)
    first.close()
    assert second.receive(SECONDS)["listeners"] == 2
    with pytest.raises(GoneError):
        [second.receive(SECONDS) for _ in range(3)]
    with connect(server.address) as peer:
        assert exchange(peer, b"x") == b"x"
    assert line.start().address == server.address


def test_one_that_does_not_get_ready_is_refused(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(give, "START_SECONDS", 0.05)
    server = line.start()
    channel = line.call()
    take_all(channel)
    assert channel.receive(SECONDS) == {"refused": "it was not ready within 0.05 s"}
    assert server.is_serving()


def test_the_second_of_two_at_once_waits_for_the_first(line: Line) -> None:
    server = line.start()
    first = line.call()
    take_all(first)
    done: list[fastecho.Server] = []
    second = threading.Thread(target=lambda: done.append(line.start()))
    second.start()
    first.close()
    second.join(SECONDS)
    assert done[0].address == server.address
    assert server.wait(SECONDS)


def test_a_newcomer_that_woke_who_has_gone_is_served(make_server: MakeServer) -> None:
    """The kernel wakes one of two that wait at a listener: it is not told again when one leaves."""
    with socket.create_server(("127.0.0.1", 0)) as parent, select.epoll() as other:
        other.register(parent, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        woken = threading.Thread(target=other.poll, args=[SECONDS])
        woken.start()
        wait_until(lambda: is_in_epoll(woken), what="the one that waits first")
        server = make_server(f"fd://{parent.fileno()}")
        with connect(server.address) as peer:
            woken.join(SECONDS)
            peer.sendall(b"x")
            server._keep()  # also where the kernel has woken both
            peer.settimeout(SECONDS)
            assert peer.recv(1) == b"x"


def is_in_epoll(thread: threading.Thread) -> bool:
    """Tell whether a thread of this process waits in epoll_wait; true where nobody tells."""
    where = Path(f"/proc/self/task/{thread.native_id}/wchan").read_text(encoding="ascii")
    return where == "0" or "poll" in where


def test_one_that_cannot_be_let_in_does_not_keep_the_server_busy(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as successor:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            successor.connect(str(line.path))
            wait_until(lambda: "nobody can be let in" in caplog.text, what="the trouble")
            later = time.monotonic() + 0.1  # it looks again in a second
            wait_until(lambda: time.monotonic() > later)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.text.count("nobody can be let in") < 3


# --- a drain in between --------------------------------------------------------------------


def test_a_drain_waits_until_it_is_decided(line: Line) -> None:
    server = line.start()
    channel = line.call()
    take_all(channel)
    core = server._core
    assert core is not None
    server._drain(core)  # as SIGTERM does it
    with connect(server.address) as peer:
        assert exchange(peer, b"x") == b"x"
    channel.close()
    assert server.wait(SECONDS)
    with pytest.raises(ConnectionRefusedError):
        connect(server.address)


def test_who_is_ending_refuses(line: Line) -> None:
    server = line.start(drain_idle=60)
    with connect(server.address) as peer:
        assert exchange(peer, b"x") == b"x"
        server.close()
        with pytest.raises(StartError, match="refused: it is ending"):
            line.start()


def test_an_abort_in_between_leaves_the_files_to_the_successor(line: Line, tmp_path: Path) -> None:
    server = line.start(f"unix:{tmp_path}/echo")
    channel = line.call()
    take_all(channel)
    server.abort()
    assert (tmp_path / "echo").is_socket()


# --- a server before that fails ------------------------------------------------------------


@contextmanager
def played(path: Path, *said: dict[str, Any], gone_after: bool = True) -> Iterator[socket.socket]:
    """Play the server before: say this with a listener for each line that has a role."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as at:
        at.bind(str(path))
        at.listen()
        at.settimeout(SECONDS)

        def play() -> None:
            sock, _ = at.accept()
            channel = Channel(sock)
            channel.receive(SECONDS)
            for one in said:
                which = {"handover": at, "echo": listening}.get(one.get("role", ""))
                channel.send(SECONDS, None if which is None else which.fileno(), **one)
            if not gone_after:
                channel.receive(SECONDS)
            channel.close()

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield listening
        finally:
            thread.join(SECONDS)


HELLO = {"protocol": PROTOCOL, "process": 1, "listeners": 2}
ECHO = {"role": "echo", "asked": "127.0.0.1:0", "worker": None, "owned": True, "file": None}
PATH = {"role": "handover", "asked": "", "worker": None, "owned": True, "file": None}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([], "whoever listens there has ended the talk"),
        ([HELLO], "whoever listens there has ended the talk"),
        ([HELLO, ECHO], "whoever listens there has ended the talk"),
        ([{"refused": "it is ending"}], "refused: it is ending"),
        ([{"protocol": 9}], "does not hand over"),
        ([{**HELLO, "listeners": 0}], "does not hand over"),
        ([{**HELLO, "listeners": 1}, ECHO], "it offers no path"),
        ([HELLO, {**ECHO, "role": "x"}], "a listener without its descriptor"),
    ],
)
def test_one_before_that_fails_early_is_an_error(
    said: list[dict[str, Any]], reason: str, line: Line
) -> None:
    with played(line.path, *said), pytest.raises(StartError, match=reason):
        line.start()


def test_one_before_that_is_killed_when_all_has_come_is_replaced(line: Line) -> None:
    with played(line.path, HELLO, ECHO, PATH) as listening:
        server = line.start()
        assert server.listeners[0].owned
        assert server.listeners[0].address.port == listening.getsockname()[1]
        with connect(server.address) as peer:
            assert exchange(peer, b"x") == b"x"


def test_one_before_that_is_killed_when_told_is_replaced(line: Line) -> None:
    with played(line.path, HELLO, ECHO, PATH, gone_after=False):
        server = line.start()
        assert server.listeners[0].owned


def test_one_before_that_hangs_when_told_leaves_later(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears that the new one serves whenever it goes on, and does not believe it dead."""
    monkeypatch.setattr(take, "LEAVE_SECONDS", 0.05)
    echo = f"unix:{tmp_path}/echo"
    before = line.start(echo)
    goes_on = threading.Event()
    offer = give.Giver._offer

    def offer_and_hang(giver: give.Giver, channel: Channel) -> set[int]:
        receive = channel.receive

        def hang(timeout: float | None) -> dict[str, Any]:
            goes_on.wait(SECONDS)
            return receive(timeout)

        monkeypatch.setattr(channel, "receive", hang)
        return offer(giver, channel)

    monkeypatch.setattr(give.Giver, "_offer", offer_and_hang)
    after = line.start(echo)
    monkeypatch.setattr(give.Giver, "_offer", offer)
    assert before.is_serving()
    assert [one.owned for one in after.listeners] == [False]
    third = line.call()  # it waits for its turn
    goes_on.set()
    assert before.wait(SECONDS)
    wait_until(lambda: after.listeners[0].owned, what="the new one's own listener")
    assert say_hello(third)["listeners"] == 2
    third.close()
    wait_until(lambda: not after._lent, what="the end of that talk")
    with connect(echo) as peer:
        assert exchange(peer, b"x") == b"x"
    assert after.stop(SECONDS)
    assert not (tmp_path / "echo").exists()


def test_an_echo_server_at_the_path_is_no_server_to_replace(
    line: Line, make_server: MakeServer
) -> None:
    make_server(f"unix:{line.path}")
    with pytest.raises(StartError, match="does not hand over"):
        line.start()
