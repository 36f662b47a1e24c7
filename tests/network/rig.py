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
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
FASTECHO = (sys.executable, "-m", "fastecho")
DEADLINE = 20.0
"""Seconds until anything here is given up."""
NETWORK = "10.77.0"
"""All hosts are in this network, of 24 bits."""


def missing() -> str:
    """Return what keeps the rig from being built, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces with links need root"
    for program in ("ip", "nft", "haproxy", "socat", "nginx"):
        if shutil.which(program, path="/usr/sbin:/sbin:" + os.environ.get("PATH", "")) is None:
            return f"{program} is not installed"
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
        reader, writer = os.pipe()
        try:
            log = (self.rig.folder / f"{self.name}.log").open("ab")
            with log:
                process = subprocess.Popen(
                    self.command(
                        *FASTECHO, "serve", f"--bind={self.address}:7777",
                        f"--ready-fd={writer}", *options,
                    ),
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[writer],
                )  # fmt: skip
            self.rig.processes.append(process)
        finally:
            os.close(writer)
        with os.fdopen(reader) as ready:
            said = ready.read()
        assert said, self.rig.log(self.name)
        return process

    def fastecho(self, *words: str) -> dict[str, object]:
        """Run a command of fastecho that writes JSON; returns it."""
        done = self.run(*FASTECHO, *words, "--json", check=False)
        assert done.stdout, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def cut(self) -> None:
        """Pull its cable."""
        self.rig.switch("ip", "link", "set", self.port, "down")

    def mend(self) -> None:
        """Plug it in again."""
        self.rig.switch("ip", "link", "set", self.port, "up")


class Rig:
    """Hosts on one switch, for the time of a `with` block."""

    def __init__(self, *names: str) -> None:
        self.prefix = f"fe{os.getpid()}-"
        self.processes: list[subprocess.Popen[bytes]] = []
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

    def switch(self, *words: str) -> None:
        """Run a command where the switch is."""
        ip("netns", "exec", f"{self.prefix}switch", *words)

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
        ip("-n", switch, "link", "set", host.port, "master", "sw", "up")
        ip("-n", host.netns, "addr", "add", f"{host.address}/24", "dev", "eth0")
        ip("-n", host.netns, "link", "set", "eth0", "up")
        self.hosts[name] = host

    def _end(self) -> None:
        """End every process by its number, then the namespaces go with their links."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 5
        for process in self.processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in namespaces(self.prefix):
            for pid in ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "delete", name)


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
