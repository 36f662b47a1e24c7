"""Histograms as text: HdrHistogram's V2 form, and the table that its tools plot.

Lives here: the wrapping (zlib, base64, a header of its own) around what Histogram.encode() gives,
and .hgrm. Does not live here: counts and their bytes (src_c/histogram_v2.h), adding histograms up
(compare.py), files.

The text begins with HISTFAAA and is what every HdrHistogram library calls V2, compressed: values
are nanoseconds. It holds counts only: a result has the exact minimum and maximum beside it, without
which they come back as the edges of their buckets (0.1 %).

A .hgrm file is not read back: it holds one row for each step of the percentiles, not one for each
bucket, so a histogram that is made from it has other percentiles between the rows and cannot be
merged without an error. Keep the V2 text, which is as long and exact.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from fastecho._load import Histogram

__all__ = ["decode", "encode", "hgrm"]

COOKIE = 0x1C849314
WORD_SIZE_BITS = 0xF0
"""The part of the cookie that may be anything."""
HEADER_BYTES = 8
LONGEST = 64 << 20
"""More bytes than the counts of any V2 histogram take (5 digits, values up to 2**63)."""
TICKS = 5
"""Rows of a .hgrm for each halving of the distance to 100 %: HdrHistogram's default."""


def encode(histogram: Histogram) -> str:
    """Return the histogram as V2 text, compressed: `HISTFAAA...`.

    Every HdrHistogram library reads it, and decode() gives the same counts.

    Args:
        histogram: any; values above 1 h are in the text's last bucket (73 min).
    Returns:
        str: ASCII on one line; about 1 KB for a usual run, 52 bytes for an empty one.
    Raises:
        ValueError: a count is above 2**63 - 1.
    Thread: any, while nobody records into the histogram.   Cost: about 0.1 ms.
    Source: HdrHistogram's V2 format, which src_c/histogram_v2.h describes.
    """
    from base64 import b64encode
    from zlib import compress

    packed = compress(histogram.encode())
    header = COOKIE.to_bytes(4, "big") + len(packed).to_bytes(4, "big")
    return b64encode(header + packed).decode("ascii")


def decode(text: str, figures: Mapping[str, Any] | None = None) -> Histogram:
    """Return the histogram that V2 text holds, whichever program wrote it.

    Its values are taken as nanoseconds. A histogram of another layout is counted at the middle of
    its buckets: its percentiles are then off by up to half of its own precision.

    Args:
        text: V2, compressed, base64; white space around it is ignored.
        figures: `min` and `max` in microseconds, as `latency_us` of a result has them: the exact
            ones. What is missing, or lies outside of the lowest or highest bucket, is ignored.
    Raises:
        ValueError: it is no such text, or is cut or damaged; one sentence.
    Thread: any.   Cost: linear in the bytes, at most 64 MiB of them once unpacked.
    Source: HdrHistogram's V2 format, which src_c/histogram_v2.h describes.
    """
    from fastecho._load import Histogram

    least, most = (_nanoseconds((figures or {}).get(name)) for name in ("min", "max"))
    return Histogram.decode(_unpacked(text), least, most)


def _nanoseconds(us: object) -> int:
    """Return microseconds as whole nanoseconds; -1: it is no such number."""
    if isinstance(us, bool) or not isinstance(us, (int, float)) or not 0 <= us < 2**53:
        return -1
    return round(us * 1e3)


def _unpacked(text: str) -> bytes:
    """Return the bytes inside of the wrapping."""
    import binascii
    import zlib

    if not isinstance(text, str):
        raise ValueError(f"a histogram is a text that starts with HISTFAAA, not {type(text)}")
    try:
        data = binascii.a2b_base64(text.strip().encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("the histogram is no base64 text, or is cut") from None
    cookie = int.from_bytes(data[:4], "big")
    if len(data) < 4 or cookie | WORD_SIZE_BITS != COOKIE | WORD_SIZE_BITS:
        raise ValueError("the text is no compressed HdrHistogram V2: it starts with HISTFAAA")
    size = int.from_bytes(data[4:HEADER_BYTES], "big")
    if len(data) < HEADER_BYTES or size != len(data) - HEADER_BYTES:
        raise ValueError("the histogram is cut or damaged: its length is not what it says")
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data[HEADER_BYTES:], LONGEST)
    except zlib.error:
        raise ValueError("the histogram is damaged: it cannot be unpacked") from None
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("the histogram is cut or damaged: its counts do not end where they should")
    return unpacked


def hgrm(histogram: Histogram) -> str:
    """Return the percentile distribution as HdrHistogram's tools print and plot it.

    Save it as NAME.hgrm and drop it into hdrhistogram.github.io/HdrHistogram/plotFiles.html, whose
    unit of time is milliseconds until you choose microseconds.

    Args:
        histogram: its values are nanoseconds; in the table they are microseconds.
    Returns:
        str: lines of value, percentile, count up to there and 1/(1 - percentile), then mean,
        deviation and maximum as comments.
    Thread: any.   Cost: below a millisecond.
    """
    rows = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n"]
    for ns, percentile, count, inverse in _steps(histogram):
        tail = "" if inverse is None else f" {inverse:14.2f}"
        rows.append(f"{ns / 1e3:12.3f} {percentile:14.12f} {count:10d}{tail}\n")
    mean, deviation = histogram.mean / 1e3, histogram.stddev / 1e3
    rows.append(f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]\n")
    rows.append(
        f"#[Max     = {histogram.max / 1e3:12.3f}, Total count    = {histogram.count:12d}]\n"
    )
    rows.append(f"#[Buckets = {26:12d}, SubBuckets     = {2048:12d}]\n")
    return "".join(rows)


def _steps(histogram: Histogram) -> Iterator[tuple[int, float, int, float | None]]:
    """Yield value, percentile (0..1), count up to there and 1/(1 - percentile) of each row.

    Step i of halving k lies 2^-k * (1 - i / (2 * TICKS)) below 1: whole numbers, so that a
    percentile of many nines is as exact as the others.
    """
    total, seen, halving, tick = histogram.count, 0, 0, 0
    ends = [(highest, count) for _, highest, count in histogram.buckets()]
    if histogram.overflow:
        ends.append((histogram.max, histogram.overflow))
    for highest, count in ends:
        seen += count
        value = min(highest, histogram.max)
        while (total - seen) * 2 * TICKS << halving <= total * (2 * TICKS - tick):
            distance = (1 - tick / (2 * TICKS)) / 2**halving
            yield value, 1 - distance, seen, 1 / distance
            halving, tick = (halving, tick + 1) if tick + 1 < TICKS else (halving + 1, 0)
            if seen == total:
                yield value, 1.0, total, None
                return
