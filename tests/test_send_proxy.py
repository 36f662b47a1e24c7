"""`--send-proxy`: the first thing on each connection is a PROXY header with its own addresses.

Judged by tests/proxy_headers.py, which has the specification in its own words, and by a server that
wants the header. What that server believes is in test_proxy.py.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import proxy_headers as headers
import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run
from conftest import MakeServer
from driven import DrivenServer
from load_servers import exact, serving
from peers import has_ipv6, is_reset, recv_exactly, reset
from scripted import message, scripted

from fastecho import Client, ConfigError
from fastecho._load import Load
from fastecho.measure.merge import differences
from fastecho.measure.pinger import Pinger
from fastecho.measure.plan import Plan
from fastecho.proxy_header import header_of

VERSIONS = ("v1", "v2")
MAKE = {"v1": headers.v1, "v2": headers.v2}
NO_ADDRESS = {"v1": b"PROXY UNKNOWN\r\n", "v2": headers.LOCAL}


# --- the header ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_it_has_both_addresses_of_the_connection(family: int, version: str) -> None:
    if family == socket.AF_INET6 and not has_ipv6():
        pytest.skip("no IPv6")
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as sock,
    ):
        source, destination = sock.getsockname()[:2], sock.getpeername()[:2]
        assert header_of(sock, version) == MAKE[version](source, destination)
        assert sock.gettimeout() is None


def link_local() -> tuple[str, int] | None:
    """Return an address of this machine that counts on one link only, and the link's number."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else ():
        packed, link, _, scope, _, _ = line.split()
        if scope == "20":  # include/net/ipv6.h
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed)), int(link, 16)
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_link_of_an_address_is_nobody_elses_business(version: str) -> None:
    if (found := link_local()) is None:
        pytest.skip("this machine has no link-local address")
    host, link = found
    with socket.socket(socket.AF_INET6) as listener, socket.socket(socket.AF_INET6) as sock:
        listener.bind((host, 0, 0, link))
        listener.listen()
        sock.connect((host, listener.getsockname()[1], 0, link))
        ports = [one.getsockname()[1] for one in (sock, listener)]
        assert header_of(sock, version) == MAKE[version]((host, ports[0]), (host, ports[1]))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_unix_socket_has_none_to_tell(version: str) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert header_of(one, version) == NO_ADDRESS[version]


def test_a_client_is_asked_like_a_socket(make_server: MakeServer) -> None:
    """Also one that was told 0.0.0.0, which is nobody's address."""
    server = make_server(proxy_protocol="required", identify=True)
    with Client(f"0.0.0.0:{server.port}", 5) as client:
        client.send(header_of(client))
        line = client.recv_line()
        assert f'"claimed":"{client.local_address}"'.encode() in line
        assert f'"destination":"{server.address}"'.encode() in line
        assert client.echo(b"hello") == b"hello"


def test_there_is_no_other_version() -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(ConfigError, match=r"^send_proxy 'v3' must be v1 or v2$"):
        header_of(one, "v3")


def test_of_a_connection_that_was_closed_nothing_can_be_told(make_server: MakeServer) -> None:
    client = Client(make_server().address)
    client.close()
    with pytest.raises(OSError, match="descriptor"):
        header_of(client)


def test_of_a_connection_that_was_reset_it_is_said_that_it_was() -> None:
    """And not, as the kernel has it, that it is not connected."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
    ):
        reset(listener.accept()[0])
        assert is_reset(sock)
        with pytest.raises(ConnectionResetError, match=r"^\[Errno \d+\] Connection reset by peer$"):
            header_of(sock)


# --- connect and ping ------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_connect_sends_it_before_its_input(version: str) -> None:
    with DrivenServer() as driven:

        def serve(connection: socket.socket) -> None:
            peer, here = connection.getpeername(), connection.getsockname()
            expected = MAKE[version](peer, here)
            assert recv_exactly(connection, len(expected) + 3) == expected + b"hi\n"
            connection.sendall(b"yes\n")
            assert connection.recv(1) == b""  # its input has ended

        with driven.serving(serve):
            done = _connect(driven.address, "--send-proxy", version)
    assert (done.returncode, done.stdout, done.stderr) == (0, "yes\n", "")


def _connect(*arguments: str, given: str = "hi\n") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "connect", *arguments],
        input=given, capture_output=True, text=True, timeout=DEADLINE, env=environment(),
    )  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("new_connection", [False, True])
def test_ping_sends_it_on_each_connection(
    make_server: MakeServer, version: str, new_connection: bool
) -> None:
    server = make_server(proxy_protocol="required", proxy_timeout=60)
    pinger = Pinger(
        server.address, count=3, interval=0, new_connection=new_connection, send_proxy=version
    )
    assert len(list(pinger)) == 4
    result = pinger.result()
    assert (result.received, result.is_clean) == (3, True)
    assert result.to_json()["plan"]["send_proxy"] == version
    stats = server.stats()
    assert stats.connections_proxied == (3 if new_connection else 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_ping_sends_it_to_a_unix_socket(
    make_server: MakeServer, tmp_path: Path, version: str
) -> None:
    server = make_server(f"unix:{tmp_path}/socket", proxy_protocol="required", proxy_timeout=60)
    pinger = Pinger(server.address, count=1, interval=0, send_proxy=version)
    assert len(list(pinger)) == 2 and pinger.result().is_clean
    assert server.stats().connections_proxied == 1


def test_ping_sends_it_again_when_it_comes_back() -> None:
    came: list[bool] = []

    def serve(connection: socket.socket) -> None:
        expected = headers.v2(connection.getpeername(), connection.getsockname())
        came.append(recv_exactly(connection, len(expected)) == expected)
        while data := connection.recv(64):
            connection.sendall(data)
            if len(came) == 1:
                message(connection)
                return

    with scripted(serve, serve) as server:
        pinger = Pinger(server.address, count=20, interval=0.01, send_proxy="v2")
        list(pinger)
    assert came == [True, True]
    assert pinger.result().gaps == 1


# --- a load ----------------------------------------------------------------------------------

MODES: dict[str, dict[str, Any]] = {
    "closed": {},
    "open": {"mode": "open", "rate": 1000.0},
    "reconnect": {"mode": "reconnect"},
    "idle": {"mode": "idle"},
}
DATA_SEGMENTS_IN = slice(152, 156)
"""Where struct tcp_info has how many segments with data have come."""


class Expecting:
    """A handler that compares the header of each connection, and then echoes."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.right: list[bool] = []
        self.segments: list[int] = []

    def __call__(self, sock: socket.socket) -> None:
        name = VERSIONS[self.version - 1]
        if sock.family == socket.AF_UNIX:
            expected = NO_ADDRESS[name]
        else:
            expected = MAKE[name](sock.getpeername()[:2], sock.getsockname()[:2])
        self.right.append(exact(sock, len(expected)) == expected)
        while data := sock.recv(1 << 18):
            if sock.family != socket.AF_UNIX:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 156)
                self.segments.append(int.from_bytes(info[DATA_SEGMENTS_IN], sys.byteorder))
            sock.sendall(data)


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_load_sends_it_on_each_connection(
    tmp_path: Path, family: str, settings: dict[str, Any], version: int
) -> None:
    if family == "AF_INET6" and not has_ipv6():
        pytest.skip("no IPv6")
    where = str(tmp_path / "socket") if family == "AF_UNIX" else None
    handler = Expecting(version)
    with serving(handler, family=getattr(socket, family), where=where) as server:
        with server.load(connections=3, proxy=version, **settings) as load:
            load.connect()
            result = load.run(0.02)
        server.wait_for_ends(result["connects"] or 3)
    assert len(handler.right) >= 3 and all(handler.right)
    assert result["failures"] == []
    assert result["bytes_sent"] == 64 * (result["messages"] + result["late"])


def test_in_reconnect_mode_header_and_message_are_one_segment() -> None:
    handler = Expecting(2)
    with serving(handler) as server, server.load(mode="reconnect", proxy=2) as load:
        load.run(DEADLINE, messages=20)
    assert handler.segments == [1] * 20


def test_nor_does_a_connection_that_a_run_opens_wait() -> None:
    handler = Expecting(1)
    with serving(handler) as server, server.load(connections=4, proxy=1, reopen=True) as load:
        load.run(0.02)
    assert len(handler.right) == 4 and handler.segments.count(1) >= 4


@pytest.mark.parametrize("name", ["closed", "open", "idle"])
def test_a_header_that_no_message_follows_is_sent_at_once(name: str) -> None:
    """The kernel holds a segment that is to become longer back for 200 ms."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Load([(listener.family, listener.getsockname())], proxy=2, **MODES[name]) as load,
    ):
        load.connect()
        sock, peer = listener.accept()
        with sock:
            sock.settimeout(0.1)
            assert sock.recv(100) == headers.v2(peer, listener.getsockname())


@pytest.mark.parametrize("version", VERSIONS)
def test_bench_tells_of_it_and_names_it_in_its_result(version: str) -> None:
    done = run("bench", "--server", "-c2", "-n20", "--idle-connections=2", "--json",
               f"--send-proxy={version}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["messages"], told["plan"]["send_proxy"]) == (20, version)
    assert f"each connection begins by a PROXY header ({version})." in done.stderr


def test_runs_with_and_without_it_are_different_loads() -> None:
    plan = Plan("127.0.0.1:7")
    assert differences(plan, plan.replace(send_proxy="v2")) == ["send proxy none and v2"]
    assert plan.to_json()["send_proxy"] is None


@pytest.mark.parametrize("number", [-1, 3])
def test_a_load_knows_no_other_version(number: Any) -> None:
    with pytest.raises(ValueError, match=rf"^proxy must be between 0 and 2, not {number}$"):
        Load([(socket.AF_INET, ("127.0.0.1", 9))], proxy=number)


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["connect", "ping", "bench"])
@pytest.mark.parametrize("version", ["v3", "2", "V2", "", "v1\x1b[2J"])
def test_another_version_is_refused_in_one_sentence(command: str, version: str) -> None:
    done = run(command, "127.0.0.1:1", "--send-proxy", version)
    assert_refused(done, 2, f"--send-proxy {version!r} must be v1 or v2")
