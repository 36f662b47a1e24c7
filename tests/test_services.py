"""Services without an echo: discard (RFC 863) drops all it gets, chargen (RFC 864) never ends.

What a peer can rely on:

- discard reads whatever comes, answers nothing, and sends FIN at the peer's FIN: then all was read.
- chargen sends the pattern of the RFC from its beginning, byte by byte the same whatever sends are
  short, and drops what it gets. Not the peer's FIN ends it (as with inetd), its close or RST does.
- Limits, timeouts, drain, the access log and statistics are those of the echo.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import assert_refused, run, serving
from conftest import Join, MakeServer
from namespaces import can_unshare
from peers import (
    connect,
    expect_stats,
    is_reset,
    is_turned_away,
    iterations_at_rest,
    port_of,
    read_to_eof,
    recv_exactly,
    reset,
    same,
    wait_until,
)
from proxy_headers import v1
from rfc864 import FIRST_LINES, PERIOD, chargen
from served import Served

import fastecho
from fastecho import ConfigError, Fault
from fastecho.config import Config

MEGABYTE = 1_000_000


@pytest.fixture(params=["tcp", "unix"])
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an address of each kind in turn."""
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/service"


# --- the pattern ------------------------------------------------------------------------------


def test_the_pattern_is_that_of_the_rfc(make_server: MakeServer, join: Join, bind: str) -> None:
    peer = join(make_server(bind, service="chargen"))
    data = recv_exactly(peer, 3 * MEGABYTE)
    assert data.startswith(FIRST_LINES)
    assert len(PERIOD) == 7030
    assert same(data, chargen(3 * MEGABYTE))


def test_each_connection_begins_at_the_beginning(make_server: MakeServer, join: Join) -> None:
    server = make_server(service="chargen", threads=2)
    peers = [join(server) for _ in range(40)]
    for peer in peers:
        assert same(recv_exactly(peer, 100_000), chargen(100_000))
    for peer in peers:
        assert same(recv_exactly(peer, 300_000), chargen(300_000, 100_000))


@pytest.mark.parametrize("served", [{"service": "chargen"}], indirect=True)
@pytest.mark.parametrize("limit", [1, 73, -50, -3000, -200_000])
def test_short_sends_break_no_byte(served: Served, limit: int) -> None:
    served.rule("send", limit=limit)
    size = 2 * MEGABYTE if limit < -3000 else 15_000
    with connect(served.address) as peer:
        assert same(recv_exactly(peer, size), chargen(size))
    assert served.clear_rules() >= size / abs(limit)
    assert served.stats().short_writes >= 1


@pytest.mark.parametrize("served", [{"service": "chargen"}], indirect=True)
def test_a_refused_send_is_tried_once_more(served: Served) -> None:
    with connect(served.address) as peer:
        begun = recv_exactly(peer, 1000)
        served.rule("send", error="ENOBUFS", times=1)
        size = 20 * MEGABYTE  # past what the buffers held before
        assert same(begun + recv_exactly(peer, size), chargen(size + 1000))
        assert served.clear_rules() == 1


FAILING: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"call": "send", "error": "EHOSTUNREACH"}, {"ended_by_error": 1}, False),
    ({"call": "send", "error": "EPIPE"}, {"ended_by_peer": 1, "errors": {}}, False),
    ({"call": "send", "error": "ENOBUFS", "times": 2}, {"ended_by_error": 1}, False),
    ({"call": "recv", "error": "ECONNRESET"}, {"ended_by_peer": 1, "errors": {}}, True),
    ({"call": "recv", "error": "ETIMEDOUT"}, {"ended_by_error": 1}, True),
    ({"call": "recv", "error": "ENOMEM"}, {"ended_by_error": 1}, True),
    ({"call": "epoll_ctl", "operation": "mod", "error": "ENOMEM"}, {"ended_by_no_memory": 1}, True),
]


@pytest.mark.parametrize("served", [{"service": "chargen"}], indirect=True)
@pytest.mark.parametrize(("rule", "counted", "says"), FAILING)
def test_a_call_that_fails_ends_that_connection_alone(
    served: Served, rule: dict[str, Any], counted: dict[str, Any], says: bool
) -> None:
    with connect(served.address) as peer, connect(served.address) as other:
        begun = recv_exactly(peer, 1000), recv_exactly(other, 1000)
        more = {name: value for name, value in rule.items() if name != "call"}
        served.rule(rule["call"], port=port_of(peer), **more)
        if says:
            peer.sendall(b"something")
            peer.shutdown(socket.SHUT_WR)
        else:
            drained(peer)
        expect_stats(served, connections_open=1, **counted)
        served.clear_rules()
        assert same(begun[1] + recv_exactly(other, MEGABYTE), chargen(MEGABYTE + 1000))


def drained(peer: socket.socket) -> None:
    """Read until the end, whatever that is."""
    try:
        read_to_eof(peer)
    except OSError:
        pass


def test_a_slow_reader_does_not_spin_and_loses_nothing(make_server: MakeServer, join: Join) -> None:
    server = make_server(service="chargen")
    peer = join(server, receive_buffer=65536)
    wait_until(lambda: iterations_at_rest(server) <= 5, what="rest")
    assert same(recv_exactly(peer, 10 * MEGABYTE), chargen(10 * MEGABYTE))


# --- the peer's end ---------------------------------------------------------------------------


def test_chargen_goes_on_after_the_peers_fin(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    server = make_server(bind, service="chargen")
    peer = join(server)
    peer.sendall(b"all of this is dropped" * 1000)
    peer.shutdown(socket.SHUT_WR)
    expect_stats(server, bytes_in=22_000)
    assert same(recv_exactly(peer, 20 * MEGABYTE), chargen(20 * MEGABYTE))
    peer.close()
    expect_stats(server, ended_by_peer=1, errors={})


@pytest.mark.parametrize("rude", [True, False])
def test_a_careful_close_and_a_rude_abort_are_both_the_peers(
    make_server: MakeServer, join: Join, rude: bool
) -> None:
    server = make_server(service="chargen")
    peer = join(server)
    recv_exactly(peer, 1000)
    if rude:
        reset(peer)
    else:
        peer.close()
    expect_stats(server, ended_by_peer=1, connections_closed=1, errors={})


def test_discard_reads_all_and_answers_by_fin(
    make_server: MakeServer, join: Join, bind: str
) -> None:
    server = make_server(bind, service="discard")
    peer = join(server)
    peer.sendall(bytes(20 * MEGABYTE))
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    stats = server.stats()
    assert (stats.bytes_in, stats.bytes_out, stats.messages) == (20 * MEGABYTE, 0, 0)
    expect_stats(server, ended_by_peer=1)


def test_a_reset_of_discard_is_an_error(make_server: MakeServer, join: Join) -> None:
    server = make_server(service="discard")
    peer = join(server)
    peer.sendall(b"x")
    expect_stats(server, bytes_in=1)
    reset(peer)
    expect_stats(server, ended_by_error=1, errors={"ECONNRESET": 1})


@pytest.mark.parametrize("served", [{"service": "discard"}], indirect=True)
def test_short_reads_count_every_byte(served: Served) -> None:
    served.rule("recv", limit=-500)
    with connect(served.address) as peer:
        peer.sendall(bytes(100_000))
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert served.stats().bytes_in == 100_000


def test_many_uploads_are_read_side_by_side(make_server: MakeServer, join: Join) -> None:
    server = make_server(service="discard", threads=2)
    peers = [join(server) for _ in range(50)]
    for _ in range(3):
        for peer in peers:
            peer.sendall(bytes(100_000))
    for peer in peers:
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert server.stats().bytes_in == 50 * 300_000


# --- limits, time, the end --------------------------------------------------------------------


@pytest.mark.parametrize("service", ["discard", "chargen"])
def test_limits_hold(make_server: MakeServer, join: Join, service: str) -> None:
    server = make_server(service=service, max_connections=1)
    peer = join(server)
    expect_stats(server, connections_open=1)
    assert is_turned_away(server)
    peer.close()
    expect_stats(server, connections_open=0, shed_max_connections=1)


def test_a_reader_that_stops_is_idle(make_server: MakeServer, join: Join) -> None:
    server = make_server(service="chargen", idle_timeout=0.1)
    peer = join(server, receive_buffer=65536)
    recv_exactly(peer, 10 * MEGABYTE)  # at work for longer than a timeout, or nearly
    expect_stats(server, ended_by_idle_timeout=1)
    assert is_reset(peer)


def test_what_the_kernel_would_still_take_keeps_nobody_from_being_idle(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(service="chargen", idle_timeout=0.25, send_buffer=4 * MEGABYTE)
    join(server, receive_buffer=65536)
    wait_until(lambda: server.stats().bytes_out > 0)
    # Until here it sent as epoll told; the third of the buffer that is free then stays free.
    wait_until(lambda: iterations_at_rest(server) == 0, what="rest")
    sent = server.stats().bytes_out
    expect_stats(server, ended_by_idle_timeout=1, bytes_out=sent)


def test_a_slow_reader_is_not_idle(make_server: MakeServer, join: Join) -> None:
    server = make_server(service="chargen", idle_timeout=0.25)
    peer = join(server, receive_buffer=65536)
    data, deadline = b"", time.monotonic() + 0.8
    while time.monotonic() < deadline:
        data += recv_exactly(peer, 40_000)
        next_read = time.monotonic() + 0.02
        wait_until(lambda until=next_read: time.monotonic() > until)  # type: ignore[misc]
    assert same(data, chargen(len(data)))
    assert server.stats().connections_open == 1


@pytest.mark.parametrize("setting", ["idle_timeout", "first_byte_timeout"])
def test_who_sends_nothing_to_discard_is_ended(
    make_server: MakeServer, join: Join, setting: str
) -> None:
    peer = join(make_server(service="discard", **{setting: 0.05}))
    assert read_to_eof(peer) == b""


def test_a_drain_ends_chargen_by_fin_after_drain_idle(make_server: MakeServer, join: Join) -> None:
    server = make_server(service="chargen", drain_idle=0.05)
    open_, half = join(server), join(server)
    half.shutdown(socket.SHUT_WR)
    begun = [recv_exactly(peer, 5000) for peer in (open_, half)]
    stopping = threading.Thread(target=server.stop, args=(10,))
    stopping.start()
    for peer, first in zip((open_, half), begun, strict=True):
        data = first + read_to_eof(peer)
        peer.close()
        assert same(data, chargen(len(data)))
    stopping.join()
    assert (server.stats().ended_by_drain, server.stats().ended_by_abort) == (2, 0)


def test_a_drain_waits_for_an_upload(make_server: MakeServer, join: Join) -> None:
    server = make_server(service="discard", drain_idle=0.2)
    peer = join(server)
    peer.sendall(b"x")
    expect_stats(server, bytes_in=1)
    stopping = threading.Thread(target=server.stop, args=(10,))
    stopping.start()
    wait_until(lambda: not server.is_serving())
    for _ in range(20):
        peer.sendall(bytes(10_000))
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    stopping.join()
    assert server.stats().bytes_in == 200_001
    assert server.stats().ended_by_peer == 1


@pytest.mark.parametrize("service", ["discard", "chargen"])
def test_an_abort_resets_everybody(make_server: MakeServer, join: Join, service: str) -> None:
    server = make_server(service=service)
    peer = join(server)
    expect_stats(server, connections_open=1)
    server.abort()
    assert is_reset(peer)


# --- beside other settings --------------------------------------------------------------------


def test_the_access_log_tells_bytes_and_end(
    make_server: MakeServer, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fastecho.access"):
        server = make_server(service="discard", access_log=True)
        peer = join(server)
        peer.sendall(b"12345")
        peer.shutdown(socket.SHUT_WR)
        read_to_eof(peer)
        wait_until(lambda: caplog.records)
    assert "5" in caplog.records[0].getMessage()
    assert "peer" in caplog.records[0].getMessage()


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("service", ["discard", "chargen"])
def test_behind_a_proxy_header_what_came_with_it_is_dropped(
    make_server: MakeServer, join: Join, service: str, answers: bool
) -> None:
    more: dict[str, Any] = {"on_accept": lambda peer: None} if answers else {}
    server = make_server(service=service, proxy_protocol="required", **more)
    peer = join(server)
    peer.sendall(v1() + b"and more")
    if service == "chargen":
        assert same(recv_exactly(peer, MEGABYTE), chargen(MEGABYTE))
    peer.sendall(b", and this")
    expect_stats(server, bytes_in=18)


def test_callbacks_on_accept_and_on_close_still_work(make_server: MakeServer, join: Join) -> None:
    ended: list[object] = []
    server = make_server(
        service="discard",
        on_accept=lambda peer: True,
        on_close=lambda connection, reason: ended.append(reason),
    )
    peer = join(server)
    peer.sendall(b"dropped")
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    wait_until(lambda: ended == [fastecho.Reason.PEER])
    assert server.stats().bytes_in == 7


REFUSED = [
    ("frame", "line"),
    ("prefix", "x"),
    ("suffix", "x"),
    ("fault", "delay=1s"),
    ("identify", True),
    ("bind", "udp://127.0.0.1:0"),
]


@pytest.mark.parametrize(("name", "value"), [*REFUSED, ("first_byte_timeout", 1.0)])
def test_what_needs_an_echo_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match="service chargen") as caught:
        Config(**{"service": "chargen", name: value})  # type: ignore[arg-type]
    assert caught.value.option == name
    Config(service="discard", first_byte_timeout=1.0)


@pytest.mark.parametrize("service", ["discard", "chargen"])
def test_an_inherited_udp_socket_is_refused(service: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        server = fastecho.Server(f"fd://{sock.fileno()}", service=service)  # type: ignore[arg-type]
        with pytest.raises(fastecho.StartError, match=f"UDP, and service {service} is for streams"):
            server.start()


def test_a_running_service_cannot_get_what_needs_an_echo(make_server: MakeServer) -> None:
    server = make_server(service="chargen")
    with pytest.raises(ConfigError, match="service chargen"):
        server.set_fault(Fault(delay=1))
    with pytest.raises(ConfigError, match="service chargen"):
        server.set_limits(first_byte_timeout=1)


def test_messages_need_the_echo() -> None:
    with pytest.raises(ConfigError, match="service 'discard' gets no messages"):
        fastecho.Server(service="discard", on_message=lambda connection, data: None)


@pytest.mark.parametrize("option", ["--probes", "--black-hole", "--model=blocking"])
def test_the_command_refuses_what_needs_the_echo(option: str) -> None:
    done = run("serve", "--service", "discard", option)
    assert_refused(done, 2, "--service 'discard'")


# --- other programs ---------------------------------------------------------------------------


def plain() -> dict[str, str]:
    """Return the environment of another program: nothing is loaded into it."""
    return {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}


def test_the_command_serves_netcat() -> None:
    nc = shutil.which("nc")
    if nc is None:
        pytest.skip("there is no nc")
    with serving("--service", "chargen") as server:
        host, port = server.addresses[0].rsplit(":", 1)
        reader = subprocess.Popen(
            [nc, host, port], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=plain()
        )
        with reader:
            assert reader.stdout is not None
            assert same(reader.stdout.read(MEGABYTE), chargen(MEGABYTE))
            reader.kill()
        code, log = server.end(signal.SIGTERM)
    assert code == 0
    assert any("service: chargen" in line for line in log)


INETD = """
import os, socket, sys, time
from namespaces import bring_loopback_up
from peers import connect, recv_exactly, same, wait_until
from rfc864 import chargen

def listens():
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", 19)) == 0

bring_loopback_up()
pid = os.spawnlp(os.P_NOWAIT, sys.argv[1], sys.argv[1], "-i", sys.argv[2])
try:
    wait_until(listens)
    with connect(("127.0.0.1", 19)) as peer:
        peer.shutdown(socket.SHUT_WR)
        assert same(recv_exactly(peer, 1_000_000), chargen(1_000_000))
finally:
    os.kill(pid, 9)
"""


def test_inetd_sends_the_same_and_goes_on_after_a_fin_too(tmp_path: Path) -> None:
    inetd = shutil.which("inetd", path=f"{os.environ['PATH']}:/usr/sbin")
    if inetd is None or not can_unshare("--net", "--pid", "--fork"):
        pytest.skip("there is no inetd (openbsd-inetd), or no namespace for it to have port 19 in")
    table = tmp_path / "inetd.conf"
    table.write_text("127.0.0.1:chargen stream tcp nowait root internal\n")
    subprocess.run(
        ["unshare", "--net", "--pid", "--fork", sys.executable, "-c", INETD, inetd, table],
        env={**plain(), "PYTHONPATH": str(Path(__file__).parent)},
        check=True,
        timeout=20,
    )
