"""A systemd of its own: PID 1 of fresh namespaces, on a file system that forgets all writes.

Lives here: booting it, running commands in it, its end. Does not live here: units, and what is
measured or tested with them.

It sees the files of this machine through an overlay, an empty /run, /tmp and /dev, its own
processes and its own cgroups; the network is this machine's. /proc/sys is read-only to it. It needs
root, and a mounted cgroup2. Python and this checkout are at /opt, where a service without a home
may look.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
SYSTEMD = Path("/lib/systemd/systemd")
DEADLINE = 20.0
"""Seconds until anything here is given up."""
FASTECHO = "/opt/fastecho/bin/fastecho"
"""The command, inside."""
NAMESPACES = ("--pid", "--fork", "--kill-child", "--mount", "--cgroup", "--ipc", "--uts")
NEEDS = ("unshare", "nsenter", "setpriv", "systemctl")

# $1 is where to build it, $2 Python's home, $3 the checkout, $4 its packages.
BUILD = r"""
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" root
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    touch dev/$name
    mount --bind /dev/$name dev/$name
done
ln -s pts/ptmx dev/ptmx
mkdir -p dev/shm dev/pts dev/mqueue
mkdir -p opt/python opt/fastecho/bin opt/fastecho/lib opt/fastecho/packages
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t mqueue mqueue dev/mqueue
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --bind "$2" opt/python
mount --bind "$3" opt/fastecho/lib
mount --bind "$4" opt/fastecho/packages
cat > opt/fastecho/bin/fastecho <<END
#!/bin/sh
export PYTHONPATH=/opt/fastecho/lib:/opt/fastecho/packages LD_LIBRARY_PATH=/opt/python/lib
export PYTHONDONTWRITEBYTECODE=1
exec /opt/python/bin/python3 -m fastecho "\$@"
END
chmod 755 opt/fastecho/bin/fastecho
mkdir run/units
cd run/units
for name in basic sysinit sockets shutdown multi-user network; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $name > $name.target
done
printf '[Unit]\nDescription=up\nDefaultDependencies=no\n' > up.target
cd ../..
mkdir old
pivot_root . old
umount -l old
"""
BOOT = f"""{BUILD}
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/run/units \\
    {SYSTEMD} --system --unit=up.target --log-target=null --show-status=false
"""


@functools.cache
def missing() -> str:
    """Return what keeps it from being booted, or nothing."""
    if os.geteuid() != 0:
        return "booting systemd in namespaces needs root"
    if not SYSTEMD.exists():
        return f"there is no {SYSTEMD}"
    for program in NEEDS:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if _cgroups() is None:
        return "no cgroup2 is mounted"
    with tempfile.TemporaryDirectory(prefix="fastecho-systemd-") as folder:
        done = subprocess.run(
            ["unshare", *NAMESPACES, "--propagation=private", *_script(BUILD, folder)],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    return f"namespaces are not allowed here: {done.stderr.strip()}" if done.returncode else ""


def _script(text: str, folder: str) -> list[str]:
    packages = sysconfig.get_path("purelib")
    return ["sh", "-c", text, "sh", folder, sys.base_prefix, str(ROOT), packages]


def _cgroups() -> Path | None:
    """Return where cgroup2 is mounted."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


class Machine:
    """A running systemd; leaving the block kills it and everything in it.

    Attributes:
        pid: of its PID 1, as seen from here.
        root: its file system, as seen from here.
    """

    def __init__(self) -> None:
        self._ended = ExitStack()
        # What the script and unshare have to say.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Machine:
        try:
            self._boot()
        except BaseException:
            self._ended.close()
            self._said.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.close()
        self._said.close()

    def _boot(self) -> None:
        folder = self._ended.enter_context(tempfile.TemporaryDirectory(prefix="fastecho-systemd-"))
        cgroups = _cgroups()
        assert cgroups is not None
        group = cgroups / f"fastecho-{os.getpid()}-{time.monotonic_ns()}"
        group.mkdir()
        self._ended.callback(_remove_group, group)
        enter = f'echo $$ > {group}/cgroup.procs; exec setpriv --pdeathsig KILL "$@"'
        outer = subprocess.Popen(
            ["sh", "-c", enter, "sh", "unshare", *NAMESPACES, "--propagation=private",
             *_script(BOOT, folder)],
            stdin=subprocess.DEVNULL,
            stderr=self._said,
        )  # fmt: skip
        self._ended.callback(outer.wait, DEADLINE)
        self._ended.callback(outer.kill)  # with its child
        self.pid = self._pid_one(outer)
        self.root = Path(f"/proc/{self.pid}/root")
        self._ended.callback(_end, self.pid, outer)
        deadline = time.monotonic() + DEADLINE
        while self.systemctl("is-active", "up.target", check=False).stdout != "active\n":
            if time.monotonic() > deadline or outer.poll() is not None:
                raise self._failed("does not come up")
            time.sleep(0.02)

    def _pid_one(self, outer: subprocess.Popen[bytes]) -> int:
        """Return the process that has become systemd."""
        deadline = time.monotonic() + DEADLINE
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        while time.monotonic() < deadline and outer.poll() is None:
            for child in children.read_text(encoding="ascii").split():
                if Path(f"/proc/{child}/comm").read_text(encoding="utf-8") == "systemd\n":
                    return int(child)
            time.sleep(0.01)
        raise self._failed("has not begun")

    def _failed(self, what: str) -> RuntimeError:
        self._said.seek(0)
        return RuntimeError(f"systemd {what}: {self._said.read().decode().strip()}")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root, to its end."""
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--all", "--root", "--wd", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `systemctl` inside."""
        return self.run("systemctl", "--no-pager", *words, check=check)

    def shows(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", unit, "--value", f"--property={name}").stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Write a file inside; its folder is made."""
        where = self.root / path.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text, encoding="utf-8")

    def read(self, path: str) -> str:
        """Return a file's text; empty if there is none."""
        where = self.root / path.lstrip("/")
        return where.read_text(encoding="utf-8") if where.exists() else ""


def _end(pid: int, outer: subprocess.Popen[bytes]) -> None:
    """Kill PID 1, with which everything inside ends, and wait until its parent has noticed."""
    try:
        os.kill(pid, signal.SIGKILL)
        outer.wait(DEADLINE)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass  # its parent is killed next


def _remove_group(group: Path) -> None:
    """Remove a cgroup and those in it; the kernel may still be at the last process."""
    deadline = time.monotonic() + DEADLINE
    while group.exists():
        for folder, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.01)
