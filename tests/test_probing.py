"""`fastecho serve --probes`: every order, what is refused, and an exact echo for everybody else."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from itertools import pairwise
from zlib import crc32

import pytest
from commands import DEADLINE, assert_refused, run, serving
from conftest import Join, MakeServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import reset, wait_until

import fastecho
from fastecho import probing
from fastecho.probing import MAGIC, MOST_BYTES, MOST_MS, Probing, ruler


@pytest.fixture
def obeying(make_server: MakeServer) -> Iterator[fastecho.Server]:
    """A server that takes orders."""
    orders = Probing()
    yield make_server(**orders.callbacks())
    orders.end()


def order(join: Join, server: fastecho.Server, text: str) -> socket.socket:
    """Order this on a new connection; return it behind the acknowledgement."""
    sock = join(server)
    sock.sendall(MAGIC + text.encode() + b"\n")
    assert line_of(sock) == MAGIC + b"ok " + text.partition(" ")[0].encode() + b"\n"
    return sock


def line_of(sock: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        assert byte, f"the connection ended after {line!r}"
        line += byte
    return line


def rest_of(sock: socket.socket) -> bytes:
    """Return all that comes until FIN."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


def exact(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk
        data += chunk
    return data


def test_half_close_sends_fin_and_counts_what_still_comes(
    obeying: fastecho.Server, join: Join
) -> None:
    sock = order(join, obeying, "half-close abc 1000")
    assert rest_of(sock) == ruler(1000)
    sock.sendall(b"still here")

    def report() -> dict[str, object]:
        asking = order(join, obeying, "received abc")
        found: dict[str, object] = json.loads(line_of(asking))
        return found

    wait_until(lambda: report()["bytes"] == 10)
    assert report() == {
        "token": "abc", "bytes": 10, "crc32": crc32(b"still here"), "eof": False,
    }  # fmt: skip
    sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: report()["eof"] is True)


def test_close_sends_all_and_then_fin(obeying: fastecho.Server, join: Join) -> None:
    for size in (0, 1, 100_000):
        assert rest_of(order(join, obeying, f"close {size}")) == ruler(size)


def test_reset_comes_with_the_byte_after(obeying: fastecho.Server, join: Join) -> None:
    sock = order(join, obeying, "reset 5000")
    assert exact(sock, 5000) == ruler(5000)
    sock.sendall(b"!")
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_first_speaks_unasked_and_then_echoes(obeying: fastecho.Server, join: Join) -> None:
    began = time.monotonic()
    sock = order(join, obeying, "first 100 50")
    assert exact(sock, 50) == ruler(50)
    assert time.monotonic() - began >= 0.09
    sock.sendall(b"hello")
    assert exact(sock, 5) == b"hello"


def test_deaf_reads_nothing_for_a_while_and_then_echoes(
    obeying: fastecho.Server, join: Join
) -> None:
    began = time.monotonic()
    sock = order(join, obeying, "deaf 150")
    sock.sendall(b"hello")
    assert exact(sock, 5) == b"hello"
    assert time.monotonic() - began >= 0.14


def test_an_order_may_come_byte_by_byte_and_with_more_behind_it(
    obeying: fastecho.Server, join: Join
) -> None:
    sock = join(obeying)
    for byte in MAGIC + b"deaf 1\n":
        sock.sendall(bytes([byte]))
    assert line_of(sock) == MAGIC + b"ok deaf\n"
    sock = join(obeying)
    sock.sendall(MAGIC + b"deaf 1\nand more")
    assert line_of(sock) == MAGIC + b"ok deaf\n"
    assert exact(sock, 8) == b"and more"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dance", "there is no such order"),
        ("", "there is no such order"),
        ("close", f"close takes 0 to {MOST_BYTES} bytes"),
        (f"close {MOST_BYTES + 1}", f"close takes 0 to {MOST_BYTES} bytes"),
        ("close -1", f"close takes 0 to {MOST_BYTES} bytes"),
        ("close 1 2", f"close takes 0 to {MOST_BYTES} bytes"),
        ("reset x", f"reset takes 0 to {MOST_BYTES} bytes"),
        (f"deaf {MOST_MS + 1}", f"deaf takes 0 to {MOST_MS} ms"),
        ("first 1", f"first takes 0 to {MOST_MS} ms and 0 to {MOST_BYTES} bytes"),
        ("half-close ../x 1", f"half-close takes a token and 0 to {MOST_BYTES} bytes"),
        (f"half-close {'a' * 65} 1", f"half-close takes a token and 0 to {MOST_BYTES} bytes"),
        ("received never", "received takes a token that half-close was given"),
    ],
)
def test_an_order_that_cannot_be_obeyed_is_refused_in_a_line(
    obeying: fastecho.Server, join: Join, text: str, says: str
) -> None:
    sock = join(obeying)
    sock.sendall(MAGIC + text.encode() + b"\n")
    answer = rest_of(sock)
    assert answer.startswith(MAGIC + b"error " + says.encode())
    assert answer.count(b"\n") == 1
    assert obeying.stats().callback_errors == 0


def test_tokens_are_bounded_and_the_oldest_goes(
    obeying: fastecho.Server, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "MOST_TOKENS", 3)
    for token in "abcd":
        order(join, obeying, f"half-close {token} 0")
    sock = join(obeying)
    sock.sendall(MAGIC + b"received a\n")
    assert line_of(sock).startswith(MAGIC + b"error ")
    order(join, obeying, "received b")


def test_who_orders_too_much_for_later_is_reset(
    obeying: fastecho.Server, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "MOST_DUE", 2)
    waiting = [order(join, obeying, "first 60000 1") for _ in range(2)]
    sock = join(obeying)
    sock.sendall(MAGIC + b"first 60000 1\n")
    with pytest.raises(ConnectionResetError):
        rest_of(sock)
    assert len(waiting) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"FASTECHO",
        b"FASTECHO-PROBE/2 close 1\n",
        MAGIC.lower() + b"close 1\n",
        b" " + MAGIC + b"close 1\n",
        MAGIC + b"x" * 128 + b"\n",
        MAGIC + b"x" * 300,
        MAGIC,
        b"hello\n" + MAGIC + b"close 1\n",
    ],
)
@pytest.mark.parametrize("pieces", [1, 1000])
def test_what_is_no_order_is_echoed(
    obeying: fastecho.Server, join: Join, data: bytes, pieces: int
) -> None:
    sock = join(obeying)
    size = len(data) // pieces or 1
    for at in range(0, len(data), size):
        sock.sendall(data[at : at + size])
    sock.shutdown(socket.SHUT_WR)
    assert rest_of(sock) == data


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from(
        [b"", MAGIC[:5], MAGIC[:-1], MAGIC, MAGIC + b"nothing", MAGIC + b"y" * 120]
    ),
    rest=st.binary(max_size=300),
    cuts=st.lists(st.integers(0, 400), max_size=4),
)
def test_bytes_at_random_in_random_pieces_are_echoed(
    obeying: fastecho.Server, head: bytes, rest: bytes, cuts: list[int]
) -> None:
    data = head + rest
    if data.startswith(MAGIC) and b"\n" in data[:128]:
        data = b"-" + data
    with socket.create_connection((obeying.host, obeying.port), DEADLINE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        for start, end in pairwise(places):
            sock.sendall(data[start:end])
        sock.shutdown(socket.SHUT_WR)
        assert rest_of(sock) == data


def test_a_large_echo_through_it_is_exact(obeying: fastecho.Server) -> None:
    data = os.urandom(3_000_000)
    with fastecho.Client(obeying.address, timeout=DEADLINE) as client:
        assert client.echo(data) == data


def test_a_peer_that_is_gone_before_its_moment_disturbs_nobody(
    obeying: fastecho.Server, join: Join
) -> None:
    sock = order(join, obeying, "first 50 100")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    sock = order(join, obeying, "first 100 10")
    assert exact(sock, 10) == ruler(10)
    assert obeying.stats().callback_errors == 0


# The command


def test_serve_says_that_peers_can_order_it() -> None:
    with serving("--probes") as running:
        client = running.connect()
        with client:
            client.sendall(MAGIC + b"close 32\n")
            assert rest_of(client) == MAGIC + b"ok close\n" + ruler(32)
        code, said = running.end(15)
    assert code == 0
    assert "fastecho: warning: with --probes, peers can order how the server behaves" in "\n".join(
        said
    )


def test_without_probes_an_order_is_echoed() -> None:
    with serving("--log-level=error") as running, running.connect() as client:
        client.sendall(MAGIC + b"close 32\n")
        client.shutdown(socket.SHUT_WR)
        assert rest_of(client) == MAGIC + b"close 32\n"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--frame=line", "--frame 'line' cannot be used with --probes, which needs a plain echo"),
        ("--prefix=x", "--prefix 'x' cannot be used with --probes, which needs a plain echo"),
        ("--suffix=x", "--suffix 'x' cannot be used with --probes, which needs a plain echo"),
        ("--model=blocking", "--model 'blocking' cannot be used with --probes"),
        ("--black-hole", "--black-hole cannot be used with --probes"),
    ],
)
def test_what_does_not_go_with_it_is_one_sentence(option: str, sentence: str) -> None:
    assert_refused(run("serve", "--probes", option), 2, sentence)


def test_orders_of_who_has_gone_make_room(
    obeying: fastecho.Server, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One peer must not take the place of all others by orders that are due in a minute."""
    monkeypatch.setattr(probing, "MOST_DUE", 5)
    for _ in range(5):
        reset(order(join, obeying, "first 60000 1"))
    wait_until(lambda: obeying.stats().connections_open == 0)
    sock = order(join, obeying, "first 1 3")
    assert exact(sock, 3) == ruler(3)


def test_an_order_that_fails_costs_nobody_else_theirs(
    obeying: fastecho.Server, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for one: cannot be provoked."""
    failing = iter([MemoryError()])

    def short(size: int) -> bytes:
        for error in failing:
            raise error
        return ruler(size)

    monkeypatch.setattr(probing, "ruler", short)
    order(join, obeying, "first 1 3")
    sock = order(join, obeying, "first 50 3")
    assert exact(sock, 3) == ruler(3)
