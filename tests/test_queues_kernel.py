"""What the kernel tells of listeners: whose the handshakes are, counters, a list that changes.

Handshakes stay under way without packets made by hand: with TCP_DEFER_ACCEPT a connection leaves
the SYN queue with its first byte, and these peers send none. Does not live here: depth, limit and
drops (test_queues.py), how much the SYN queue holds (test_syn_queue.py).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from peers import has_ipv6
from test_queues import inode_of, listen, seen

from fastecho.diagnose import proc_net, sock_diag
from fastecho.diagnose.queues import look

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6")
NOBODY = 65534


@contextmanager
def deferring(host: str, port: int = 0) -> Iterator[socket.socket]:
    """A listener whose connections stay in the SYN queue until they send something; "": of both."""
    with socket.socket(socket.AF_INET if "." in host else socket.AF_INET6) as listener:
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "")
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
        listener.bind((host, port))
        listener.listen(9)
        yield listener


@contextmanager
def shaking_hands(host: str, port: int, clients: int) -> Iterator[None]:
    """Have so many clients connect, which send nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            stack.enter_context(socket.create_connection((host, port), 10))
        yield


# Whose the handshakes are


@pytest.mark.parametrize(
    ("host", "clients"),
    [
        pytest.param("0.0.0.0", ["127.0.0.1"], id="IPv4"),
        pytest.param("::", ["::1"], id="IPv6", marks=needs_ipv6),
        pytest.param("", ["127.0.0.1", "::1"], id="both", marks=needs_ipv6),
    ],
)
def test_handshakes_are_those_of_who_listens_on_every_address(
    host: str, clients: list[str]
) -> None:
    with deferring(host) as listener, contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(shaking_hands(client, listener.getsockname()[1], 2))
        assert (seen(listener).handshakes, seen(listener).depth) == (2 * len(clients), 0)


def test_handshakes_at_a_listener_s_own_address_are_not_the_wildcard_s() -> None:
    with deferring("127.0.0.1") as own, deferring("0.0.0.0", own.getsockname()[1]) as other:
        port = own.getsockname()[1]
        with shaking_hands("127.0.0.1", port, 2), shaking_hands("127.0.0.2", port, 1):
            assert (seen(own).handshakes, seen(other).handshakes) == (2, 1)


def test_proc_counts_handshakes_as_sock_diag_does() -> None:
    with deferring("127.0.0.1") as listener:
        place = host, port = listener.getsockname()
        with shaking_hands(host, port, 3):
            assert sock_diag.handshakes()[place] == proc_net.tcp_sockets()[1][place] == 3


def test_listeners_come_in_order_of_their_addresses(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "socket"))
        unix.listen(1)
        hosts = [f"127.0.0.{1 + turn % 2}" for turn in range(8)]
        listeners = [stack.enter_context(listen(host, 1)) for host in hosts]
        inodes = set(map(inode_of, listeners))
        found = look().listeners
        places = [(one.host, one.port) for one in found if one.inode in inodes]
        assert places == sorted(listener.getsockname() for listener in listeners)
        kinds = [one.kind for one in found]
        assert kinds == sorted(kinds)
        assert kinds[-1] == "unix"


def test_a_listener_s_user_is_told_by_proc_too() -> None:
    with listen("127.0.0.1", 1) as listener:
        try:
            os.fchown(listener.fileno(), NOBODY, -1)
        except PermissionError:
            pytest.skip("only root may give a socket away")
        (other,) = [one for one in proc_net.tcp_sockets()[0] if one.inode == inode_of(listener)]
        assert seen(listener).uid == other.uid == NOBODY


# A list that changes while it is written


class Changing(socket.socket):
    """A socket whose first dumps of the kernel say that they were interrupted.

    The kernel says so when sockets come or go at the wrong moment, which cannot be provoked.
    """

    interrupted = 0
    asked = 0

    def sendto(self, *arguments: Any) -> int:
        type(self).asked += 1
        return super().sendto(*arguments)

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = bytearray(super().recv(size, flags))
        if self.asked <= self.interrupted:
            data[6] |= sock_diag.NLM_F_DUMP_INTR
        return bytes(data)


def test_a_list_that_changed_meanwhile_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen("127.0.0.1", 1) as listener:
        monkeypatch.setattr(Changing, "interrupted", 2)
        monkeypatch.setattr(Changing, "asked", 0)
        monkeypatch.setattr(socket, "socket", Changing)
        found = sock_diag.tcp_listeners()
        monkeypatch.undo()
        assert [one.inode for one in found].count(inode_of(listener)) == 1


def test_a_list_that_changes_all_the_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Changing, "interrupted", 1000)
    monkeypatch.setattr(socket, "socket", Changing)
    with pytest.raises(OSError, match="changed all the time"):
        sock_diag.tcp_listeners()


# Counters


KERNELS_NAMES = {
    "listen_overflows": "ListenOverflows",
    "listen_drops": "ListenDrops",
    "syn_queue_drops": "TCPReqQFullDrop",
    "syn_queue_cookies": "TCPReqQFullDoCookies",
    "cookies_sent": "SyncookiesSent",
    "cookies_received": "SyncookiesRecv",
    "cookies_failed": "SyncookiesFailed",
}


def test_each_counter_is_the_one_that_the_kernel_calls_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of them stand still, so each is given a value of its own."""
    words = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()]
    names, values = words[::2], words[1::2]
    for row, value in zip(names, values, strict=True):
        value[1:] = [str(1000 * len(row) + at) for at in range(1, len(row))]
    text = "\n".join(" ".join(row) for pair in zip(names, values, strict=True) for row in pair)
    monkeypatch.setattr(proc_net, "read_text", lambda _: text)
    told = {
        name: int(number)
        for row, value in zip(names, values, strict=True)
        for name, number in zip(row[1:], value[1:], strict=True)
    }
    wanted = {ours: told[name] for ours, name in KERNELS_NAMES.items()}
    assert proc_net.counters() == wanted
    assert len(set(wanted.values())) == len(wanted)
