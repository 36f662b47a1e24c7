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

LEAST_SECONDS = 0.9
"""So long nobody must have been taken to say that the application does not accept."""


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
        mend = _mend(one, settings)
        if _is_stuck(seen, seconds) and seen.is_sure:
            nobody = f"nobody was accepted in the last {_seconds(seconds)}"
            mend = f"{nobody}: look what keeps the application from it"
        sentence = f"accept queue {full} ({depth} of {one.holds}){drops}; {mend}"
        return Verdict("accept_queue_full", sentence)
    rule = syn_queue(one.limit, settings)
    # Of listeners that share an address nobody knows whose handshakes these are.
    room = None if rule.holds is None else rule.holds * one.sharing
    if one.handshakes and room and one.handshakes >= room:
        what = "further SYNs are answered by cookies, nobody is refused"
        if rule.beyond == "drop":
            what = "further SYNs are dropped; set tcp_syncookies to 1, or raise the smaller limit"
        together = f" of {one.sharing} listeners together" if one.sharing > 1 else ""
        sentence = f"SYN queue{together} full ({one.handshakes} of {room}): {what} ({rule.rule})"
        return Verdict("syn_queue_full", sentence)
    if seen.drops_new:
        begin = f"{_syns(seen.drops_new, one)} dropped in the last {_seconds(seconds)}"
        queue = f"though the accept queue was not seen full (at most {seen.highest} of {one.holds})"
        sentence = f"{begin}, {queue}: newcomers come in bursts; {_mend(one, settings)}"
        return Verdict("syns_dropped", sentence)
    if _is_stuck(seen, seconds):
        waiting = f"{one.depth} connection{'s wait' if one.depth != 1 else ' waits'}"
        what = "none was taken" if seen.is_sure else "their number never sank"
        does = "does not accept" if seen.is_sure else "seems not to accept"
        sentence = (
            f"{waiting} in the accept queue, and {what} in the last {_seconds(seconds)}: "
            f"the application {does}"
        )
        return Verdict("not_accepting", sentence)
    if one.drops:
        sentence = f"{_syns(one.drops, one)} dropped since the listener opened"
        if seconds > 0:
            sentence += ", none of them now"
        return Verdict("dropped_before", sentence, is_now=False)
    return None


def _is_stuck(seen: Seen, seconds: float) -> bool:
    """Tell whether somebody waited all the time, and nobody was seen to be taken."""
    return seconds >= LEAST_SECONDS and not seen.taken


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
    dropped = f"{_syns(one.drops, one)} dropped since the listener opened{recent}"
    return f"; {dropped}, retransmissions included"


def _mend(one: Listening, settings: Mapping[str, int]) -> str:
    begin = "the application accepts too slowly, or its backlog is too short: raise"
    most = settings.get("somaxconn")
    if one.limit is None:  # it was full, and the last look could not tell the limit any more
        return f"{begin} it"
    if most is None or one.limit < most:
        allowed = "" if most is None else f" (somaxconn {most} allows it)"
        return f"{begin} it above {one.limit}{allowed}"
    return (
        f"{begin} somaxconn above {max(most, one.limit)} (sysctl net.core.somaxconn), then the "
        "backlog, and restart it"
    )


def _syns(count: int, one: Listening) -> str:
    """Say what was dropped. Handshakes that wait are those whose last ACK found no place."""
    if one.handshakes:
        return f"{count} packet{'s' if count != 1 else ''} (SYNs, and last ACKs of handshakes)"
    return f"{count} SYN{'s' if count != 1 else ''}"


def _seconds(seconds: float) -> str:
    rounded = f"{seconds:.1f}".removesuffix(".0")
    return "second" if rounded == "1" else f"{rounded} s"
