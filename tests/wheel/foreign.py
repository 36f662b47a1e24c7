"""Programs of another processor or C library on this machine, and what they need to run.

Lives here: the emulator, a folder with Debian's packages, a Python in it that starts like any
other. Does not live here: what is built and tried with them (cross.py).

Nothing is installed and no root is needed: apt gets lists and a cache of its own, in which the
other architecture is the only one, and the packages are unpacked into a folder.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
from pathlib import Path

LIMIT = 600.0
"""Seconds for each step: most of it goes to the network."""


class LackError(Exception):
    """Why something is left out, and what to install."""


def emulator(machine: str) -> list[str]:
    """Return the start of a command that runs a program of this processor; empty if it is ours."""
    if machine == platform.machine():
        return []
    for name in (f"qemu-{machine}-static", f"qemu-{machine}"):
        if found := shutil.which(name):
            return [found]
    raise LackError(f"qemu-{machine} is missing (Debian, Ubuntu: apt install qemu-user-static)")


def unpacked(package: str, architecture: str, folder: Path) -> Path:
    """Unpack a package of Debian, with all that it depends on, and return the root of its files.

    Args:
        package: such as python3.
        architecture: as Debian calls it, such as arm64.
        folder: where to; what was there before is removed.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise LackError(f"{tool} is missing: {package} for {architecture} comes from Debian")
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("state/lists/partial", "cache/archives/partial", "root"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()  # as if nothing were installed: every dependency is fetched
    settings = {
        "Dir::State": folder / "state", "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache", "Dir::Cache::archives": folder / "cache/archives",
        "APT::Architecture": architecture, "APT::Architectures::": architecture,
        "APT::Sandbox::User": "", "Acquire::Retries": 1, "Acquire::http::Timeout": 20,
    }  # fmt: skip
    apt = ["apt-get", "-q", "-y", *(f"-o{name}={value}" for name, value in settings.items())]
    # Its exit code says little: a mirror that does not answer is a warning.
    subprocess.run([*apt, "update"], capture_output=True, timeout=LIMIT)
    fetch = subprocess.run(
        [*apt, "--download-only", "--no-install-recommends", "install", package],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT,
    )  # fmt: skip
    if fetch.returncode:
        said = (fetch.stdout.strip().splitlines() or [""])[-1]
        raise LackError(
            f"no {package} for {architecture}: apt-get needs the network and a mirror that"
            f" has {architecture} (it says {said!r})"
        )
    for file in sorted((folder / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", file, folder / "root"], check=True, timeout=LIMIT)
    if not (folder / "root/lib").exists():  # newer releases ship the link in another package
        (folder / "root/lib").symlink_to("usr/lib")
    return folder / "root"


def python_in(root: Path, emulator: list[str]) -> Path:
    """Make a file that starts the Python below a root, by name, by link or by `#!`.

    A virtual environment links to it like to any Python: it hands on the name by which it was
    started, and the Python finds pyvenv.cfg beside that, or else the library below the root.
    """
    real = (root / "usr/bin/python3").resolve()
    start = [*emulator, "-L", str(root), "-0"]
    file = real.with_name("python")
    file.write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$0" {shlex.quote(str(real))} "$@"\n')
    file.chmod(0o755)
    return file
