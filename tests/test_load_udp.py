"""A load of datagrams against paths that lose, double, swap, change and cut: each count is exact.

Every test ends with the books: a message that was sent is right, wrong, lost or not sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from load_servers import KINDS
from peers import has_ipv6
from shimmed import compiler, has_compiler
from udp_paths import Answering, answering, change, cut, double, echo, keep, lose, nobody, swap

from fastecho._load import Load

if TYPE_CHECKING:
    from fastecho._load import RunResult

LARGEST = 65507
OF_DATAGRAMS = ("no_reply", "tardy", "duplicates", "reordered", "not_sent", "overflows")


def load_of(server: Answering, **settings: Any) -> Load:
    """Return a connected load of datagrams for this server."""
    load = Load([server.target()], udp=True, **{"timeout": 20.0, **settings})
    load.connect()
    return load


def counted(result: RunResult) -> dict[str, int]:
    """Return what went wrong, by kind."""
    return {kind: result[kind] for kind in KINDS if result[kind]}  # type: ignore[literal-required]


def of_datagrams(result: RunResult) -> dict[str, int]:
    """Return what is counted of datagrams and is not 0; check that the books balance."""
    sent = result["messages"] + result["corrupt"] + result["no_reply"] + result["not_sent"]
    assert result["sent"] == sent
    return {name: result[name] for name in OF_DATAGRAMS if result[name]}  # type: ignore[literal-required]


# Honest paths


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("size", [16, 17, 64, 1472, 1473, 9000, LARGEST])
def test_every_size_comes_back_byte_for_byte(size: int, host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with answering(host=host) as server, load_of(server, size=size, connections=2) as load:
        result = load.run(5, messages=20)
        assert (counted(result), of_datagrams(result)) == ({}, {})
        assert result["messages"] == server.asked == 20
        assert result["bytes_sent"] == result["bytes_received"] == 20 * size
        assert load.histogram().count == 20


def test_sizes_are_drawn_from_a_table_and_a_pipeline_is_kept_full() -> None:
    with answering() as server, load_of(server, size=[16, 100, 3000], depth=50) as load:
        result = load.run(5, messages=500)
        assert (counted(result), of_datagrams(result)) == ({}, {})
        assert result["messages"] == 500 and 500 * 16 < result["bytes_sent"] < 500 * 3000
        assert result["bytes"] <= result["bytes_received"] == result["bytes_sent"]


def test_what_the_server_puts_around_a_datagram_is_verified() -> None:
    def around(_number: int, data: bytes) -> list[bytes]:
        return [b"<< " + data + b"!"]

    with answering(around) as server:
        with load_of(server, prefix=b"<< ", suffix=b"!", depth=4) as load:
            assert counted(load.run(5, messages=100)) == {}
        with load_of(server, prefix=b"<< ", suffix=b"?") as load:
            result = load.run(5, messages=3)
            assert counted(result) == {"corrupt": 3}
            assert "byte 67 of the reply is 0x21, not 0x3f" in result["failures"][0][1]


def test_an_open_loop_sends_on_its_schedule() -> None:
    with answering() as server, load_of(server, mode="open", rate=2000.0, depth=64) as load:
        result = load.run(0.3)
        assert (counted(result), of_datagrams(result)) == ({}, {})
        assert result["messages"] == result["sent"] == server.asked == 600
        assert load.histogram("service").count == load.histogram().count == 600


def test_the_warm_up_is_not_counted() -> None:
    with answering(double(1)) as server, load_of(server) as load:
        result = load.run(5, messages=10, warmup=0.05)
        assert counted(result) == {} and server.asked > 10
        assert result["messages"] == 10 and 9 <= result["duplicates"] <= 10


# What a path does


def test_a_lost_datagram_costs_its_timeout_and_the_next_is_sent() -> None:
    with answering(lose(50)) as server, load_of(server, timeout=0.3) as load:
        result = load.run(5, messages=100)
        assert (counted(result), of_datagrams(result)) == ({}, {"no_reply": 2})
        assert result["messages"] == load.histogram().count == 98
        assert load.histogram().max < 300_000_000  # a lost one has no latency
        assert result["total_ns"] >= 600_000_000


def test_a_pipeline_goes_on_beside_a_lost_datagram() -> None:
    with answering(lose(100)) as server, load_of(server, depth=8, timeout=0.3) as load:
        result = load.run(5, messages=700)
        assert (counted(result), of_datagrams(result)) == ({}, {"no_reply": 7})
        assert result["messages"] == load.histogram().count == 693
        assert result["total_ns"] < 1_500_000_000  # not one timeout after the other


def test_an_open_loop_counts_what_is_lost() -> None:
    settings: dict[str, Any] = {"mode": "open", "rate": 1000.0, "depth": 512, "timeout": 0.4}
    with answering(lose(10)) as server, load_of(server, **settings) as load:
        result = load.run(0.3)
        assert (counted(result), of_datagrams(result)) == ({}, {"no_reply": 30})
        assert result["messages"] == load.histogram().count == 270


def test_doubled_replies_are_counted_and_answer_nothing() -> None:
    with answering(double(10)) as server, load_of(server, depth=4) as load:
        result = load.run(5, messages=200)
        assert (counted(result), of_datagrams(result)) == ({}, {"duplicates": 20})
        assert result["messages"] == load.histogram().count == server.asked == 200


def test_swapped_replies_are_right_and_counted_as_reordered() -> None:
    with answering(swap(4)) as server, load_of(server, depth=4) as load:
        result = load.run(5, messages=200)
        assert (counted(result), of_datagrams(result)) == ({}, {"reordered": 50})
        assert result["messages"] == 200


@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("at", [0, 5, 15, 16, 63])
def test_a_changed_byte_is_one_wrong_reply(at: int, depth: int) -> None:
    with answering(change(10, at)) as server, load_of(server, depth=depth) as load:
        result = load.run(5, messages=50)
        assert (counted(result), of_datagrams(result)) == ({"corrupt": 5}, {})
        assert result["messages"] == load.histogram().count == 45
        assert f"connection 0, message 0: byte {at} of the reply" in result["failures"][0][1]


def test_a_reply_that_is_cut_is_wrong() -> None:
    with answering(cut(1200)) as server, load_of(server, size=1500) as load:
        result = load.run(5, messages=3)
        assert (counted(result), of_datagrams(result)) == ({"corrupt": 3}, {})
        assert result["failures"][0][1].endswith("a reply of 1200 bytes came, not of 1500")


def test_a_reply_that_is_longer_than_any_is_wrong_by_its_whole_size() -> None:
    """Also where there is no room for all of it."""
    with answering(lambda _, data: [data * 5]) as server, load_of(server, size=1500) as load:
        result = load.run(5, messages=3)
        assert (counted(result), of_datagrams(result)) == ({"corrupt": 3}, {})
        assert result["failures"][0][1].endswith("a reply of 7500 bytes came, not of 1500")
        assert result["bytes_received"] == 3 * 7500


def test_the_reply_to_another_connection_is_misplaced() -> None:
    kept: list[bytes] = []

    def mix(number: int, data: bytes) -> list[bytes]:
        kept.append(data)
        return [kept[0]] if number else [data]

    with answering(mix) as server, load_of(server, connections=2, timeout=0.4) as load:
        result = load.run(5, messages=2)
        assert counted(result) == {"misplaced": 1} and of_datagrams(result) == {"no_reply": 1}
        sentence = "connection 1: the reply to message 0 of connection 0 came"
        assert result["failures"][0][1] == sentence


def test_a_reply_after_the_timeout_is_lost_and_told_apart_from_a_duplicate() -> None:
    with answering(keep(3, until=4)) as server, load_of(server, timeout=0.4) as load:
        result = load.run(5, messages=10)
        assert (counted(result), of_datagrams(result)) == ({}, {"no_reply": 1, "tardy": 1})
        assert result["messages"] == load.histogram().count == 9


def test_answers_from_another_port_are_none() -> None:
    with answering(apart=True) as server, load_of(server, timeout=0.05) as load:
        result = load.run(5, messages=2)
        assert (counted(result), of_datagrams(result)) == ({}, {"no_reply": 2})
        assert result["bytes_received"] == 0 and server.answered == 2


# Ends


def test_a_port_where_nobody_is_refuses_and_the_connection_stays() -> None:
    place = nobody()
    with Load([(2, place)], udp=True, timeout=0.05) as load:
        load.connect()
        result = load.run(5, messages=3)
        assert counted(result) == {"refused": 3} and of_datagrams(result) == {"no_reply": 3}
        assert result["connections_open"] == 1
        assert result["failures"][0][1] == "connection 0: refused"
        with answering(port=place[1]):
            assert counted(load.run(5, messages=3)) == {}


def test_a_server_that_is_killed_is_refused_until_another_takes_its_place() -> None:
    result: list[RunResult] = []
    with answering() as first:
        place = first.place
        load = load_of(first, timeout=0.02, connections=2)
        thread = threading.Thread(target=lambda: result.append(load.run(20)))
        thread.start()
        while first.asked < 100:
            os.sched_yield()
    while load.snapshot()["no_reply"] < 5:
        os.sched_yield()
    before = load.snapshot()["messages"]
    with answering(port=place[1]):
        while load.snapshot()["messages"] < before + 50:
            os.sched_yield()
        load.stop()
        thread.join()
    load.close()
    assert set(counted(result[0])) == {"refused"}
    assert set(of_datagrams(result[0])) == {"no_reply"}


def test_nothing_is_in_flight_after_a_run() -> None:
    with answering(lose(2)) as server, load_of(server, depth=16, timeout=0.05) as load:
        for _ in range(3):
            result = load.run(0.05)
            assert counted(result) == {}
            assert set(of_datagrams(result)) == {"no_reply"}


def test_a_run_that_is_broken_off_gives_up_what_is_outstanding() -> None:
    result: list[RunResult] = []
    with answering(lose(1)) as server, load_of(server, depth=3, connections=2) as load:
        thread = threading.Thread(target=lambda: result.append(load.run(60)))
        thread.start()
        while server.asked < 6:
            os.sched_yield()
        load.stop(collect=False)
        thread.join()
    assert (counted(result[0]), of_datagrams(result[0])) == ({}, {"no_reply": 6})


REFUSING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

/* Every third call fails. */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned int n, int flags)
{
    static int calls;
    int (*real)(int, struct mmsghdr *, unsigned int, int) = dlsym(RTLD_NEXT, "sendmmsg");

    if (calls++ % 3 == 2) {
        errno = atoi(getenv("REFUSES"));
        return -1;
    }
    return real(fd, messages, n, flags);
}
"""

RUN = """
import sys
from test_load_udp import answering, counted, load_of, of_datagrams

with answering() as server, load_of(server) as load:
    result = load.run(5, messages=30)
    assert result["messages"] == server.asked
    print(counted(result), of_datagrams(result), *(one for _, one in result["failures"][:1]))
"""


@pytest.mark.skipif(not has_compiler(), reason="this machine has no C compiler")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("11", "{} {'not_sent': 10}"),  # EAGAIN
        ("105", "{} {'not_sent': 10}"),  # ENOBUFS
        ("111", "{'refused': 14} {}"),  # ECONNREFUSED: an earlier one's, so it is sent after all
        ("1", "{'other': 14} {} connection 0: Operation not permitted (errno 1)"),
    ],
)
def test_what_our_own_socket_does_not_take_is_not_sent(
    error: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "refusing.c").write_text(REFUSING)
    library = tmp_path / "refusing.so"
    flags = ["-shared", "-fPIC", "-O2", "-o", str(library), str(tmp_path / "refusing.c"), "-ldl"]
    subprocess.run([*compiler(), *flags], check=True, timeout=60)
    before = os.environ.get("LD_PRELOAD", "")
    environment = {**os.environ, "LD_PRELOAD": f"{before} {library}".strip(), "REFUSES": error}
    found = subprocess.run(
        [sys.executable, "-c", RUN],
        env=environment, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.stderr == "" and found.stdout.startswith(said)


# What cannot be


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": 15}, "size must be at least 16 with udp, not 15"),
        ({"size": [64, 8]}, "size must be at least 16 with udp, not 8"),
        ({"size": 65508}, "a reply of 65508 bytes is no datagram: 65507 at most"),
        ({"size": 65507, "prefix": b"x"}, "a reply of 65508 bytes is no datagram"),
        ({"mode": "reconnect"}, "udp needs mode 'closed' or 'open', not 'reconnect'"),
        ({"frame": "line"}, "udp needs frame 'raw', not 'line'"),
        ({"sendfile": True}, "udp does not go together with sendfile True"),
        ({"proxy": 1}, "udp does not go together with proxy 1"),
        ({"identify": True}, "udp does not go together with identify True"),
    ],
)
def test_what_no_datagram_can_have_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Load([(2, ("127.0.0.1", 9))], udp=True, **settings)


def test_rules_are_what_they_say() -> None:
    assert echo(0, b"x") == [b"x"]
    assert [lose(2)(n, b"x") for n in range(3)] == [[], [b"x"], []]
    assert [len(double(2)(n, b"x")) for n in range(3)] == [2, 1, 2]
