"""Replies to one peer that leave in one train: they come back the same, each for itself."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest
from conftest import Serve
from datagrams import ask, collect, open_socket, place_of
from peers import expect_stats, pattern
from served import Served


def sent_at_once(served: Served, datagrams: Sequence[bytes]) -> list[bytes]:
    """Return the replies to datagrams that the server finds all together."""
    with open_socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        with served.paused():
            for data in datagrams:
                sock.sendto(data, place_of(served.address))
        return collect(sock, len(datagrams))


def messages_sent(served: Served) -> int:
    """Return how many messages the first sendmmsg since start_log() took.

    A reply may be here before the call is noted: a second one is not.
    """
    assert ask(served.address, b"noted?")[0].strip(b"!").endswith(b"noted?")
    return next(call.result for call in served.take_log() if call.name == "sendmmsg")


def pieces(sizes: Sequence[int]) -> list[bytes]:
    return [pattern(size, seed) for seed, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "trains"),
    [
        ([100] * 50, 1),
        ([100, 100, 40, 100, 100, 99, 98], 3),
        ([40, 100, 100], 2),
        ([100, 0, 100, 100], 3),
        ([0, 0, 0], 3),
        ([1] * 64, 1),
        ([30000] * 5, 3),
        ([65507, 65507], 2),
        ([1472] * 44, 1),
        ([1473] * 3, 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_equal_ones_leave_together_and_come_back_as_they_were(
    serve_shimmed: Serve, sizes: list[int], trains: int
) -> None:
    """None longer than the first one, only the last one shorter, 65,000 bytes, 64 datagrams."""
    served = serve_shimmed(bind="udp://127.0.0.1:0", udp_rate=None)
    datagrams = pieces(sizes)
    served.start_log()
    assert sent_at_once(served, datagrams) == datagrams
    expect_stats(served, datagrams_out=len(sizes), datagram_bytes_out=sum(sizes), errors={})
    assert messages_sent(served) == trains


def test_prefix_and_suffix_are_in_a_train_too(serve_shimmed: Serve) -> None:
    served = serve_shimmed(bind="udp://127.0.0.1:0", udp_rate=None, prefix="you said: ", suffix="!")
    datagrams = pieces([100] * 20 + [7])
    served.start_log()
    assert sent_at_once(served, datagrams) == [b"you said: " + one + b"!" for one in datagrams]
    assert messages_sent(served) == 1


def test_peers_in_turn_each_get_their_own(serve_apart: Serve) -> None:
    served = serve_apart(bind="udp://127.0.0.1:0", udp_rate=None)
    with open_socket() as one, open_socket() as two:
        sent: dict[socket.socket, list[bytes]] = {one: [], two: []}
        with served.paused():
            for number, data in enumerate(pieces([64] * 60)):
                sock = one if number % 7 < 4 else two
                sock.sendto(data, place_of(served.address))
                sent[sock].append(data)
        for sock, datagrams in sent.items():
            assert collect(sock, len(datagrams)) == datagrams


def test_replies_from_different_addresses_are_no_train(serve_apart: Serve) -> None:
    served = serve_apart(bind="udp://0.0.0.0:0", udp_rate=None)
    with open_socket("0.0.0.0") as sock:
        asked = [f"127.0.0.{1 + number // 3 % 2}" for number in range(30)]
        with served.paused():
            for number, host in enumerate(asked):
                sock.sendto(b"%04d" % number, place_of(served.address, host))
        answered = [sock.recvfrom(100) for _ in asked]
    assert [data for data, _ in answered] == [b"%04d" % number for number in range(30)]
    assert [source[0] for _, source in answered] == asked


@pytest.mark.parametrize("error", ["EIO", "EINVAL", "EMSGSIZE", "EOPNOTSUPP"])
def test_a_refused_train_leaves_one_by_one_and_none_is_made_for_a_while(
    serve_shimmed: Serve, error: str
) -> None:
    served = serve_shimmed(bind="udp://127.0.0.1:0", udp_rate=None, suffix="!")
    datagrams = pieces([50] * 5)
    due = [one + b"!" for one in datagrams]
    served.rule("sendmmsg", error=error, times=1)
    assert sent_at_once(served, datagrams) == due
    expect_stats(served, datagrams_out=5, datagrams_failed=0, datagrams_too_long=0, errors={})
    served.start_log()
    assert sent_at_once(served, datagrams) == due
    assert messages_sent(served) == 5


def test_an_error_that_is_one_peers_costs_a_train_no_datagram_of_others(
    serve_shimmed: Serve,
) -> None:
    served = serve_shimmed(bind="udp://127.0.0.1:0", udp_rate=None)
    datagrams = pieces([50] * 5)
    served.rule("sendmmsg", error="EPERM", times=3)  # the train, and two of it
    assert sent_at_once(served, datagrams) == datagrams[2:]
    expect_stats(served, datagrams_out=5, datagrams_failed=2, errors={"EPERM": 2})
    served.start_log()
    assert sent_at_once(served, datagrams) == datagrams
    assert messages_sent(served) == 1


def test_a_train_without_room_is_lost_and_counted_by_its_datagrams(serve_shimmed: Serve) -> None:
    served = serve_shimmed(bind="udp://127.0.0.1:0", udp_rate=None)
    served.rule("sendmmsg", error="ENOBUFS", times=1)
    assert sent_at_once(served, pieces([50] * 5 + [60] * 2)) == []
    expect_stats(served, datagrams_out=7, datagrams_unsent=7, errors={})
