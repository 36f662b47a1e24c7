"""Namespaces of the kernel, for what must not touch the rest of the machine.

Lives here: whether this process may make some, and what a new one of the network lacks. Does not
live here: the programs that run in them.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess

SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def can_unshare(*options: str) -> bool:
    """Tell whether this process may make namespaces of its own."""
    # Without what a sanitizer preloads: LeakSanitizer cannot search process 1.
    command = ["env", "-u", "LD_PRELOAD", "unshare", *options, "true"]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except FileNotFoundError:
        return False


def bring_loopback_up() -> None:
    """Make 127.0.0.0/8 and ::1 reachable: in a new namespace of the network they are not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
