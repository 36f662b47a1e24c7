"""`fastecho check` over UDP: an honest path passes, each broken box is named by its own probe.

The servers and boxes are sockets of the standard library, by rule. No extension is needed.
"""

from __future__ import annotations

import pkgutil
import re
import socket
import threading
from collections.abc import Iterator

import pytest
from checked import box, check
from commands import assert_refused, run
from datagram_peers import DatagramServer, Send, answering_datagrams, refusing_port
from peers import has_ipv6

from fastecho.address import parse_target
from fastecho.check import catalog, datagram_probes
from fastecho.check.asking import tries_for
from fastecho.check.path import Path
from fastecho.check.train import Train, Trains

SHORT = ("--quick", "--idle=0.6", "--seed=1")
ALL = {
    "addresses", "bytes", "duplicates", "empty", "flows", "idle", "intact", "latency", "loss",
    "order", "rate", "reachable", "sizes", "source",
}  # fmt: skip
LINUX = pytest.mark.skipif(
    not hasattr(socket, "MSG_ERRQUEUE"), reason="only on Linux an answer from elsewhere is seen"
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an exact echo server, HOST:PORT."""
    with answering_datagrams() as running:
        yield running.address.removeprefix("udp://")


def test_an_honest_server_passes(server: str) -> None:
    found = check(f"udp://{server}", *SHORT)
    assert found.of("passed") == ALL, found.text
    assert found.code == 0
    assert found.report["target"] == f"udp://{server}"
    assert found["sizes"]["values"]["exact_bytes"] == [
        1, 64, 512, 1200, 1400, 1472, 1473, 9000, 65507,
    ]  # fmt: skip
    assert found["loss"]["values"] == {"sent": 300, "lost": 0, "lost_percent": 0.0}


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_an_honest_server_passes_over_ipv6() -> None:
    with answering_datagrams(host="::1") as running:
        found = check(running.address, *SHORT)
    assert found.of("passed") == ALL, found.text


def test_an_honest_relay_and_one_that_delays_pass(server: str) -> None:
    with box("udp", server) as honest, box("udp", honest, "--fault=delays", "--ms=20") as late:
        found = check(f"udp://{late}", *SHORT)
    assert found.of("passed") == ALL, found.text
    assert found["latency"]["values"]["median_ms"] >= 20
    assert found.code == 0


@pytest.mark.parametrize(
    ("fault", "probe", "says"),
    [
        (("loses", "--every=10"), "loss", "36 of 360 did not come back (10.00%)"),
        (("doubles", "--every=10"), "duplicates", "30 duplicates came beside the answers to 300"),
        (("swaps", "--every=10"), "order", "30 of 300 datagrams came after later ones"),
        (("corrupts", "--every=10"), "intact", "30 of 300 datagrams came back changed; of number"),
        (("truncates", "--size=1200"), "sizes", "1,400 bytes: 1,200 of 1,400 bytes came back"),
        (("drops_large", "--size=1450"), "sizes", "the largest that comes back is 1,450 bytes, 1,"),
        (("drops_empty",), "empty", "0 bytes: nothing came back, sent 3 times"),
        (("limits", "--rate=100"), "rate", "at 300/s "),
        (("forgets", "--seconds=0.4"), "idle", "0.6 s without a datagram; the next one was"),
        (("garbles",), "bytes", "0xFF: byte 0 came back as 0x3f, not 0xff, and 299 more are wrong"),
        (("mutes", "--every=4"), "flows", " of 24 ports had no answer to 3 datagrams: "),
        pytest.param(("elsewhere",), "source", "asked 127.0.0.1:", marks=LINUX),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_broken_box_is_named_by_its_own_probe(
    server: str, fault: tuple[str, ...], probe: str, says: str
) -> None:
    with box("udp", server, f"--fault={fault[0]}", *fault[1:]) as address:
        found = check(f"udp://{address}", *SHORT, "--timeout=0.5")
    assert found.of("failed") == {probe}, found.text
    assert found.of("not_testable") == set(), found.text
    assert says in found[probe]["evidence"]
    assert found.code == 3


def test_where_a_third_is_lost_no_other_probe_tells_a_tale_of_its_own(server: str) -> None:
    with box("udp", server, "--fault=loses", "--every=3") as address:
        found = check(f"udp://{address}", *SHORT, "--timeout=0.5")
    assert found.of("failed") == {"loss"}, found.text


def test_a_limit_of_the_rate_is_told_from_loss_only_if_chance_hardly_explains_it() -> None:
    def seen(count: int, lost: int, rate: float) -> Train:
        train = Train(1, int(rate), count, rate)
        train.sent = count
        for number in range(count - lost):
            train.take(train.data(number))
        return train

    def limited(fast: int, slow: int) -> bool:
        return Trains(seen(300, fast, 300.0), seen(60, slow, 50.0)).is_limited

    assert limited(180, 0)
    assert limited(60, 0)
    assert limited(180, 2)
    # One in a hundred is lost, and none of 60: that is chance.
    assert not limited(3, 0)
    assert not limited(15, 0)
    assert not limited(180, 30)


@pytest.mark.parametrize(
    ("loss", "size", "tries"),
    [
        (0.0, 65507, 3),
        (0.01, 64, 3),
        (0.1, 64, 5),
        (0.4, 64, 13),
        (0.6, 64, 0),
        (1.0, 64, 0),
        (0.01, 9000, 5),
        (0.1, 65507, 0),
        (0.99, 65507, 0),
    ],
)
def test_the_more_is_lost_the_more_often_is_sent_and_at_some_point_nothing_can_be_told(
    loss: float, size: int, tries: int
) -> None:
    path = Path(parse_target("udp://127.0.0.1:7", udp=True))
    try:
        path.loss = loss
        assert tries_for(path, size) == tries
    finally:
        path.close()


def test_a_spoilt_datagram_is_known_by_two_of_its_three_headers() -> None:
    train = Train(1, 1, 10, 100.0)
    train.sent = 10
    data = train.data(7)
    train.take(b"XXXXXXXX" + data[8:])
    train.take(data[:20])
    train.take(b"neither" * 9)
    assert (train.arrived, train.duplicates, train.foreign) == (1, 1, 1)
    assert list(train.spoilt) == [7]


# What leaves no hope


def test_a_refused_port_is_one_failure(server: str) -> None:
    found = check(f"udp://127.0.0.1:{refusing_port()}", *SHORT)
    assert found.of("failed") == {"reachable"}
    assert "refused: nothing listens on that port" in found["reachable"]["evidence"]
    assert found.of("not_testable") == ALL - {"reachable"}
    assert found.code == 3


def test_silence_is_one_failure() -> None:
    with answering_datagrams(lambda send, data, _: None) as mute:
        found = check(mute.address, *SHORT, "--timeout=0.3")
    assert found.of("failed") == {"reachable"}
    assert found["reachable"]["evidence"].endswith("nothing came back, sent 5 times")


@pytest.mark.parametrize(
    ("adds", "says"),
    [
        (b"said: ", "6 bytes too many came back: 'said: "),
        (None, "22 other bytes came back: 'HTTP/1.1 400 No echo"),
    ],
)
def test_what_is_no_exact_echo_is_one_failure(adds: bytes | None, says: str) -> None:
    def answer(send: Send, data: bytes, _number: int) -> None:
        send(b"HTTP/1.1 400 No echo\r\n" if adds is None else adds + data)

    with answering_datagrams(answer) as other:
        found = check(other.address, *SHORT, "--timeout=0.3")
    assert found.of("failed") == {"reachable"}
    assert says in found["reachable"]["evidence"]
    assert "no exact echo server" in found["reachable"]["meaning"]


# The command


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--direct=localhost:7"], "--direct 'localhost:7' is for connections, which udp://localho"),
        (["--connections=3"], "--connections '3' is for connections, which udp://localhost:7 does"),
        (["--only=half-close"], "--only 'half-close' is no probe and no group"),
        (["--skip=zzz"], "--skip 'zzz' is no probe and no group: see --list"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert_refused(run("check", "udp://localhost:7", *arguments), 2, sentence)


def test_every_probe_is_listed_and_says_what_it_needs_to() -> None:
    files = [one.name for one in pkgutil.iter_modules(datagram_probes.__path__)]
    found = catalog.probes(udp=True)
    assert sorted(one.name.replace("-", "_") for one in found) == sorted(files)
    assert {one.name for one in found} == ALL
    for one in found:
        assert one.group in catalog.GROUPS
        assert one.phase in catalog.PHASES
        assert one.needs == ()
        assert one.passed.endswith(".")
        assert one.failed.endswith(".")
    listed = run("check", "--list").stdout.partition("over UDP")[2]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert names == [one.name for one in found]


def test_some_probes_alone() -> None:
    with answering_datagrams() as running:
        found = check(running.address, *SHORT, "--only=empty,source")
        assert [one["name"] for one in found.report["probes"]] == ["reachable", "empty", "source"]
        # What the guards of a server count: all of it, trains included.
        assert len(running.came) < 400


def test_a_flood_ends_neither_in_memory_nor_in_time() -> None:
    """A server that sends without end: the check ends when it would, and says so."""
    stop = threading.Event()

    def flood(server: DatagramServer) -> None:
        while not stop.is_set():
            if server.peer is not None:
                server.sock.sendto(b"more and more" * 9, server.peer)

    with answering_datagrams() as running:
        flooding = threading.Thread(target=flood, args=(running,))
        flooding.start()
        try:
            found = check(running.address, *SHORT, "--timeout=0.5", "--only=loss,intact")
            done = run("ping", running.address, "-qc10", "-i0.01", "-W0.2")
        finally:
            stop.set()
            flooding.join()
    assert found["intact"]["verdict"] == "failed"
    assert " came that are none of ours" in found["intact"]["evidence"]
    assert found.report["elapsed_s"] < 10
    assert "10 probes, 10 transmitted" in done.stdout
    assert re.search(r"\d+ foreign datagrams", done.stdout)
