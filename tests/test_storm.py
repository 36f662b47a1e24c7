"""The storm of short connections counts what becomes of them: benchmarks/_storm.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from conftest import MakeServer
from peers import wait_until

from benchmarks._storm import Storm


def storm_of(address: str, count: int = 50) -> Storm:
    """Return a storm after `count` connections."""
    with Storm(address) as storm:
        wait_until(lambda: storm.begun >= count, what="the storm")
    assert sum(storm.seen.values()) - storm.seen["late"] == storm.begun
    return storm


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_everybody_is_echoed(family: str, make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server("127.0.0.1:0" if family == "tcp" else f"unix:{tmp_path}/s")
    storm = storm_of(server.address)
    assert (storm.seen["echoed"], storm.harmed) == (storm.begun, 0)
    assert server.stats().connections_accepted == storm.begun
    assert storm.worst > 0


def test_who_finds_nobody_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"unix:{tmp_path}/nobody"):
        storm = storm_of(address)
        assert storm.seen["refused"] == storm.begun == storm.harmed


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("reset_after=8", "reset"), ("close_after=8", "lost"), ("corrupt=1", "lost")],
)
def test_what_a_server_does_wrong_is_seen(fault: str, kind: str, make_server: MakeServer) -> None:
    storm = storm_of(make_server(fault=fault).address)
    assert storm.seen[kind] == storm.begun == storm.harmed
