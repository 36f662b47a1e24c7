"""Whether whole segments pass; if only small ones do, the largest that does.

The size of segments is limited in both directions by TCP_MAXSEG, set before connecting. A path that
drops large packets and the ICMP messages about that lets everything work but bulk.
"""

from __future__ import annotations

import socket
from time import monotonic

from fastecho.check.path import Stream
from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.tcp import tcp_info
from fastecho.check.verdict import NotTestable, OutOfTime, failed, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "whole segments pass"
GROUP, ORDER, QUICK, PHASE, NEEDS = "tcp", 2, True, "first", ("tcp",)
PASSED = "Packets as large as both ends agreed on pass: no path-MTU black hole."
FAILED = (
    "A path-MTU black hole: packets above some size are dropped, and so are the ICMP messages that "
    "would tell; usually a tunnel or VPN behind a firewall that blocks ICMP. Clamp the MSS to the "
    "size named, or let the ICMP pass."
)
SEGMENTS = 6
"""Whole ones, each way."""
SMALLEST, LARGEST = 88, 32767
"""What TCP_MAXSEG may be."""
TIMESTAMPS = 12
"""Bytes that this option takes of a segment's MSS."""
TRIED_AT_ONCE = 3
TRIED = 32
"""Sizes at a time."""
UNTRIED = "Whole segments were not tried: not even 40 bytes came back as they were sent."
UNKNOWN = (
    "Whole segments are lost, and none of any other size was seen to pass in time: a path-MTU "
    "black hole, or a path that loses nearly all."
)
WHOLE_SECONDS, WHOLE_ROUND_TRIPS = 2.0, 20
TRY_SECONDS, TRY_ROUND_TRIPS = 1.2, 15
"""For a size: a segment that was lost is sent again after 0.2 s, 0.6 s and 1.4 s."""


def run(path: Path) -> Finding:
    """Send some whole segments; search, if they get lost."""
    with _open(path) as stream:
        small = Talk(stream, Pattern(path.seed, 140, 40))
        converse(path, [small])
        if not small.is_whole:
            return failed(f"40 bytes: {small.story()}", UNTRIED)
        info = tcp_info(stream.sock)
        if info is None:
            raise NotTestable("the kernel does not tell the segment size (no TCP_INFO)")
        largest = info["snd_mss"]
        whole = Talk(stream, Pattern(path.seed, 141, SEGMENTS * largest))
        patience = max(WHOLE_SECONDS, WHOLE_ROUND_TRIPS * path.rtt)
        converse(path, [whole], patience, monotonic() + 2 * patience)
        after = tcp_info(stream.sock) or info
        mss = largest + (TIMESTAMPS if info["options"] & 1 else 0)
        header = 60 if stream.sock.family == socket.AF_INET6 else 40
    values = {"segment_bytes": largest, "path_mtu_bytes": after["pmtu"]}
    if whole.is_whole:
        return passed(f"{SEGMENTS} segments of {largest:,} bytes passed each way", **values)
    if whole.ending == "time" and whole.difference() is None:
        if whole.received > 2 * largest:
            words = f"{whole.received:,} bytes in segments of {largest:,} passed each way"
            return passed(f"{words}, then the time was over", **values)
        raise NotTestable(f"the path is too slow: {whole.story()}")
    words = f"40 bytes passed, segments of {largest:,} bytes"
    if whole.ending != "silence" or whole.difference() is not None:
        raise NotTestable(f"the connection broke otherwise: {whole.story()}")
    again = after["total_retrans"] - info["total_retrans"]
    direction = "what we sent was acknowledged, its echo did not come"
    if after["unacked"]:
        direction = f"{again} retransmissions, none acknowledged"
    return _search(path, mss, header, f"{words} did not ({direction})", values)


def _open(path: Path) -> Stream:
    """Connect; more than once, because a single one may go over the one bad link of a bundle."""
    streams = [one for one in path.open_all(TRIED_AT_ONCE, enough=1) if isinstance(one, Stream)]
    for stream in streams[1:]:
        stream.close()
    return streams[0] if streams else path.open()


def _search(path: Path, mss: int, header: int, what: str, values: dict[str, int]) -> Finding:
    """Narrow down the largest MSS at which segments pass; many are tried at a time.

    An MSS says what a segment without options holds: packets are larger by the two headers.
    """
    passes, fails = 0, mss + 1
    try:
        while fails - passes > 1:
            low, high = max(passes + 1, SMALLEST), min(fails, LARGEST + 1)
            sizes = sorted({*range(low, high, max((high - low) // TRIED, 1)), high - 1})
            good = _which_pass(path, sizes)
            bad = [size for size in sizes if size not in good]
            fails = min(bad, default=fails)
            best = max((size for size in good if size < fails), default=0)
            if best <= passes:
                break
            passes = best
            if not bad:
                break
    except OutOfTime:
        pass
    if passes >= mss:
        return passed(f"{what}; but then segments of every size passed", **values)
    total = SEGMENTS * values["segment_bytes"]
    if fails > mss and _passes(path, 0, total):  # TCP_MAXSEG may not be that much
        return passed(f"{what}; but then they did", **values)
    if not _passes(path, passes or SMALLEST, total if passes else SMALLEST):
        raise NotTestable(f"{what}; but small ones did not either: their size is not the matter")
    if not passes:
        return failed(what, UNKNOWN, **values)
    path.mss = passes
    below = "" if fails - passes == 1 else f" ({fails:,} does not)"
    words = (
        f"{what}; with an MSS of {passes:,} they pass{below}, in packets of {passes + header:,} "
        f"bytes: clamp the MSS to {passes:,}, as the other probes do"
    )
    return failed(
        words,
        clamp_mss_bytes=passes,
        passing_packet_bytes=passes + header,
        lost_mss_bytes=fails,
        **values,
    )


def _passes(path: Path, mss: int, size: int) -> bool:
    """Tell whether so many bytes come back in segments of this MSS; 0: of the largest."""
    with path.open(tcp=[{socket.TCP_MAXSEG: mss} if mss else {}]) as stream:
        talk = Talk(stream, Pattern(path.seed, 143, size))
        patience = max(WHOLE_SECONDS, WHOLE_ROUND_TRIPS * path.rtt)
        converse(path, [talk], patience, monotonic() + 2 * patience)
    return talk.is_whole or (talk.ending == "time" and talk.difference() is None)


def _which_pass(path: Path, sizes: list[int]) -> set[int]:
    """Return the sizes of segments that come back."""
    limits = [{socket.TCP_MAXSEG: size} for size in sizes]
    streams = path.connect_all([path.place] * len(sizes), tcp=limits)
    talks = {
        size: Talk(one, Pattern(path.seed, 142, SEGMENTS * size))
        for size, one in zip(sizes, streams, strict=True)
        if isinstance(one, Stream)
    }
    patience = max(TRY_SECONDS, TRY_ROUND_TRIPS * path.rtt)
    try:
        converse(path, list(talks.values()), patience, monotonic() + 4 * patience)
    finally:
        for talk in talks.values():
            talk.stream.close()
    return {size for size, talk in talks.items() if talk.is_whole}
