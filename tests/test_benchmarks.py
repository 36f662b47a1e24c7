"""The arithmetic of benchmarks/: intervals, noise and verdicts, and the order of turns.

And its instruments: what it asks the kernel, slow peers, the C generator. The figures themselves
are not tested here: they are measured by their commands.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import socket
import time
from pathlib import Path

import pytest
from conftest import MakeServer
from load_servers import exact, serving
from peers import expect_stats, wait_until
from shimmed import has_compiler

import benchmarks.echo
import benchmarks.figures
import benchmarks.figures.callbacks
import benchmarks.figures.faults
import benchmarks.figures.oneway
import benchmarks.figures.paths
import benchmarks.figures.queues
import benchmarks.figures.udp
import benchmarks.restart
from benchmarks._build import compile_source
from benchmarks._compare import AGAIN, Against, best_c, ratio, result, self_noise
from benchmarks._generators import CLoad
from benchmarks._ratios import (
    at_least,
    at_most,
    judge,
    judge_tail,
    judge_value,
    median_interval,
    noise_of,
    summarize,
)
from benchmarks._slow_peers import SlowPeers
from benchmarks._sockets import held, tcp_pages
from benchmarks._turns import Contender, Round, Turn, rotated
from benchmarks.figures.faults import judged_delay, round_trips


def turn(rate: float, cpu_us: float = 5.0, p99_us: float = 100.0) -> Turn:
    """Return a turn of a second with these figures."""
    return Turn(int(rate), 1.0, cpu_us * rate / 1e6, 0.5, 50.0, p99_us, 40.0, 90.0)


@pytest.mark.parametrize(("count", "lower"), [(6, 0), (8, 0), (9, 1), (20, 5), (40, 13)])
def test_interval_of_the_median_takes_the_ranks_of_the_sign_test(count: int, lower: int) -> None:
    """The ranks are those of the published tables of the sign test at 95 %."""
    assert median_interval(range(count)) == (lower, count - 1 - lower)


def test_interval_of_few_values_is_all_of_them() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_summary_holds_median_and_quartiles() -> None:
    made = summarize([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (made.q1, made.median, made.q3, made.count) == (2.0, 3.0, 4.0, 5)


def test_noise_is_the_end_of_the_interval_farther_from_one() -> None:
    near = summarize([0.99, 1.0, 1.01])
    far = summarize([0.95, 1.0, 1.01])
    assert noise_of(near, far) == pytest.approx(0.05)
    assert noise_of() is None


@pytest.mark.parametrize(
    ("value", "noise", "verdict"),
    [
        (0.97, 0.0, "met"),
        (0.96, 0.02, "met within the noise"),
        (0.96, 0.005, "not met"),
        (0.90, 0.02, "not met"),
        (0.90, 0.20, "too noisy"),
        (0.50, 0.20, "not met"),
        (0.96, None, "not met"),
    ],
)
def test_a_ratio_misses_its_bar_by_more_than_the_noise_only(
    value: float, noise: float | None, verdict: str
) -> None:
    assert judge(at_least(0.97), summarize([value] * 10), noise) == verdict


def test_an_upper_bar_is_missed_from_above() -> None:
    assert judge(at_most(1.03), summarize([1.02] * 10), 0.0) == "met"
    assert judge(at_most(1.03), summarize([1.05] * 10), 0.01) == "not met"
    assert judge_value(at_most(100, "bytes"), 104.0, 5.0) == "met within the noise"
    assert judge_value(at_most(100, "bytes"), 104.0, 50.0) == "too noisy"


def test_few_rounds_give_no_verdict() -> None:
    assert judge(at_least(0.97), summarize([2.0] * 5), 0.0) == "too few rounds"
    assert judge_tail(at_most(1.5), summarize([1.0] * 19)) == "too few rounds"


def test_a_tail_is_judged_by_the_interval_of_its_ratio() -> None:
    limit = at_most(1.5)
    assert judge_tail(limit, summarize([1.4] * 20)) == "met"
    assert judge_tail(limit, summarize([1.4] * 9 + [1.8] * 11)) == "met within the noise"
    assert judge_tail(limit, summarize([1.4] * 3 + [1.8] * 17)) == "not met"


def test_noise_excuses_a_tail_too_where_it_is_given() -> None:
    """Even if the whole interval lies beyond the bar: the same program against itself does."""
    limit, worse = at_most(1.0), summarize([1.06] * 20)
    assert judge_tail(limit, worse) == "not met"
    assert judge_tail(limit, worse, noise=0.05) == "not met"
    assert judge_tail(limit, worse, noise=0.07) == "met within the noise"


def test_a_tail_is_not_excused_by_noise_that_would_hide_anything() -> None:
    limit = at_most(1.0)
    wide = summarize([0.3] * 8 + [1.5] + [11.0] * 11)
    assert wide.low < 1 < wide.median
    assert judge_tail(limit, wide, noise=0.2) == "met within the noise"
    assert judge_tail(limit, wide, noise=5.0) == "too noisy"
    assert judge_tail(limit, summarize([1.06] * 20), noise=0.3) == "too noisy"
    assert judge_tail(limit, summarize([0.99] * 20), noise=0.3) == "met"


def test_the_tail_of_the_service_time_is_judged_as_a_tail() -> None:
    """By its interval, and with twenty pairs at the least."""
    taken: Round = {name: turn(100.0) for name in ("fastecho", "C")}
    few = result([taken] * 19, Against("service_p99_us", "C", at_most(1.05)), [])
    enough = result([taken] * 20, Against("service_p99_us", "C", at_most(1.05)), [])
    assert (few.verdict, enough.verdict) == ("too few rounds", "met")


def test_a_tail_that_should_be_the_same_is_not_excused_by_much_noise() -> None:
    """The same program shows twice itself: that says nothing about another one."""
    taken: Round = {
        "fastecho": turn(100.0, p99_us=150.0),
        f"fastecho{AGAIN}": turn(100.0, p99_us=300.0),
        "C": turn(100.0, p99_us=100.0),
    }
    for same, verdict in ((False, "not met"), (True, "too noisy")):
        line = result([taken] * 20, Against("p99_us", "C", at_most(1.05), same=same), [])
        assert line.verdict == verdict


def test_ratio_is_taken_round_by_round() -> None:
    """A machine that slows both programs of a round down does not move the ratio."""
    rounds: list[Round] = [{"a": turn(rate), "b": turn(2 * rate)} for rate in (100, 1000, 10)]
    assert ratio(rounds, "a", "b", "rate").q1 == ratio(rounds, "a", "b", "rate").q3 == 0.5


def test_a_program_that_rests_in_some_rounds_counts_only_where_it_ran() -> None:
    rounds: list[Round] = [{"a": turn(10), "b": turn(20)}, {"a": turn(10)}]
    assert ratio(rounds, "a", "b", "rate").count == 1


def test_the_best_c_peer_is_the_fastest_or_the_cheapest() -> None:
    rounds: list[Round] = [{"C 64K": turn(100, 5.0), "C 256K": turn(90, 4.0)}] * 6
    names = ["C 64K", "C 256K"]
    assert best_c(rounds, names, "rate") == "C 64K"
    assert best_c(rounds, names, "cpu_us") == "C 256K"
    assert best_c(rounds, [], "rate") is None


def test_noise_comes_from_every_second_instance() -> None:
    taken: Round = {
        "fastecho": turn(100),
        f"fastecho{AGAIN}": turn(98),
        "C 64K": turn(100),
        f"C 64K{AGAIN}": turn(104),
    }
    assert self_noise([taken] * 6, "rate") == pytest.approx(0.04)


def test_a_bar_on_a_program_that_did_not_run_is_not_measured() -> None:
    rounds: list[Round] = [{"fastecho": turn(100)}] * 6
    line = result(rounds, Against("rate", "uvloop Protocol", at_least(1.08)), [])
    assert (line.verdict, line.measured) == ("not measured", None)


def test_every_contender_takes_every_place_in_the_order() -> None:
    contenders = [Contender(name, None, None) for name in "abc"]  # type: ignore[arg-type]
    orders = ["".join(one.name for one in rotated(contenders, number)) for number in range(6)]
    assert orders == ["abc", "cba", "bca", "acb", "cab", "bac"]
    assert all(sorted(place) == list("aabbcc") for place in zip(*orders, strict=True))


def test_kernel_tells_what_it_holds_for_the_connections_of_one_port() -> None:
    """What was sent and not read is held for its reader; an empty connection holds nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 300_000)
        port = listener.getsockname()[1]
        with (
            socket.create_connection(("127.0.0.1", port)) as peer,
            socket.create_connection(("127.0.0.1", port)),
            listener.accept()[0],
            listener.accept()[0],
        ):
            assert held(port=port).memory + held(port=port, remote=True).memory < 20_000
            peer.sendall(b"x" * 100_000)
            wait_until(lambda: held(port=port, remote=True).memory < 20_000, what="its ACK")
            ours, theirs = held(port=port), held(port=port, remote=True)
            assert 100_000 <= ours.memory <= 300_000
            assert ours.connections == theirs.connections == 2
            limits = socket.SO_RCVBUF, socket.SO_SNDBUF
            one = sum(listener.getsockopt(socket.SOL_SOCKET, limit) for limit in limits)
            assert ours.limit >= 2 * one
    assert held(port=port).connections == 0


def test_slow_senders_act_at_their_pace_and_in_turns_of_theirs_only(
    make_server: MakeServer,
) -> None:
    server = make_server()
    assert server.host is not None and server.port is not None
    core = min(os.sched_getaffinity(0))
    with SlowPeers((server.host, server.port), "slow-sender", 100, core) as peers:
        expect_stats(server, connections_open=100, bytes_in=0)
        with peers.at_work():
            wait_until(lambda: server.stats().bytes_in >= 10)
        expect_stats(server, bytes_in=peers.acts, bytes_out=peers.acts)
        assert 10 <= peers.acts <= peers.seconds * 100 + 1
        peers.verify()
    expect_stats(server, connections_open=0)


def test_peers_that_never_read_are_full_when_they_are_ready(make_server: MakeServer) -> None:
    server = make_server()
    assert server.host is not None and server.port is not None
    core = min(os.sched_getaffinity(0))
    with SlowPeers((server.host, server.port), "non-reader", 2, core):
        full = server.stats()
        assert full.connections_open == 2
        assert full.bytes_pending > 0
        kernel = held(port=server.port).memory + held(port=server.port, remote=True).memory
        assert kernel > 2_000_000
        # The kernel's own sum, of all TCP sockets, comes in pages and leaves out what is reserved.
        assert kernel / 2 < tcp_pages() * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def c_generator(tmp_path: Path) -> Path:
    """Compile the C generator."""
    if not has_compiler():
        pytest.skip("the C generator needs a C compiler")
    return compile_source("load.c", tmp_path / "load")


def test_open_loop_in_c_counts_latency_from_the_schedule_and_service_from_the_send(
    c_generator: Path,
) -> None:
    """A server that needs 2 ms for a message gets one every ms: the last one waits for 100 ms."""

    def slow(sock: socket.socket) -> None:
        while data := exact(sock, 64):
            time.sleep(0.002)  # the slowness that is to be seen
            sock.sendall(data)

    core = min(os.sched_getaffinity(0))
    with (
        serving(slow) as server,
        CLoad(c_generator, server.target()[1], core, 1, 64, rate=1000.0) as load,
    ):
        ran = load.run(0.1)
        latency, service = load.histogram(), load.histogram("service")
        assert ran["messages"] == 100
        assert ran["total_ns"] >= 200e6
        assert latency.percentile(99.0) - service.percentile(99.0) > 50e6
        assert latency.percentile(50.0) > 10 * service.percentile(50.0) > 10 * 2e6


def test_open_loop_in_c_gives_a_message_to_the_connection_that_is_free_longest(
    c_generator: Path,
) -> None:
    """So connections take turns, though any of them could do it alone."""
    given: list[int] = []

    def echo(sock: socket.socket) -> None:
        while data := exact(sock, 64):
            given.append(sock.fileno())
            sock.sendall(data)

    core = min(os.sched_getaffinity(0))
    with (
        serving(echo) as server,
        CLoad(c_generator, server.target()[1], core, 3, 64, rate=300.0) as load,
    ):
        assert load.run(0.1)["messages"] == len(given) == 30
        assert all(given.count(one) >= 8 for one in {*given})
        assert len({*given}) == 3


def test_a_delay_that_is_too_short_once_misses_a_bar(make_server: MakeServer) -> None:
    delayed, early = make_server(fault="delay=5ms"), make_server()
    taken = []
    for server in (delayed, early):
        with socket.create_connection((server.host, server.port)) as sock:
            taken.append(round_trips(sock, 10, delay_ms=5))
    held, never_held = taken
    assert judged_delay(held)[1].verdict == "met"
    late, earliest = judged_delay([*held, min(never_held)])
    assert late.measured is not None and late.measured.median > 0
    assert earliest.verdict == "not met"


def test_every_kind_of_figure_can_be_measured() -> None:
    for module in pkgutil.iter_modules(benchmarks.figures.__path__):
        figures = importlib.import_module(f"benchmarks.figures.{module.name}").FIGURES
        known = {*benchmarks.echo.MAKERS, *benchmarks.figures.callbacks.FIGURES}
        known |= {*benchmarks.figures.faults.FIGURES, *benchmarks.figures.queues.FIGURES}
        known |= {*benchmarks.figures.paths.FIGURES, *benchmarks.figures.udp.FIGURES}
        known |= {*benchmarks.restart.MAKERS}
        known |= {*benchmarks.figures.oneway.FIGURES}
        assert figures.keys() <= known
