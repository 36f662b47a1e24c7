"""The units of deploy/systemd, installed in a systemd of their own (_systemd.py).

Lives here: what differs from an installation: where it listens, where the log goes, and that it may
be restarted as often as one likes. Does not live here: the units (deploy/systemd).
"""

from __future__ import annotations

import re

from benchmarks._systemd import ROOT, Machine

UNITS = ROOT / "deploy" / "systemd"
SERVICE, SOCKET = "fastecho.service", "fastecho.socket"
LOG = "/run/fastecho.log"
"""What the server says, inside; there is no journal."""


def install(machine: Machine, listen: str, service: str = "", socket: str = "") -> None:
    """Install the units and the settings.

    Args:
        listen: what stands behind ListenStream=.
        service, socket: lines that are added to the service's and the socket's section.
    """
    text = (UNITS / SOCKET).read_text(encoding="utf-8")
    text, count = re.subn(r"^ListenStream=.*$", f"ListenStream={listen}", text, flags=re.M)
    assert count == 1
    machine.write(f"/run/units/{SOCKET}", text)
    machine.write(f"/run/units/{SERVICE}", (UNITS / SERVICE).read_text(encoding="utf-8"))
    machine.write(
        f"/run/units/{SERVICE}.d/here.conf",
        "[Unit]\nStartLimitIntervalSec=0\n"
        f"[Service]\nStandardError=append:{LOG}\nStandardOutput=append:{LOG}\n{service}\n",
    )
    machine.write(f"/run/units/{SOCKET}.d/here.conf", f"[Socket]\n{socket}\n")
    machine.write("/etc/fastecho.toml", (UNITS / "fastecho.toml").read_text(encoding="utf-8"))
    machine.systemctl("daemon-reload")
