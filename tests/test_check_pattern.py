"""What `fastecho check` sends, and how it names a difference: every kind, at its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastecho.check.pattern import Pattern, Plain, Ruler, compare, first_difference, what_is
from fastecho.probing import ruler

Source = Pattern | Plain | Ruler
SIZE = 200_000


def whole(source: Source) -> bytes:
    """Return all of a source."""
    data = b""
    while len(data) < source.size:
        data += source.take(len(data), 65536)
    return data


PATTERN = Pattern(7, 3, SIZE)
TEXT = whole(PATTERN)


def named(came: bytes, source: Source = PATTERN, text: bytes = TEXT) -> tuple[str, int, int, str]:
    """Return kind, place, size and sentence of a difference."""
    at = first_difference(text, came)
    found = compare(source, at, came[at:])
    return found.kind, found.at, found.size, found.text


@pytest.mark.parametrize(
    ("came", "kind", "at", "size"),
    [
        (TEXT[:1000] + b"?" + TEXT[1001:], "changed", 1000, 1),
        (TEXT[:1000] + b"?????" + TEXT[1005:], "changed", 1000, 5),
        (TEXT[:-1] + b"?", "changed", SIZE - 1, 1),
        (b"?" + TEXT[1:], "changed", 0, 1),
        (TEXT[:1000] + TEXT[1001:], "lost", 1000, 1),
        (TEXT[:1000] + TEXT[21_000:], "lost", 1000, 20_000),
        (TEXT[:1500] + TEXT[1000:], "doubled", 1500, 500),
        (
            TEXT[:1000] + TEXT[2000:2500] + TEXT[1000:2000] + TEXT[2500:],
            "swapped", 1000, 500,
        ),
        (TEXT[:100_000] + b"hello, world" + TEXT[100_000:], "inserted", 100_000, 12),
        (TEXT + b"more", "extra", SIZE, 4),
        (TEXT[:1000] + b"HTTP/1.1 400 Bad Request\r\n\r\n", "foreign", 1000, 28),
    ],
)  # fmt: skip
def test_a_difference_is_named_with_its_place(came: bytes, kind: str, at: int, size: int) -> None:
    assert named(came)[:3] == (kind, at, size)


@pytest.mark.parametrize(
    ("came", "sentence"),
    [
        (TEXT[:1000] + b"?" + TEXT[1001:], "byte 1,000 came back as 0x3F instead of 0x"),
        (TEXT[:1000] + TEXT[1001:], "1 byte is missing at byte 1,000"),
        (TEXT[:1000] + TEXT[1100:], "100 bytes are missing at byte 1,000"),
        (TEXT[:1500] + TEXT[1000:], "the 500 bytes before byte 1,500 came a second time"),
        (TEXT + b"\x1b[2J", r"4 bytes too many came behind the last one: '\x1b[2J'"),
        (TEXT[:9] + b"SSH-2.0-x\r\n", "from byte 9 on something else came: the greeting of an SSH"),
    ],
)
def test_the_sentence_is_for_people(came: bytes, sentence: str) -> None:
    assert named(came)[3].startswith(sentence)


def test_a_short_text_whose_last_byte_came_first_is_reordered() -> None:
    source = Pattern(7, 3, 65_537)
    text = whole(source)
    kind, at, size, sentence = named(text[-1:] + text[:-1], source, text)
    assert (kind, at, size) == ("swapped", 0, 1)
    assert "belongs to byte 65,536 came at byte 0" in sentence


@given(st.integers(0, SIZE - 2000), st.integers(1, 1000), st.binary(min_size=1, max_size=30))
def test_every_loss_doubling_and_insertion_is_found_where_it_is(
    at: int, size: int, strange: bytes
) -> None:
    lost = named(TEXT[:at] + TEXT[at + size :])
    assert lost[0] == "lost"
    assert lost[2] == size
    # The byte behind the gap may by chance be the one that is missing.
    assert at <= lost[1] <= at + 8
    twice = named(TEXT[: at + size] + TEXT[at:])
    assert twice[0] in ("doubled", "inserted")
    assert at + size <= twice[1] <= at + size + 8
    foreign = b"\x00" + strange
    inserted = named(TEXT[:at] + foreign + TEXT[at:])
    assert inserted[0] in ("inserted", "changed")
    assert inserted[1] == at


@given(st.integers(0, SIZE), st.integers(0, SIZE))
def test_any_stretch_of_any_source_is_the_same_as_of_the_whole(at: int, most: int) -> None:
    for source in (PATTERN, Ruler(1000), Plain(b"hello")):
        text = whole(source)
        got = source.take(at, most)
        assert text[at : at + len(got)] == got
        assert len(got) == max(min(most, source.size - at, 1 << 18), 0)


def test_streams_differ_and_seeds_differ_and_both_come_again() -> None:
    assert Pattern(7, 3, 1000).take(0, 1000) == TEXT[:1000]
    assert Pattern(7, 4, 1000).take(0, 1000) != TEXT[:1000]
    assert Pattern(8, 3, 1000).take(0, 1000) != TEXT[:1000]
    # Behind the period the text begins anew, without a seam.
    long = Pattern(7, 3, 3 << 20)
    assert long.take(1_048_573, 1000) == TEXT[:1000]


def test_the_pattern_is_plain_text_that_begins_no_order() -> None:
    every = set(whole(Pattern(7, 0, 1 << 20)))
    assert every <= set(b"ABCDEGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-")


def test_the_ruler_of_both_sides_is_the_same_and_says_its_own_offsets() -> None:
    text = ruler(1000)
    assert text == whole(Ruler(1000))
    assert text[160:192] == b"000000000000160.000000000000176."
    kind, at, size, _ = named(text[:500] + text[660:], Ruler(1000), text)
    assert (kind, size) == ("lost", 160)
    assert 500 <= at < 516


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"HTTP/1.0 502 Bad Gateway\r\nX: y\r\n", "an HTTP response, 'HTTP/1.0 502 Bad Gateway'"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "a TLS alert, "),
        (b"220 mail ready\r\n", "the greeting of a mail or FTP server, '220 mail ready'"),
        (b"\x1b]0;x\x07", r"'\x1b]0;x\x07'"),
    ],
)
def test_what_is_no_echo_is_recognised(data: bytes, what: str) -> None:
    assert what_is(data).startswith(what)
    assert what_is(data).isprintable()
