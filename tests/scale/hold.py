"""One phase, step by step: connect, hold, echo on every connection, close.

    python tests/scale/hold.py PLAN      a Plan, as JSON; exit status 1 if anything does not hold

Lives here: the steps, what must be true after each, what is printed. Does not live here: the
processes (crowd.py), the namespace that this program is started in and the proof that nothing of
it is left (stage.py).

Whatever this program starts ends with it, however it ends: orders come by pipes, and the end of a
pipe ends its reader. It ends itself with the program that started it: the kernel sees to that.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import sys
import time

from crowd import Crowd
from footprint import descriptors, resident, slab, tcp_sockets
from holder import Holder
from namespaces import bring_loopback_up
from peers import is_turned_away, wait_until
from plan import MESSAGE, Plan
from served import Served

import fastecho

PR_SET_PDEATHSIG = 1
WARMING = b"what the first message touches is not a connection's memory"
ROW = "  {:<14} {}"
SETTLE = 5.0
"""Seconds that a server has to close what its peers have closed."""
LASTING = 60.0
"""Seconds that the kernel has to take sockets down."""


def say(what: str, result: str) -> None:
    """Print one line of the account."""
    print(ROW.format(what, result), flush=True)


class Hold:
    """A crowd that is led through one phase; a step raises what does not hold."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.opened: dict[int, dict[int, str]] = {}
        """What each server, by its process id, had open before its first connection."""
        self.memory = self.kernel = self.sockets = 0
        """Bytes of the servers and of the kernel, and sockets, before the first connection."""

    def start(self) -> None:
        """Start everybody, and see what they cost without a connection."""
        crowd = self.crowd
        began = time.monotonic()
        crowd.start()
        self.opened = {one.pid: descriptors(one.pid) for one in crowd.servers}
        crowd.each_server(self.warm)
        count = len(crowd.servers) + len(crowd.holders)
        say("started", f"{count} processes in {time.monotonic() - began:.1f} s")
        self.sockets, self.kernel = tcp_sockets(), slab()
        self.memory = sum(crowd.each_server(lambda one: resident(one.pid)))

    def warm(self, server: Served) -> None:
        """Echo once, on a connection that is closed again."""
        with fastecho.Client(server.address, timeout=server.patience) as client:
            assert client.echo(WARMING) == WARMING, "the first echo is wrong"
        self.expect_open(server, 0)

    def expect_open(self, server: Served, due: int) -> None:
        """Wait until a server holds so many connections, as its peers believe already.

        It has 2 s, and a second for 5,000 of them: what it has not taken by then is lost.
        """
        span = 2 + self.crowd.connections / len(self.crowd.servers) / 5000
        try:
            wait_until(lambda: server.stats().connections_open == due, span)
        except AssertionError:
            found = server.stats().connections_open
            raise AssertionError(f"it holds {found:,} connections, not {due:,}") from None

    def expect_descriptors(self, server: Served) -> None:
        """Hold that a server has open what it had before its first connection."""
        before = self.opened[server.pid]
        try:
            wait_until(lambda: descriptors(server.pid) == before, SETTLE)
        except AssertionError:
            found = descriptors(server.pid)
            raise AssertionError(f"its descriptors are {found}, and were {before}") from None

    def expect_all_open(self) -> None:
        """Hold that every connection is open at the server's end."""
        self.crowd.each_server(lambda one: self.expect_open(one, self.crowd.due(one)))

    def connect(self) -> None:
        """Open all connections."""
        crowd = self.crowd
        began = time.monotonic()
        crowd.each_holder(lambda one: one.connect(crowd.server_of(one).address, crowd.share(one)))
        took = time.monotonic() - began
        self.expect_all_open()
        rate = crowd.connections / took
        say("connected", f"{crowd.connections:,} in {took:.1f} s, {rate:,.0f}/s; all are open")

    def overfill(self) -> None:
        """Hold that no more connections are possible, and that one too many is told so."""
        (server,) = self.crowd.servers
        assert is_turned_away(server.address), "one connection more was not reset"
        shed = server.stats().shed_no_descriptors
        assert shed == 1, f"{shed} connections were shed for want of a descriptor, not 1"
        say("full", "one connection more is reset, and counted")

    def user_memory(self) -> str:
        """Return by how much the servers' memory has grown, for each connection."""
        memory = sum(self.crowd.each_server(lambda one: resident(one.pid)))
        return f"{(memory - self.memory) / self.crowd.connections:.1f} bytes a connection"

    def weigh(self) -> None:
        """Print what a connection costs."""
        kernel = (slab() - self.kernel) / self.crowd.connections
        say("user memory", f"{self.user_memory()}: the servers' resident memory")
        say("kernel memory", f"{kernel:,.0f} bytes a connection, both ends: Slab of the machine")

    def idle(self, span: float) -> None:
        """Hold the connections without a byte; no server has anything to do."""
        crowd = self.crowd
        before = crowd.each_server(lambda one: one.stats().iterations)
        end = time.monotonic() + span
        everybody = [*crowd.servers, *crowd.holders]
        wait_until(
            lambda: time.monotonic() >= end or any(one.has_ended() for one in everybody), span + 5
        )
        ended = [one.pid for one in everybody if one.has_ended()]
        assert not ended, f"while nothing happened, processes have ended: {ended}"
        after = crowd.each_server(lambda one: one.stats().iterations)
        most = max(new - old for new, old in zip(after, before, strict=True))
        assert most <= 3, f"a server woke up {most} times while nothing happened"
        self.expect_all_open()
        say("idle", f"{span:g} s without a byte; all are open, no server had work")

    def echo(self) -> None:
        """Echo on every connection, and compare every byte."""
        crowd = self.crowd

        def expect_counted(server: Served) -> None:
            stats, due = server.stats(), crowd.due(server) * MESSAGE + len(WARMING)
            assert (stats.bytes_in, stats.bytes_out) == (due, due), f"not {due} bytes: {stats}"

        began = time.monotonic()
        right = sum(crowd.each_holder(lambda one: one.echo(crowd.share(one))))
        took = time.monotonic() - began
        crowd.each_server(expect_counted)
        what = f"right, {MESSAGE} random bytes on each"
        say("echoed", f"{right:,} of {crowd.connections:,} {what}, in {took:.1f} s")
        say("user memory", f"{self.user_memory()}, now that each has echoed")

    def close(self, is_apart: bool) -> None:
        """Close every connection; descriptors, sockets and books are as they should be."""
        from conftest import check_books  # brings all of pytest

        crowd = self.crowd
        began = time.monotonic()
        crowd.each_holder(Holder.disconnect)
        crowd.each_server(lambda one: self.expect_open(one, 0))
        took = time.monotonic() - began
        crowd.each_server(self.expect_descriptors)
        if is_apart:  # nobody else has sockets here
            wait_until(lambda: tcp_sockets() == self.sockets, LASTING, "the end of all sockets")
        dues = [crowd.due(one) for one in crowd.servers]
        accepted = 0
        for due, stats in zip(dues, crowd.each_server(Served.end), strict=True):
            check_books(stats)
            assert stats.connections_accepted == due + 1, (due, stats)
            accepted += stats.connections_accepted - 1
        crowd.each_holder(Holder.leave)
        books = f"{accepted:,} accepted = {accepted:,} closed"
        what = "descriptors and sockets" if is_apart else "descriptors"
        say("closed", f"{books}, in {took:.1f} s; {what} as before")


def main() -> int:
    """Do what the plan says; the exit status is 1 if anything does not hold."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    plan = Plan(*json.loads(sys.argv[1]))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if plan.is_apart:
        bring_loopback_up()
    crowd = Crowd(plan)
    try:
        phase = Hold(crowd)
        phase.start()
        phase.connect()
        if not plan.connections:
            phase.overfill()
        phase.weigh()
        if plan.idle:
            phase.idle(plan.idle)
        phase.echo()
        phase.close(plan.is_apart)
    except Exception as error:
        notes = ", ".join(getattr(error, "__notes__", []))
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        say("FAILED", f"{kind}{error}{f' ({notes})' if notes else ''}")
        return 1
    finally:
        crowd.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
