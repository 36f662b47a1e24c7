"""Small messages that are timed: what the probes of latency share."""

from __future__ import annotations

from statistics import median, quantiles

from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastecho.check.path import Path, Stream

__all__ = ["SIZE", "ping", "spread"]

SIZE = 64
"""Bytes of a message."""


def ping(path: Path, stream: Stream, number: int) -> float | str:
    """Return the seconds until a message came back; or, in words, why it did not."""
    talk = Talk(stream, Pattern(path.seed, 70 + number, SIZE))
    converse(path, [talk])
    return talk.ended - talk.began if talk.is_whole else talk.story()


def spread(times: Sequence[float]) -> tuple[str, dict[str, float]]:
    """Return least, median, quartiles and most of some seconds, as words and for JSON."""
    low, _, high = quantiles(times, n=4) if len(times) > 1 else (times[0],) * 3
    figures = [one * 1e3 for one in (min(times), low, median(times), high, max(times))]
    names = ("min_ms", "p25_ms", "median_ms", "p75_ms", "max_ms")
    text = "/".join(f"{one:.3f}" for one in figures)
    return f"min/p25/median/p75/max = {text} ms", dict(zip(names, figures, strict=True))
