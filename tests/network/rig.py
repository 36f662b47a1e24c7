"""The rig: hosts in network namespaces, joined by a switch, with real programs on them.

Lives here: namespaces, links, addresses, processes in them, and their end. Does not live here: what
is tried (the files over_*.py), configurations of the programs (balancer.py).

Nothing outside is touched: the switch is a bridge in a namespace of its own, and no host has a way
out. The names begin by a prefix that holds this process, by which everything is found again and
taken away.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
FASTECHO = (sys.executable, "-m", "fastecho")
DEADLINE = 20.0
"""Seconds until anything here is given up."""
NETWORK = "10.77.0"
"""All hosts are in this network, of 24 bits."""
CABLE = Path(__file__).parent / "cable.py"
LOSS = """table bridge loss {{
    counter lost {{ }}
    chain forward {{
        type filter hook forward priority 0;
        iifname {{ {ports} }} jump perhaps
        oifname {{ {ports} }} jump perhaps
    }}
    chain perhaps {{
        tcp sport {{ 7000, 7777 }} numgen random mod 1000 < {per_mille} counter name lost drop
        tcp dport {{ 7000, 7777 }} numgen random mod 1000 < {per_mille} counter name lost drop
    }}
}}"""
"""The switch's rules, by which it loses what is echoed; who looks after servers loses nothing."""


def missing() -> str:
    """Return what keeps the rig from being built, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces with links need root"
    for program in ("ip", "nft", "haproxy", "socat", "nginx"):
        if shutil.which(program, path="/usr/sbin:/sbin:" + os.environ.get("PATH", "")) is None:
            return f"{program} is not installed"
    if not os.access("/dev/net/tun", os.W_OK):
        return "there is no /dev/net/tun"
    done = subprocess.run(["ip", "netns", "add", f"fe{os.getpid()}try"], capture_output=True)
    if done.returncode:
        return f"network namespaces are not allowed here: {done.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "delete", f"fe{os.getpid()}try"], check=True)
    return ""


class Host:
    """A namespace with one link to the switch, and processes in it.

    Attributes:
        address: its own, as text.
    """

    def __init__(self, rig: Rig, name: str, number: int) -> None:
        self.rig = rig
        self.name = name
        self.netns = f"{rig.prefix}{name}"
        self.address = f"{NETWORK}.{number}"
        self.port = f"p{number}"
        """The switch's end of its link."""

    def command(self, *words: str) -> list[str]:
        """Return what runs a command on this host."""
        return ["ip", "netns", "exec", self.netns, *words]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words), cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command; the rig ends it."""
        log = (self.rig.folder / f"{self.name}.log").open("ab")
        with log:
            process = subprocess.Popen(
                self.command(*words), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.rig.processes.append(process)
        return process

    def serve(self, *options: str) -> subprocess.Popen[bytes]:
        """Start `fastecho serve` on port 7777 of this host; returns when it listens."""
        return self.rig.start_ready(
            self.name,
            lambda fd: self.command(
                *FASTECHO, "serve", f"--bind={self.address}:7777", f"--ready-fd={fd}", *options
            ),
        )

    def fastecho(self, *words: str) -> dict[str, object]:
        """Run a command of fastecho that writes JSON; returns it."""
        done = self.run(*FASTECHO, *words, "--json", check=False)
        assert done.stdout, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def segments(self) -> tuple[int, int]:
        """Return how many segments of TCP its kernel has sent, also again, and received."""
        said = self.run("cat", "/proc/net/snmp").stdout.splitlines()
        names, values = (line.split() for line in said if line.startswith("Tcp:"))
        found = dict(zip(names[1:], map(int, values[1:]), strict=True))
        return found["OutSegs"] + found["RetransSegs"], found["InSegs"]

    def cut(self) -> None:
        """Pull its cable."""
        self.rig.switch("ip", "link", "set", self.port, "down")

    def mend(self) -> None:
        """Plug it in again."""
        self.rig.switch("ip", "link", "set", self.port, "up")

    def lengthen(self, delay_ms: float) -> None:
        """Replace its cable by one through which a frame takes so long, each way."""
        ip("-n", self.netns, "link", "delete", "eth0")
        switch = f"{self.rig.prefix}switch"
        process = self.rig.start_ready(
            self.name,
            lambda fd: [
                sys.executable, str(CABLE), f"--delay-ms={delay_ms}", f"--ready-fd={fd}",
                self.netns, "eth0", switch, self.port,
            ],
        )  # fmt: skip
        self.rig.processes.remove(process)
        self.rig.cables.append(process)
        self._plug_in()

    def _plug_in(self) -> None:
        """Connect both ends of its cable, which are there."""
        self.rig.switch("ip", "link", "set", self.port, "master", "sw", "up")
        ip("-n", self.netns, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.netns, "link", "set", "eth0", "up")


class Rig:
    """Hosts on one switch, for the time of a `with` block."""

    def __init__(self, *names: str) -> None:
        self.prefix = f"fe{os.getpid()}-"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.cables: list[subprocess.Popen[bytes]] = []
        self._names = names
        self._stack = contextlib.ExitStack()
        self.hosts: dict[str, Host] = {}

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def __enter__(self) -> Rig:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastecho-")))
            self.folder.chmod(0o755)
            stack.callback(self._end)
            self._make("switch")
            self.switch("ip", "link", "add", "name", "sw", "type", "bridge")
            self.switch("ip", "link", "set", "sw", "up")
            for number, name in enumerate(self._names, 1):
                self._join(name, number)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def switch(self, *words: str) -> str:
        """Run a command where the switch is; return what it prints."""
        return ip("netns", "exec", f"{self.prefix}switch", *words)

    def lose(self, per_mille: int, *names: str) -> None:
        """Lose so many of 1,000 segments to and from these hosts, at random.

        No host sends more than a segment in a frame from now on: else whole buffers were lost.
        """
        for host in self.hosts.values():
            ip("-n", host.netns, "link", "set", "eth0", "gso_max_segs", "1")
        ports = ", ".join(self[name].port for name in names)
        self.switch("nft", LOSS.format(ports=ports, per_mille=per_mille))

    def lost(self) -> int:
        """Return how many segments were lost so far."""
        said = json.loads(self.switch("nft", "-j", "list", "counter", "bridge", "loss", "lost"))
        (lost,) = [one["counter"]["packets"] for one in said["nftables"] if "counter" in one]
        return int(lost)

    def start_ready(
        self, name: str, command: Callable[[int], list[str]]
    ) -> subprocess.Popen[bytes]:
        """Start what writes to a descriptor when it is ready; returns then.

        Args:
            name: whose log has what it says.
            command: makes it of the descriptor.
        """
        reader, writer = os.pipe()
        try:
            log = (self.folder / f"{name}.log").open("ab")
            with log:
                process = subprocess.Popen(
                    command(writer),
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[writer],
                )  # fmt: skip
            self.processes.append(process)
        finally:
            os.close(writer)
        with os.fdopen(reader) as ready:
            said = ready.read()
        assert said, self.log(name)
        return process

    def log(self, name: str) -> str:
        """Return what a host's processes have said."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _make(self, name: str) -> None:
        ip("netns", "add", f"{self.prefix}{name}")
        ip("-n", f"{self.prefix}{name}", "link", "set", "lo", "up")

    def _join(self, name: str, number: int) -> None:
        host = Host(self, name, number)
        self._make(name)
        switch = f"{self.prefix}switch"
        ip(
            "-n", host.netns, "link", "add", "eth0", "type", "veth",
            "peer", "name", host.port, "netns", switch,
        )  # fmt: skip
        host._plug_in()
        self.hosts[name] = host

    def _end(self) -> None:
        """End every process by its number, then the namespaces go with their links."""
        end(self.processes)
        end(self.cables)  # through which the others took leave
        for name in namespaces(self.prefix):
            for pid in ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "delete", name)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes, in 5 seconds at most."""
    for process in reversed(processes):
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + 5
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def refuse() -> None:
    """End the command with what is missing, if anything is."""
    if lack := missing():
        raise SystemExit(f"make test-network: {lack}")


def ip(*words: str) -> str:
    """Run ip; return what it prints."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def namespaces(prefix: str) -> list[str]:
    """Return the namespaces whose names begin so."""
    names = [line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()]
    return [name for name in names if name.startswith(prefix)]


if __name__ == "__main__":
    refuse()
