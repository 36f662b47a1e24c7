"""Whether many connections at a time work, each with its own bytes."""

from __future__ import annotations

import errno
from collections import Counter

from fastecho.check.path import Stream
from fastecho.check.pattern import Plain
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import NotTestable, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "many connections at a time"
GROUP, QUICK, PHASE, NEEDS = "flow", True, "alone", ()
PASSED = "So many connections are served beside each other, none sees another one's bytes."
FAILED = (
    "Some connections fail when there are many: a limit on connections (in all, or of one "
    "address), a full accept queue, exhausted ports of a NAT; or, if bytes of another one came, a "
    "proxy that mixes connections up."
)
DESCRIBED = 3


def run(path: Path) -> Finding:
    """Open all, then send on all, then half-close all."""
    number = path.connections
    found = path.open_all(number)
    talks = [
        Talk(one, Plain(_message(path.seed, i)), keep=True)
        for i, one in enumerate(found)
        if isinstance(one, Stream)
    ]
    for one in found:
        if isinstance(one, OSError) and one.errno in (errno.EMFILE, errno.ENFILE):
            for talk in talks:
                talk.stream.close()
            raise NotTestable(
                f"this machine opened only {len(talks):,} of {number:,}: {one.strerror}; "
                "--connections chooses fewer"
            )
    refused = Counter(one.strerror or str(one) for one in found if isinstance(one, OSError))
    try:
        converse(path, talks)
    finally:
        for talk in talks:
            talk.stream.close()
    messages = {_message(path.seed, i) for i in range(number)}
    broken = Counter(_story(talk, messages) for talk in talks if not talk.is_whole)
    good = sum(talk.is_whole for talk in talks)
    unserved = (
        number
        - len(talks)
        + sum(talk.ending in ("eof", "reset") and not talk.received for talk in talks)
    )
    values = {
        "connections": number, "connected": len(talks), "echoed": good, "refused": unserved,
    }  # fmt: skip
    if good == number:
        return passed(f"{number:,} connections at a time, each got its own bytes back", **values)
    told = [f"{count:,} not connected: {why}" for why, count in refused.most_common(DESCRIBED)]
    told += [
        f"{'once' if count == 1 else f'{count:,} times'} {why}"
        for why, count in broken.most_common(DESCRIBED)
    ]
    return failed(f"{good:,} of {number:,} connections echoed; {'; '.join(told)}", **values)


def _message(seed: int, number: int) -> bytes:
    return b"fastecho check %d, connection %06d of many\n" % (seed, number)


def _story(talk: Talk, messages: set[bytes]) -> str:
    if bytes(talk.data) in messages:
        return "bytes of another connection came"
    return talk.story()
