"""The machine and the versions that a report names, since a figure means nothing without them."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

from benchmarks import _build, _programs
from benchmarks._plan import Plan

# load average above which something else is at work and the figures deserve doubt
QUIET_LOAD = 0.5


def processor() -> str:
    """Return the processor's name, as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def congestion_control() -> str:
    """Return the congestion control that a new TCP socket really has."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        name = probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode()


def describe(plan: Plan) -> dict[str, str]:
    """Return everything that a reader needs beside the figures, name by name."""
    found = {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cpus": f"{os.cpu_count()}",
        "cores_used": f"server {plan.server_core}, load {plan.load_core}",
        "congestion_control": congestion_control(),
        "load_average": f"{os.getloadavg()[0]:.2f}",
        **_programs.versions(),
    }
    if plan.c_programs:
        found["c_compiler"] = f"{_build.compiler_version()} {' '.join(_build.FLAGS[:1])}"
    return found


def doubts(plan: Plan) -> list[str]:
    """Return what speaks against trusting this run, one sentence each."""
    found: list[str] = []
    if os.getloadavg()[0] > QUIET_LOAD:
        found.append(
            f"the load average is {os.getloadavg()[0]:.2f}: other programs are at work here"
        )
    if plan.quick:
        found.append("this is a quick run: it shows that everything works, its figures are rough")
    if _programs.without_uvloop():
        found.append("uvloop is not installed: its figures are missing (pip install uvloop)")
    return found
