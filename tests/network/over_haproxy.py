"""Through HAProxy to three servers: who answers, for whom, and what becomes of connections.

Each test has all of it to itself: a client, HAProxy, three servers, each on a host of its own.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from balancer import BACKENDS, INTERVAL_MS, Asking, Balancer, ask, by_instance, told
from peers import wait_until
from rig import Rig, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

ACCEPTED = "fastecho_connections_accepted_total"
LOOKS = 6 * INTERVAL_MS / 1000
"""Seconds in which HAProxy surely has looked, also on a busy machine."""


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("client", "proxy", *BACKENDS) as made:
        yield made


@pytest.fixture
def balancer(rig: Rig) -> Balancer:
    made = Balancer(rig, rig["proxy"], options=("--drain-idle=0.2",))
    wait_until(lambda: set(made.states().values()) == {"UP"}, what="three servers that are up")
    return made


def test_each_server_answers_and_knows_who_asks(rig: Rig, balancer: Balancer) -> None:
    said = ask(rig["client"], balancer.address, 30)
    assert set(by_instance(said)) == set(BACKENDS)
    for one in said:
        assert one["claimed"] == one["own"]
        assert str(one["seen"]).startswith(f"{rig['proxy'].address}:")
        assert one["proxy"] == {
            "version": 2, "command": "PROXY", "destination": balancer.address,
        }  # fmt: skip


def test_a_stranger_who_comes_past_the_proxy_is_reset(rig: Rig, balancer: Balancer) -> None:
    (said,) = ask(rig["client"], f"{rig['one'].address}:7777", 1)
    assert said["error"] == "ConnectionResetError(104, 'Connection reset by peer')"
    wait_until(lambda: "proxy_trusted does not name them" in rig.log("one"))


def test_a_server_that_is_killed_costs_no_newcomer(rig: Rig, balancer: Balancer) -> None:
    asking = Asking(rig["client"], balancer.address, 200, 0.01)
    asking.wait_for(50)
    balancer.backends["one"].kill()
    # One that was being served when it was killed may be lost; nobody who came later is.
    assert by_instance(asking.answers())["failed"] <= 1
    wait_until(lambda: balancer.states()["one"] == "DOWN")
    later = by_instance(ask(rig["client"], balancer.address, 30))
    assert set(later) == {"two", "three"}


def test_a_cut_link_is_noticed_and_a_mended_one_used_again(rig: Rig, balancer: Balancer) -> None:
    rig["two"].cut()
    wait_until(lambda: balancer.states()["two"] == "DOWN")
    assert set(by_instance(ask(rig["client"], balancer.address, 30))) == {"one", "three"}
    rig["two"].mend()
    wait_until(lambda: balancer.states()["two"] == "UP")
    assert set(by_instance(ask(rig["client"], balancer.address, 30))) == set(BACKENDS)


def test_haproxys_own_drain_ends_nobody(rig: Rig, balancer: Balancer) -> None:
    asking = Asking(rig["client"], balancer.address, 200, 0.005)
    asking.wait_for(50)
    balancer.tell("set server echo/three state drain")
    assert by_instance(asking.answers())["failed"] == 0
    assert "three" not in by_instance(ask(rig["client"], balancer.address, 20))
    balancer.tell("set server echo/three state ready")
    wait_until(lambda: "three" in by_instance(ask(rig["client"], balancer.address, 20)))


def test_sigterm_with_a_delay_past_the_check_loses_nobody_under_load(rig: Rig) -> None:
    """Four connections at a time, each for one message, while one of three servers ends."""
    balancer = Balancer(
        rig, rig["proxy"], options=(f"--drain-delay={LOOKS}", "--drain-idle=0.2"), identify=False
    )
    wait_until(lambda: set(balancer.states().values()) == {"UP"})
    for name in ("client", "proxy"):  # one address each: ports shall not run out
        rig[name].run("sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1")
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(
            rig["client"].fastecho, "bench", balancer.address, "--reconnect", "--connections=4",
            "--duration=6",
        )  # fmt: skip
        wait_until(lambda: told(rig["two"], ACCEPTED) > 500)
        process = balancer.backends["two"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, rig.log("two")
        assert balancer.states()["two"] == "DOWN"
        assert not load.done(), "the load ended before the server did"
        found: Any = load.result()
    assert sum(found["failures"].values()) == 0, found["described"]
    assert found["messages"] > 2000


def test_without_a_delay_it_does_lose_some(rig: Rig, balancer: Balancer) -> None:
    """So the test before can fail: HAProxy goes on sending newcomers to who has left."""
    balancer.tell("set server echo/one state maint")
    balancer.tell("set server echo/three state maint")
    balancer.backends["two"].send_signal(signal.SIGTERM)
    said = ask(rig["client"], balancer.address, 20)
    assert by_instance(said)["failed"] > 0


def test_nothing_is_left_behind() -> None:
    with Rig("client", "proxy", *BACKENDS) as rig:
        Balancer(rig, rig["proxy"])
        prefix = rig.prefix
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert prefix not in done.stdout
    assert all(process.poll() is not None for process in rig.processes)
