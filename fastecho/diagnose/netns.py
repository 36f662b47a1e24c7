"""Network namespaces: into that of another process, or into a new one, for the rest of a process.

Lives here: the system calls and what they need. Does not live here: what is done inside.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from fastecho.errors import ConfigError, StartError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["enter", "make", "set_up_loopback"]

NAMED = "/run/netns"
"""Where `ip netns` keeps its names."""
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
NETLINK_ROUTE = 0
RTM_NEWLINK, RTM_NEWROUTE = 16, 24
NLM_F_REQUEST_ACK, NLM_F_CREATE = 0x5, 0x400
RTA_DST, RTA_OIF = 1, 4


def enter(name: str, option: str) -> None:
    """Enter a network namespace; sockets made afterwards, and /proc/net, belong to it.

    To be called while the process has one thread. A process of this user's own user namespace (a
    container without root) needs no privilege: that is entered first.

    Args:
        name: number of a process, or a name of `ip netns`.
        option: what the user calls it.
    Raises:
        ConfigError: there is no such process or name.
        StartError: the system does not allow it.
    """
    is_process = name.isascii() and name.isdigit()
    if not is_process and (not name or "/" in name or name.startswith(".")):
        raise ConfigError(option, name, "must be the number of a process, or a name of `ip netns`")
    path = f"/proc/{name}/ns/net" if is_process else f"{NAMED}/{name}"
    try:
        with open(path, "rb") as file:
            try:
                _call("setns", file.fileno(), CLONE_NEWNET)
            except PermissionError:
                if not is_process:
                    raise
                with open(f"/proc/{name}/ns/user", "rb") as user:
                    _call("setns", user.fileno(), CLONE_NEWUSER)
                _call("setns", file.fileno(), CLONE_NEWNET)
    except FileNotFoundError:
        what = "is no process" if is_process else f"is no network namespace: {NAMED} has none"
        raise ConfigError(option, name, what) from None
    except OSError as error:
        # EINVAL: our own user namespace, so the network namespace is of another one.
        code = errno.EPERM if error.errno == errno.EINVAL else error.errno or 0
        sentence = f"{option} {name}: {os.strerror(code).lower()}: only root may look into it"
        raise StartError(code, sentence) from None


def make() -> None:
    """Enter a new network namespace, without root in a user namespace of its own.

    To be called while the process has one thread.

    Raises:
        OSError: the system does not allow it.
    """
    try:
        _call("unshare", CLONE_NEWNET)
        return
    except PermissionError:
        user, group = os.getuid(), os.getgid()
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {user} 1"),
        ("gid_map", f"0 {group} 1"),
    ):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as map_file:
            map_file.write(text)


def set_up_loopback(silent: str, prefix_bits: int) -> None:
    """In a new namespace: start lo, and send what goes to addresses that nobody has there as well.

    What is sent to a `silent` address is discarded: no machine has it, so nobody answers.

    Args:
        silent, prefix_bits: IPv4 network, such as 10.66.0.0 and 16.
    """
    index = socket.if_nametoindex("lo")
    # struct ifinfomsg: family, type, index, flags, which of them change.
    _route_message(RTM_NEWLINK, 0, struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 1, 1))
    # struct rtmsg: family, lengths of destination and source, tos, table main, protocol boot,
    # scope link, type unicast, flags.
    route = struct.pack("=8BI", socket.AF_INET, prefix_bits, 0, 0, 254, 3, 253, 1, 0)
    route += struct.pack("=HH4s", 8, RTA_DST, socket.inet_aton(silent))
    route += struct.pack("=HHi", 8, RTA_OIF, index)
    _route_message(RTM_NEWROUTE, NLM_F_CREATE, route)


def _route_message(kind: int, flags: int, body: bytes) -> None:
    """Send one message to the kernel's routing; raise what it answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as kernel:
        head = struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST_ACK | flags, 1, 0)
        kernel.sendto(head + body, (0, 0))
        (code,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if code < 0:
        raise OSError(-code, os.strerror(-code))


def _call(name: str, *arguments: int) -> None:
    """Call setns or unshare: of os from Python 3.12 on, before that of the C library."""
    function: Any = getattr(os, name, None)
    if function is not None:
        function(*arguments)
        return
    import ctypes

    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
