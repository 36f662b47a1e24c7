"""The other process of a campaign: servers, one after the other, and the shim's plan.

Lives here: what each order does there. Does not live here: the orders' sender (lives.py), what a
campaign expects.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
from typing import TYPE_CHECKING, Any

from served import ANSWER, Program

if TYPE_CHECKING:
    import fastecho

CALLS = 12
"""Functions that the shim counts: SHIM_CALLS of shim/shim.h."""

Numbers = ctypes.c_int * CALLS
Counts = ctypes.c_int64 * CALLS


class Lifer(Program):
    """Starts a server when it is told to, and another one when that has ended."""

    server: fastecho.Server

    def __init__(self) -> None:
        import fastecho

        self.Server = fastecho.Server
        # Whatever is loaded later than now would be taken for something that a server left.
        first = self.Server(on_accept=lambda peer: True)
        first.start()
        with fastecho.Client(first.address) as client:
            client.echo(b"warm")
        first.stop()
        self.shim = ctypes.CDLL(None)
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
        server = self.Server(**config)
        try:
            server.start()
        except (OSError, MemoryError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        self.server = server
        return {"address": server.address}

    def finish(self, order: dict[str, Any]) -> dict[str, Any]:
        """End the server, in order or at once, and tell its last statistics."""
        server = self.server
        if order["in_order"]:
            server.stop(ANSWER / 2)
        else:
            server.abort()
        ended = server.wait(ANSWER / 2)
        return {"ended": ended, **self.stats(order)}

    def belongings(self, order: dict[str, Any]) -> dict[str, Any]:
        """Tell what the process holds open, and its threads by id."""
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append([int(name), os.readlink(f"/proc/self/fd/{name}")])
            except FileNotFoundError:
                pass  # the listing's own
        return {"descriptors": found, "threads": os.listdir("/proc/self/task")}

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
