"""What a load over UDP counts besides failures, and what a plan for UDP may not ask for.

Lives here: the names of these counts, their JSON, their sum, their sentences; the rules for
options. Does not live here: counting (src_c/load_udp.h), counts that every load has (result.py).

Over UDP a message may be lost, answered twice, or answered out of order, and nothing is broken:
these are findings about the path, not failures. They stand apart, and `--fail-if` judges them.
"""

from __future__ import annotations

from . import reading
from .values import DEEPEST
from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, NoReturn, Protocol

    class Refuse(Protocol):
        """Raises ConfigError for an option of a plan."""

        label: Callable[[str], str]

        def __call__(self, name: str, reason: str) -> NoReturn:
            """Name the option, its value and the reason."""


__all__ = [
    "HEADER", "LARGEST", "NAMES", "TIMEOUT", "add_up", "depth_of", "from_json", "lines",
    "lost_percent", "of_counts", "percent_text", "refuse_misfits", "to_json",
]  # fmt: skip

TIMEOUT = 1.0
"""Seconds without a reply after which a datagram counts as lost, unless told otherwise."""
HEADER, LARGEST = 16, 65507
"""Bytes of the smallest datagram, which is only a header, and of the largest over IPv4."""
SPARE = 64
"""Datagrams that a connection may have outstanding beyond those that are due within the timeout."""
NAMES = {
    "lost": "no_reply",
    "late": "tardy",
    "duplicates": "duplicates",
    "reordered": "reordered",
    "not_sent": "not_sent",
    "overflows": "overflows",
}
"""Each count of a result, and what the load calls it."""


def of_counts(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of a result from those of a load."""
    return {name: int(counts[native]) for name, native in NAMES.items()}


def add_up(several: Iterable[Mapping[str, int] | None]) -> dict[str, int] | None:
    """Return the sums; None if no run was one over UDP."""
    known = [one for one in several if one is not None]
    if not known:
        return None
    sums = {name: sum(one[name] for one in known) for name in NAMES}
    if max(sums.values()) >= reading.MOST:
        raise ValueError("their counts are too large to be added up")
    return sums


def lost_percent(counts: Mapping[str, int], sent: int) -> float:
    """Return how many percent of the datagrams that were sent had no reply within the timeout."""
    gone = sent - counts["not_sent"]
    return 100 * counts["lost"] / gone if gone > 0 else 0.0


def to_json(counts: Mapping[str, int] | None, sent: int) -> dict[str, Any] | None:
    """Return the counts, and the loss in percent, as they stand in a result's JSON."""
    if counts is None:
        return None
    return {**counts, "lost_percent": round(lost_percent(counts, sent), 6)}


def from_json(data: object) -> dict[str, int] | None:
    """Return the counts that to_json() gave; None of a run over TCP.

    Raises:
        ValueError: they are broken; the rest of a sentence that names the file.
    """
    if data is None:
        return None
    if not isinstance(data, dict):
        raise ValueError("has 'datagrams' that is no object")
    return {name: reading.count(data, name) for name in NAMES}


def lines(counts: Mapping[str, Any], sent: int) -> list[str]:
    """Return what happened to datagrams, a few words each; the loss comes first, be it 0."""
    found = {name: int(counts.get(name, 0)) for name in NAMES}
    gone = sent - found["not_sent"]
    share = percent_text(lost_percent(found, sent))
    text = f"{share} lost: {found['lost']:,} of {gone:,} datagrams"
    if found["late"]:
        text += f", {found['late']:,} of them answered after the timeout"
    said = [text]
    other = []
    if found["duplicates"]:
        other.append(counted(found["duplicates"], "duplicate"))
    if found["reordered"]:
        other.append(f"{found['reordered']:,} reordered")
    if other:
        said.append(", ".join(other))
    if found["not_sent"]:
        said.append(
            f"{counted(found['not_sent'], 'datagram')} not sent: our own socket did not take them"
        )
    if found["overflows"]:
        said.append(
            f"{counted(found['overflows'], 'reply', 'replies')} dropped here: our own receive "
            "buffers were full (net.core.rmem_max, or a smaller --depth)"
        )
    return said


def depth_of(rate: float, timeout: float, connections: int) -> int:
    """Return how many datagrams of an open loop each connection may have outstanding.

    They are so many that those which are lost, and wait for their timeout, hold nobody up.
    """
    return min(int(rate * timeout / connections) + SPARE, DEEPEST)


def percent_text(percent: float) -> str:
    """Return a share with two digits that count: 0 %, 0.0012 %, 3.4 %, 100 %."""
    text = f"{percent:.2g}" if percent < 10 else f"{percent:.1f}".removesuffix(".0")
    return f"{text} %"


def refuse_misfits(found: Mapping[str, Any], table: int | Sequence[int], refuse: Refuse) -> None:
    """Refuse what a plan for UDP cannot have. `table`: the sizes of messages."""
    label = refuse.label
    for name, usual, reason in (
        ("frame", "recv", "has no meaning over UDP: each datagram is a message"),
        ("reconnect", False, "needs a connection, which UDP has not"),
        ("close", "fin", "needs a connection, which UDP has not"),
        ("idle_connections", 0, "needs connections, which UDP has not"),
        ("send_proxy", None, "needs a connection, which UDP has not"),
        ("identify", False, "needs a connection, which UDP has not"),
    ):
        if found[name] != usual:
            refuse(name, reason)
    if found["rate"] is not None and found["depth"] != 1:
        refuse("depth", f"has no effect with {label('rate')} over UDP: each is sent when it is due")
    sizes = [table] if isinstance(table, int) else table
    if min(sizes) < HEADER:
        refuse("size", f"is below {HEADER} bytes, which the header of a datagram needs over UDP")
    whole = max(sizes) + len(found["prefix"]) + len(found["suffix"])
    if whole > LARGEST:
        what = f"with {label('prefix')} and {label('suffix')} " if whole > max(sizes) else ""
        refuse("size", f"{what}is above {LARGEST} bytes, the largest datagram over IPv4")
