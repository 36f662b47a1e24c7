"""Who imports whom inside the package: the arrows of DESIGN.md's Rooms, and no others.

The rule is a function from text to complaints. It is run over every module, where it must find
nothing, and over small offences, where it must find each.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fastecho"

# A new module needs a row. Leaves come first: the standard library and each other only.
LEAVES: dict[str, set[str]] = {
    "_version": set(),
    "logs": set(),
    "errors": set(),
    "address": {"errors"},
    "config": {"address", "errors", "faults", "networks", "service", "setting", "settings"},
    "faults": {"errors"},
    "networks": {"errors"},
    "service": {"errors"},
    "setting": {"address", "errors", "faults", "networks"},
    "settings": {"setting"},
    "stats": {"listen_queue"},
}
ARROWS: dict[str, set[str]] = {
    **LEAVES,
    "__init__": {
        "_core", "_version", "client", "errors", "faults", "hole", "listen_queue", "peer", "reason",
        "server", "stats", "tcp_info",
    },
    "__main__": {"cli"},
    "admission": {"_core", "callbacks", "errors", "faults", "peer", "signals"},
    "aio": {"address", "client", "dial"},
    "awaiting": {"latch", "server"},
    "callbacks": {"_core", "errors", "peer", "reason", "server", "settings"},
    "changing": {"config", "errors", "faults", "limits", "listener", "view"},
    # `check` checks any server: like `measure`, it never imports ours.
    "check": set(),
    "check.asking": {"check.path", "check.pattern", "datagrams"},
    "check.catalog": {"check", "check.path", "check.probes", "check.verdict", "errors"},
    "check.datagram_probes": {
        "check.asking", "check.path", "check.pattern", "check.pings", "check.train",
        "check.verdict", "datagrams", "dial",
    },
    "check.families": {
        "check.path", "check.pattern", "check.talk", "check.verdict", "dial",
    },
    "check.junit": {"check.path", "check.report", "check.runner", "check.verdict"},
    "check.orders": {"check.pattern", "check.verdict", "check.path"},
    "check.path": {"address", "check.verdict", "dial"},
    "check.pattern": set(),
    "check.pings": {"check.path", "check.pattern", "check.talk"},
    "check.pressure": {"check.path", "check.pattern", "check.tcp", "check.verdict"},
    "check.probes": {
        "check.families", "check.orders", "check.path", "check.pattern", "check.pings",
        "check.pressure", "check.samples", "check.talk", "check.tcp", "check.verdict", "dial",
        "identity",
    },
    "check.report": {
        "_version", "check.catalog", "check.path", "check.runner", "check.verdict",
    },
    "check.runner": {"check.catalog", "check.path", "check.verdict"},
    "check.samples": {"check.path", "check.pattern", "check.talk", "check.verdict"},
    "check.talk": {"check.path", "check.pattern"},
    "check.tcp": set(),
    "check.train": {"check.asking", "check.path", "check.verdict", "datagrams"},
    "check.verdict": set(),
    "client": {"address", "dial", "errors"},
    "crew": set(),
    "datagram_socket": {"address", "config", "listen_queue"},
    "datagrams": {"dial"},
    "dial": {"address"},
    "diagnose": set(),
    "diagnose.demo": {
        "diagnose.listening", "diagnose.netns", "diagnose.queues", "diagnose.syn",
        "diagnose.syn_queue", "diagnose.verdicts",
    },
    "diagnose.limits": {"diagnose.proc_net"},
    "diagnose.listening": {"address"},
    "diagnose.netns": {"errors"},
    "diagnose.owners": set(),
    "diagnose.places": {"address", "diagnose.listening", "errors"},
    "diagnose.proc_net": {"diagnose.listening"},
    "diagnose.queues": {
        "diagnose.listening", "diagnose.owners", "diagnose.proc_net", "diagnose.sock_diag",
    },
    "diagnose.report": {
        "_version", "diagnose.listening", "diagnose.queues", "diagnose.syn_queue",
        "diagnose.verdicts", "logs",
    },
    "diagnose.sock_diag": {"diagnose.listening"},
    "diagnose.syn": set(),
    "diagnose.syn_queue": set(),
    "diagnose.verdicts": {"diagnose.listening", "diagnose.queues", "diagnose.syn_queue"},
    "front": {"_version", "config", "limits"},
    "handover": set(),
    "handover.give": {
        "_version", "datagram_socket", "handover.wire", "listener", "server", "signals",
    },
    "handover.offers": {"address", "datagram_socket", "listener"},
    "handover.part": {
        "address", "handover.give", "handover.offers", "handover.take", "inherited", "listen_unix",
        "listener", "metrics", "server",
    },
    "handover.take": {
        "_version", "address", "config", "errors", "handover.offers", "handover.wire", "inherited",
        "server", "signals",
    },
    "handover.wire": set(),
    "hole": {"config", "errors", "listener", "opening"},
    "inherited": {
        "address", "config", "datagram_socket", "errors", "handover.offers", "listen_tcp",
        "listen_udp", "listener",
    },
    "identity": {"errors", "logs", "proxy_header"},
    "latch": set(),
    "limits": {"config", "errors", "settings"},
    "listen_queue": {"diagnose.sock_diag", "listener"},
    "listen_tcp": {
        "address", "config", "datagram_socket", "errors", "handover.offers", "inherited",
        "limits", "listener",
    },
    "listen_udp": {
        "address", "config", "datagram_socket", "errors", "handover.offers", "inherited",
        "listen_tcp", "listener",
    },
    "listen_unix": {"address", "errors", "handover.offers", "inherited", "listener"},
    "listener": {"address", "errors"},
    "metrics": {
        "address", "config", "errors", "handover.offers", "listen_queue", "listener", "logs",
        "opening", "server", "stats",
    },
    "opening": {
        "address", "config", "datagram_socket", "errors", "handover.offers", "inherited",
        "listen_tcp", "listen_udp", "listen_unix", "listener", "passed",
    },
    "notify": {"errors"},
    "passed": {"errors"},
    "passing": {"_core", "changing", "datagram_socket", "handover.offers", "listener"},
    "peer": {"address", "listener"},
    "probing": {"_core"},
    "process": {"server"},
    "proxy_header": {"errors"},
    "pytest_plugin": {"", "hole", "refused", "testing"},
    "reason": set(),
    "refused": {"address", "errors"},
    "rights": {"errors", "listener"},
    "reporter": {"_core", "config", "listener", "logs", "peer", "signals"},
    "server": {
        "_core", "address", "admission", "awaiting", "callbacks", "config", "crew",
        "datagram_socket", "errors", "faults", "front", "latch", "limits", "listener", "opening",
        "passing", "peer", "process", "reason",
        "reporter", "settings", "signals",
    },
    "signals": set(),
    "tcp_info": set(),
    "testing": {"", "callbacks", "config", "server"},
    "view": {
        "_core", "address", "callbacks", "config", "crew", "datagram_socket", "errors", "latch",
        "limits", "listen_queue", "listener", "peer", "stats", "tcp_info",
    },
    # "" are the public names. `measure` measures any server: it never imports ours.
    "measure": {
        "", "measure.datagram_pinger", "measure.pinger", "measure.plan", "measure.result",
        "measure.rules", "measure.runner", "measure.saved", "measure.search",
    },
    # Read by people who learn: each stands on the standard library and on what all share.
    "models": {"models.options"},
    **{f"models.{name}": {"models.options"} for name in (
        "asyncio_streams", "blocking", "busy_loop", "epoll_loop", "event_callbacks", "native",
        "poll_loop", "select_loop", "thread_per_connection", "threading_server",
    )},
    "models.options": {"address", "logs"},
    "measure._axes": set(),
    "measure._charts": {"errors", "measure._axes", "measure.words"},
    "measure._document": {"_version", "measure._style"},
    "measure._graphs": {
        "_load", "measure._axes", "measure._charts", "measure.result",
    },
    "measure._style": set(),
    "measure.channel": {
        "dial", "errors", "measure.ping_events", "measure.ping_result", "measure.probes",
        "measure.route",
    },
    "measure.cluster": {
        "_version", "errors", "measure.cluster_task", "measure.merge", "measure.plan",
        "measure.result", "measure.words",
    },
    "measure.cluster_task": {
        "_load", "_version", "errors", "measure.plan", "measure.result", "measure.runner",
    },
    "measure.compare": {
        "measure.datagrams", "measure.merge", "measure.result", "measure.words",
    },
    "measure.datagrams": {"measure.reading", "measure.values", "measure.words"},
    "measure.datagram_pinger": {
        "address", "datagrams", "dial", "errors", "measure.channel", "measure.ping_events",
        "measure.ping_result", "measure.pinger", "measure.probes", "measure.route",
    },
    "measure.histograms": {"_load"},
    "measure.instances": {"_load", "errors"},
    "measure.merge": {
        "_load", "errors", "measure.datagrams", "measure.histograms", "measure.instances",
        "measure.plan", "measure.reading", "measure.result", "measure.values",
    },
    "measure.model_page": {
        "measure._axes", "measure._charts", "measure._document", "measure._graphs",
        "measure._style", "measure.model_result", "measure.model_words", "measure.words",
    },
    "measure.model_result": {"_load", "_version", "measure.model_words"},
    "measure.model_runs": {
        "_load", "errors", "measure.model_result", "measure.model_server", "measure.result",
        "measure.runner", "measure.words",
    },
    "measure.model_server": {"measure.words"},
    "measure.model_words": {"measure.model_result", "measure.words"},
    "measure.page": {
        "measure._axes", "measure._charts", "measure._document", "measure._graphs",
        "measure._style", "measure.compare", "measure.datagrams", "measure.result",
        "measure.words",
    },
    "measure.ping_events": {"identity", "measure.route"},
    "measure.ping_result": {
        "_version", "identity", "measure.instances", "measure.ping_events", "measure.route",
        "measure.timings",
    },
    "measure.pinger": {
        "address", "dial", "errors", "identity", "measure.channel", "measure.ping_events",
        "measure.ping_result", "measure.probes", "measure.route",
    },
    "measure.oneway": {"errors"},
    "measure.plan": {
        "address", "errors", "measure.datagrams", "measure.oneway", "measure.values",
        "measure.words",
    },
    "measure.preflight": {"address", "errors", "measure.plan", "measure.values"},
    "measure.probes": set(),
    "measure.reading": {"errors"},
    "measure.result": {
        "_load", "_version", "errors", "measure.datagrams", "measure.histograms",
        "measure.instances", "measure.plan", "measure.reading",
    },
    "measure.route": {"address", "datagrams", "dial", "errors", "identity", "proxy_header"},
    "measure.rules": {"errors", "measure.plan", "measure.result", "measure.values"},
    "measure.runner": {
        "_load", "errors", "identity", "measure.datagrams", "measure.histograms",
        "measure.instances", "measure.plan", "measure.preflight", "measure.result",
        "measure.values", "measure.verdict",
    },
    "measure.saved": {"errors", "measure.result"},
    "measure.search": {
        "errors", "measure.plan", "measure.result", "measure.rules", "measure.runner",
        "measure.verdict", "measure.words",
    },
    "measure.timings": set(),
    "measure.values": {"address", "errors"},
    "measure.verdict": {
        "errors", "measure.datagrams", "measure.oneway", "measure.plan", "measure.preflight",
        "measure.result",
        "measure.values", "measure.words",
    },
    "measure.words": set(),
}  # fmt: skip
# What only an extra brings, and who may ask for it.
EXTRAS = {
    "cli._live": {"rich"},
    "cli._queues_live": {"rich"},
    "measure._charts": {"drawsvg"},
    "measure.cluster": {"dask", "distributed"},
    "metrics": {"prometheus_client"},
    "measure.cluster_task": {"distributed"},
    "pytest_plugin": {"pytest"},
}
# Commands may use everything below them, the public names ("") included. The core and the
# listeners are the server's own.
CLI_MAY = {"", *ARROWS, "cli"} - {
    "__init__",
    "__main__",
    "_core",
    "admission",
    "crew",
    "handover.give",
    "handover.offers",
    "handover.take",
    "handover.wire",
    "datagram_socket",
    "hole",
    "inherited",
    "latch",
    "listen_tcp",
    "listen_udp",
    "listen_unix",
    "listener",
    "opening",
    "passing",
    "process",
    "pytest_plugin",
    "refused",
    "reporter",
    "testing",
    "view",
}

# Leaves do no input or output; commands open no socket. Asking socket how an address looks
# is neither.
SOCKET_MODULES = {"_socket", "asyncio", "socket", "socketserver", "ssl"}
IO_MODULES = SOCKET_MODULES | {"http", "select", "selectors", "subprocess", "threading", "urllib"}
PURE = {
    f"{module}.{name}"
    for module in ("_socket", "socket")
    for name in ("AF_INET", "AF_INET6", "inet_ntop", "inet_pton")
}


def imported(text: str, package: str) -> Iterator[str]:
    """Yield the full name of all that Python code in `package` imports, anywhere in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield from (f"{base}.{alias.name}" for alias in node.names)


# Folders whose modules have rows of their own.
PACKAGES = ("check", "diagnose", "handover", "measure", "models")


def complaints(text: str, module: str) -> list[str]:
    """Return the imports of a module, named without `fastecho.`, that the arrows forbid."""
    if module.startswith(("check.probes.", "check.datagram_probes.")):
        module = ".".join(module.split(".")[:2])  # a new probe needs no row
    folder = module.partition(".")[0]
    in_cli = folder == "cli"
    if not in_cli and module not in ARROWS:
        return [f"{module} has no row in ARROWS"]
    allowed = CLI_MAY if in_cli else ARROWS[module]
    package = f"fastecho.{folder}" if folder in ("cli", *PACKAGES) else "fastecho"
    forbidden = SOCKET_MODULES if in_cli else IO_MODULES if module in LEAVES else set()
    rooms = {path.stem for path in PACKAGE.iterdir()} | set(ARROWS)
    found = []
    for name in imported(text, package):
        top, _, rest = name.partition(".")
        if top == "fastecho":
            # `from fastecho import Client` is a public name: it goes through __init__.
            parts = rest.split(".")
            room = ".".join(parts[:2]) if parts[0] in PACKAGES else parts[0]
            room = room if room in ARROWS else parts[0]
            wrong = (room if room in rooms else "") not in allowed
        else:
            wrong = top in forbidden and name not in PURE
            # _typeshed exists for type checkers only.
            known = {*sys.stdlib_module_names, "_typeshed", *EXTRAS.get(module, ())}
            wrong = wrong or top not in known
        if wrong:
            found.append(f"{module} imports {name}")
    return found


def module_of(path: Path) -> str:
    """Return a module's name below fastecho."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_of)
def test_module_imports_only_what_its_room_may(path: Path) -> None:
    assert complaints(path.read_text(), module_of(path)) == []


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("from .server import Server", "client"),
        ("def f():\n    from fastecho import _core", "listener"),
        ("import fastecho.config", "errors"),
        ("import socket", "config"),
        ("from socket import create_connection", "address"),
        ("import socket", "cli.connect"),
        ("from . import _core", "stats"),
        ("from .. import _core", "cli.serve"),
        ("from fastecho import Server", "client"),
        ("import rich", "cli.serve"),
        ("import benchmarks.echo", "server"),
        ("import os", "a_new_room"),
        ("from .pinger import Pinger", "measure.probes"),
        ("from fastecho.client import Client", "measure.pinger"),
        ("import os", "measure.a_new_room"),
        ("from .runner import run", "measure.plan"),
        ("from fastecho.measure import runner", "measure.verdict"),
        ("from fastecho import Server", "measure.runner"),
        ("import rich", "measure.runner"),
    ],
)
def test_forbidden_import_is_found(text: str, module: str) -> None:
    assert len(complaints(text, module)) == 1


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("from fastecho import Server", "cli.serve"),
        ("from ..client import Client", "cli.connect"),
        ("from . import serve", "cli"),
        ("from .errors import StartError", "listener"),
        ("from socket import AF_INET6, inet_pton", "address"),
        ("from .probes import Probes", "measure.pinger"),
        ("from fastecho.measure.pinger import Pinger", "cli.ping"),
        ("from . import preflight", "measure.runner"),
        ("from fastecho.measure.plan import Plan", "cli.bench"),
        ("from rich.live import Live", "cli._live"),
    ],
)
def test_allowed_import_is_accepted(text: str, module: str) -> None:
    assert complaints(text, module) == []


def extension_complaints(text: str) -> list[str]:
    """Return the Python modules of ours that a Cython file imports: it may import none."""
    ours = r"^\s*(?:from\s+(?:fastecho\b|\.)[\w.]*\s+import|import\s+fastecho\b).*$"
    return [found.strip() for found in re.findall(ours, text, re.M)]


CYTHON_FILES = sorted([*PACKAGE.glob("*.pyx"), *PACKAGE.glob("*.pxd")])


@pytest.mark.parametrize("path", CYTHON_FILES, ids=lambda path: path.name)
def test_extension_imports_no_python_module_of_ours(path: Path) -> None:
    assert extension_complaints(path.read_text()) == []


def test_python_import_in_an_extension_is_found() -> None:
    text = "from fastecho cimport _sys\nimport os\nfrom fastecho.errors import StartError\n"
    assert extension_complaints(text) == ["from fastecho.errors import StartError"]
