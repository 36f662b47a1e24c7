"""Placeholder until the module of the same name arrives: a histogram as text, and back.

Lives here: encode() and decode(), and nothing else. Not HdrHistogram's format yet.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho._load import Histogram

__all__ = ["decode", "encode"]


def encode(histogram: Histogram) -> str:
    """Return the histogram as text."""
    import base64
    import json

    data = [[lowest, count] for lowest, _, count in histogram.buckets()]
    return base64.b64encode(json.dumps(data).encode()).decode("ascii")


def decode(text: str) -> Histogram:
    """Return the histogram that encode() wrote.

    Raises:
        ValueError: the text is no histogram.
    """
    import base64
    import json

    from fastecho._load import Histogram

    found = Histogram()
    for ns, count in json.loads(base64.b64decode(text)):
        found.record(ns, count)
    return found
