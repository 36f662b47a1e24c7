"""Who answers: one line of JSON before all else, on each connection that is served.

What a peer or a proxy has chosen stands in it, and can neither end the line nor the string.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import proxy_headers as headers
import pytest
from conftest import Join, MakeServer
from hypothesis import given
from hypothesis import strategies as st
from peers import (
    connect,
    exchange,
    expect_stats,
    has_ipv6,
    is_reset,
    pattern,
    read_to_eof,
    recv_exactly,
    wait_until,
)
from proxy_headers import v1, v2

import fastecho
from fastecho import Fault, Server


def line_of(peer: socket.socket) -> bytes:
    """Return the next line."""
    line = b""
    while not line.endswith(b"\n"):
        line += recv_exactly(peer, 1)
    return line


def told(peer: socket.socket) -> dict[str, Any]:
    """Return what the next line says."""
    said: dict[str, Any] = json.loads(line_of(peer))
    return said


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"frame": "line"},
        {"prefix": b"<"},
        {"on_message": lambda _, data: data},
        {"on_accept": lambda _: None},
        {"fault": "delay=1ms"},
        {"on_accept": lambda _: Fault(slice=1)},
        {"threads": 3},
    ],
)
@pytest.mark.parametrize("where", ["127.0.0.1:0", "[::1]:0"])
def test_the_line_comes_first_and_the_echo_is_exact(
    make_server: MakeServer, join: Join, where: str, settings: dict[str, Any]
) -> None:
    if where == "[::1]:0" and not has_ipv6():
        pytest.skip("no IPv6")
    server = make_server(where, identify=True, instance="web-1", **settings)
    for number in (1, 2, 3):
        peer = join(server)
        peer.sendall(b"first\n")
        said = told(peer)
        uptime = said.pop("uptime_s")
        assert 0 <= uptime < 60
        assert 0 <= said.pop("worker") < settings.get("threads", 1)
        host, port = peer.getsockname()[:2]
        assert said == {
            "fastecho": fastecho.__version__,
            "instance": "web-1",
            "host": socket.gethostname(),
            "connection": number,
            "seen": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "claimed": None,
            "proxy": None,
        }
        expected = settings.get("prefix", b"") + b"first\n"
        assert recv_exactly(peer, len(expected)) == expected


def test_it_comes_unasked(make_server: MakeServer, join: Join) -> None:
    assert told(join(make_server(identify=True)))["instance"] == socket.gethostname()


def test_with_length_frames_it_is_one(make_server: MakeServer, join: Join) -> None:
    peer = join(make_server(identify=True, frame="length"))
    size = int.from_bytes(recv_exactly(peer, 4), "big")
    assert json.loads(recv_exactly(peer, size))["connection"] == 1
    frame = (5).to_bytes(4, "big") + b"hello"
    assert exchange(peer, frame) == frame


def test_of_a_unix_socket_no_address_is_seen(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    server = make_server(f"unix:{tmp_path}/socket", identify=True, proxy_protocol="optional")
    peer = join(server)
    peer.sendall(v1())
    assert (said := told(peer))["seen"] is None
    assert said["claimed"] == "192.0.2.7:51123"


def test_an_ipv4_peer_of_a_listener_of_both_families_is_ipv4(make_server: MakeServer) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6")
    server = make_server(":0", identify=True)
    assert server.port is not None
    with connect(("127.0.0.1", server.port)) as peer:
        assert told(peer)["seen"] == "{}:{}".format(*peer.getsockname())


def test_who_is_denied_is_told_nothing(make_server: MakeServer, join: Join) -> None:
    server = make_server(identify=True, on_accept=lambda _: False)
    assert is_reset(join(server))
    expect_stats(server, bytes_out=0)


def test_it_is_counted_as_sent(make_server: MakeServer, join: Join) -> None:
    server = make_server(identify=True)
    peer = join(server)
    line = line_of(peer)
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    expect_stats(server, bytes_out=len(line), bytes_in=0, messages=0, ended_by_peer=1)


@pytest.mark.parametrize("fault", [None, "delay=1ms", "slice=7", "half_close", "close_after=3"])
def test_a_line_that_the_kernel_takes_in_parts_is_whole_and_no_part_of_a_fault(
    make_server: MakeServer, join: Join, fault: str | None
) -> None:
    server = make_server(identify=True, instance="\U0001f600" * 255, send_buffer=1, fault=fault)
    peer = join(server, receive_buffer=1, segment=88)
    wait_until(lambda: server.stats().bytes_out > 3000)
    peer.sendall(b"hello")
    assert told(peer)["instance"] == "\U0001f600" * 255
    if fault == "half_close":
        assert read_to_eof(peer) == b""
    elif fault == "close_after=3":
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b"hel"
    else:
        assert recv_exactly(peer, 5) == b"hello"
    peer.close()
    expect_stats(server, connections_open=0, bytes_pending=0)


# --- behind a proxy --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "claimed", "proxy"),
    [
        (
            v1(), "192.0.2.7:51123",
            {"version": 1, "command": "PROXY", "destination": "198.51.100.1:7"},
        ),
        (
            v2(headers.SOURCE_6, headers.DESTINATION_6), "[2001:db8::7]:51123",
            {"version": 2, "command": "PROXY", "destination": "[2001:db8::1]:7"},
        ),
        (headers.LOCAL, None, {"version": 2, "command": "LOCAL", "destination": None}),
        (headers.UNSPEC, None, {"version": 2, "command": "PROXY", "destination": None}),
        (headers.UNKNOWN, None, {"version": 1, "command": "PROXY", "destination": None}),
        (
            headers.UNIX, "unix:/run/front",
            {"version": 2, "command": "PROXY", "destination": "unix:/run/back"},
        ),
        (
            v2(
                tlvs=headers.tlv(headers.AUTHORITY, b"example.org")
                + headers.tlv(headers.UNIQUE_ID, b"\x00\xffid"),
                checksum=0,
            ),
            "192.0.2.7:51123",
            {
                "version": 2, "command": "PROXY", "destination": "198.51.100.1:7",
                "authority": "example.org", "unique_id": "00ff6964", "checksum": True,
            },
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("asks", [False, True])
def test_it_says_what_the_header_told(
    make_server: MakeServer, join: Join, header: bytes, claimed: str, proxy: dict[str, Any],
    asks: bool,
) -> None:  # fmt: skip
    callback = (lambda _: None) if asks else None
    server = make_server(identify=True, proxy_protocol="required", on_accept=callback)
    peer = join(server)
    peer.sendall(header + b"data")
    said = told(peer)
    assert (said["claimed"], said["proxy"]) == (claimed, proxy)
    assert said["seen"] == "{}:{}".format(*peer.getsockname())
    assert recv_exactly(peer, 4) == b"data"
    assert "fastecho" in said and len(said) == 9


@pytest.fixture(scope="module")
def behind() -> Any:
    """A server that says who answers, behind a proxy; for tests that ask it often."""
    with Server(identify=True, proxy_protocol="required") as server:
        yield server


@given(authority=st.binary(max_size=600), unique_id=st.binary(max_size=128))
def test_no_byte_of_others_ends_the_line_or_the_string(
    behind: Server, authority: bytes, unique_id: bytes
) -> None:
    tlvs = headers.tlv(headers.AUTHORITY, authority) + headers.tlv(headers.UNIQUE_ID, unique_id)
    with connect(behind) as peer:
        peer.sendall(v2(tlvs=tlvs) + b"x")
        line = line_of(peer)
        assert recv_exactly(peer, 1) == b"x"
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    said = json.loads(line)["proxy"]
    assert said.get("authority", "").encode("latin-1") == authority[:255]
    assert bytes.fromhex(said.get("unique_id", "")) == unique_id


@given(path=st.binary(max_size=108), back=st.binary(max_size=108))
def test_nor_does_a_unix_path(behind: Server, path: bytes, back: bytes) -> None:
    header = headers.binary(0x21, 0x31, path.ljust(108, b"\0") + back.ljust(108, b"\0"))
    with connect(behind) as peer:
        peer.sendall(header)
        said = told(peer)
        peer.shutdown(socket.SHUT_WR)
        assert read_to_eof(peer) == b""
    assert said["claimed"].encode("latin-1") == b"unix:" + path.partition(b"\0")[0]
    assert said["proxy"]["destination"].encode("latin-1") == b"unix:" + back.partition(b"\0")[0]


@pytest.mark.parametrize("instance", ["web-1", 'a"b\\c', "Größe 大", "x" * 255])
def test_the_instance_is_named_as_it_was_given(
    make_server: MakeServer, join: Join, instance: str
) -> None:
    server = make_server(identify=True, instance=instance)
    peer = join(server)
    assert told(peer)["instance"] == instance
    assert exchange(peer, pattern(100_000)) == pattern(100_000)
