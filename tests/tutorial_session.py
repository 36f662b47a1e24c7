"""One chapter of the tutorial as a session of bash: helpers of test_tutorial.py.

Lives here: what stands in a chapter's blocks, a bash that runs it as a reader would, and what of
the output may differ (VARIES). Does not live here: which chapters there are (test_tutorial.py).

A reader types the next command once the server has said that it listens. So does the session: after
a command that ends with `&` it waits until the chapter's port listens. Job control is on, as in a
reader's shell: what bash says about its jobs is left out.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from commands import environment

HOST, PORTS = "127.0.0.1", ("7777", "7778", "7779")
"""Where the chapters listen; a session takes a host of this process alone, and free ports."""
DEADLINE = 20.0
END = b"\x1e"
JOBS = re.compile(r"^(\[\d+\][+-]?|\S+: line \d+:) +(\d+ )?[A-Z][a-z]+ .*\n", re.M)
"""What bash says when a job has ended."""
VARIES = (
    (re.compile(r"\bport: \d+"), "port: N"),
    (re.compile(r"^(\w+ +)[\d,]+(?= +\d[\d.,]* [mu]s )"), r"\1N"),
    (re.compile(r"\bsomaxconn \d+"), "somaxconn N"),
    (re.compile(r"\bthreads: \d+$"), "threads: N"),
    (re.compile(r"(asked nothing, .*in force) \d+"), r"\1 N"),
    (re.compile(r"\d[\d,.]* ?(?=(?:%|ms|us|s|kB|messages/s|[kM]B/s|times)(?![\w/]))"), "N "),
    (re.compile(r"\bN [mu]s\b"), "N s"),
    (re.compile(r"\b[kM]B/s"), "B/s"),
    (re.compile(r"\btook [\d,]+(?= of)"), "took N"),
    (re.compile(r"^(/proc/sys/\S+:)\d+"), r"\1N"),
    (re.compile(r"[ \t]+"), " "),
)
"""Ports, the system's limits and buffers, times and rates, widths of columns."""


class Program(NamedTuple):
    """A file that the reader is to write."""

    name: str
    text: str


class Command(NamedTuple):
    """What the reader types, and what is then printed, line by line."""

    text: str
    prints: list[str]


def steps(chapter: str) -> list[Program | Command]:
    """Return what a reader of a chapter does, in order."""
    found: list[Program | Command] = []
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```$", chapter, re.M | re.S):
        if kind == "sh":
            continue  # for other machines: test_docs_commands.py says what becomes of it
        if kind in ("python", "haproxy", "nginx"):
            head = block.partition("\n")[0]
            name = re.fullmatch(r"# (\w+\.(?:py|cfg|conf))", head)
            assert name, f"a file without a name: {head}"
            found.append(Program(name[1], block))
        else:
            assert kind == "console", kind
            assert block.startswith("$ "), block
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                first, *prints = part.splitlines()
                found.append(Command(first, prints))
    return found


def differs(shown: list[str], printed: str) -> bool:
    """Tell whether the output is another than the one shown: `...` stands for anything."""
    pattern = ""
    for line in shown:
        if line == "...":
            pattern += r"(?:.*\n)*"
        else:
            parts = _plain(line).split("...")
            pattern += ".*".join(map(re.escape, parts)) + "\n"
    text = "".join(f"{_plain(line)}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, text) is None


def _plain(line: str) -> str:
    for varies, instead in VARIES:
        line = varies.sub(instead, line)
    return line.rstrip()


class Session:
    """A bash in a folder, with `python` and `fastecho` of this installation before all others."""

    def __init__(self, folder: Path, locale: str) -> None:
        self._folder = folder
        self._host, ports = _place(len(PORTS))
        self._ports = dict(zip(PORTS, ports, strict=True))
        # Printed and not yet returned.
        self._printed = b""
        tools = folder / ".bin"
        tools.mkdir()
        for name, arguments in (("python", ""), ("fastecho", "-m fastecho ")):
            tool = tools / name
            tool.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments}"$@"\n')
            tool.chmod(0o755)
        script, self._script = os.pipe()
        env = environment(LANG=locale, PATH=f"{tools}:{os.environ['PATH']}")
        for name in ("LC_ALL", "LC_MESSAGES", "PYTHONUTF8"):
            env.pop(name, None)
        self._bash = subprocess.Popen(
            ["bash", "--norc", f"/dev/fd/{script}"],
            cwd=folder,
            env=env,
            pass_fds=[script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(script)
        # bash has a descriptor of its own for the script: the commands shall not get this one.
        self._type(f"exec {script}<&-; set -m")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._script)
        for pid in (*self.left(), self._bash.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._bash.wait()
        assert self._bash.stdout is not None
        self._bash.stdout.close()

    def write(self, program: Program) -> None:
        """Write a file."""
        text = self._placed(program.text)
        (self._folder / program.name).write_text(text, encoding="utf-8")

    def _port_of(self, command: str) -> int:
        """Return where a server will listen: the port in its command, or in its file."""
        texts = [self._placed(command)]
        texts += [path.read_text() for path in self._folder.glob("*.*") if path.name in command]
        return next(
            port for port in self._ports.values() if any(str(port) in text for text in texts)
        )

    def run(self, command: Command) -> str:
        """Type a command; return what is printed until it, or its server's start, is over."""
        deadline = time.monotonic() + DEADLINE
        self._type(f"{self._placed(command.text)}\nprintf '\\036'")
        while END not in self._printed:
            self._read(deadline, command)
        before, _, self._printed = self._printed.partition(END)
        if not command.text.endswith("&"):
            return self._shown(before)
        port = self._port_of(command.text)
        while not _listens(self._host, port):
            assert time.monotonic() < deadline, f"{command.text}: {before.decode()}"
            time.sleep(0.005)
        before, self._printed = before + self._printed, b""
        while differs(command.prints, self._shown(before)) and time.monotonic() < deadline:
            self._read(deadline, command)
            before, self._printed = before + self._printed, b""
        return self._shown(before)

    def left(self) -> list[int]:
        """Return the processes of the session, other than bash itself."""
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, _, _, session = stat.rpartition(")")[2].split()[:4]
            if int(session) == self._bash.pid != pid and state != "Z":
                found.append(pid)
        return found

    def _type(self, text: str) -> None:
        os.write(self._script, f"{text}\n".encode())

    def _read(self, deadline: float, command: Command) -> None:
        assert self._bash.stdout is not None
        out = self._bash.stdout.fileno()
        ready, _, _ = select.select([out], [], [], max(deadline - time.monotonic(), 0))
        data = os.read(out, 65536) if ready else b""
        assert data, f"{command.text}: no end, only {self._printed.decode()}"
        self._printed += data

    def _placed(self, text: str) -> str:
        for port, instead in self._ports.items():
            text = re.sub(rf"\b{port}\b", str(instead), text)
        return text.replace(HOST, self._host)

    def _shown(self, printed: bytes) -> str:
        text = JOBS.sub("", printed.decode()).replace(self._host, HOST)
        for port, instead in self._ports.items():
            text = re.sub(rf"\b{instead}\b", port, text)
        return text


def _place(count: int) -> tuple[str, list[int]]:
    """Return a loopback address that no other process uses, and ports that are free there."""
    pid = os.getpid()
    host = f"127.{64 + (pid >> 16) % 64}.{pid >> 8 & 255}.{pid & 255}"
    found: list[int] = []
    for port in range(20000, 32000):
        with socket.socket() as trial:
            try:
                trial.bind((host, port))
            except OSError:
                continue  # an earlier session's last connection
            found.append(port)
        if len(found) == count:
            return host, found
    raise OSError("no port is free")


def _listens(host: str, port: int) -> bool:
    """Tell whether the port listens, without connecting to it: a peer would be one too many.

    A UDP socket that is bound and not connected has the state of a closed one.
    """
    where = f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"
    for kind, state in (("tcp", "0A"), ("udp", "07")):
        lines = Path(f"/proc/net/{kind}").read_text(encoding="ascii").splitlines()[1:]
        if any(line.split()[1:4:2] == [where, state] for line in lines):
            return True
    return False


def follow(page: Path, folder: Path, locale: str = "C.UTF-8") -> None:
    """Do what a page says, as it stands; each command prints what it shows, nothing is left."""
    done = []
    with Session(folder, locale) as session:
        for step in steps(page.read_text(encoding="utf-8")):
            if isinstance(step, Program):
                session.write(step)
                continue
            printed = session.run(step)
            done.append(f"$ {step.text}\n{printed}")
            assert not differs(step.prints, printed), "\n".join(done[-4:])
        assert session.left() == []
