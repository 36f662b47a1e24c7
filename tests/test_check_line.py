"""`fastecho check` over a line with delay, loss, a largest packet or one bad link of a bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checked import BOXES, Checked
from commands import COMMAND, environment
from namespaces import can_unshare

TARGET = "10.7.0.2:7777"
AS_ROOT = ("--user", "--map-root-user") if os.geteuid() else ()

pytestmark = pytest.mark.skipif(
    not (can_unshare(*AS_ROOT, "--net") and os.access("/dev/net/tun", os.W_OK)),
    reason="needs network namespaces and /dev/net/tun",
)


def over(line: tuple[str, ...], *options: str) -> Checked:
    """Check over such a line."""
    command = [sys.executable, "-m", "boxes.line", *line, "--"]
    if AS_ROOT:
        command = ["unshare", *AS_ROOT, *command]
    done = subprocess.run(
        [*command, *COMMAND, "check", TARGET, "--quick", "--json=-", "--seed=1", *options],
        capture_output=True,
        text=True,
        timeout=40,
        env=environment(PYTHONPATH=f"{BOXES}{os.pathsep}{Path(__file__).parent.parent}"),
        check=False,
    )
    assert done.stdout, done.stderr
    return Checked(done)


def test_delay_and_loss_alone_are_no_fault() -> None:
    found = over(("--delay-ms=20", "--loss=0.01"))
    assert found.of("failed") == set(), found.text
    assert found["latency"]["values"]["min_ms"] >= 40
    assert found["mss"]["values"]["send_mss_bytes"] == 1448
    assert found.report["elapsed_s"] < 10
    assert {"order", "half-close", "flows", "connections", "idle"} <= found.of("passed"), found.text


def test_a_path_mtu_black_hole_is_told_with_the_mss_to_clamp_to() -> None:
    only = "--only=path-mtu,echo,half-close,order"
    found = over(("--delay-ms=1", "--largest=1400"), only)
    assert found.of("failed") == {"path-mtu"}, found.text
    values = found["path-mtu"]["values"]
    assert (values["clamp_mss_bytes"], values["passing_packet_bytes"]) == (1360, 1400)
    assert "with an MSS of 1,360 they pass" in found["path-mtu"]["evidence"]
    # The others go on with segments that pass.
    assert {"echo", "half-close", "order"} <= found.of("passed"), found.text
    assert found.report["elapsed_s"] < 10


@pytest.mark.parametrize("loss", ["1", "0.5"])
def test_one_bad_link_of_a_bundle_is_told_by_its_ports(loss: str) -> None:
    found = over((f"--bad-member={loss}", "--delay-ms=1"), "--only=flows")
    assert found.of("failed") == {"flows"}, found.text
    values = found["flows"]["values"]
    bad = values["failed_ports"] + values["lossy_ports"]
    assert 1 <= len(bad) <= 32
    # As the line chooses: by both ports.
    assert all((port ^ 7777) // 7 % 4 == 0 for port in bad), json.dumps(values)
