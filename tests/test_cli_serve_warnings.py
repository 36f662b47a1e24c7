"""What `fastecho serve` warns of at its start."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from commands import serving


@pytest.mark.parametrize(
    ("options", "setting", "needed"),
    [
        (["--at-limit=queue"], "at_limit", "--max-connections=9"),
        (["--ipv6-prefix=48"], "ipv6_prefix", "--max-per-ip=9"),
        (["--access-log-sample=2"], "access_log_sample", "--access-log"),
        (["--access-log-rate=5"], "access_log_rate", "--access-log"),
    ],
)
def test_a_setting_without_effect_is_a_warning(
    options: list[str], setting: str, needed: str
) -> None:
    missing = needed.strip("-").partition("=")[0].replace("-", "_")
    if setting == "ipv6_prefix":
        missing += " or a udp:// address"
    sentence = f"fastecho: warning: {setting} has no effect without {missing}"
    for added, expected in (([], [sentence]), ([needed], [])):
        with serving(*options, *added) as server:
            _, said = server.end(signal.SIGTERM)
        assert [line for line in said if "warning" in line] == expected


@pytest.mark.parametrize(
    ("name", "limit"), [("send_buffer", "wmem_max"), ("receive_buffer", "rmem_max")]
)
def test_a_buffer_that_the_kernel_cuts_is_a_warning(name: str, limit: str) -> None:
    most = int(Path(f"/proc/sys/net/core/{limit}").read_text())
    flag = "--" + name.replace("_", "-")
    sentence = (
        f"fastecho: warning: {name} {most + 1} is cut to {most} by the kernel (net.core.{limit})"
    )
    for size, expected in ((most + 1, [sentence]), (most, [])):
        with serving(f"{flag}={size}") as server:
            _, said = server.end(signal.SIGTERM)
        assert [line for line in said if "warning" in line] == expected


def test_a_setting_of_connections_without_any_is_a_warning() -> None:
    options = ["--fault=delay=1ms", "--max-connections=3", "--access-log", "--frame=line"]
    names = ["frame", "max_connections", "access_log", "fault"]
    sentence = "fastecho: warning: {} has no effect without connections: all addresses are UDP"
    for more, expected in (
        ([], [sentence.format(name) for name in names]),
        (["--bind=127.0.0.1:0"], []),
    ):
        with serving("--bind=udp://127.0.0.1:0", *more, *options) as server:
            _, said = server.end(signal.SIGTERM)
        assert [line for line in said if "warning" in line] == expected
