"""What figures are called and what they mean, in words that every output shares.

What lives here: a table of failures, numbers with their nouns, sentences that both text and page
have. What may not live here: what counts as which failure (src_c/load.h), layout (cli, page.py).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = [
    "FAILURES", "clock_text", "counted", "extra_text", "failure_meaning", "failure_name",
    "found_text", "reopened_text", "replies_text",
]  # fmt: skip

FAILURES = {
    "late": ("late", "the right bytes, after the timeout"),
    "corrupt": ("corrupt", "other bytes came back"),
    "misplaced": ("misplaced", "the bytes of another message of that connection"),
    "lost": ("lost", "the connection ended first, or none was open when they were due"),
    "timed_out": ("timed out", "the connection gave no byte for the timeout"),
    "unsent": ("unsent", "still waiting in the generator when the run was given up"),
    "extra_bytes": ("bytes too many", "nothing was due"),
    "reset": ("reset", "connections that the server ended by RST"),
    "closed": ("closed", "connections that the server ended by FIN"),
    "refused": ("refused", "connects that nobody accepted"),
    "connect_timed_out": ("connects timed out", "no answer to a connect"),
    "other": ("other", "connections that ended by another error"),
}
"""Each kind of failure: its name, and what happened."""
_OVER_UDP = {"refused": "ICMP says that nothing listens there"}
"""What is another thing without connections."""

_ONE = {"extra_bytes": "byte too many", "connect_timed_out": "connect timed out"}
"""Names that are others for a single one."""


def extra_text(extra: str) -> str:
    """Say how an extra is installed."""
    return f"pip install 'fastecho[{extra}]', or '.[{extra}]' in a checkout"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 message", "1,024 messages"."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def failure_name(kind: str, number: int) -> str:
    """Return what so many failures of a kind are called; an unknown kind by its own name."""
    plural = FAILURES[kind][0] if kind in FAILURES else kind
    return _ONE.get(kind, plural) if number == 1 else plural


def failure_meaning(kind: str, *, udp: bool) -> str:
    """Return what happened, over UDP or over TCP; of an unknown kind nothing."""
    usual = FAILURES.get(kind, ("", ""))[1]
    return _OVER_UDP.get(kind, usual) if udp else usual


def replies_text(messages: int, elapsed: float, loop: str) -> str:
    """Say how many messages of the window came back right, the last of them maybe after it."""
    if not messages:
        return f"no message came back right within the timeout, in {elapsed:.4g} s"
    when = "due" if loop == "open" else "sent"
    return f"{counted(messages, 'message')} {when} in {elapsed:.4g} s, every byte right"


def reopened_text(number: int) -> str:
    """Say how many lost connections were opened again."""
    return f"{counted(number, 'connection')} {'was' if number == 1 else 'were'} opened again"


def clock_text(part: Mapping[str, Any]) -> str:
    """Return how far the clock of a part of a merged result was ahead: "+1.2 ms +-0.3 ms".

    The second number is how far the first may be off, where that is known.
    """
    text = _ms_text(part.get("offset_ms", 0.0), "+")
    uncertain = part.get("offset_uncertain_ms")
    return text if uncertain is None else f"{text} +-{_ms_text(uncertain)}"


def _ms_text(ms: float, sign: str = "") -> str:
    return f"{ms:{sign}.3g} ms" if abs(ms) < 999.5 else f"{ms / 1e3:{sign},.2f} s"


def found_text(search: Mapping[str, Any]) -> str:
    """Say what the search of `--find-max` has found."""
    rate, limit, steps = search["rate_per_s"], search["limit"], search["steps"]
    if rate is None:
        return f"no rate held {limit} in {counted(len(steps), 'step')}"
    failed = [one["rate_per_s"] for one in steps if not one["holds"] and one["rate_per_s"] > rate]
    above = f"; {min(failed):,.10g} did not" if failed else ", the highest that was tried"
    again = any(one["rate_per_s"] == rate and not one["holds"] for one in steps)
    held = f"{limit}{' at the second try only' if again else ''}"
    return f"{rate:,.10g} messages/s held {held}{above} ({counted(len(steps), 'step')})"
