"""Whether what answers is an echo, and how long one takes: deadlines rest on that."""

from __future__ import annotations

from statistics import median

from fastecho.check.path import Stream
from fastecho.check.pattern import Plain, what_is
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import failed, hopeless, passed
from fastecho.identity import Greeting, NotIdentifiedError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding
    from fastecho.identity import Identity

TITLE = "what answers is an echo"
GROUP, ORDER, QUICK, PHASE, NEEDS = "reach", 1, True, "first", ()
PASSED = "What was sent came back: an echo server answers."
FAILED = (
    "Something else than an echo server answers, or something between answers in its place: "
    "another service has the port, or a proxy sends its own error."
)
IDENTIFIES = (
    "A server with --identify speaks first, so it is no echo: check one that was started without."
)
STOPPED = (
    "The echo ends while its client still talks: a server that answers once, or a limit on the "
    "bytes or the time of a connection, there or on the way."
)
LINES = (
    "The server, or something before it, waits for whole lines (--frame line), so it is no echo of "
    "bytes: check one that echoes them as they come."
)
TIMES = 5
TRIED = 3
"""Connections: a single one may go over the one bad link of a bundle."""


def run(path: Path) -> Finding:
    """Send a line on some connections, and some more on the first that gives it back."""
    found = path.open_all(TRIED, enough=1)
    streams = [one for one in found if isinstance(one, Stream)]
    if not streams:
        streams = [path.open()]  # or says why not
    try:
        lines = Plain(b"fastecho check %d, first line\n" % path.seed)
        talks = [Talk(one, lines, keep=True) for one in streams]
        converse(path, talks)
        good = next((one for one in talks if one.is_whole), None)
        if good is None:
            return _wrong(talks[0], lines.data)
        times = []
        for number in range(TIMES):
            line = Plain(b"fastecho check %d, line %d\n" % (path.seed, number))
            talk = Talk(good.stream, line, keep=True)
            converse(path, [talk])
            if not talk.is_whole:
                return _wrong(talk, line.data, number + 1)
            times.append(talk.ended - talk.began)
        if (held := _held(path, good.stream)) is not None:
            return held
    finally:
        for stream in streams:
            stream.close()
    path.rtt = median(times)
    ms = path.rtt * 1e3
    return passed(f"{TIMES + 1} lines came back, at the median in {ms:.3f} ms", rtt_ms=ms)


def _held(path: Path, stream: Stream) -> Finding | None:
    """Send a line without its end; return what is wrong if there is no echo before that."""
    begin = b"fastecho check %d, no end" % path.seed
    talk = Talk(stream, Plain(begin), keep=True)
    converse(path, [talk])
    if talk.is_whole:
        return None
    if talk.ending == "silence" and not talk.received:
        rest = Talk(stream, Plain(b"\n"), want=Plain(begin + b"\n"))
        converse(path, [rest])
        if rest.is_whole:
            return hopeless(f"{len(begin)} bytes came back only with the end of their line", LINES)
    return _wrong(talk, begin, TIMES + 1)


def _wrong(talk: Talk, line: bytes, before: int = 0) -> Finding:
    """Return what is wrong with the echo of a line; so many before it were well."""
    came = bytes(talk.data)
    found = talk.difference()
    if (who := _who_answers(came)) is not None:
        return hopeless(f"the server says who answers before it echoes: {who}", IDENTIFIES)
    if found is None:
        words = f"a line of {len(line)} bytes was sent: {talk.story()}"
        if not before:
            return hopeless(words)
        lines = "1 line" if before == 1 else f"{before} lines"
        return hopeless(f"{lines} came back, then {words}", STOPPED)
    if line in came:
        extra = what_is(came.replace(line, b"", 1))
        return failed(f"the echo came with something more: {extra}", difference=found.to_json())
    # A byte that was changed is a matter of the other probes as well.
    if found.kind != "foreign" or _likeness(line, came) > 0.5:
        return failed(f"the echo is not exact: {found.text}", difference=found.to_json())
    return hopeless(f"no echo came back but {what_is(came)}", difference=found.to_json())


def _likeness(line: bytes, came: bytes) -> float:
    return sum(one == other for one, other in zip(line, came, strict=False)) / len(line)


def _who_answers(came: bytes) -> Identity | None:
    """Return what a server with --identify says first; None if it is none."""
    greeting = Greeting()
    greeting.feed(came)
    try:
        return greeting.identity("")
    except NotIdentifiedError:
        return None
