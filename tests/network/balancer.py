"""HAProxy in TCP mode before three servers of fastecho, on hosts of the rig.

Lives here: its configuration, its socket for commands, what it knows of its servers, what they tell
themselves, and who asks through it. Does not live here: what is tried (the files over_*.py).
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections import Counter
from typing import NamedTuple

from rig import DEADLINE, FASTECHO, Host, Rig

BACKENDS = ("one", "two", "three")
INTERVAL_MS = 200
"""How often HAProxy looks whether a server is ready."""

CONFIG = """\
global
    stats socket {admin} level admin
    maxconn 4000
defaults
    mode tcp
    timeout connect {connect}
    timeout client 60s
    timeout server 60s
    retries 2
    option redispatch
frontend echo
    bind {address}:7000
    default_backend echo
backend echo
    balance {balance}
    option httpchk GET /readyz
    default-server {server} check port 9477 inter {interval}ms fall 1 rise 1
{servers}
"""


class Counted(NamedTuple):
    """What HAProxy has carried to a server, and back from it."""

    connections: int
    bytes_to: int
    bytes_from: int


class Balancer:
    """HAProxy on a host, its servers on others; all have started when it is made."""

    def __init__(
        self, rig: Rig, host: Host, *, server: str = "send-proxy-v2", balance: str = "leastconn",
        options: tuple[str, ...] = (), identify: bool = True, connect: str = "500ms",
    ) -> None:  # fmt: skip
        self.rig = rig
        self.host = host
        self.address = f"{host.address}:7000"
        self._admin = str(rig.folder / "haproxy.sock")
        self.backends = {
            name: rig[name].serve(
                "--threads=1", "--graceful-timeout=10",
                *(("--identify", f"--instance={name}") if identify else ()),
                "--proxy-protocol=required", f"--proxy-trusted={host.address}",
                f"--metrics={rig[name].address}:9477", *options,
            )
            for name in BACKENDS
        }  # fmt: skip
        config = rig.folder / "haproxy.cfg"
        servers = "\n".join(f"    server {name} {rig[name].address}:7777" for name in BACKENDS)
        config.write_text(
            CONFIG.format(
                admin=self._admin, address=host.address, balance=balance, server=server,
                interval=INTERVAL_MS, servers=servers, connect=connect,
            )
        )  # fmt: skip
        self.process = host.start("haproxy", "-db", "-f", str(config))

    def states(self) -> dict[str, str]:
        """Return what HAProxy thinks of each server: UP, DOWN, DRAIN; nothing before it answers."""
        try:
            rows = self._rows()
        except OSError:
            return {}
        return {name: row[17].split()[0] for name, row in rows.items() if name in BACKENDS}

    def counted(self) -> dict[str, Counted]:
        """Return what HAProxy itself has counted: by server, and in all as "BACKEND".

        Bytes are those of the connections that have ended. A connection that went to another server
        because the first one did not accept it is the other's.
        """
        found = {}
        for name, row in self._rows().items():
            sessions, size_to, size_from, redispatched = (int(row[at]) for at in (7, 8, 9, 16))
            turned_away = 0 if name == "BACKEND" else redispatched
            found[name] = Counted(sessions - turned_away, size_to, size_from)
        return found

    def _rows(self) -> dict[str, list[str]]:
        rows = [line.split(",") for line in self.tell("show stat").splitlines()]
        return {row[1]: row for row in rows if row[0] == "echo" and row[1] != "FRONTEND"}

    def tell(self, command: str) -> str:
        """Give HAProxy a command; return its answer."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(DEADLINE)
            admin.connect(self._admin)
            admin.sendall(f"{command}\n".encode())
            said = b""
            while data := admin.recv(65536):
                said += data
        return said.decode()


def told(server: Host, counter: str) -> float:
    """Return what a server tells of itself by a counter of its metrics."""
    done = server.run(
        FASTECHO[0], "-c",
        "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())",
        f"http://{server.address}:9477/metrics",
    )  # fmt: skip
    (line,) = [one for one in done.stdout.splitlines() if one.startswith(f"{counter} ")]
    return float(line.split()[1])


ASK = """
import json, socket, sys, time

host, _, port = sys.argv[1].rpartition(":")
count, pause = int(sys.argv[2]), float(sys.argv[3])
for number in range(count):
    began = time.monotonic()
    try:
        with socket.create_connection((host, int(port)), 3) as peer:
            peer.settimeout(3)
            text = b"%d\\n" % number
            peer.sendall(text)
            said = peer.makefile("rb")
            who = json.loads(said.readline())
            right = said.readline() == text
            peer.shutdown(socket.SHUT_WR)
            right = right and said.read() == b""
            own = "%s:%d" % peer.getsockname()
            print(json.dumps({**who, "right": right, "own": own}), flush=True)
    except (OSError, ValueError) as error:
        print(json.dumps({"error": repr(error)}), flush=True)
    time.sleep(max(0.0, began + pause - time.monotonic()))
"""
Said = list[dict[str, object]]


class Asking:
    """A client that connects again and again, and notes who has answered."""

    def __init__(self, client: Host, address: str, count: int, pause: float) -> None:
        words = (FASTECHO[0], "-c", ASK, address, str(count), str(pause))
        self._process = subprocess.Popen(client.command(*words), stdout=subprocess.PIPE, text=True)
        self._said: Said = []

    def wait_for(self, count: int) -> None:
        """Return when so many have been answered."""
        assert self._process.stdout is not None
        while len(self._said) < count:
            self._said.append(json.loads(self._process.stdout.readline()))

    def answers(self) -> Said:
        """Return all, when it has ended."""
        said, _ = self._process.communicate(timeout=60)
        return self._said + [json.loads(line) for line in said.splitlines()]


def ask(client: Host, address: str, count: int, pause: float = 0.0) -> Said:
    """Connect so often; return who has answered, with what."""
    return Asking(client, address, count, pause).answers()


def by_instance(said: Said) -> Counter[str]:
    """Count the answers; what failed is "failed"."""
    return Counter(str(one["instance"]) if one.get("right") else "failed" for one in said)
