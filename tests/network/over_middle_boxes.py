"""`fastecho check` through real middle boxes: each line of its report is right.

Client, middle box and server are hosts of their own. What a box does is known from its
manual: the report must say that, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import wait_until
from rig import Host, Rig, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

PORT = 7000


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("client", "middle", "server") as made:
        made["server"].serve("--probes")
        yield made


def checked(client: Host, address: str, *options: str) -> dict[str, str]:
    """Return the verdict of each probe of the quick profile."""
    found = client.fastecho("check", address, "--quick", *options)
    probes = found["probes"]
    assert isinstance(probes, list)
    return {one["name"]: one["verdict"] for one in probes}


def failed(verdicts: dict[str, str]) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict == "failed"}


def untested(verdicts: dict[str, str]) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict == "not_testable"}


def through(rig: Rig, *command: str) -> dict[str, str]:
    """Start a middle box, and check through it, beside the direct way."""
    middle = rig["middle"]
    middle.start(*command)
    listening = ("ss", "-ltnH", f"sport = :{PORT}")
    wait_until(lambda: middle.run(*listening).stdout, what=f"{command[0]} to listen")
    direct = f"--direct={rig['server'].address}:7777"
    return checked(rig["client"], f"{middle.address}:{PORT}", direct)


def nginx(rig: Rig, half_close: str) -> Path:
    """Write a configuration of nginx's stream module."""
    file = rig.folder / "nginx.conf"
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    load = f"load_module {module};\n" if Path(module).exists() else ""
    file.write_text(
        f"{load}daemon off; pid {rig.folder}/nginx.pid; error_log {rig.folder}/nginx.log;\n"
        "events {}\n"
        f"stream {{ server {{ listen {rig['middle'].address}:{PORT};\n"
        f"proxy_pass {rig['server'].address}:7777; proxy_half_close {half_close}; }} }}\n"
    )
    return file


def test_the_direct_way_is_honest(rig: Rig) -> None:
    verdicts = checked(rig["client"], f"{rig['server'].address}:7777")
    assert failed(verdicts) == set()
    assert untested(verdicts) == {"ipv6", "added-latency"}


def test_nginx_closes_both_ways_at_the_first_fin_unless_it_is_told_otherwise(rig: Rig) -> None:
    verdicts = through(rig, "nginx", "-c", str(nginx(rig, "off")))
    cut = {"half-close", "server-half-close", "server-reset"}
    # What was in flight may just have been echoed when it closes.
    assert cut <= failed(verdicts) <= {*cut, "in-flight"}
    assert untested(verdicts) == {"ipv6"}


def test_nginx_with_half_close_only_hides_resets(rig: Rig) -> None:
    verdicts = through(rig, "nginx", "-c", str(nginx(rig, "on")))
    assert failed(verdicts) == {"server-reset"}
    assert untested(verdicts) == {"ipv6"}


def test_socat_only_hides_resets(rig: Rig) -> None:
    server = f"TCP:{rig['server'].address}:7777"
    verdicts = through(rig, "socat", f"TCP-LISTEN:{PORT},reuseaddr,fork,backlog=128", server)
    assert failed(verdicts) == {"server-reset"}
    assert untested(verdicts) == {"ipv6"}


def test_haproxy_only_hides_resets(rig: Rig) -> None:
    file = rig.folder / "haproxy.cfg"
    file.write_text(
        "defaults\n mode tcp\n timeout connect 1s\n timeout client 1m\n timeout server 1m\n"
        f"listen echo\n bind :{PORT}\n server one {rig['server'].address}:7777\n"
    )
    verdicts = through(rig, "haproxy", "-db", "-f", str(file))
    assert failed(verdicts) == {"server-reset"}
    assert untested(verdicts) == {"ipv6"}


def test_an_ssh_forward_only_hides_resets(rig: Rig) -> None:
    """`ssh -L` and sshd, both on the middle host."""
    middle, folder = rig["middle"], rig.folder
    for name in ("host", "user"):
        middle.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    config = folder / "sshd_config"
    config.write_text(
        f"Port 2222\nListenAddress 127.0.0.1\nHostKey {folder}/host\nUsePAM no\n"
        f"PidFile {folder}/sshd.pid\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\n"
        "PermitRootLogin yes\nMaxSessions 200\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd gives up its rights
    middle.start("/usr/sbin/sshd", "-D", "-e", "-f", str(config))
    wait_until(lambda: middle.run("ss", "-ltnH", "sport = :2222").stdout, what="sshd to listen")
    verdicts = through(
        rig, "ssh", "-N", "-F", "none", "-p", "2222", "-i", str(folder / "user"),
        "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known",
        "-L", f"{middle.address}:{PORT}:{rig['server'].address}:7777", "127.0.0.1",
    )  # fmt: skip
    assert failed(verdicts) == {"server-reset"}, rig.log("middle")
    assert untested(verdicts) == {"ipv6"}
