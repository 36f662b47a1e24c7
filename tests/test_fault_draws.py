"""Who gets a fault, and what chance decides: the same seed, the same behaviour.

How the bytes come in, and how many workers there are, changes nothing.
"""

from __future__ import annotations

import logging
import signal
import socket
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import serving
from conftest import Join, MakeServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import connect, exchange, expect_stats, is_turned_away, pattern, read_to_eof, same

from fastecho import Fault

if TYPE_CHECKING:
    import fastecho
    from fastecho import Peer

QUIETLY = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DATA = pattern(3000)
LINES = b"".join(b"line %d\n" % i for i in range(200))


def everything(server: fastecho.Server, data: bytes, cuts: list[int] | None = None) -> bytes:
    """Send data, cut at some places, and FIN; return all that comes back."""
    at = [0, *sorted(cuts or []), len(data)]
    with connect(server) as peer:
        for start, end in pairwise(at):
            peer.sendall(data[start:end])
        peer.shutdown(socket.SHUT_WR)
        return read_to_eof(peer)


@pytest.fixture
def both(make_server: MakeServer) -> list[fastecho.Server]:
    """Two servers: one worker, and four."""
    return [make_server(threads=1, frame="line"), make_server(threads=4, frame="line")]


@QUIETLY
@given(
    cuts=st.lists(st.integers(0, len(LINES)), max_size=20),
    seed=st.integers(0, 2**64 - 1),
    slice=st.sampled_from([None, 7, 100]),
)
def test_same_seed_same_bytes_under_any_segmentation(
    both: list[fastecho.Server], cuts: list[int], seed: int, slice: int | None
) -> None:
    gap = None if slice is None else 0.0
    fault = Fault(corrupt=0.02, duplicate=0.2, slice=slice, gap=gap, seed=seed)
    first = []
    for server in both:
        number = server.stats().connections_accepted
        server.set_fault(fault)
        first.append((number, everything(server, LINES, cuts)))
    # Both have accepted as many, so these are connections of the same number.
    assert first[0] == first[1]
    assert first[0][1] != LINES


def test_each_connection_and_each_seed_has_draws_of_its_own(make_server: MakeServer) -> None:
    def replies(seed: int) -> list[bytes]:
        server = make_server(fault=Fault(corrupt=0.05, seed=seed))
        return [everything(server, DATA) for _ in range(3)]

    one, again, other = replies(1), replies(1), replies(2)
    assert one == again
    assert len({*one, *other, DATA}) == 7


@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_corrupt_changes_so_many_bytes_and_loses_none(
    make_server: MakeServer, join: Join, probability: float
) -> None:
    server = make_server(fault=Fault(corrupt=probability, seed=5))
    data = pattern(100_000)
    received = exchange(join(server), data)
    changed = sum(a != b for a, b in zip(data, received, strict=True))
    assert abs(changed - probability * len(data)) <= 500
    expect_stats(server, bytes_corrupted=changed, bytes_out=len(data))


@pytest.mark.parametrize("frame", ["line", "length"])
def test_duplicate_sends_whole_frames_twice(make_server: MakeServer, frame: str) -> None:
    server = make_server(fault="duplicate=0.5,seed=1", frame=frame, prefix=">")
    sent = [b"%d" % i * (i % 9 + 1) for i in range(400)]
    if frame == "line":
        data = b"".join(one + b"\n" for one in sent)
        received = everything(server, data).split(b"\n")[:-1]
    else:
        data = b"".join(len(one).to_bytes(4, "big") + one for one in sent)
        left, received = everything(server, data), []
        while left:
            size = 4 + int.from_bytes(left[:4], "big")
            received.append(left[4:size])
            left = left[size:]
    twice = [a for a, b in pairwise(received) if a == b]
    assert 140 < len(twice) < 260
    once = [one for i, one in enumerate(received) if i == 0 or received[i - 1] != one]
    assert once == [b">" + one for one in sent]
    expect_stats(server, frames_duplicated=len(twice), messages=400)


def test_more_frames_than_one_round_holds(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="duplicate=1", frame="line", high_water=1000, max_frame=100)
    data = b"".join(b"%d\n" % i for i in range(5000))
    twice = b"".join(b"%d\n%d\n" % (i, i) for i in range(5000))
    assert same(exchange(join(server), data, len(twice)), twice)


def test_fail_first_and_then_none(make_server: MakeServer) -> None:
    server = make_server(fault="deny,fail_first=3")
    assert [is_turned_away(server) for _ in range(3)] == [True] * 3
    with connect(server) as peer:
        assert exchange(peer, b"x") == b"x"
    server.set_fault("deny,fail_first=1")  # counts anew
    assert is_turned_away(server)
    with connect(server) as peer:
        assert exchange(peer, b"x") == b"x"
    expect_stats(server, connections_faulty=4, ended_by_fault=4)


def test_probability_is_the_same_with_the_same_seed(make_server: MakeServer) -> None:
    def outcome(seed: int, threads: int) -> list[int]:
        server = make_server(
            fault=Fault(close_after=0, probability=0.3, seed=seed), threads=threads
        )
        result = []
        for _ in range(60):
            with connect(server) as peer:
                peer.sendall(b"x")
                result.append(len(peer.recv(1)))
        expect_stats(server, connections_faulty=result.count(0))
        return result

    first = outcome(1, 1)
    assert first == outcome(1, 4)
    assert first != outcome(2, 1)
    assert 6 <= first.count(0) <= 32


def test_on_accept_chooses_for_each_peer(make_server: MakeServer) -> None:
    answers = [Fault(close_after=2, fail_first=0), Fault(), None, True, Fault(deny=True), False]

    def on_accept(peer: Peer) -> object:
        return answers.pop(0)

    server = make_server(fault="close_after=4", on_accept=on_accept)

    def reply() -> bytes:
        with connect(server) as peer:
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            return read_to_eof(peer)

    assert [reply() for _ in range(4)] == [b"he", b"hello", b"hell", b"hell"]
    assert is_turned_away(server)
    assert is_turned_away(server)
    expect_stats(server, ended_by_fault=4, ended_by_denial=1, connections_faulty=5)


def test_on_accept_cannot_choose_what_does_not_fit(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(on_accept=lambda peer: Fault(duplicate=1))
    with caplog.at_level(logging.ERROR):
        assert is_turned_away(server)
        expect_stats(server, ended_by_denial=1)
    assert (
        "on_accept returned what cannot be: fault 'duplicate=1.0' duplicates frames" in caplog.text
    )


def test_on_close_is_told_of_a_fault(make_server: MakeServer, join: Join) -> None:
    reasons: list[str] = []
    server = make_server(fault="reset_after=1", on_close=lambda _, reason: reasons.append(reason))
    join(server).sendall(b"x")
    expect_stats(server, ended_by_fault=1)
    server.stop()
    assert reasons == ["fault"]


def test_live_change_is_for_newcomers(make_server: MakeServer, join: Join) -> None:
    server = make_server(threads=2)
    before = join(server)
    assert exchange(before, b"x") == b"x"
    server.set_fault("close_after=1")
    for _ in range(10):
        during = join(server)
        during.sendall(b"abc")
        assert read_to_eof(during) == b"a"
    faulty = join(server)
    server.set_fault(None)
    assert exchange(before, b"y" * 10) == b"y" * 10
    after = join(server)
    assert exchange(after, b"z" * 10) == b"z" * 10
    faulty.sendall(b"abc")
    faulty.shutdown(socket.SHUT_WR)  # it may have been in the queue: then only this ends it
    assert read_to_eof(faulty) in (b"a", b"abc")


def test_fault_is_set_before_the_start(make_server: MakeServer, join: Join) -> None:
    from fastecho import Server

    server = Server()
    server.set_fault("close_after=1")
    with server:
        peer = join(server)
        peer.sendall(b"abc")
        assert read_to_eof(peer) == b"a"
        peer.close()


def test_sighup_takes_the_fault_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "fastecho.toml"
    base = 'bind = "127.0.0.1:0"\n'
    path.write_text(base + 'fault = "close_after=1"\n')
    with serving(f"--config={path}") as server:
        assert server.process.stderr is not None
        while b"threads" not in server.process.stderr.readline():
            pass
        with server.connect() as peer:
            peer.sendall(b"abc")
            assert read_to_eof(peer) == b"a"
        for text, said in (
            ('fault = "close_after=2"\n', b"fastecho: reloaded: fault close_after=2\n"),
            ("", b"fastecho: reloaded: fault none\n"),
        ):
            path.write_text(base + text)
            server.process.send_signal(signal.SIGHUP)
            assert server.process.stderr.readline() == said
            with server.connect() as peer:
                peer.sendall(b"abc")
                peer.shutdown(socket.SHUT_WR)
                assert read_to_eof(peer) == (b"ab" if text else b"abc")
        code, lines = server.end(signal.SIGTERM)
        assert code == 0
        assert lines[-1].endswith(", connections with a fault 2")
