"""The PROXY header: who the peer is comes before its first byte, or the peer does not come at all.

However the header is cut, what stands behind it is echoed exactly, on every path of the bytes; and
limits, callbacks and the log know the address that it tells. (The parser: tests/c/test_proxy.c.)
"""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import proxy_headers as headers
import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    expect_stats,
    fill,
    has_ipv6,
    is_reset,
    is_turned_away,
    iterations_at_rest,
    pattern,
    read_to_eof,
    recv_exactly,
    reset,
    same,
    wait_until,
)
from proxy_headers import v1, v2
from test_access_log import Lines, lines

from fastecho import ConfigError, Connection, Fault, Peer, Server
from fastecho.config import Config

__all__ = ["lines"]

LONG = 30.0
"""Seconds that a header may take where a test is not about that."""

PATHS: dict[str, dict[str, Any]] = {
    "raw": {},
    "lines": {"frame": "line"},
    "length": {"frame": "length"},
    "prefix": {"prefix": b"<", "suffix": b">"},
    "callback": {"on_message": lambda _, data: data},
    "lines-callback": {"on_message": lambda _, data: data, "frame": "line"},
    "accept": {"on_accept": lambda _: True},
    "fault": {"fault": "delay=1ms"},
    "accept-fault": {"on_accept": lambda _: Fault(delay=0.001), "frame": "line"},
}
HEADERS = {
    "v1": v1(),
    "v1-TCP6": v1(headers.SOURCE_6, headers.DESTINATION_6),
    "v1-UNKNOWN": headers.UNKNOWN,
    "v2": v2(),
    "v2-INET6": v2(headers.SOURCE_6, headers.DESTINATION_6),
    "v2-checksum": v2(checksum=0),
    "v2-TLVs": v2(tlvs=headers.tlv(headers.ALPN, b"h2") + headers.tlv(0xE0, bytes(900))),
    "v2-LOCAL": headers.LOCAL,
    "v2-UNSPEC": headers.UNSPEC,
    "v2-UNIX": headers.UNIX,
}
WRONG = {
    "nothing like it": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "v1 without addresses": b"PROXY TCP4\r\n",
    "v1 with a leading zero": b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
    "v1 with a large port": b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
    "v1 without an end": b"PROXY TCP4 " + b"1" * 120,
    "v2 of another version": headers.SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
    "v2 of another command": headers.SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
    "v2 too short": headers.SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
    "v2 too long": headers.SIGNATURE + b"\x21\x11\xff\xff",
    "v2 with a TLV beyond its end": v2(tlvs=b"\x04\x00\x09abc"),
    "v2 with a wrong checksum": v2(checksum=1),
}


def framed(data: bytes, settings: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return what to send so that `data` is one message, and what comes back."""
    if settings.get("frame") == "length":
        data = len(data).to_bytes(4, "big") + data
    elif settings.get("frame") == "line":
        data = data.replace(b"\n", b" ") + b"\n"
    return data, settings.get("prefix", b"") + data + settings.get("suffix", b"")


def believing(make_server: MakeServer, *args: Any, **settings: Any) -> Server:
    """Return a server that wants a header, from anybody here."""
    return make_server(*args, **{"proxy_protocol": "required", "proxy_timeout": LONG} | settings)


# --- what is echoed --------------------------------------------------------------------------


@pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_what_stands_behind_the_header_is_echoed(
    make_server: MakeServer, join: Join, header: bytes, settings: dict[str, Any]
) -> None:
    """In the header's own segment, in one of its own, and afterwards."""
    server = believing(make_server, **settings)
    sent, expected = framed(pattern(3000), settings)
    peer = join(server)
    assert exchange(peer, header + sent, len(expected)) == expected
    assert exchange(peer, sent, len(expected)) == expected
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    with connect(server) as other:
        other.sendall(header)
        wait_until(lambda: server.stats().connections_proxied == 2)
        assert exchange(other, sent, len(expected)) == expected
    expect_stats(
        server, connections_proxied=2, ended_by_proxy_header=0, frames_incomplete=0,
        bytes_in=3 * len(sent), bytes_pending=0,
    )  # fmt: skip


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_it_may_come_byte_by_byte(make_server: MakeServer, join: Join, header: bytes) -> None:
    server = believing(make_server)
    peer = join(server)
    assert exchange(peer, [*(bytes([one]) for one in header), b"data"], 4) == b"data"
    expect_stats(server, bytes_in=4, messages=1)


@pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
def test_a_peer_that_ends_at_once_gets_its_echo(
    make_server: MakeServer, join: Join, settings: dict[str, Any]
) -> None:
    server = believing(make_server, **settings)
    sent, expected = framed(pattern(500), settings)
    peer = join(server)
    peer.sendall(v2() + sent)
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == expected
    expect_stats(server, ended_by_peer=1)


@pytest.mark.parametrize("settings", [PATHS["raw"], PATHS["callback"]], ids=["raw", "callback"])
def test_much_may_stand_behind_it(
    make_server: MakeServer, join: Join, settings: dict[str, Any]
) -> None:
    server = believing(make_server, **settings)
    data = pattern(5_000_000)
    assert same(exchange(join(server), v1() + data, len(data)), data)


def test_nothing_is_read_before_the_verdict_but_what_a_header_can_have(
    make_server: MakeServer, join: Join
) -> None:
    """What a client sends behind its header meanwhile is the kernel's to keep."""
    go_on = threading.Event()
    server = believing(
        make_server, on_accept=lambda _: go_on.wait(20) and None, receive_buffer=4096
    )
    peer = join(server, send_buffer=4096)
    data = pattern(2_000_000)
    taken = fill(peer, v2() + data)
    assert taken < 200_000
    go_on.set()
    rest = (v2() + data)[taken:]
    assert same(exchange(peer, rest, len(data)), data)


@pytest.mark.parametrize("where", ["127.0.0.1:0", "unix"])
@pytest.mark.parametrize("settings", [{}, PATHS["callback"]], ids=["raw", "callback"])
def test_what_a_fault_never_reads_is_not_taken_up_behind_a_header(
    make_server: MakeServer, tmp_path: Path, where: str, settings: dict[str, Any]
) -> None:
    bind = f"unix:{tmp_path}/socket" if where == "unix" else where
    server = believing(make_server, bind, fault="no_read", **settings)
    with connect(server) as peer:
        peer.sendall(v2() + b"hello")
        wait_until(lambda: server.stats().connections_proxied == 1)
        reset(peer)
    expect_stats(server, connections_open=0, bytes_in=0, frames_incomplete=0, bytes_discarded=5)


def test_who_is_ended_at_once_has_said_nothing(make_server: MakeServer, join: Join) -> None:
    server = believing(make_server, fault="close_after=0")
    peer = join(server)
    peer.sendall(v2() + bytes(9000))
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == b""
    expect_stats(server, ended_by_fault=1, bytes_in=0, bytes_discarded=9000, frames_incomplete=0)


# --- who it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "host", "port"),
    [
        (v1(), *headers.SOURCE),
        (v2(), *headers.SOURCE),
        (v1(headers.SOURCE_6, headers.DESTINATION_6), *headers.SOURCE_6),
        (v2(headers.SOURCE_6, headers.DESTINATION_6), *headers.SOURCE_6),
    ],
)
@pytest.mark.parametrize("where", ["127.0.0.1:0", "[::1]:0", "unix"])
def test_callbacks_are_told_the_address_that_it_tells(
    make_server: MakeServer, join: Join, tmp_path: Path, header: bytes, host: str, port: int,
    where: str,
) -> None:  # fmt: skip
    if where == "[::1]:0" and not has_ipv6():
        pytest.skip("no IPv6")
    asked: list[Peer] = []
    met: list[Peer] = []

    def meet(connection: Connection, data: bytes) -> bytes:
        met.append(connection.peer)
        return data

    server = believing(
        make_server,
        f"unix:{tmp_path}/socket" if where == "unix" else where,
        on_accept=asked.append,
        on_message=meet,
    )
    peer = join(server)
    assert exchange(peer, header + b"x", 1) == b"x"
    for one in (asked[0], met[0]):
        assert (one.host, one.port) == (host, port)
        if where == "unix":
            assert (one.proxy, one.queue_wait) == (server.address, None)
        else:
            own = peer.getsockname()
            assert one.proxy == (f"[{own[0]}]" if ":" in own[0] else own[0]) + f":{own[1]}"
            assert one.queue_wait is not None


@pytest.mark.parametrize("header", [headers.LOCAL, headers.UNSPEC, headers.UNKNOWN, headers.UNIX])
def test_a_header_that_tells_no_address_leaves_the_sockets_own(
    make_server: MakeServer, join: Join, header: bytes
) -> None:
    asked: list[Peer] = []
    server = believing(make_server, on_accept=asked.append)
    peer = join(server)
    assert exchange(peer, header + b"x", 1) == b"x"
    assert (asked[0].host, asked[0].port) == peer.getsockname()
    assert asked[0].proxy is None


def test_nobody_is_asked_before_the_header_is_there(make_server: MakeServer, join: Join) -> None:
    asked: list[Peer] = []
    server = believing(make_server, on_accept=asked.append)
    slow, quick = join(server), join(server)
    slow.sendall(v2()[:-1])
    assert exchange(quick, v2(("192.0.2.8", 1)) + b"x", 1) == b"x"
    assert [one.host for one in asked] == ["192.0.2.8"]
    assert exchange(slow, v2()[-1:] + b"x", 1) == b"x"
    assert [one.host for one in asked] == ["192.0.2.8", "192.0.2.7"]


def test_an_accept_callback_that_says_no_ends_it_without_an_echo(
    make_server: MakeServer, join: Join
) -> None:
    server = believing(make_server, on_accept=lambda peer: peer.host != "192.0.2.7")
    peer = join(server)
    peer.sendall(v2() + b"data")
    assert is_reset(peer)
    expect_stats(server, ended_by_denial=1, bytes_in=0, frames_incomplete=0)


def test_while_a_verdict_is_awaited_what_comes_waits_in_the_kernel(
    make_server: MakeServer, join: Join
) -> None:
    go_on = threading.Event()
    server = believing(make_server, on_accept=lambda _: go_on.wait(20) and None)
    peer = join(server)
    peer.sendall(v2() + b"first ")
    wait_until(lambda: server.stats().connections_proxied == 1)
    peer.sendall(b"second")
    assert iterations_at_rest(server) < 10
    assert server.stats().bytes_in == 0
    go_on.set()
    assert recv_exactly(peer, 12) == b"first second"


# --- who is counted and logged ---------------------------------------------------------------


def test_max_per_ip_counts_the_address_that_it_tells_and_never_the_proxys(
    make_server: MakeServer, join: Join
) -> None:
    server = believing(make_server, max_per_ip=2)

    def served(host: str) -> socket.socket:
        peer = join(server)
        peer.sendall(v2((host, 1)) + b"x")
        return peer

    kept = [served(host) for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1")[:3]]
    for peer in kept:
        assert recv_exactly(peer, 1) == b"x"
    for _ in range(3):  # health checks of the proxy itself
        peer = join(server)
        assert exchange(peer, headers.LOCAL + b"x", 1) == b"x"
    assert is_reset(served("192.0.2.1"))
    expect_stats(server, ended_by_max_per_ip=1, shed_max_per_ip=0)
    kept[0].shutdown(socket.SHUT_WR)
    assert read_to_eof(kept[0]) == b""
    assert recv_exactly(served("192.0.2.1"), 1) == b"x"
    assert recv_exactly(served("192.0.2.2"), 1) == b"x"


def test_of_an_address_that_is_not_trusted_max_per_ip_is_the_sockets(
    make_server: MakeServer,
) -> None:
    server = make_server(max_per_ip=1, proxy_protocol="optional", proxy_trusted="192.0.2.1")
    with connect(server) as first:
        assert exchange(first, v2()) == v2()
        assert is_turned_away(server)
    expect_stats(server, shed_max_per_ip=1)


def test_the_access_log_has_the_address_that_it_tells(
    make_server: MakeServer, join: Join, lines: Lines
) -> None:
    server = believing(make_server, access_log=True)
    with connect(server) as peer:
        assert exchange(peer, v2() + b"x", 1) == b"x"
    wait_until(lambda: len(lines.entries) == 1)
    with connect(server) as other:
        other.sendall(b"GET / HTTP/1.1\r\n")
        name = "{}:{}".format(*other.getsockname())
        assert is_reset(other)
    wait_until(lambda: len(lines.entries) == 2)
    told, refused = lines.entries
    assert (told.peer, told.ended_by, told.bytes_in) == ("192.0.2.7:51123", "peer", 1)
    assert (refused.peer, refused.ended_by, refused.bytes_in) == (name, "proxy_header", 0)
    wait_until(lambda: lines.warnings)
    assert lines.warnings == ["1 newcomer was reset for the PROXY header: there is none"]


def test_the_log_names_what_was_wrong_last_whichever_worker_saw_it(
    make_server: MakeServer, lines: Lines
) -> None:
    server = believing(make_server, threads=2, reuse_port=False)
    wrong = [(b"GET / HTTP/1.1\r\n", "there is none"), (v2(checksum=1), "its checksum is wrong")]
    for turn in range(4):
        text, says = wrong[turn % 2]
        # Whoever stays makes the next one the other worker's.
        with connect(server) as stays, connect(server) as other:
            assert exchange(stays, v2() + b"x", 1) == b"x"
            other.sendall(text)
            assert is_reset(other)
        wait_until(lambda count=turn: len(lines.warnings) > count)  # type: ignore[misc]
        assert lines.warnings[-1].endswith(says)


# --- what is no header -----------------------------------------------------------------------


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_header_is_reset_and_nothing_is_echoed(
    make_server: MakeServer, join: Join, text: bytes
) -> None:
    server = believing(make_server, threads=2)
    for cut in (0, 5, len(text) - 1):
        peer = join(server)
        try:
            for part in (text[:cut], text[cut:]):
                peer.sendall(part)
            assert is_reset(peer)
        except (ConnectionResetError, BrokenPipeError):
            pass
    expect_stats(server, ended_by_proxy_header=3, bytes_in=0, bytes_out=0, frames_incomplete=0)
    with connect(server) as other:
        assert exchange(other, v2() + b"still", 5) == b"still"


@pytest.mark.parametrize(
    "text", [b"", b"P", b"PROXY\n", b"\r\n\r\n", headers.SIGNATURE[:-1], b"hello", bytes(5000)]
)
def test_with_optional_what_is_no_header_is_echoed(
    make_server: MakeServer, join: Join, text: bytes
) -> None:
    """Also what could have become one, as soon as it cannot any more, at the peer's FIN."""
    server = make_server(proxy_protocol="optional", proxy_timeout=LONG)
    peer = join(server)
    peer.sendall(text)
    peer.shutdown(socket.SHUT_WR)
    assert read_to_eof(peer) == text
    expect_stats(server, connections_proxied=0, ended_by_peer=1, bytes_in=len(text))


def test_with_optional_who_sends_nothing_is_served_when_the_time_is_over(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(proxy_protocol="optional", proxy_timeout=0.05, identify=True)
    peer = join(server)
    assert recv_exactly(peer, 1) == b"{"
    other = join(server)
    other.sendall(b"PRO")
    assert read_to_eof_of_line(other).endswith(b"}\n")
    assert recv_exactly(other, 3) == b"PRO"
    assert exchange(other, b"XY") == b"XY"


def read_to_eof_of_line(sock: socket.socket) -> bytes:
    """Return the next line."""
    line = b""
    while not line.endswith(b"\n"):
        line += recv_exactly(sock, 1)
    return line


@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize("text", [v1()[:-1], v2()[:-1], headers.SIGNATURE, b"PROXY "])
def test_a_header_that_is_cut_off_or_late_is_reset(
    make_server: MakeServer, join: Join, mode: str, text: bytes
) -> None:
    server = make_server(proxy_protocol=mode, proxy_timeout=0.05)
    late = join(server)
    late.sendall(text)
    assert is_reset(late)
    cut = join(server)
    cut.sendall(text)
    cut.shutdown(socket.SHUT_WR)
    assert is_reset(cut)
    expect_stats(server, ended_by_proxy_header=2, bytes_in=0)


def test_who_only_looks_whether_somebody_listens_is_no_trouble(
    make_server: MakeServer, join: Join, lines: Lines
) -> None:
    server = believing(make_server)
    for _ in range(3):
        connect(server).close()
    expect_stats(server, ended_by_peer=3, ended_by_proxy_header=0)
    assert lines.warnings == []


def test_a_slow_header_takes_no_longer_for_coming_in_pieces(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(proxy_protocol="required", proxy_timeout=0.3)
    peer, began = join(server), time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for one in v2(tlvs=headers.tlv(headers.NOOP, bytes(2000))):
            peer.sendall(bytes([one]))
            threading.Event().wait(0.01)
    assert 0.25 < time.monotonic() - began < 5
    expect_stats(server, ended_by_proxy_header=1)


# --- who is believed -------------------------------------------------------------------------


def test_who_is_not_trusted_is_reset_where_a_header_is_required(
    make_server: MakeServer, join: Join, lines: Lines
) -> None:
    server = believing(make_server, proxy_trusted=["127.0.0.2", "10.0.0.0/8"], access_log=True)
    assert server.port is not None
    assert is_turned_away(server)
    with socket.create_connection(("127.0.0.1", server.port), 20, ("127.0.0.2", 0)) as known:
        assert exchange(known, v2() + b"x", 1) == b"x"
    expect_stats(server, shed_untrusted=1, connections_accepted=1)
    wait_until(lambda: len(lines.entries) == 2 and lines.warnings)
    assert lines.entries[0].ended_by == "untrusted"
    assert "proxy_trusted does not name them" in lines.warnings[0]


def test_who_is_not_trusted_is_echoed_byte_by_byte_where_it_is_optional(
    make_server: MakeServer, join: Join
) -> None:
    asked: list[Peer] = []
    server = make_server(
        proxy_protocol="optional", proxy_trusted="192.0.2.0/24", on_accept=asked.append
    )
    peer = join(server)
    assert exchange(peer, v2() + b"x") == v2() + b"x"
    assert (asked[0].host, asked[0].proxy) == ("127.0.0.1", None)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6")
def test_an_ipv4_range_holds_for_a_listener_of_both_families(make_server: MakeServer) -> None:
    server = believing(make_server, ":0", proxy_trusted="127.0.0.0/8")
    assert server.port is not None
    with connect(("127.0.0.1", server.port)) as four:
        assert exchange(four, v2() + b"x", 1) == b"x"
    assert is_turned_away(("::1", server.port))


def test_a_unix_sockets_peers_are_always_believed(
    make_server: MakeServer, join: Join, tmp_path: Path
) -> None:
    server = believing(make_server, f"unix:{tmp_path}/socket", proxy_trusted="192.0.2.1")
    assert exchange(join(server), v2() + b"x", 1) == b"x"


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"proxy_protocol": "on"}, "proxy_protocol 'on' must be one of off, optional, required"),
        ({"proxy_trusted": "10.0.0.1/8"}, "10.0.0.0/8 is the range"),
        ({"proxy_trusted": "10.0.0.0/33"}, "must have a number from 0 to 32 behind the /"),
        ({"proxy_trusted": "proxy.example"}, "proxy_trusted 'proxy.example' is no IP address"),
        ({"proxy_trusted": f"::/{'1' * 5000}"}, "must have a number from 0 to 128 behind the /"),
        ({"proxy_trusted": "10.0.0.0\0"}, "is no IP address"),
        ({"proxy_trusted": ["::1", 7]}, "must be addresses"),
        ({"proxy_timeout": 0}, "proxy_timeout 0 must be seconds from 0.001 to 3600"),
        ({"instance": "a\nb"}, "must be 1 to 255 printable characters"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Server(**settings)
    assert said in str(raised.value)


def test_ranges_are_read_from_text_and_lists() -> None:
    config = Config(proxy_trusted="10.0.0.0/8, ::1,10.0.0.0/8")
    assert [str(one) for one in config.proxy_trusted] == ["10.0.0.0/8", "::1/128"]
    assert Config(proxy_trusted="10.0.0.0/9").proxy_trusted != (config.proxy_trusted[0],)
    assert Config(proxy_trusted=[]).proxy_trusted == ()
    assert Config(**config.keywords()) == config
