"""`fastecho check` through middle boxes: an honest one passes, each broken one is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from checked import SHORT, Checked, box, check
from commands import serving

UNTOLD = {"added-latency", "ipv6"}
"""What a check of an IPv4 address without --direct cannot tell."""
SPOILED = {
    "answer", "bytes", "connections", "echo", "flows", "half-close", "in-flight", "latency",
    "long-lines", "order", "path-mtu", "server-deaf", "server-fin", "server-first",
    "server-half-close", "server-reset", "slow-reader", "tiny-writes", "first-bytes", "ipv4",
    "tcp-info",
}  # fmt: skip
"""What may meet a byte that was changed at random."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that takes orders."""
    with serving("--probes", "--log-level=error") as running:
        yield running.addresses[0]


@contextmanager
def checked(name: str, server: str, *options: str) -> Iterator[Checked]:
    with box(name, server, *options) as address:
        yield check(address, *SHORT, "--timeout=1.5", "--skip=keepalive")


def test_an_honest_server_passes(server: str) -> None:
    found = check(server, *SHORT)
    assert found.of("failed") == set(), found.text
    assert found.of("not_testable") == UNTOLD, found.text
    assert found.code == 0


def test_an_honest_relay_passes(server: str) -> None:
    with checked("honest", server) as found:
        assert found.of("failed") == set(), found.text
        assert found.of("not_testable") == UNTOLD, found.text
        assert found.code == 0


def test_three_honest_relays_in_a_row_push_back(server: str) -> None:
    with (
        box("honest", server) as third,
        box("honest", third) as second,
        box("honest", second) as first,
    ):
        found = check(first, "--quick", "--only=slow-reader")
    assert found["slow-reader"]["verdict"] != "failed", found.text


def test_a_relay_that_delays_passes(server: str) -> None:
    with checked("delays", server, "--ms=20") as found:
        assert found.of("failed") == set(), found.text
        assert found["latency"]["values"]["median_ms"] >= 40
        assert found.code == 0


@pytest.mark.parametrize(
    ("name", "options", "must", "may", "says"),
    [
        (
            "fin_swallowed", (), {"half-close", "in-flight"}, set(),
            ("half-close", "no end (FIN) came for 1."),
        ),
        (
            "fin_closes_both", (), {"half-close", "server-half-close"}, {"in-flight"},
            ("half-close", "the connection was closed (FIN) when "),
        ),
        (
            "reorder", (), {"order"},
            {"answer", "echo", "in-flight", "slow-reader", "server-deaf", "tiny-writes", "bytes",
             "long-lines", "half-close", "first-bytes", "flows", "server-fin", "server-first",
             "server-half-close", "path-mtu", "server-reset"},
            ("order", " of 6,000 messages came after later ones, the first is number "),
        ),
        (
            "buffers_all", (), {"slow-reader", "server-deaf"}, set(),
            ("slow-reader", "bytes were taken while we did not read, all that were sent"),
        ),
        (
            "corrupt", (), {"echo"}, SPOILED,
            ("echo", "came back as "),
        ),
        (
            "resets_at_close", (), {"half-close", "server-fin"}, {"in-flight", "server-half-close"},
            ("half-close", "the connection was reset (RST) when "),
        ),
        (
            "mangles", ("--kind=nul",), {"bytes", "first-bytes"}, set(),
            ("bytes", "NUL: nothing more came for "),
        ),
        (
            "mangles", ("--kind=ff",), {"bytes"}, set(),
            ("bytes", "0xFF: 300 bytes too many came"),
        ),
        (
            "mangles", ("--kind=crlf",), {"bytes", "first-bytes", "long-lines"}, set(),
            ("bytes", r"CR LF: came back as 'one\ntwo\n\nthree\n'"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_a_broken_box_is_named_by_the_right_probes(
    server: str,
    name: str,
    options: tuple[str, ...],
    must: set[str],
    may: set[str],
    says: tuple[str, str],
) -> None:
    with checked(name, server, *options) as found:
        failed = found.of("failed")
        assert must <= failed, found.text
        assert failed <= must | may, found.text
        probe, words = says
        assert words in found[probe]["evidence"], found.text
        assert found.code == 3


def test_what_only_meets_changed_bytes_says_whose_matter_they_are(server: str) -> None:
    with box("corrupt", server) as address:
        found = check(address, "--quick", "--timeout=1.5", "--only=in-flight,echo", "--seed=1")
    assert found.of("failed") >= {"echo", "in-flight"}, found.text
    assert "see what the probes echo and order say" in found["in-flight"]["meaning"]
    assert "a card that flips bits" not in found["in-flight"]["meaning"]


def test_who_answers_in_place_of_the_server_is_named_and_nothing_else_is_told(server: str) -> None:
    with checked("answers", server) as found:
        assert found.of("failed") == {"answer"}, found.text
        assert found.of("passed") == {"reachable"}
        says = "no echo came back but an HTTP response, 'HTTP/1.1 503 Service Unavailable'"
        assert found["answer"]["evidence"] == says
        assert says in found["order"]["evidence"]
        assert found.code == 3


def test_a_box_that_drops_idle_connections_is_caught_by_the_first_rung_that_dies(
    server: str,
) -> None:
    with box("drops_idle", server, "--seconds=1.2") as address:
        found = check(address, "--quick", "--idle=0.2,0.4,1.6,2")
        assert {"idle", "keepalive"} <= found.of("failed"), found.text
        # Whose connection waits for long.
        assert found.of("failed") <= {"idle", "keepalive", "server-deaf", "slow-reader"}
        assert found["idle"]["values"]["survived_s"] == [0.2, 0.4]
        assert found["idle"]["values"]["died_s"] == 1.6
        says = "alive after 0.4 s, dead after 1.6 s without a byte: the connection was reset (RST)"
        assert found["idle"]["evidence"].startswith(says)


def test_the_latency_that_a_box_adds_is_told_beside_the_direct_way(server: str) -> None:
    with box("delays", server, "--ms=5") as address:
        found = check(address, "--quick", "--only=added-latency", f"--direct={server}")
    one = found["added-latency"]
    assert one["verdict"] == "passed"
    assert 10 <= one["values"]["added_ms"]["median_ms"] < 100
    assert one["values"]["direct_ms"]["median_ms"] < 10
    assert one["evidence"].startswith("+1")


def test_without_probes_what_the_server_does_first_is_not_testable() -> None:
    with serving("--log-level=error") as plain, box("fin_closes_both", plain.addresses[0]) as there:
        found = check(there, "--quick", "--only=server", "--timeout=1.5")
    assert found.of("failed") == set()
    assert found.of("not_testable") == {
        "server-deaf", "server-fin", "server-first", "server-half-close", "server-reset",
    }  # fmt: skip
    says = "the server takes no orders: it was not started with --probes"
    assert found["server-fin"]["evidence"] == says
    assert found.code == 0
