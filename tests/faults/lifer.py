"""The other process of a campaign: servers, one after the other, and the shim's plan.

Lives here: what each order does there. Does not live here: the orders' sender (lives.py), what a
campaign expects.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from served import ANSWER, Program

if TYPE_CHECKING:
    import fastecho

CALLS = 14
"""Functions that the shim counts: SHIM_CALLS of shim/shim.h."""

GATHERING = 0.3
"""Seconds until peers that are to gather must be there, or are not waited for."""

Numbers = ctypes.c_int * CALLS
Counts = ctypes.c_int64 * CALLS


def own_host() -> str:
    """Return an address of this machine that no other program has a port on.

    When a worker has failed its port is free. At 127.0.0.1 the peers that still come could be
    served by somebody else, or, for want of one, by themselves (a socket may connect to itself).
    """
    pid = os.getpid()
    return f"127.{128 + (pid >> 16) % 64}.{pid >> 8 & 255}.{pid & 255}"


class AccessLog(logging.Handler):
    """Sums up the lines of the access log."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        """Forget what was there so far."""
        self.lines = self.bytes_in = self.bytes_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        entry = record.entry  # type: ignore[attr-defined]
        self.lines += 1
        self.bytes_in += entry.bytes_in
        self.bytes_out += entry.bytes_out

    def complaint(self, stats: fastecho.Stats) -> str:
        """Say where the lines do not sum up to the statistics of a server; '' for nowhere."""
        sheds = sum(getattr(stats, name) for name in stats.__dir__() if name.startswith("shed_"))
        if self.lines + stats.access_log_dropped != stats.connections_closed + sheds:
            return f"{self.lines} lines, {stats}"
        given = stats.bytes_out - stats.bytes_dropped
        if not stats.access_log_dropped and (self.bytes_in, self.bytes_out) != (
            stats.bytes_in,
            given,
        ):
            return f"{self.bytes_in} bytes in and {self.bytes_out} out, {stats}"
        return ""


class Doorman:
    """An accept callback: sends one host away; once, it lets many gather before it answers.

    Args:
        lifer: whose server it belongs to.
        denied: the host.
        gathers: connections that came through a proxy before the first answer.
    """

    def __init__(self, lifer: Lifer, denied: str, gathers: int) -> None:
        self._lifer = lifer
        self._denied = denied
        self._gathers = gathers

    def __call__(self, peer: fastecho.Peer) -> bool:
        """Answer for a peer."""
        until = time.monotonic() + GATHERING
        while self._gathers and time.monotonic() < until:
            time.sleep(0.001)
            if self._lifer.server.stats().connections_proxied >= self._gathers:
                break
        self._gathers = 0
        return peer.host != self._denied


class Lifer(Program):
    """Starts a server when it is told to, and another one when that has ended."""

    server: fastecho.Server

    def __init__(self) -> None:
        import fastecho

        self.Server = fastecho.Server
        # Whatever is loaded later than now would be taken for something that a server left.
        self.access_log = AccessLog()
        logger = logging.getLogger("fastecho.access")
        logger.addHandler(self.access_log)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        first = self.Server(on_accept=lambda peer: True, access_log=True)
        first.start()
        with fastecho.Client(first.address) as client:
            client.echo(b"warm")
        first.stop()
        self.shim = ctypes.CDLL(None)
        self.shim.shim_blocks.restype = ctypes.c_int64
        self.shim.shim_plan_seed.argtypes = [ctypes.c_uint64, Numbers]
        self.shim.shim_plan_number.argtypes = [
            ctypes.c_int,
            ctypes.c_int64,
            ctypes.c_int,
            ctypes.c_int,
        ]

    def begin(self, order: dict[str, Any]) -> dict[str, Any]:
        """Start a server; an error that it may raise is the answer."""
        config = order["config"]
        if config.pop("asks", False):
            config["on_accept"] = lambda peer: True
        if "denies" in config:
            config["on_accept"] = Doorman(self, config.pop("denies"), config.pop("gathers", 0))
        bind = [f"{own_host()}:0"]
        if config.pop("udp", False):
            bind.append(f"udp://{own_host()}:0")
            config["udp_rate"] = None
        server = self.Server(bind, **config)
        self.access_log.begin()
        try:
            server.start()
        except (OSError, MemoryError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        self.server = server
        return {"address": server.address, "udp": server.addresses[1:]}

    def finish(self, order: dict[str, Any]) -> dict[str, Any]:
        """End the server, in order or at once, and tell its last statistics."""
        server = self.server
        if order["in_order"]:
            server.stop(ANSWER / 2)
        else:
            server.abort()
        ended = server.wait(ANSWER / 2)
        wrong = self.access_log.complaint(server.stats()) if server.config.access_log else ""
        if ended and wrong:
            raise RuntimeError(f"the access log does not sum up: {wrong}")
        answer = {"ended": ended, **self.stats(order)}
        del self.server
        return answer

    def belongings(self, order: dict[str, Any]) -> dict[str, Any]:
        """Tell what the process holds open, its threads by id, and what memory the core holds."""
        found = []
        gc.collect()
        blocks = self.shim.shim_blocks()
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append([int(name), os.readlink(f"/proc/self/fd/{name}")])
            except FileNotFoundError:
                pass  # the listing's own
        return {
            "descriptors": found,
            "threads": os.listdir("/proc/self/task"),
            "blocks": [f"{blocks} blocks"] if blocks else [],
        }

    def plan(self, order: dict[str, Any]) -> dict[str, Any]:
        """Take a plan by seed (seed, per_mille) or by number; it does not run yet."""
        if "seed" in order:
            found = self.shim.shim_plan_seed(order["seed"], Numbers(*order["per_mille"]))
        else:
            found = self.shim.shim_plan_number(*order["number"])
        if found < 1:
            raise RuntimeError("the shim did not find the extensions")
        return {}

    def play(self, order: dict[str, Any]) -> dict[str, Any]:
        """Let the plan run, or rest."""
        self.shim.shim_run(int(order["on"]))
        return {}

    def counts(self, order: dict[str, Any]) -> dict[str, Any]:
        """Tell how often each function was called and hit."""
        called, hit = Counts(), Counts()
        self.shim.shim_counts(called, hit)
        return {"calls": list(called), "hits": list(hit)}

    def hello(self) -> dict[str, Any]:
        """Return the first line: there is no server yet."""
        return {"address": ""}


if __name__ == "__main__":
    faulthandler.enable()
    Lifer().run()
