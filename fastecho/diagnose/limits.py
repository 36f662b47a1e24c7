"""What limits a server or a client on this machine: values, what they mean, how to change them.

Lives here: reading the limits, a sentence for each. Does not live here: text layout (cli).
"""

from __future__ import annotations

import resource

from fastecho.diagnose.proc_net import read_text

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Limit", "limits"]

PAGE = resource.getpagesize()
TIME_WAIT_SECONDS = 60
"""TCP_TIMEWAIT_LEN: a constant of the kernel."""


class Limit:
    """One limit.

    Attributes:
        name: as the system calls it.
        value: int, str or list of int, in the unit of the system.
        shown: the value for people.
        meaning: what it limits.
        change: a command that changes it, or who can; "" where nothing does.
    """

    __slots__ = ("change", "meaning", "name", "shown", "value")

    def __init__(
        self, name: str, value: int | str | list[int], meaning: str, change: str, shown: str = ""
    ) -> None:
        self.name = name
        self.value = value
        self.meaning = meaning
        self.change = change
        self.shown = shown or (f"{value:,}" if isinstance(value, int) else str(value))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "meaning": self.meaning,
            "change": self.change,
        }


def limits() -> list[Limit]:
    """Return the limits of this process and of its network namespace; what is not there is not."""
    return [*_descriptors(), *_queues(), *_ports(), *_conntrack(), *_memory(), *_congestion()]


def _numbers(path: str) -> list[int]:
    """Return the whole numbers in a file below /proc; none where it cannot be read."""
    text = read_text(f"/proc/{path}")
    return (
        [] if text is None else [int(word) for word in text.split() if word.lstrip("-").isdigit()]
    )


def _sysctl(name: str) -> list[int]:
    return _numbers(f"sys/{name.replace('.', '/')}")


def _descriptors() -> Iterator[Limit]:
    soft, hard = (
        -1 if one == resource.RLIM_INFINITY else one
        for one in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    words = ["no limit" if one < 0 else f"{one:,}" for one in (soft, hard)]
    yield Limit(
        "RLIMIT_NOFILE",
        [soft, hard],
        "descriptors of one process, a connection needs one: soft limit, which a program may raise "
        "itself (`fastecho serve` does), and hard limit",
        "ulimit -n N, LimitNOFILE= of systemd, --ulimit nofile=N of a container",
        f"{words[0]} soft, {words[1]} hard",
    )
    for name, meaning in (
        ("fs.nr_open", "the highest hard limit of descriptors that root can give"),
        ("fs.file-max", "descriptors of all processes together"),
    ):
        if found := _sysctl(name):
            yield Limit(name, found[0], meaning, f"sysctl -w {name}=N")


def _queues() -> Iterator[Limit]:
    for name, meaning in (
        (
            "net.core.somaxconn",
            "a listener's accept queue: listen(backlog) is cut to it; the queue holds one more",
        ),
        (
            "net.ipv4.tcp_max_syn_backlog",
            "a listener's SYN queue (3/4 of it, plus 1), but only with tcp_syncookies = 0",
        ),
        (
            "net.ipv4.tcp_syncookies",
            "SYNs that find the SYN queue full: 1 answers by a cookie, 0 drops, 2 never queues one",
        ),
    ):
        if found := _sysctl(name):
            yield Limit(name, found[0], meaning, f"sysctl -w {name}=N")


def _ports() -> Iterator[Limit]:
    name = "net.ipv4.ip_local_port_range"
    found = _sysctl(name)
    if len(found) == 2:
        low, high = found
        ports = max(high - low + 1, 0)
        yield Limit(
            name,
            found,
            f"a client: {ports:,} connections from one of its addresses to one HOST:PORT at a "
            f"time. A port whose connection this side closed first rests {TIME_WAIT_SECONDS} s "
            f"(TIME_WAIT): {ports // TIME_WAIT_SECONDS:,} such connections a second",
            f"sysctl -w {name}='1024 65535', or more source addresses (`bench --source`)",
            f"{low} to {high}",
        )
    name = "net.ipv4.tcp_tw_reuse"
    if found := _sysctl(name):
        yield Limit(
            name,
            found[0],
            "whether a client takes a resting port again after a second: 0 no, 1 yes, 2 on "
            "loopback only",
            f"sysctl -w {name}=1",
        )


def _conntrack() -> Iterator[Limit]:
    name = "net.netfilter.nf_conntrack_max"
    found, used = _sysctl(name), _sysctl("net.netfilter.nf_conntrack_count")
    if found:
        now = f" ({used[0]:,} now)" if used else ""
        yield Limit(
            name,
            found[0],
            "connections that the firewall follows; above it packets of new ones are dropped, "
            "which looks like a full queue",
            f"sysctl -w {name}=N",
            f"{found[0]:,}{now}",
        )


def _memory() -> Iterator[Limit]:
    name = "net.ipv4.tcp_mem"
    found = _sysctl(name)
    if len(found) == 3:
        used = _tcp_pages()
        now = "" if used is None else f" ({_mib(used)} now)"
        yield Limit(
            name,
            found,
            f"kernel memory of all TCP sockets, in pages of {PAGE} bytes: from the second value on "
            "buffers shrink, above the third data is dropped",
            f"sysctl -w {name}='LOW PRESSURE HIGH'",
            f"pressure at {_mib(found[1])}, at most {_mib(found[2])}{now}",
        )
    for name, direction, silent in (
        ("net.ipv4.tcp_rmem", "receive", "a server that does not read"),
        ("net.ipv4.tcp_wmem", "send", "a peer that does not read"),
    ):
        found = _sysctl(name)
        if len(found) == 3:
            yield Limit(
                name,
                found,
                f"{direction} buffer of a connection, in bytes: at least, at first, at most; so "
                f"much memory {silent} pins",
                f"sysctl -w {name}='MIN DEFAULT MAX', or `serve --{direction}-buffer`",
                f"{found[1]:,} at first, at most {found[2]:,} bytes",
            )


def _tcp_pages() -> int | None:
    """Return the pages that TCP uses in this network namespace's sockets."""
    for line in (read_text("/proc/net/sockstat") or "").splitlines():
        words = line.split()
        if words[:1] == ["TCP:"] and "mem" in words:
            return int(words[words.index("mem") + 1])
    return None


def _mib(pages: int) -> str:
    return f"{pages * PAGE / 2**20:,.0f} MiB"


def _congestion() -> Iterator[Limit]:
    name = "net.ipv4.tcp_congestion_control"
    if text := read_text(f"/proc/sys/{name.replace('.', '/')}"):
        known = (read_text("/proc/sys/net/ipv4/tcp_available_congestion_control") or "").split()
        others = f" (there are {', '.join(known)})" if known else ""
        yield Limit(
            name,
            text.strip(),
            f"how fast a connection may send: the algorithm of new sockets{others}",
            f"sysctl -w {name}=NAME",
        )
