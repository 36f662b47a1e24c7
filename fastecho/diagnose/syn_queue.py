"""The SYN queue: how many handshakes may be under way at a listener, and by which rule.

The kernel keeps no limit of its own for it. When a SYN comes (tcp_conn_request):

- tcp_syncookies = 2: a cookie is sent for every SYN, none is queued.
- The queue holds more than the listener's limit: with tcp_syncookies = 1 a cookie is sent, which
  needs no memory, with 0 the SYN is dropped. Before Linux 6.14 it was "as many as the limit" (some
  stable releases of 2025 have the change as well).
- tcp_syncookies = 0: a SYN is also dropped when less than a quarter of tcp_max_syn_backlog is left.
- The accept queue is full: the SYN is dropped, whatever the SYN queue holds.

Measured in network namespaces, with SYNs from an address that never answers
(tests/test_syn_queue.py).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SynQueue", "syn_queue"]

ONE_MORE_SINCE = (6, 14)
"""Linux, from which on the SYN queue holds one more than the limit, as the accept queue does."""


class SynQueue:
    """How many handshakes may be under way at a listener.

    Attributes:
        holds: so many; 0 where every SYN is answered by a cookie; None where that is not known.
        beyond: what happens to a SYN that finds no place: "cookie" or "drop"; None: not known.
        rule: the rule in force, with its numbers.
    """

    __slots__ = ("beyond", "holds", "rule")

    def __init__(self, holds: int | None, beyond: str | None, rule: str) -> None:
        self.holds = holds
        self.beyond = beyond
        self.rule = rule


def syn_queue(
    limit: int | None, settings: Mapping[str, int], release: str | None = None
) -> SynQueue:
    """Return the rule for a listener with this limit.

    Args:
        limit: min(backlog, somaxconn); None where it is not known.
        settings: those of proc_net.settings().
        release: of the kernel, such as "6.1.0-18-amd64"; None for the one that runs.
    """
    cookies = settings.get("tcp_syncookies")
    if cookies is None:
        return SynQueue(None, None, "tcp_syncookies cannot be read")
    if cookies == 2:
        return SynQueue(0, "cookie", "tcp_syncookies = 2: a cookie for every SYN, none is queued")
    more = (
        1 if _version(os.uname().release if release is None else release) >= ONE_MORE_SINCE else 0
    )
    own = None if limit is None else limit + more
    by_limit = f"min(backlog, somaxconn){' + 1' if more else ''}"
    if cookies:
        rule = f"tcp_syncookies = {cookies}: {by_limit}, beyond it cookies are sent"
        return SynQueue(own, "cookie", f"{rule}; tcp_max_syn_backlog does not count")
    most = settings.get("tcp_max_syn_backlog")
    if most is None:
        return SynQueue(None, "drop", "tcp_max_syn_backlog cannot be read")
    share = most - (most >> 2) + 1
    rule = (
        f"tcp_syncookies = 0: the smaller of {by_limit} and 3/4 of tcp_max_syn_backlog + 1 "
        f"({share}), beyond it SYNs are dropped"
    )
    return SynQueue(None if own is None else min(own, share), "drop", rule)


def _version(release: str) -> tuple[int, int]:
    """Return (6, 14) for "6.14.0-rc1"."""
    major, _, rest = release.partition(".")
    minor = ""
    for character in rest:
        if not character.isdigit():
            break
        minor += character
    return int(major), int(minor or 0)
