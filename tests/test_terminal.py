"""What a terminal may be shown: a peer's bytes made harmless, and rows that fit.

The screen that the other tests look at is tested here too.
"""

from __future__ import annotations

import pytest
from terminal import Screen

from fastecho.cli._terminal import Decoder, printable, rows_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 消息　é\tx\n", "plain 消息　é\tx\n"),
        ("a\u200db", "a\u200db"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("\u2028\u2029\x85\x00", r"\u2028\u2029\x85\x00"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_text_is_made_harmless(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_bytes_cut_anywhere_decode_to_the_same_text() -> None:
    data = "服务端收到, \U0001f600\n".encode() + b"\xe6\x9c" + b"x" + b"\xf0\x9f"
    for cut in range(len(data) + 1):
        decoder = Decoder()
        text = decoder.text(data[:cut]) + decoder.text(data[cut:]) + decoder.text(b"", final=True)
        assert text == "服务端收到, \U0001f600\n\\xe6\\x9cx\\xf0\\x9f"


def test_rows_never_exceed_the_width() -> None:
    assert rows_of("abc\n\nabcdef\n", 4) == ["abc", "", "abcd", "ef"]
    assert rows_of("消息消息", 5) == ["消息", "消息"]
    assert rows_of("e\u0301" * 4, 4) == ["e\u0301" * 4]


def test_screen_refuses_what_it_does_not_know() -> None:
    for raw in ("\x1b]0;title\a and more text", "\x1b[5r", "\x9b", "\x00"):
        with pytest.raises(AssertionError):
            Screen(10, 3).feed(raw)
