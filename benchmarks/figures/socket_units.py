"""A server that is restarted behind its socket unit, by a real systemd: deploy/systemd."""

from __future__ import annotations

import socket
from functools import partial

from benchmarks._errors import SetupError
from benchmarks._figures import Figure
from benchmarks._plan import Plan
from benchmarks._restarts import figure, storm_through
from benchmarks._systemd import Machine, missing
from benchmarks._units import SERVICE, SOCKET, install

RESTARTS = 10
UNIX = "/run/echo"
"""Inside."""


def socket_unit(plan: Plan) -> Figure:
    """Return what `systemctl restart` does to a storm."""
    reason = missing()
    if reason:
        raise SetupError(f"--by socket-unit: {reason}")
    storms = {}
    times = 2 if plan.quick else RESTARTS
    with socket.create_server(("127.0.0.1", 0)) as free:
        tcp = f"127.0.0.1:{free.getsockname()[1]}"
    for kind in ("tcp", "unix"):
        with Machine() as machine:
            install(machine, tcp if kind == "tcp" else UNIX)
            machine.systemctl("start", SOCKET, SERVICE)
            address = tcp if kind == "tcp" else f"unix:{machine.root}{UNIX}"
            restart = partial(machine.systemctl, "restart", SERVICE)
            storms[kind] = (times, storm_through(address, restart, times))
    return figure("socket-unit", "restarted behind its socket unit", storms)


FIGURES = {"socket-unit": socket_unit}
