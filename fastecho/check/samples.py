"""Samples, each on a connection of its own: what the probes of special bytes share."""

from __future__ import annotations

from fastecho.check.path import streams_of
from fastecho.check.pattern import Plain, shown_bytes, what_is
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

__all__ = ["come_back"]

DESCRIBED = 3
"""So many that failed are described, the others only named."""
UNSERVED = (
    "Or it has nothing to do with these bytes, and so many connections at a time are not served: "
    "see what the probe connections says."
)


def come_back(path: Path, samples: Mapping[str, bytes], what: str, meaning: str) -> Finding:
    """Send all samples at once and compare.

    Args:
        path: where to.
        samples: by name.
        what: they are, in words.
        meaning: of a failure.
    """
    streams = streams_of(path.open_all(len(samples)))
    talks = {
        name: Talk(stream, Plain(data), keep=True)
        for stream, (name, data) in zip(streams, samples.items(), strict=True)
    }
    try:
        converse(path, list(talks.values()))
    finally:
        for stream in streams:
            stream.close()
    wrong = {name: _words(talk) for name, talk in talks.items() if not talk.is_whole}
    if not wrong:
        return passed(f"{len(samples)} {what} came back", samples=len(samples))
    told = [f"{name}: {words}" for name, words in list(wrong.items())[:DESCRIBED]]
    if rest := list(wrong)[DESCRIBED:]:
        told.append(f"also {', '.join(rest)}")
    if not any(talks[name].received for name in wrong):
        meaning = f"{meaning} {UNSERVED}"
    return failed("; ".join(told), meaning, samples=len(samples), wrong=list(wrong))


def _words(talk: Talk) -> str:
    found = talk.difference()
    if found is None:
        return talk.story()
    came = bytes(talk.data)
    if found.at == 0 and found.kind == "foreign":
        return f"answered by {what_is(came)}"
    if len(came) <= 24:
        return f"came back as {shown_bytes(came)}"
    return found.text
