"""Over cables that are longer than they look: the time that is seen is the time that was put in.

A cable between a host and the switch is a program that passes frames on after a while (cable.py).
Bounds: never less than was put in, which the program ensures; at the median less than a quarter
more, of 80 ms, which a busy machine needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from balancer import BACKENDS, Balancer
from peers import wait_until
from rig import Rig, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

DELAY_MS = 20.0
"""In HAProxy's cable, each way. A message and its echo pass it four times."""
PASSED_MS = 4 * DELAY_MS
PROBES = "connect-time,latency,added-latency"
MOST = 1.25
"""So many times what was put in is the most that is seen."""


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("client", "proxy", *BACKENDS) as made:
        yield made


def test_ping_sees_the_delay_of_a_server_that_is_far(rig: Rig) -> None:
    rig["one"].lengthen(2 * DELAY_MS)
    for name in ("one", "two"):
        rig[name].serve()
    found: dict[str, Any] = {
        name: rig["client"].fastecho("ping", f"{rig[name].address}:7777", "-c21", "-i10ms")
        for name in ("one", "two")
    }
    for ping in found.values():
        assert ping["received"] == 21
        assert sum(ping["failures"].values()) == 0, ping["described"]
    far, near = (found[name]["latency_us"] for name in ("one", "two"))
    assert PASSED_MS * 1e3 <= far["min"] <= far["p50"] < PASSED_MS * 1e3 * MOST
    assert PASSED_MS * 1e3 <= found["one"]["connect_us"]["min"]  # and more: ARP asks before it
    assert near["p50"] < DELAY_MS * 1e3


def test_check_sees_what_haproxys_cable_adds_to_the_direct_way(rig: Rig) -> None:
    rig["proxy"].lengthen(DELAY_MS)
    balancer = Balancer(rig, rig["proxy"], identify=False, options=("--proxy-protocol=optional",))
    wait_until(lambda: set(balancer.states().values()) == {"UP"}, what="three servers that are up")
    direct = f"--direct={rig['one'].address}:7777"
    found: Any = rig["client"].fastecho(
        "check", balancer.address, "--quick", f"--only={PROBES}", direct
    )
    probes = {one["name"]: one for one in found["probes"]}
    assert {one["verdict"] for one in found["probes"]} == {"passed"}, found["probes"]
    added = probes["added-latency"]["values"]
    assert PASSED_MS <= added["path_ms"]["min_ms"]
    assert added["path_ms"]["median_ms"] < PASSED_MS * MOST
    assert abs(added["added_ms"]["median_ms"] - PASSED_MS) < PASSED_MS * (MOST - 1)
    assert PASSED_MS <= probes["latency"]["values"]["min_ms"]
    # Its TCP ends at HAProxy: a handshake passes the cable twice.
    assert PASSED_MS / 2 <= probes["connect-time"]["values"]["min_ms"] < PASSED_MS
