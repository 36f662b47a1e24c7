"""UDP echo between two hosts: fragments, trains over another MTU, broadcasts and groups."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from peers import wait_until
from rig import Host, Rig, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

PEER = Path(__file__).parent / "udp_peer.py"
PORT = 7777


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("client", "server") as made:
        for host in made.hosts.values():
            wait_until(partial(has_link_local, host), what="a link-local address")
        yield made


def has_link_local(host: Host) -> bool:
    """Tell whether nobody else has turned out to have a host's link-local address."""
    return "tentative" not in host.run("ip", "-6", "addr", "show", "dev", "eth0").stdout


def asked(host: Host, target: str, *options: str) -> list[dict[str, Any]]:
    """Return the replies that the peer on a host got."""
    done = host.run(sys.executable, str(PEER), target, str(PORT), *options)
    replies: list[dict[str, Any]] = json.loads(done.stdout)
    return replies


def refused(rig: Rig) -> str:
    """End the server; return what its totals say."""
    (process,) = rig.processes
    process.terminate()
    process.wait(20)
    (line,) = [one for one in rig.log("server").splitlines() if "drained: " in one]
    return line


def test_datagrams_larger_than_the_mtu_come_back_whole(rig: Rig) -> None:
    rig["server"].serve(f"--bind=udp://:{PORT}", "--threads=1")
    replies = asked(rig["client"], rig["server"].address, "--sizes=0,1,1472,1473,9000,65507")
    assert [one["size"] for one in replies] == [0, 1, 1472, 1473, 9000, 65507]
    assert all(one["right"] and one["from"] == rig["server"].address for one in replies)


def test_a_train_comes_back_where_the_way_back_takes_smaller_packets(rig: Rig) -> None:
    """The kernel refuses to cut a train into segments that are too large for the route."""
    server, client = rig["server"], rig["client"]
    server.run("ip", "route", "add", f"{client.address}/32", "dev", "eth0", "mtu", "900")
    server.serve(f"--bind=udp://:{PORT}")
    replies = asked(client, server.address, "--sizes=10000", "--train=1400")
    assert [one["size"] for one in replies] == [1400] * 7 + [200]
    assert all(one["right"] for one in replies)
    replies = asked(client, server.address, "--sizes=10000", "--train=500")
    assert [one["size"] for one in replies] == [500] * 20
    assert all(one["right"] for one in replies)


def test_replies_come_back_where_their_train_does_not_fit_the_way(rig: Rig) -> None:
    """Equal ones that wait together leave as a train, which the kernel refuses here."""
    server, client = rig["server"], rig["client"]
    server.run("ip", "route", "add", f"{client.address}/32", "dev", "eth0", "mtu", "900")
    process = server.serve(f"--bind=udp://:{PORT}", "--threads=1")
    sizes = f"--sizes={','.join(['1400'] * 20)}"
    process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as other:
        replies = other.submit(asked, client, server.address, sizes, "--quiet=15")
        wait_until(partial(has_waiting, server, 20 * 1400), what="20 datagrams that wait")
        process.send_signal(signal.SIGCONT)
        assert [(one["size"], one["right"]) for one in replies.result()] == [(1400, True)] * 20


def has_waiting(host: Host, least: int) -> bool:
    """Tell whether so many bytes wait for the server to receive them."""
    table = host.run("cat", "/proc/net/udp").stdout
    at = f":{PORT:04X} "
    queues = [line.split()[4] for line in table.splitlines() if at in line.split()[1] + " "]
    return any(int(one.partition(":")[2], 16) >= least for one in queues)


def test_a_broadcast_address_is_not_answered(rig: Rig) -> None:
    rig["server"].serve(f"--bind=udp://:{PORT}", "--threads=1")
    for target in ("10.77.0.255", "255.255.255.255"):
        rig["client"].run("ip", "route", "replace", "default", "dev", "eth0")
        assert asked(rig["client"], target, "--broadcast", "--quiet=0.3") == []
    assert "datagrams in 2, datagrams out 0, datagrams not answered 2" in refused(rig)


def test_a_group_is_not_answered(rig: Rig) -> None:
    """Every host is in the group of all nodes."""
    rig["server"].serve(f"--bind=udp://:{PORT}", "--threads=1")
    rig["client"].run("ip", "route", "replace", "default", "dev", "eth0")
    for target in ("ff02::1%eth0", "224.0.0.1"):
        assert asked(rig["client"], target, "--quiet=0.3") == []
    assert "datagrams in 2, datagrams out 0, datagrams not answered 2" in refused(rig)


def test_a_link_local_address_is_answered_over_its_link(rig: Rig) -> None:
    rig["server"].serve(f"--bind=udp://[::]:{PORT}")
    found = json.loads(rig["server"].run("ip", "-j", "-6", "addr", "show", "dev", "eth0").stdout)
    (own,) = [one["local"] for one in found[0]["addr_info"] if one["scope"] == "link"]
    replies = asked(rig["client"], f"{own}%eth0", "--sizes=64,1400")
    assert [(one["size"], one["right"]) for one in replies] == [(64, True), (1400, True)]
