"""Faults of connections whose replies a callback makes: what peers see is the same.

The tests are those of test_fault_ends.py and test_fault_times.py. Here their servers have a
callback that returns what it is given, as the core alone would send.
"""

from __future__ import annotations

import queue
import time
from typing import Any

import pytest
import test_fault_ends
import test_fault_times
from conftest import Join, MakeServer
from peers import DEADLINE, exchange, is_reset, read_to_eof, recv_exactly, wait_until
from sanitize import chosen

import fastecho
from fastecho import Connection, Reason

for module in (test_fault_ends, test_fault_times):
    for name, one in vars(module).items():
        # A sanitizer's reader is not prompt (sanitize.py).
        if name.startswith("test_") and not (chosen() and "prompt" in name):
            globals()[name] = one


def echo(_: Connection, data: bytes) -> bytes:
    """Return what came."""
    return data


@pytest.fixture
def make_server(make_server: MakeServer) -> MakeServer:
    """Start servers that answer by a callback, where one can make that reply."""

    def make(bind: Any = "127.0.0.1:0", **config: Any) -> fastecho.Server:
        if not (config.get("prefix") or config.get("suffix")):
            config.setdefault("on_message", echo)
        return make_server(bind, **config)

    return make


def test_what_another_thread_writes_is_delayed_as_well(make_server: MakeServer, join: Join) -> None:
    met: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    server = make_server(fault="delay=100ms", on_message=lambda connection, _: met.put(connection))
    peer = join(server)
    peer.sendall(b"x")
    connection = met.get(timeout=DEADLINE)
    began = time.monotonic()
    for number in range(100):
        connection.write(b"%02d" % number)
    assert recv_exactly(peer, 200) == b"".join(b"%02d" % number for number in range(100))
    assert time.monotonic() - began >= 0.1
    began = time.monotonic()
    connection.write(b"last")
    connection.close()
    assert read_to_eof(peer) == b"last"
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("fault", ["close_after=5", "reset_after=5"])
def test_an_end_by_a_fault_is_told(make_server: MakeServer, join: Join, fault: str) -> None:
    ends: queue.SimpleQueue[tuple[Connection, Reason]] = queue.SimpleQueue()
    server = make_server(fault=fault, on_close=lambda *end: ends.put(end))
    peer = join(server)
    peer.sendall(b"hello world")
    assert recv_exactly(peer, 5) == b"hello"
    if fault.startswith("reset"):
        assert is_reset(peer)
    peer.close()
    connection, reason = ends.get(timeout=DEADLINE)
    assert reason is Reason.FAULT
    assert not connection.write(b"x")


def test_who_is_never_read_cannot_be_resumed(make_server: MakeServer, join: Join) -> None:
    heard: list[bytes] = []
    handles: list[Connection] = []

    def on_message(connection: Connection, data: bytes) -> None:
        heard.append(data)
        handles.append(connection)

    server = make_server(fault="no_read,fail_first=1", on_message=on_message)
    deaf, other = join(server), join(server)
    deaf.sendall(b"x")
    other.sendall(b"y")
    wait_until(lambda: heard == [b"y"])
    handles[0].pause_reading()
    handles[0].resume_reading()
    other.sendall(b"z")
    wait_until(lambda: heard == [b"y", b"z"])


def test_a_fault_holds_back_a_writer_at_high_water(make_server: MakeServer, join: Join) -> None:
    notes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    server = make_server(
        fault="bandwidth=2000000",
        on_message=lambda connection, _: notes.put(connection),
        on_drain=lambda _: notes.put("drain"),
    )
    peer = join(server)
    peer.sendall(b"x")
    connection = notes.get(timeout=DEADLINE)
    written = 0
    while connection.write(bytes(20_000)):
        written += 20_000
    written += 20_000
    assert written <= server.config.high_water + 200_000
    assert len(recv_exactly(peer, written)) == written
    assert notes.get(timeout=DEADLINE) == "drain"


def test_set_fault_while_callbacks_serve(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    before = join(server)
    assert exchange(before, b"1") == b"1"
    server.set_fault("delay=80ms")
    after = join(server)
    began = time.monotonic()
    assert exchange(after, b"2") == b"2"
    assert time.monotonic() - began >= 0.08
    assert exchange(before, b"3") == b"3"
