"""Through HAProxy to three servers over a link that loses: no byte does, and no count is wrong.

The switch loses segments at random (nftables). TCP makes good what is lost, so whoever uses it
sees time go by, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from balancer import BACKENDS, Balancer, Counted
from peers import wait_until
from rig import FASTECHO, Rig, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

LINKS = {"client": ("client",), "servers": BACKENDS}
"""Whose links lose: between the client and HAProxy, between HAProxy and the servers."""
SIZE = 4096
"""Bytes of a message that are counted: HAProxy counts bytes."""

EXCHANGE = f"""
import json, sys
from concurrent.futures import ThreadPoolExecutor
from socket import SHUT_WR

sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
from peers import connect, exchange, pattern, read_to_eof, same

def stream(seed):
    data = pattern(1 << 20, seed)
    with connect(sys.argv[1]) as peer:
        whole = same(exchange(peer, data), data)
        peer.shutdown(SHUT_WR)
        return whole and read_to_eof(peer) == b""

with ThreadPoolExecutor(6) as pool:
    print(json.dumps(list(pool.map(stream, range(6)))))
"""


PER_MILLE = 10
"""So many of 1,000 segments are lost."""
ELSEWHERE = {"ipv6", "added-latency"}
"""Probes of what is not there. Nor do the servers take orders: a balancer would spread them."""
LAST = {"idle", "keepalive", "slow-reader"}
"""Probes that may find no time left: a SYN that was lost costs a second of ten."""


@pytest.fixture(params=LINKS, scope="module")
def balancer(request: pytest.FixtureRequest) -> Iterator[Balancer]:
    with Rig("client", "proxy", *BACKENDS) as rig:
        rig.lose(PER_MILLE, *LINKS[request.param])
        # HAProxy is to wait for a lost SYN, which comes again after a second, and not give up.
        made = Balancer(rig, rig["proxy"], identify=False, connect="10s")
        wait_until(lambda: set(made.states().values()) == {"UP"}, what="three servers that are up")
        yield made


@contextlib.contextmanager
def carrying(balancer: Balancer, connections: int, size: int) -> Iterator[Rig]:
    """Assert that meanwhile segments were lost, and HAProxy carried so many bytes each way."""

    def counted() -> Counted:
        return balancer.counted()["BACKEND"]

    before, lost = counted(), balancer.rig.lost()
    expected = Counted(
        before.connections + connections, before.bytes_to + size, before.bytes_from + size
    )
    yield balancer.rig
    assert balancer.rig.lost() > lost
    with contextlib.suppress(AssertionError):  # it counts bytes when a connection has ended
        wait_until(lambda: counted() == expected)
    assert counted() == expected


def test_every_byte_comes_back(balancer: Balancer) -> None:
    """Six connections at a time, a megabyte each way on each, then an orderly end."""
    with carrying(balancer, 6, 6 << 20) as rig:
        done = rig["client"].run(FASTECHO[0], "-c", EXCHANGE, balancer.address)
    assert json.loads(done.stdout) == [True] * 6
    assert rig.lost() > 20
    # Nor did they arrive: by the hosts' kernels, which go on talking while they are asked.
    sent, received = map(sum, zip(*(host.segments() for host in rig.hosts.values()), strict=True))
    assert sent - received > rig.lost() / 2, (sent, received, rig.lost())


def test_ping_counts_nothing_that_was_not(balancer: Balancer) -> None:
    with carrying(balancer, 1, 400 * SIZE) as rig:
        found: Any = rig["client"].fastecho("ping", balancer.address, "-c400", "-i2ms", f"-s{SIZE}")
    assert found["probes"] == found["transmitted"] == found["received"] == 400
    assert sum(found["failures"].values()) == 0, found["described"]
    assert (found["connects"], found["gaps"]) == (1, 0)


def test_bench_counts_nothing_that_was_not(balancer: Balancer) -> None:
    with carrying(balancer, 6, 600 * SIZE) as rig:
        found: Any = rig["client"].fastecho("bench", balancer.address, "-c6", "-n600", f"-s{SIZE}")
    assert found["sent"] == found["messages"] == 600
    assert sum(found["failures"].values()) == 0, found["described"]
    assert (found["connects"], found["reopened"]) == (6, 0)


def test_the_quick_profile_has_no_false_alarm(balancer: Balancer) -> None:
    before = balancer.rig.lost()
    found: Any = balancer.rig["client"].fastecho("check", balancer.address, "--quick")
    assert [one for one in found["probes"] if one["verdict"] == "failed"] == []
    untested = {one["name"] for one in found["probes"] if one["verdict"] == "not_testable"}
    untested = {name for name in untested if not name.startswith("server-")}
    assert ELSEWHERE <= untested <= ELSEWHERE | LAST
    assert found["elapsed_s"] < 10
    assert balancer.rig.lost() > before + 20
