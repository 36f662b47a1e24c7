"""A long, lossy or narrow line between two hosts: packets pass through this program, one by one.

    python -m boxes.line --delay-ms 20 --loss 0.01 -- fastecho check 10.7.0.2:7777 --quick

Both hosts are network namespaces of their own, each with a TUN device; a server (`fastecho serve
--probes`) is started in the other one at 10.7.0.2:7777, the command runs in this one, and its exit
code is ours. Every packet is delayed, some are dropped, and none is ever announced by ICMP:

    --delay-ms   each way
    --loss       of all, 0 to 1
    --largest    bytes of a packet; larger ones are dropped: a path-MTU black hole
    --bad-member loss of one of four members of a bundle; the ports choose the member

It needs root, or `unshare --user --map-root-user` before it, and /dev/net/tun.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from heapq import heappop, heappush
from random import Random

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0001, 0x0002, 0x1000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS, SIOCSIFMTU = 0x8916, 0x891C, 0x8914, 0x8922
SIOCSIFTXQLEN = 0x8943
IFF_UP_RUNNING = 0x41
HERE, THERE, PORT = "10.7.0.1", "10.7.0.2", 7777
MTU = 1500
MEMBERS = 4
DEADLINE = 20.0


def open_device(name: bytes, kind: int) -> int:
    """Make a device in the network namespace that we are in; return its descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name, kind | IFF_NO_PI))
    return fd


class Device:
    """A TUN device in the network namespace of whoever makes it."""

    def __init__(self, address: str) -> None:
        self.fd = open_device(b"line0", IFF_TUN)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, SIOCSIFADDR, _with_address(address))
            fcntl.ioctl(sock, SIOCSIFNETMASK, _with_address("255.255.255.0"))
            fcntl.ioctl(sock, SIOCSIFMTU, struct.pack("16si20x", b"line0", MTU))
            fcntl.ioctl(sock, SIOCSIFTXQLEN, struct.pack("16si20x", b"line0", 10000))
            for name in (b"line0", b"lo"):
                fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", name, IFF_UP_RUNNING))


def _with_address(address: str) -> bytes:
    there = socket.inet_aton(address)
    return struct.pack("16sHH4s8x8x", b"line0", socket.AF_INET, 0, there)


def leave_network() -> None:
    """Go into a network namespace of our own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Line(threading.Thread):
    """Passes packets between two devices until the process ends, each so many seconds later."""

    def __init__(self, one: int, other: int, delay: float) -> None:
        super().__init__(daemon=True)
        self._other = {one: other, other: one}
        self._delay = delay

    def run(self) -> None:
        """Pass packets on, each when it is old enough."""
        poller = select.poll()
        for fd in self._other:
            poller.register(fd, select.POLLIN)
        waiting: list[tuple[float, int, int, bytes]] = []
        number = 0
        while True:
            left = None if not waiting else max(waiting[0][0] - time.monotonic(), 0) * 1e3
            for fd, _ in poller.poll(left):
                for _ in range(64):
                    try:
                        packet = os.read(fd, 65536)
                    except BlockingIOError:
                        break
                    if not self.drops(packet):
                        number += 1
                        due = time.monotonic() + self._delay
                        heappush(waiting, (due, number, self._other[fd], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, fd, packet = heappop(waiting)
                try:
                    os.write(fd, packet)
                except OSError:
                    pass  # a queue that is full drops as well

    def drops(self, packet: bytes) -> bool:
        """Tell whether this packet never arrives: none."""
        return False


class Lossy(Line):
    """Drops packets as the options say."""

    def __init__(self, options: argparse.Namespace, one: int, other: int) -> None:
        super().__init__(one, other, options.delay_ms / 1e3)
        self._random = Random(options.seed)
        self._loss = options.loss
        self._largest = options.largest
        self._bad_member = options.bad_member

    def drops(self, packet: bytes) -> bool:
        """Tell whether this packet never arrives."""
        if packet[0] >> 4 != 4 or len(packet) > self._largest:
            return True
        if self._bad_member:
            header = (packet[0] & 15) * 4
            source, destination = struct.unpack_from("!HH", packet, header)
            if (source ^ destination) // 7 % MEMBERS == 0:
                return bool(self._random.random() < self._bad_member)
        return bool(self._random.random() < self._loss)


def start_server() -> tuple[subprocess.Popen[bytes], int]:
    """Start the server in a namespace of its own; return it and the descriptor of its device."""
    ours, theirs = socket.socketpair()
    ready, writer = os.pipe()
    arguments = [sys.executable, "-m", "fastecho", "serve", f"--bind={THERE}:{PORT}", "--probes"]
    arguments += [f"--ready-fd={writer}", "--log-level=error"]

    def prepare() -> None:
        leave_network()
        device = Device(THERE)
        socket.send_fds(theirs, [b"d"], [device.fd])

    process = subprocess.Popen(arguments, pass_fds=[writer], preexec_fn=prepare)  # noqa: PLW1509 (no thread runs yet)
    os.close(writer)
    _, (fd, *_), _, _ = socket.recv_fds(ours, 1, 1)
    if not select.select([ready], [], [], DEADLINE)[0] or not os.read(ready, 100):
        process.kill()
        raise SystemExit("the server did not start")
    return process, fd


def main() -> int:
    """Make the line, start the server, run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--largest", type=int, default=MTU)
    parser.add_argument("--bad-member", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    leave_network()
    server, there = start_server()
    try:
        Lossy(options, Device(HERE).fd, there).start()
        return subprocess.run(options.command, check=False).returncode
    finally:
        server.terminate()
        server.wait(DEADLINE)


if __name__ == "__main__":
    sys.exit(main())
