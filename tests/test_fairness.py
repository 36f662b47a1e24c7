"""Nobody starves: what one connection, or the accept queue, gets of an iteration is bounded.

Two kinds of proof. The first stops the server's process, lets peers pile up work in the kernel,
lets it run again, and reads from the shim's log what the server did in which order: no clock. The
second runs everything at once, and holds that a quiet peer is answered all the while.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from conftest import Join, MakeServer
from peers import connect, exchange, pattern, plenty, port_of, recv_exactly, same, wait_until
from served import Call, Served

READ = 256 * 1024
"""Bytes that one connection may receive in one iteration."""
ACCEPTS = 64
"""Newcomers that one event may bring."""


def iterations(log: list[Call]) -> list[list[Call]]:
    """Cut the log where the loop waits; what comes before the first wait is dropped."""
    parts: list[list[Call]] = []
    for call in log:
        if call.name == "epoll_wait":
            parts.append([])
        elif parts:
            parts[-1].append(call)
    return parts


def received_at_once(log: list[Call]) -> Counter[int]:
    """Return the most bytes that each port's connection received in one iteration."""
    most: Counter[int] = Counter()
    for part in iterations(log):
        for port, size in totals(part, "recv").items():
            most[port] = max(most[port], size)
    return most


def totals(calls: list[Call], name: str) -> Counter[int]:
    """Sum up the successful results of the calls called `name`, by port."""
    sums: Counter[int] = Counter()
    for call in calls:
        if call.name == name and call.result > 0:
            sums[call.port] += call.result
    return sums


def push(sock: socket.socket, data: bytes) -> int:
    """Put as much into the kernel's buffers as they take at once; return how much."""
    sock.setblocking(False)
    sent = 0
    try:
        while sent < len(data):
            sent += sock.send(memoryview(data)[sent:])
    except BlockingIOError:
        pass
    sock.settimeout(10)
    return sent


# --- what the log says ---------------------------------------------------------------------


def test_bulk_peer_gets_one_buffer_of_an_iteration(served: Served, join: Join) -> None:
    bulk, ping = join(served.address), join(served.address)
    assert exchange(bulk, b"settled") == exchange(ping, b"settled")
    # Grow the server's receive buffer, so that more than one read waits in it.
    data = plenty()[:16_000_000]
    assert same(exchange(bulk, data), data)
    served.start_log()
    with served.paused():
        sent = push(bulk, data)
        ping.sendall(b"ping")
    assert sent > READ
    assert same(recv_exactly(bulk, sent), data[:sent])
    assert recv_exactly(ping, 4) == b"ping"
    log = served.take_log()
    assert 0 < received_at_once(log)[port_of(bulk)] <= READ
    # All it had, before the one with four bytes had its turn: at most one buffer.
    turn = next(
        place
        for place, call in enumerate(log)
        if (call.name, call.port, call.result) == ("recv", port_of(ping), 4)
    )
    assert totals(log[:turn], "recv")[port_of(bulk)] <= READ


@pytest.mark.parametrize("served", [{"frame": "line", "prefix": "x" * 100}], indirect=True)
def test_pipelining_flooder_gets_one_round_of_replies_at_a_time(served: Served, join: Join) -> None:
    """Its lines come in one read, and their replies fill many rounds."""
    round_bytes = 256 * 1024
    flooder, ping = join(served.address), join(served.address)
    assert exchange(flooder, b"\n", 101) == exchange(ping, b"\n", 101)
    served.start_log()
    with served.paused():
        lines = push(flooder, b"\n" * 60_000)
        ping.sendall(b"ping\n")
    assert same(recv_exactly(ping, 105), b"x" * 100 + b"ping\n")
    assert same(recv_exactly(flooder, lines * 101), (b"x" * 100 + b"\n") * lines)
    log = served.take_log()
    answered = next(
        place for place, call in enumerate(log) if (call.name, call.port) == ("send", port_of(ping))
    )
    # The rounds are 24 in all. The reading and the ready list may each bring one.
    assert lines * 101 > 20 * round_bytes
    assert totals(log[:answered], "send")[port_of(flooder)] <= 2 * (round_bytes + 101)
    for part in iterations(log):
        assert totals(part, "send")[port_of(flooder)] <= 2 * (round_bytes + 101)


def test_connect_storm_brings_newcomers_in_portions(served: Served, join: Join) -> None:
    ping = join(served.address)
    exchange(ping, b"settled")
    served.start_log()
    with served.paused():
        crowd = [join(served.address) for _ in range(400)]
        ping.sendall(b"ping")
    assert recv_exactly(ping, 4) == b"ping"
    for place, peer in enumerate(crowd):
        assert exchange(peer, b"%d" % place) == b"%d" % place
    log = served.take_log()
    accepted = [
        sum(call.name == "accept4" and call.result >= 0 for call in part)
        for part in iterations(log)
    ]
    assert sum(accepted) == 400
    assert ACCEPTS // 2 < max(accepted) <= ACCEPTS
    turn = next(
        place for place, call in enumerate(log) if (call.name, call.port) == ("recv", port_of(ping))
    )
    before = [call for call in log[:turn] if call.name == "accept4"]
    assert len(before) <= ACCEPTS


def test_every_ready_connection_has_its_turn_in_one_iteration(served: Served, join: Join) -> None:
    peers = [join(served.address) for _ in range(100)]
    for peer in peers:
        exchange(peer, b"settled")
    served.start_log()
    with served.paused():
        for place, peer in enumerate(peers):
            peer.sendall(pattern(1000, seed=place))
    for place, peer in enumerate(peers):
        assert same(recv_exactly(peer, 1000), pattern(1000, seed=place))
    busiest = max(iterations(served.take_log()), key=len)
    receives = Counter(call.port for call in busiest if call.name == "recv")
    assert receives == Counter({port_of(peer): 1 for peer in peers})


# --- all at once ---------------------------------------------------------------------------


@pytest.fixture
def background() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Call functions again and again, each in a thread, until the test ends."""
    ended = threading.Event()
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []

    def repeat(work: Callable[[], None]) -> None:
        while not ended.is_set():
            try:
                work()
            except BaseException as error:
                failures.append(error)
                return

    def start(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=repeat, args=(work,)))
        threads[-1].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_quiet_peer_is_answered_beside_bulk_flood_and_storm(
    make_server: MakeServer, join: Join, background: Callable[[Callable[[], None]], None]
) -> None:
    server = make_server(frame="line")
    bulk, flooder, ping = (join(server) for _ in range(3))
    long_lines, short_lines = (b"x" * 9999 + b"\n") * 200, b"\n" * 100_000

    def storm() -> None:
        with connect(server) as newcomer:
            newcomer.sendall(b"hello\n")
            recv_exactly(newcomer, 6)

    background(lambda: check(exchange(bulk, long_lines) == long_lines))
    background(lambda: check(exchange(flooder, short_lines) == short_lines))
    background(storm)
    wait_until(lambda: server.stats().bytes_in > 1_000_000)
    turns = 0
    start = server.stats()
    while turns < 100 or server.stats().bytes_in - start.bytes_in < 10_000_000:
        ping.sendall(b"ping %d\n" % turns)
        # A starved peer would wait as long as the others have something to send: for ever.
        expected = b"ping %d\n" % turns
        assert same(recv_exactly(ping, len(expected), timeout=3), expected)
        turns += 1
    assert server.stats().connections_accepted - start.connections_accepted > 10


def check(true: bool) -> None:
    """Fail if it is not true: an assertion that fits a lambda."""
    assert true
