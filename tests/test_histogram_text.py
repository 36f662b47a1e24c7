"""A histogram's text is what PyPI's hdrhistogram writes and reads, in both directions.

The oracle has our layout (lowest discernible 64 ns, 3 digits, 1 h) in most tests; what it writes in
other layouts is counted at the middle of its buckets. Hostile texts are one ValueError.
"""

from __future__ import annotations

import base64
import io
import zlib

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import example, given
from hypothesis import strategies as st
from test_histogram import HOUR, PERCENTS, RECORDED, pair, patient

from fastecho._load import Histogram
from fastecho.measure.histograms import decode, encode, hgrm


def unwrapped(text: str | bytes) -> bytes:
    """Return the bytes that a text holds, by other code than ours."""
    return zlib.decompress(base64.b64decode(text)[8:])


def wrapped(payload: bytes, *, level: int = 6) -> str:
    """Return text around these bytes."""
    packed = zlib.compress(payload, level)
    return base64.b64encode(bytes.fromhex("1c849314") + len(packed).to_bytes(4) + packed).decode()


def filled(*values: int) -> Histogram:
    histogram = Histogram()
    for ns in values:
        histogram.record(ns)
    return histogram


@patient
@given(RECORDED)
def test_oracle_reads_what_we_write(recorded: list[tuple[int, int]]) -> None:
    ours, oracle = pair(recorded)
    back = HdrHistogram.decode(encode(ours))
    assert back.get_total_count() == ours.count
    assert (back.lowest_trackable_value, back.highest_trackable_value) == (64, HOUR)
    assert back.significant_figures == 3
    for ns, _ in recorded:
        assert back.get_count_at_value(ns) == oracle.get_count_at_value(ns)
    if recorded:
        assert back.get_min_value() == ours.min // 64 * 64 or ours.min >= 131072
        assert back.get_lowest_equivalent_value(ours.min) == back.get_min_value()
        assert back.get_highest_equivalent_value(ours.max) == back.get_max_value()
        for percent in PERCENTS:
            expected = back.get_value_at_percentile(percent)
            assert ours.percentile(percent) == min(expected, ours.max), percent


@patient
@given(RECORDED)
def test_we_read_what_the_oracle_writes(recorded: list[tuple[int, int]]) -> None:
    ours, oracle = pair(recorded)
    back = decode(oracle.encode().decode("ascii"))
    assert back.buckets() == ours.buckets()
    assert (back.count, back.overflow) == (ours.count, 0)
    if recorded:
        assert back.min == oracle.get_lowest_equivalent_value(oracle.min_value)
        assert back.max == oracle.get_highest_equivalent_value(oracle.max_value)
        for percent in PERCENTS:
            assert back.percentile(percent) == oracle.get_value_at_percentile(percent), percent


@patient
@given(RECORDED)
def test_header_and_length_are_the_oracles(recorded: list[tuple[int, int]]) -> None:
    ours, oracle = pair(recorded)
    mine, theirs = ours.encode(), unwrapped(oracle.encode())
    assert mine == unwrapped(encode(ours))
    # The counts differ in how a single zero is written: as 0, or as a run of one.
    assert (mine[:40], len(mine)) == (theirs[:40], len(theirs))


@patient
@given(RECORDED, st.lists(st.integers(HOUR + 1, 2**64 + 1), max_size=5))
def test_own_text_gives_every_count_back(recorded: list[tuple[int, int]], above: list[int]) -> None:
    ours, _ = pair(recorded)
    for ns in above:
        ours.record(ns, 3)
    back = decode(encode(ours))
    assert back.buckets() == ours.buckets()
    assert (back.count, back.overflow) == (ours.count, ours.overflow)
    assert encode(back) == encode(ours)


@patient
@given(
    st.lists(st.tuples(st.integers(0, HOUR), st.integers(1, 1000)), min_size=1, max_size=60),
    st.integers(1, 4),
    st.sampled_from([1, 10, 64, 1000, 12345]),
)
def test_other_layouts_are_read_within_their_precision(
    recorded: list[tuple[int, int]], digits: int, lowest: int
) -> None:
    oracle = HdrHistogram(lowest, 2 * HOUR, digits)
    for ns, count in recorded:
        oracle.record_value(ns, count)
    back = decode(oracle.encode().decode("ascii"))
    assert back.count == oracle.get_total_count()
    for percent in PERCENTS[1:]:
        high = oracle.get_value_at_percentile(percent)
        low = oracle.get_lowest_equivalent_value(high)
        # One of our own buckets further, at most: 64 ns or a thousandth.
        assert low - 64 <= back.percentile(percent) * 1.001 + 64, percent
        assert back.percentile(percent) <= high * 1.001 + 64, percent


@given(RECORDED, RECORDED)
@patient
def test_subtracting_leaves_what_was_recorded_since(
    before: list[tuple[int, int]], since: list[tuple[int, int]]
) -> None:
    whole, _ = pair(before + since)
    whole.subtract(pair(before)[0])
    expected, _ = pair(since)
    assert whole.buckets() == expected.buckets()
    assert whole.count == expected.count


def test_subtracting_what_is_not_there_is_refused() -> None:
    ours = filled(100, 5000)
    with pytest.raises(ValueError, match="holds values that the one it is taken from does not"):
        ours.subtract(filled(100, 9000))
    assert ours.count == 2


def test_empty_histogram_is_a_text() -> None:
    text = encode(Histogram())
    assert text.startswith("HISTFAAA")
    assert decode(f"  {text}\n").count == 0
    assert HdrHistogram.decode(text).get_total_count() == 0


def test_too_large_a_count_cannot_be_written() -> None:
    ours = Histogram()
    ours.record(5, 2**63 - 1)
    assert decode(encode(ours)).count == 2**63 - 1
    ours.record(5)
    with pytest.raises(ValueError, match=r"more than 2\*\*63 - 1 values"):
        encode(ours)


TEXT = encode(filled(100, 5000, 123456, HOUR))
PAYLOAD = filled(100, 5000, 123456, HOUR).encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no compressed HdrHistogram V2"),
        ("not base64!", "no base64 text"),
        ("HISTFAAAé", "no base64 text"),
        (TEXT[:-1], "no base64 text, or is cut"),
        (TEXT[:-4], "cut or damaged"),
        (TEXT + TEXT, "no base64 text|cut or damaged"),
        (base64.b64encode(b"HIST").decode(), "no compressed HdrHistogram V2"),
        ("HISTFA==", "cut or damaged"),
        (base64.b64encode(PAYLOAD).decode(), "no compressed HdrHistogram V2"),
        ("HISTFAAAAAR4eHh4", "cannot be unpacked"),
        (wrapped(b""), "no HdrHistogram V2"),
        (wrapped(b"\x00" * 60), "no HdrHistogram V2"),
        (wrapped(PAYLOAD[:-1]), "cut or damaged"),
        (wrapped(PAYLOAD + b"\x02"), "cut or damaged"),
        (wrapped(PAYLOAD[:12] + b"\xff" + PAYLOAD[13:]), "layout that HdrHistogram does not make"),
        (wrapped(b"\x00" * (70 << 20), level=9), "do not end where they should"),
    ],
)
def test_text_that_is_no_histogram_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        decode(text)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is ValueError


def test_two_texts_in_one_packet_are_refused() -> None:
    packed = zlib.compress(PAYLOAD) * 2
    data = bytes.fromhex("1c849314") + len(packed).to_bytes(4) + packed
    with pytest.raises(ValueError, match="do not end where they should"):
        decode(base64.b64encode(data).decode())


def test_histogram_must_be_a_text() -> None:
    with pytest.raises(ValueError, match="is a text that starts with HISTFAAA, not"):
        decode(None)  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_histogram_or_refused(data: bytes) -> None:
    for payload in (data, PAYLOAD[:4] + data, PAYLOAD[:40] + data):
        try:
            back = Histogram.decode(payload)
        except ValueError:
            continue
        assert back.count == sum(n for _, _, n in back.buckets()) + back.overflow


def rows_of(table: str) -> list[list[float]]:
    """Return the numbers of each row of a .hgrm."""
    return [
        [float(cell) for cell in line.split()]
        for line in table.splitlines()[2:]
        if not line.startswith("#")
    ]


# 26 days: as microseconds in a double, a nanosecond can be told up to 50 days.
@patient
@given(RECORDED, st.lists(st.integers(HOUR + 1, 2**51), max_size=3))
@example([], [HOUR + 1])  # below the edge of the text's last bucket
@example([(HOUR - 817405952, 1)], [])  # that bucket, which reaches beyond the hour
def test_extremes_that_are_kept_apart_come_back(
    recorded: list[tuple[int, int]], above: list[int]
) -> None:
    ours, _ = pair(recorded)
    for ns in above:
        ours.record(ns)
    back = decode(encode(ours), {"min": ours.min / 1e3, "max": ours.max / 1e3})
    assert (back.min, back.max, back.mean) == (ours.min, ours.max, ours.mean)
    assert hgrm(back) == hgrm(ours)


@patient
@given(RECORDED)
def test_hgrm_rows_are_counts_of_the_oracle(recorded: list[tuple[int, int]]) -> None:
    ours, oracle = pair(recorded)
    rows = rows_of(hgrm(ours))
    assert bool(rows) == bool(recorded)
    for us, percentile, count, *inverse in rows:
        up_to = round(us * 1000)
        below = sum(n for low, _, n in ours.buckets() if low <= up_to)
        assert count == below
        assert percentile <= count / ours.count + 1e-9
        if inverse:
            assert inverse[0] == pytest.approx(1 / (1 - percentile), rel=1e-3, abs=0.01)
    if recorded:
        assert rows[-1] == [ours.max / 1000, 1.0, ours.count]
        assert oracle.get_total_count() == ours.count
    assert rows == sorted(rows)


def test_hgrm_looks_like_the_oracles() -> None:
    ours, oracle = pair([(25_000, 90), (80_000, 9), (5_000_000, 1)])
    written = io.BytesIO()
    oracle.output_percentile_distribution(written, 1000.0)
    mine, theirs = hgrm(ours).splitlines(), written.getvalue().decode().splitlines()
    # The oracle's steps are its own, so its rows are others. It rounds the maximum up, and its
    # deviation is in nanoseconds beside a mean in microseconds.
    assert mine[:3] == theirs[:3]
    assert mine[-4].split()[1:] == theirs[-4].split()[1:]
    assert mine[-3].split(",")[0] == theirs[-3].split(",")[0]
    assert mine[-1] == theirs[-1]
    assert {len(line) for line in mine[2:-4]} == {len(line) for line in theirs[2:-4]}


def test_hgrm_counts_values_above_an_hour_as_the_maximum() -> None:
    ours = filled(1000, 1000, 2 * HOUR)
    rows = rows_of(hgrm(ours))
    assert rows[-1] == [2 * HOUR / 1000, 1.0, 3.0]
    assert rows[0][0] == 1.023
    assert rows_of(hgrm(filled(2 * HOUR)))[-1] == [2 * HOUR / 1000, 1.0, 1.0]
