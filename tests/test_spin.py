"""A worker that may spin looks for events before it blocks, as long as that finds some.

The shim sees each look: an epoll_wait that found nothing. (That bytes are right while it spins:
test_echo.py; what spinning gains: benchmarks.echo.)
"""

from __future__ import annotations

import os
import socket
import time

import pytest
from conftest import Join, Serve
from peers import exchange
from served import Served

SPAN = 0.005
"""Seconds that a worker spins; a round trip takes a hundredth."""

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="nobody spins on one processor")


def vain_looks(served: Served, peer: socket.socket, pause: float = 0.0) -> int:
    """Echo some bytes, with pauses between; return how often the worker looked in vain."""
    served.start_log()
    for _ in range(20):
        assert exchange(peer, b"x") == b"x"
        time.sleep(pause)
    return sum(call.name == "epoll_wait" and call.result == 0 for call in served.take_log())


def spins(served: Served, peer: socket.socket) -> bool:
    """Echo without a pause until the worker spins; tell whether it does."""
    for _ in range(10):
        for _ in range(300):  # more waits than go by before it tries
            assert exchange(peer, b"x") == b"x"
        if vain_looks(served, peer):
            return True
    return False


def test_events_that_follow_closely_are_looked_for(serve_shimmed: Serve, join: Join) -> None:
    served = serve_shimmed(spin_us=int(SPAN * 1e6))
    assert spins(served, join(served))


def test_events_that_come_far_apart_are_waited_for(serve_shimmed: Serve, join: Join) -> None:
    served = serve_shimmed(spin_us=int(SPAN * 1e6))
    peer = join(served)
    assert spins(served, peer)
    vain_looks(served, peer, pause=2 * SPAN)  # it may take some to notice
    assert vain_looks(served, peer, pause=2 * SPAN) == 0


def test_one_late_event_does_not_end_it(serve_shimmed: Serve, join: Join) -> None:
    served = serve_shimmed(spin_us=int(SPAN * 1e6))
    peer = join(served)

    def goes_on() -> bool:
        assert exchange(peer, b"x") == b"x"
        time.sleep(2 * SPAN)
        return vain_looks(served, peer) > 0

    assert spins(served, peer)
    # Several times: on a busy machine other events are late as well. All in all it is too few
    # waits for a try of its own.
    assert any(goes_on() for _ in range(5))


def test_without_a_span_nothing_is_looked_for(serve_shimmed: Serve, join: Join) -> None:
    served = serve_shimmed()
    assert not spins(served, join(served))
