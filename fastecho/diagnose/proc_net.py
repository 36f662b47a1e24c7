"""What /proc tells of a network namespace: counters, settings, and listeners without sock_diag.

Lives here: reading and parsing these files. Does not live here: what the numbers mean
(verdicts.py). Everything belongs to the network namespace of the process.
"""

from __future__ import annotations

import socket
import sys

from fastecho.diagnose.listening import Listening

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["COUNTERS", "SETTINGS", "counters", "read_text", "settings", "tcp_sockets"]

COUNTERS = {
    "ListenOverflows": "listen_overflows",
    "ListenDrops": "listen_drops",
    "TCPReqQFullDrop": "syn_queue_drops",
    "TCPReqQFullDoCookies": "syn_queue_cookies",
    "SyncookiesSent": "cookies_sent",
    "SyncookiesRecv": "cookies_received",
    "SyncookiesFailed": "cookies_failed",
}
"""Names in /proc/net/netstat, and ours. Since the namespace began."""
SETTINGS = {
    "somaxconn": "net/core/somaxconn",
    "tcp_max_syn_backlog": "net/ipv4/tcp_max_syn_backlog",
    "tcp_syncookies": "net/ipv4/tcp_syncookies",
    "tcp_abort_on_overflow": "net/ipv4/tcp_abort_on_overflow",
}
"""Our names, and the files below /proc/sys. Everybody may read them."""
SYN_RECV, LISTEN = "03", "0A"


def read_text(path: str) -> str | None:
    """Return what a file of /proc holds; None where it is missing or not for us."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def counters() -> dict[str, int]:
    """Return the namespace's counters of listeners; a kernel that lacks one leaves it out."""
    lines = (read_text("/proc/net/netstat") or "").splitlines()
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        for name, value in zip(names.split()[1:], values.split()[1:], strict=False):
            if name in COUNTERS:
                found[COUNTERS[name]] = int(value)
    return found


def settings() -> dict[str, int]:
    """Return the settings that rule both queues; one that cannot be read is left out."""
    found = {}
    for name, path in SETTINGS.items():
        text = read_text(f"/proc/sys/{path}")
        if text is not None:
            found[name] = int(text)
    return found


def tcp_sockets() -> tuple[list[Listening], dict[tuple[str, int], int]]:
    """Return TCP listeners without limit and drops, and handshakes under way by our address.

    Raises:
        OSError: there is no /proc/net/tcp, or it is not for us.
    """
    found, handshakes = [], dict[tuple[str, int], int]()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for fields in _rows(path):
            where = host, port = _address(fields[1])
            if fields[3] == SYN_RECV:
                handshakes[where] = handshakes.get(where, 0) + 1
            elif fields[3] == LISTEN:
                depth = int(fields[4].partition(":")[2], 16)
                found.append(
                    Listening(
                        "tcp",
                        # Whether [::] is for IPv4 as well is not told here; it mostly is.
                        host="" if host == "::" else host,
                        port=port,
                        depth=depth,
                        limit=None,
                        uid=int(fields[7]),
                        inode=int(fields[9]),
                    )
                )
    return found, handshakes


def _rows(path: str) -> Iterator[list[str]]:
    try:
        with open(path, encoding="ascii") as file:
            next(file, None)
            for line in file:
                yield line.split()
    except FileNotFoundError:
        if path.endswith("tcp"):
            raise  # without IPv6 there is no tcp6


def _address(text: str) -> tuple[str, int]:
    """Return host and port of such as 0100007F:1F90: words of 32 bits, as the machine has them."""
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words)), int(port, 16)
