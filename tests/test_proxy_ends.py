"""The PROXY header at the edge: limits, drains, aborts, and a storm of peers that end anywhere.

Whatever is echoed and who is believed is in test_proxy.py.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Join, MakeServer
from peers import (
    connect,
    exchange,
    expect_stats,
    is_reset,
    is_turned_away,
    read_to_eof,
    recv_exactly,
    reset,
    wait_until,
)
from proxy_headers import v1, v2
from test_proxy import HEADERS, LONG, PATHS, WRONG, believing, read_to_eof_of_line

# --- limits, ends ----------------------------------------------------------------------------


def test_places_are_taken_while_a_header_is_awaited(make_server: MakeServer, join: Join) -> None:
    server = believing(make_server, max_connections=2)
    waiting = [join(server) for _ in range(2)]
    wait_until(lambda: server.stats().connections_open == 2)
    assert is_turned_away(server)
    reset(waiting[0])
    wait_until(lambda: server.stats().connections_open == 1)
    assert exchange(join(server), v1() + b"x", 1) == b"x"
    expect_stats(server, shed_max_connections=1)


def test_the_first_bytes_time_begins_behind_it(make_server: MakeServer, join: Join) -> None:
    server = believing(make_server, first_byte_timeout=0.1)
    peer = join(server)
    threading.Event().wait(0.2)
    peer.sendall(v2())
    assert read_to_eof(peer) == b""
    expect_stats(server, ended_by_first_byte_timeout=1, connections_proxied=1)
    assert exchange(join(server), v2() + b"x", 1) == b"x"


@pytest.mark.parametrize("settings", PATHS.values(), ids=PATHS)
def test_stop_does_not_wait_for_headers(
    make_server: MakeServer, join: Join, settings: dict[str, Any]
) -> None:
    server = believing(make_server, drain_idle=0.05, **settings)
    waiting, part = join(server), join(server)
    part.sendall(v2()[:7])
    wait_until(lambda: server.stats().connections_open == 2)
    began = time.monotonic()
    assert server.stop(20)
    assert time.monotonic() - began < 5
    assert is_reset(waiting)
    assert is_reset(part)
    assert server.stats().ended_by_drain == 2


@pytest.mark.parametrize(("sent", "mode"), [(b"", "optional"), (b"P", "optional")])
def test_a_drain_is_as_without_a_header_where_none_is_required(
    make_server: MakeServer, join: Join, sent: bytes, mode: str
) -> None:
    server = make_server(proxy_protocol=mode, proxy_timeout=LONG, drain_idle=0.05)
    peer = join(server)
    peer.sendall(sent)
    wait_until(lambda: server.stats().connections_open == 1)
    assert server.stop(20)
    assert read_to_eof(peer) == sent


def test_a_drain_gives_a_header_no_more_time_than_it_had(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(proxy_protocol="required", proxy_timeout=0.2, drain_idle=LONG)
    peer = join(server)
    peer.sendall(b"PROXY ")
    wait_until(lambda: server.stats().connections_open == 1)
    began = time.monotonic()
    assert server.stop(20)
    assert time.monotonic() - began < 10
    assert is_reset(peer)


def test_a_drain_gives_a_header_that_is_nearly_late_no_more_time(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(proxy_protocol="required", proxy_timeout=1.2, drain_idle=1.1)
    peer = join(server)
    wait_until(lambda: server.stats().connections_open == 1)
    threading.Event().wait(1)
    began = time.monotonic()
    assert server.stop(20)
    assert time.monotonic() - began < 0.9
    assert is_reset(peer)


def test_abort_ends_who_waits_and_who_was_not_asked_about(
    make_server: MakeServer, join: Join
) -> None:
    held = threading.Event()
    server = believing(make_server, on_accept=lambda _: held.wait(20) and None)
    peers = [join(server) for _ in range(3)]
    peers[0].sendall(v2()[:20])
    peers[1].sendall(v2() + b"data")
    wait_until(lambda: server.stats().connections_proxied == 1)
    server.abort()
    for peer in peers:
        assert is_reset(peer)
    held.set()
    assert server.wait(20)
    assert server.stats().frames_incomplete == 0


def test_each_waits_for_its_own_time_whoever_leaves_before(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(proxy_protocol="required", proxy_timeout=0.3)
    connected, lasted = {}, []
    for number in range(7):
        began = time.monotonic()
        connected[number] = join(server), began
        wait_until(lambda number=number: server.stats().connections_open == number + 1)  # type: ignore[misc]
        threading.Event().wait(0.03)
    for number in (0, 3, 6):  # the first, one in the middle, the last
        reset(connected.pop(number)[0])
    assert exchange(connected.pop(4)[0], v2() + b"x", 1) == b"x"
    for peer, began in connected.values():
        assert is_reset(peer)
        lasted.append(time.monotonic() - began)
    assert 0.3 <= min(lasted)
    assert max(lasted) < 5
    expect_stats(server, ended_by_proxy_header=3, ended_by_error=3)


@pytest.mark.parametrize("settings", [{}, PATHS["callback"], PATHS["accept"], PATHS["fault"]])
def test_a_storm_of_peers_that_end_anywhere_leaves_the_books_right(
    make_server: MakeServer, settings: dict[str, Any]
) -> None:
    """Whole and broken headers in pieces of any size, ended by FIN or RST anywhere."""
    server = make_server(
        proxy_protocol="optional", proxy_timeout=0.05, threads=2, max_per_ip=30, identify=True,
        access_log=True, **settings,
    )  # fmt: skip

    def one(seed: int) -> None:
        draw = random.Random(seed)
        text = draw.choice([*HEADERS.values(), *WRONG.values()]) + b"data" * draw.randrange(3)
        text = text[: draw.randrange(len(text) + 1)] if draw.random() < 0.5 else text
        try:
            with connect(server) as peer:
                while text:
                    n = draw.choice([1, 7, 16, 5000])
                    peer.sendall(text[:n])
                    text = text[n:]
                if draw.random() < 0.3:
                    reset(peer)
                elif draw.random() < 0.5:
                    peer.shutdown(socket.SHUT_WR)
                    read_to_eof(peer)
        except OSError:
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(600)))
    wait_until(lambda: server.stats().connections_open == 0)
    stats = server.stats()
    assert stats.connections_proxied > 50
    assert stats.ended_by_proxy_header > 50
    assert stats.bytes_pending == 0
    with connect(server) as peer:
        peer.sendall(v2() + b"x\n")
        assert read_to_eof_of_line(peer).endswith(b"}\n")
        assert recv_exactly(peer, 2) == b"x\n"
