"""What is wrong with a listener, in one sentence with the way to mend it.

Lives here: the rules and the words. Does not live here: looking (queues.py), the rule of the SYN
queue (syn_queue.py).
"""

from __future__ import annotations

from fastecho.diagnose.syn_queue import syn_queue

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastecho.diagnose.listening import Listening
    from fastecho.diagnose.queues import Seen

__all__ = ["Verdict", "verdict"]

LEAST_LOOKS = 5
"""So many looks at a queue that nobody took from say that nobody accepts."""


class Verdict:
    """A finding about one listener.

    Attributes:
        kind: "accept_queue_full", "syns_dropped", "not_accepting", "syn_queue_full", or
            "dropped_before", which is over.
        is_now: whether it is so now, and not something that is over.
        sentence: what is seen, and what to do.
    """

    __slots__ = ("is_now", "kind", "sentence")

    def __init__(self, kind: str, sentence: str, *, is_now: bool = True) -> None:
        self.kind = kind
        self.is_now = is_now
        self.sentence = sentence


def verdict(
    one: Listening, seen: Seen, seconds: float, settings: Mapping[str, int]
) -> Verdict | None:
    """Judge a listener by its last look and the last `seconds`; None: nothing is wrong."""
    drops = _drops(one, seen, seconds)
    if one.is_full or seen.was_full:
        full = "full" if one.is_full else "was full, and is not now"
        depth = one.depth if one.is_full else one.holds
        sentence = f"accept queue {full} ({depth} of {one.holds}){drops}; {_mend(one, settings)}"
        return Verdict("accept_queue_full", sentence)
    rule = syn_queue(one.limit, settings)
    if one.handshakes and rule.holds and one.handshakes >= rule.holds:
        what = "further SYNs are answered by cookies, nobody is refused"
        if rule.beyond == "drop":
            what = "further SYNs are dropped; set tcp_syncookies to 1, or raise the smaller limit"
        sentence = f"SYN queue full ({one.handshakes} of {rule.holds}): {what} ({rule.rule})"
        return Verdict("syn_queue_full", sentence)
    if seen.drops_new:
        begin = f"{_syns(seen.drops_new)} dropped in the last {_seconds(seconds)}"
        queue = f"though the accept queue was not seen full (at most {seen.highest} of {one.holds})"
        sentence = f"{begin}, {queue}: newcomers come in bursts; {_mend(one, settings)}"
        return Verdict("syns_dropped", sentence)
    if seen.looks >= LEAST_LOOKS and not seen.taken:
        waiting = f"{one.depth} connection{'s wait' if one.depth != 1 else ' waits'}"
        sentence = (
            f"{waiting} in the accept queue, and none was taken in the last {_seconds(seconds)}"
        )
        return Verdict("not_accepting", f"{sentence}: the application does not accept")
    if one.drops:
        since = f"{_syns(one.drops)} dropped since the listener opened"
        return Verdict("dropped_before", f"{since}, none of them now", is_now=False)
    return None


def _drops(one: Listening, seen: Seen, seconds: float) -> str:
    """Return what is known of the drops, as a part of a sentence."""
    if one.kind == "unix":
        return ": connect() waits, or fails with EAGAIN"
    if one.drops is None:
        return ""
    if not one.drops:
        return "; nothing was dropped yet"
    recent = ""
    if seen.drops_new and seconds > 0:
        recent = f", {seen.drops_new} of them in the last {_seconds(seconds)}"
    return (
        f"; {_syns(one.drops)} dropped since the listener opened{recent}, retransmissions included"
    )


def _mend(one: Listening, settings: Mapping[str, int]) -> str:
    begin = "the application accepts too slowly, or"
    most = settings.get("somaxconn")
    assert one.limit is not None
    if most is None or one.limit < most:
        allowed = "" if most is None else f": somaxconn {most} allows it"
        return f"{begin} raise its backlog above {one.limit}{allowed}"
    return (
        f"{begin} raise somaxconn above {most} (sysctl net.core.somaxconn) and then its backlog, "
        "and restart it"
    )


def _syns(count: int) -> str:
    return f"{count} SYN{'s' if count != 1 else ''}"


def _seconds(seconds: float) -> str:
    rounded = f"{seconds:.1f}".removesuffix(".0")
    return "second" if rounded == "1" else f"{rounded} s"
