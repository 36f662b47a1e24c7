"""`ping --identify` and `bench --identify` through HAProxy while a server or its link fails.

Whoever takes over is named, what was lost is counted as lost, and nothing else is counted. HAProxy
counts connections and bytes as well, which must agree: messages are so large that lines and checks
of new connections do not matter beside one.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from balancer import BACKENDS, Balancer, told
from peers import wait_until
from rig import DEADLINE, FASTECHO, Rig, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

SIZE = 4096
INTERVAL_MS = 20
"""From one probe of a ping to the next."""
SLACK = 8
"""Probes: under way when something happens, or sent late on a busy machine."""
MESSAGES = "fastecho_messages_total"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("client", "proxy", *BACKENDS) as made:
        yield made


@pytest.fixture
def balancer(rig: Rig) -> Balancer:
    made = Balancer(rig, rig["proxy"])
    wait_until(lambda: set(made.states().values()) == {"UP"}, what="three servers that are up")
    return made


class Running:
    """A command of fastecho on the client that goes on until it is ended; its text is a log."""

    def __init__(self, rig: Rig, *words: str) -> None:
        self._rig = rig
        self._file = rig.folder / "result.json"
        self.process = rig["client"].start(
            *FASTECHO, *words, "--identify", f"--size={SIZE}", f"--json={self._file}"
        )

    def said(self) -> list[str]:
        """Return the whole lines so far."""
        return self._rig.log("client").split("\n")[:-1]

    def result(self) -> Any:
        """End it; return what it has found."""
        assert self.process.poll() is None, f"it has ended: {self.said()}"
        # Not SIGINT, which is ignored below a shell that runs the tests in the background.
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
        return json.loads(self._file.read_text())


def pinging(rig: Rig, balancer: Balancer, *words: str) -> tuple[Running, str]:
    """Start probes, at their interval; return them and who answers, when 20 were answered."""
    ping = Running(rig, "ping", balancer.address, f"-i{INTERVAL_MS}ms", *words)
    wait_until(lambda: any(" seq=20 " in line for line in ping.said()), what="20 replies")
    (who,) = [line.split()[0] for line in ping.said() if " answers, " in line]
    assert who in BACKENDS
    return ping, who


def back_with(ping: Running, old: str) -> str:
    """Wait until probes are answered again; return who is named as the one that does."""
    wait_until(lambda: any(line.startswith("back ") for line in ping.said()), what="it to be back")
    (line,) = [line for line in ping.said() if line.startswith("back ")]
    who = line.split(" lost: ")[1].split()[0]
    assert who in set(BACKENDS) - {old}
    after = len(ping.said()) + 20
    wait_until(lambda: len(ping.said()) > after, what="20 more replies")
    return who


def assert_haproxy_agrees(
    balancer: Balancer, instances: dict[str, dict[str, int]], count: str, late: dict[str, int]
) -> None:
    """Assert that HAProxy has carried so many messages back on so many connections.

    Of some servers so many more may have come `late`: when the connection had been given up.
    """

    def agrees() -> bool:
        counted = balancer.counted()
        return all(
            counted[name].connections == one["connections"]
            and 0 <= counted[name].bytes_from // SIZE - one[count] <= late.get(name, 0)
            for name, one in instances.items()
        )

    with contextlib.suppress(AssertionError):  # it counts bytes when a connection has ended
        wait_until(agrees)
    assert agrees(), (instances, late, balancer.counted())


def assert_counts_of_ping(
    found: dict[str, Any], balancer: Balancer, kind: str, old: str, new: str
) -> int:
    """Assert that one connection was lost, and that all adds up; return how many probes it cost."""
    failures = {name: count for name, count in found["failures"].items() if count}
    ends = {name: failures.pop(name) for name in ("closed", "reset") if name in failures}
    assert ends in ([{}] if kind == "timed_out" else [{"closed": 1}, {"reset": 1}])
    assert set(failures) <= {"lost", kind}
    lost: int = sum(failures.values())
    assert lost == found["probes"] - found["received"] - found["unanswered"]
    assert found["unanswered"] <= 1
    assert (found["connects"], found["gaps"], found["still_away"]) == (2, 1, "")
    assert set(found["instances"]) == {old, new}
    assert sum(one["received"] for one in found["instances"].values()) == found["received"]
    late = {new: found["unanswered"], old: failures.get("timed_out", 0)}
    assert_haproxy_agrees(balancer, found["instances"], "received", late)
    return lost


def test_ping_names_who_takes_over_from_a_server_that_is_killed(
    rig: Rig, balancer: Balancer
) -> None:
    ping, old = pinging(rig, balancer)
    balancer.backends[old].kill()
    new = back_with(ping, old)
    found = ping.result()
    lost = assert_counts_of_ping(found, balancer, "lost", old, new)
    assert lost <= found["gap_ms"] / INTERVAL_MS + SLACK


def test_ping_counts_what_a_server_that_hung_before_it_was_killed_had_not_answered(
    rig: Rig, balancer: Balancer
) -> None:
    ping, old = pinging(rig, balancer)
    balancer.backends[old].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: balancer.states()[old] == "DOWN")
    hung_ms = (time.monotonic() - began) * 1e3
    balancer.backends[old].kill()
    new = back_with(ping, old)
    found = ping.result()
    lost = assert_counts_of_ping(found, balancer, "lost", old, new)
    assert lost >= hung_ms / INTERVAL_MS - SLACK > 0


def test_ping_gives_a_cut_link_up_and_is_served_by_another(rig: Rig, balancer: Balancer) -> None:
    """HAProxy knows of it long before; a mended link changes nothing for who is served."""
    ping, old = pinging(rig, balancer, "--timeout=2s")
    rig[old].cut()
    wait_until(lambda: balancer.states()[old] == "DOWN")
    new = back_with(ping, old)
    rig[old].mend()
    wait_until(lambda: balancer.states()[old] == "UP")
    found = ping.result()
    lost = assert_counts_of_ping(found, balancer, "timed_out", old, new)
    assert found["longest_gap_ms"] >= 2000
    # The gap is from the first probe without an answer: all that were due in it are lost.
    assert abs(lost - found["gap_ms"] / INTERVAL_MS) <= SLACK


def test_ping_outlasts_a_link_that_is_mended_in_time(rig: Rig, balancer: Balancer) -> None:
    """TCP sends again what was lost: the same connection, late replies, and no loss."""
    ping, who = pinging(rig, balancer, "--timeout=20s")
    rig[who].cut()
    began = time.monotonic()
    wait_until(lambda: balancer.states()[who] == "DOWN")
    cut_ms = (time.monotonic() - began) * 1e3
    rig[who].mend()
    wait_until(lambda: balancer.states()[who] == "UP")
    before = len(ping.said())
    wait_until(lambda: len(ping.said()) > before + 50, what="50 more replies")
    found = ping.result()
    assert sum(found["failures"].values()) == 0, found["described"]
    assert found["received"] == found["probes"] - found["unanswered"]
    assert (found["connects"], found["gaps"]) == (1, 0)
    assert found["instances"] == {who: {"connections": 1, "received": found["received"]}}
    assert found["latency_us"]["max"] >= (cut_ms - SLACK * INTERVAL_MS) * 1e3 > 0
    late = {who: found["unanswered"]}
    assert_haproxy_agrees(balancer, found["instances"], "received", late)


def benching(rig: Rig, balancer: Balancer, *words: str) -> Running:
    """Start a load of six connections; return it when each server has echoed some."""
    bench = Running(rig, "bench", balancer.address, "-c6", "-d60s", *words)
    wait_until(
        lambda: all(told(rig[name], MESSAGES) > 50 for name in BACKENDS),
        what="a load on each server",
    )
    return bench


def wait_for_the_others(rig: Rig, balancer: Balancer, old: str) -> None:
    """Wait until the others have the connections that a server had, and have served them."""

    def moved() -> bool:
        counted = balancer.counted()
        return counted["BACKEND"].connections == 6 + counted[old].connections

    wait_until(moved, what="new connections")
    others = [rig[name] for name in BACKENDS if name != old]
    before = [told(one, MESSAGES) for one in others]
    wait_until(
        lambda: all(
            told(one, MESSAGES) > count + 2000 for one, count in zip(others, before, strict=True)
        ),
        what="a load on the others",
    )


def assert_counts_of_bench(
    found: dict[str, Any], balancer: Balancer, kind: str, old: str
) -> tuple[int, int]:
    """Assert that each connection to a server was lost, and that all adds up.

    Returns how many these were, and how many messages it cost.
    """
    failures = {name: count for name, count in found["failures"].items() if count}
    on_old = found["instances"][old]["connections"]
    assert found["reopened"] == on_old > 0
    assert found["connects"] == 6 + on_old
    assert set(found["instances"]) == set(BACKENDS)
    ends = failures.pop("closed", 0) + failures.pop("reset", 0)
    assert ends == (0 if kind == "timed_out" else on_old)
    lost = failures.pop(kind, 0)
    assert failures == {}
    assert lost == found["sent"] - found["messages"]
    assert sum(one["messages"] for one in found["instances"].values()) == found["messages"]
    late = {old: lost if kind == "timed_out" else 0}
    assert_haproxy_agrees(balancer, found["instances"], "messages", late)
    return on_old, lost


def test_bench_counts_what_a_server_that_is_killed_costs(rig: Rig, balancer: Balancer) -> None:
    """A reply may still have come on a connection before it was closed."""
    bench = benching(rig, balancer)
    balancer.backends["two"].kill()
    wait_until(lambda: balancer.states()["two"] == "DOWN")
    wait_for_the_others(rig, balancer, "two")
    connections, lost = assert_counts_of_bench(bench.result(), balancer, "lost", "two")
    assert lost <= connections


def test_bench_gives_a_cut_link_up_and_goes_on(rig: Rig, balancer: Balancer) -> None:
    """In a closed loop each connection has one message under way, at any time."""
    bench = benching(rig, balancer, "--timeout=2s")
    rig["two"].cut()
    wait_until(lambda: balancer.states()["two"] == "DOWN")
    wait_for_the_others(rig, balancer, "two")
    rig["two"].mend()
    wait_until(lambda: balancer.states()["two"] == "UP")
    connections, lost = assert_counts_of_bench(bench.result(), balancer, "timed_out", "two")
    assert lost == connections
