"""`ping` and `check` over UDP between hosts.

Fragments that are filtered, loss that the switch counts, a long line, a cable that is pulled, a
server that answers from another address.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator

import pytest
from peers import wait_until
from rig import FASTECHO, Host, Rig, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

PORT = 7777
NO_FRAGMENTS = """table bridge path {
    chain forward {
        type filter hook forward priority 0;
        ip frag-off & 0x3fff != 0 drop
    }
}"""
LOSS = """table bridge path {
    counter lost { }
    chain forward {
        type filter hook forward priority 0;
        udp sport 7777 numgen random mod 100 < 5 counter name lost drop
        udp dport 7777 numgen random mod 100 < 5 counter name lost drop
    }
}"""
NAIVE = """import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 7777))
print("ready", flush=True)
while True:
    sock.sendto(*sock.recvfrom(65536))
"""
"""An echo whose answers have the address that the route gives them."""


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("client", "server") as made:
        made["server"].serve(f"--bind=udp://:{PORT}")
        yield made


def target(rig: Rig) -> str:
    return f"udp://{rig['server'].address}:{PORT}"


def checked(host: Host, address: str, *options: str) -> dict[str, dict[str, object]]:
    """Return what each probe has found."""
    report = host.fastecho("check", address, "--quick", "--idle=0.5", *options)
    probes = report["probes"]
    assert isinstance(probes, list)
    return {one["name"]: one for one in probes}


def failed(found: dict[str, dict[str, object]]) -> set[str]:
    return {name for name, one in found.items() if one["verdict"] == "failed"}


def test_a_path_between_hosts_is_clean(rig: Rig) -> None:
    found = checked(rig["client"], target(rig))
    assert {one["verdict"] for one in found.values()} == {"passed"}, found


def test_a_long_path_is_clean(rig: Rig) -> None:
    rig["server"].lengthen(25)
    found = checked(rig["client"], target(rig))
    assert {one["verdict"] for one in found.values()} == {"passed"}, found


def test_where_fragments_are_filtered_the_largest_datagram_is_told(rig: Rig) -> None:
    rig.switch("nft", NO_FRAGMENTS)
    found = checked(rig["client"], target(rig))
    assert failed(found) == {"sizes"}
    assert found["sizes"]["values"] == {
        "exact_bytes": [1, 64, 512, 1200, 1400, 1472],
        "failed_bytes": [1473, 9000, 65507],
        "largest_bytes": 1472,
        "lost_bytes": 1473,
    }


def test_loss_is_what_the_switch_has_dropped(rig: Rig) -> None:
    rig.switch("nft", LOSS)
    result = rig["client"].fastecho("ping", target(rig), "-qc400", "-i0.005", "-W0.5")
    counted = json.loads(rig.switch("nft", "-j", "list", "counters"))
    (dropped,) = [one["counter"]["packets"] for one in counted["nftables"] if "counter" in one]
    failures = result["failures"]
    assert isinstance(failures, dict)
    assert failures["lost"] == dropped > 0
    assert {kind for kind, count in failures.items() if count} == {"lost"}
    assert result["lost_percent"] == dropped / 4
    found = checked(rig["client"], target(rig))
    assert failed(found) == {"loss"}


def test_a_cable_that_is_pulled_costs_the_probes_of_that_time_only(rig: Rig) -> None:
    threading.Timer(0.5, rig["server"].cut).start()
    threading.Timer(1.0, rig["server"].mend).start()
    result = rig["client"].fastecho("ping", target(rig), "-qc200", "-i0.01", "-W1")
    failures = result["failures"]
    assert isinstance(failures, dict)
    assert 0 < failures["lost"] < 150
    assert result["received"] == 200 - failures["lost"]
    assert not failures["duplicates"] + failures["corrupt"] + failures["foreign"]


def test_a_server_that_answers_from_another_address_is_told(rig: Rig) -> None:
    (process,) = rig.processes
    process.terminate()
    process.wait(20)
    other = rig["server"].address.rpartition(".")[0] + ".200"
    rig["server"].run("ip", "addr", "add", f"{other}/24", "dev", "eth0")
    rig["server"].start(sys.executable, "-uc", NAIVE)
    wait_until(lambda: "ready" in rig.log("server"), what="the naive server")
    address = f"udp://{other}:{PORT}"
    found = checked(rig["client"], address)
    assert failed(found) == {"source"}
    asked, answered = f"{other}:{PORT}", f"{rig['server'].address}:{PORT}"
    assert found["source"]["evidence"] == f"asked {asked}, answered from {answered}"
    done = rig["client"].run(*FASTECHO, "ping", address, "-c1", "-W0.3", check=False)
    assert f"seq=1: the answer came from {answered}, not from {asked}\n" in done.stdout
