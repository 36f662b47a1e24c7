"""The bytes that probes send, and the words for how what came back differs from them.

Lives here: a text whose every 16 bytes say where they stand, the ruler that a server with
--probes sends, naming a difference. Does not live here: sockets.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from typing import Protocol

    class Source(Protocol):
        """Bytes that can be asked for from any place on."""

        size: int

        def take(self, at: int, most: int) -> bytes:
            """Return at most so many bytes from this offset on; fewer only at the end."""


__all__ = ["Difference", "Pattern", "Plain", "Ruler", "compare", "shown_bytes", "what_is"]

PERIOD = 1_048_573
"""Bytes until the text begins anew: a prime, so that no buffer's size divides it."""
SPARE = 1 << 18
"""At most so many bytes are taken at once."""
WINDOW = 16
"""So many bytes occur only once in a period (64 letters: by chance twice in 1e17 periods)."""
FAR = 3 << 16
"""An insertion, or what should have come, is looked for so far."""
LONG_WINDOW = 64
"""So many bytes are compared where text may repeat itself."""
MOST_SHIFTED = 64

_made: dict[int, bytes] = {}


def _text(seed: int) -> bytes:
    """Return the period of a seed and the beginning of the next.

    It has letters, digits and +/- only: what boxes do to other bytes is a probe of its own. It has
    no F, with which an order begins: a server with --probes waits for what follows one.
    """
    if seed not in _made:
        from base64 import b64encode
        from random import Random

        period = b64encode(Random(seed).randbytes(PERIOD * 3 // 4 + 3))[:PERIOD]
        period = period.replace(b"F", b"-")
        _made[seed] = period + period[:SPARE]
    return _made[seed]


class Pattern:
    """A stretch of the seed's text; another `stream` begins elsewhere in it.

    Attributes:
        size: bytes, in all.
    """

    def __init__(self, seed: int, stream: int, size: int) -> None:
        self._text = _text(seed)
        self._shift = stream * 104_729 % PERIOD
        self.size = size

    def take(self, at: int, most: int) -> bytes:
        """Return at most so many bytes from this offset on."""
        start = (at + self._shift) % PERIOD
        return self._text[start : start + max(min(most, SPARE, self.size - at), 0)]

    def place_of(self, window: bytes, near: int) -> int | None:
        """Return the offset, the nearest to `near`, at which these bytes are sent."""
        found = self._text.find(window)
        if found < 0:
            return None
        offset = (found - self._shift) % PERIOD
        nearest = offset + round((near - offset) / PERIOD) * PERIOD
        for one in (nearest, nearest + PERIOD, nearest - PERIOD):
            if 0 <= one < self.size:
                return one
        return None


class Plain:
    """Bytes that somebody wrote down."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def take(self, at: int, most: int) -> bytes:
        """Return at most so many bytes from this offset on."""
        return self.data[at : at + min(most, SPARE)]

    def place_of(self, window: bytes, near: int) -> int | None:  # noqa: ARG002 (as others)
        """Return the first offset at which these bytes are sent, if there is no other."""
        found = self.data.find(window)
        return None if found < 0 or self.data.find(window, found + 1) >= 0 else found


class Ruler:
    """What a server with --probes sends: 15 digits and a full stop, which say their own offset.

    `000000000000000.000000000000016.000000000000032.` and so on.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def take(self, at: int, most: int) -> bytes:
        """Return at most so many bytes from this offset on."""
        most = max(min(most, SPARE, self.size - at), 0)
        first = at // 16 * 16
        text = b"".join(b"%015d." % mark for mark in range(first, at + most, 16))
        return text[at - first : at - first + most]

    def place_of(self, window: bytes, near: int) -> int | None:
        """Return the offset at which these bytes are sent."""
        dot = window.find(b".") + 1
        mark = (window[dot:] + window[:dot])[:15]
        if not dot or not mark.isdigit():
            return None
        place = int(window[:dot].rjust(16, b"0")[:15] or b"0") + 16 - dot
        text = Ruler(1 << 50)
        for one in (place, near // 16 * 16 + 16 - dot, near // 16 * 16 + 32 - dot):
            if one >= 0 and text.take(one, len(window)) == window:
                return one
        return None


class Difference:
    """How what came back differs from what was sent.

    Attributes:
        kind: changed, lost, doubled, swapped, inserted, extra or foreign.
        at: offset of the first wrong byte.
        size: bytes that it concerns, as far as that is known.
        text: the sentence.
    """

    __slots__ = ("at", "kind", "size", "text")

    def __init__(self, kind: str, at: int, size: int, text: str) -> None:
        self.kind = kind
        self.at = at
        self.size = size
        self.text = text

    def to_json(self) -> dict[str, object]:
        """Return what stands in the JSON."""
        return {"kind": self.kind, "at_byte": self.at, "size_bytes": self.size}


def first_difference(one: bytes, other: bytes) -> int:
    """Return the first index at which two texts differ; the shorter one's length if none."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def compare(source: Source, at: int, came: bytes) -> Difference:
    """Name the difference that begins at offset `at`, where `came` stands instead.

    Args:
        source: what should have come.
        at: the offset of the first wrong byte.
        came: that byte and some that came behind it; the more, the better it can be named.
    """
    want = source.take(at, FAR)
    if not want:
        sentence = f"{_bytes(len(came))} too many came behind the last one: {shown_bytes(came)}"
        return Difference("extra", at, len(came), sentence)
    found = (
        _changed(at, want, came, 1)
        or _shifted(at, want, came)
        or _changed(at, want, came, LONG_WINDOW)
        or _moved(source, at, want, came)
        or _inserted(at, want, came)
    )
    if found is not None:
        return found
    sentence = f"from byte {at:,} on something else came: {what_is(came)}"
    return Difference("foreign", at, len(came), sentence)


def _goes_on(one: bytes, other: bytes) -> bool:
    """Tell whether two texts are the same as far as both go, and that is far enough."""
    size = min(len(one), len(other), LONG_WINDOW)
    return one[:size] == other[:size] and (size >= WINDOW or len(one) == len(other))


def _changed(at: int, want: bytes, came: bytes, longest: int) -> Difference | None:
    """Tell whether a run was changed and all behind it stands where it should."""
    for run in range(1, min(longest, len(came), len(want)) + 1):
        if want[run - 1] == came[run - 1] or not _goes_on(want[run:], came[run:]):
            continue
        if run == 1:
            text = f"byte {at:,} came back as 0x{came[0]:02X} instead of 0x{want[0]:02X}"
        else:
            text = (
                f"bytes {at:,} to {at + run - 1:,} came back as {shown_bytes(came[:run])} "
                f"instead of {shown_bytes(want[:run])}"
            )
        return Difference("changed", at, run, text)
    return None


def _shifted(at: int, want: bytes, came: bytes) -> Difference | None:
    """Tell whether a few bytes are missing or too many, and all goes on behind them."""
    for size in range(1, min(MOST_SHIFTED, len(want), len(came)) + 1):
        if size < len(want) and _goes_on(want[size:], came):
            return _lost(at, size)
    return None


def _lost(at: int, size: int) -> Difference:
    is_are = "is" if size == 1 else "are"
    return Difference("lost", at, size, f"{_bytes(size)} {is_are} missing at byte {at:,}")


def _moved(source: Source, at: int, want: bytes, came: bytes) -> Difference | None:
    """Tell whether bytes from elsewhere in the stream stand here."""
    window = came[:WINDOW]
    if len(window) < WINDOW:
        return None
    place = source.place_of(window, at)  # type: ignore[attr-defined]
    if place is None or place == at:
        return None
    if place < at:
        size = at - place
        text = f"the {_bytes(size)} before byte {at:,} came a second time"
        return Difference("doubled", at, size, text)
    size = place - at
    later = came.find(want[:WINDOW])
    if later > 0:
        return _swapped(at, place, later)
    return _lost(at, size)


def _swapped(at: int, place: int, size: int) -> Difference:
    belongs = "belongs" if size == 1 else "belong"
    text = (
        f"{_bytes(size)} that {belongs} to byte {place:,} came at byte {at:,}, before those that "
        "belong there: the order was changed"
    )
    return Difference("swapped", at, size, text)


def _inserted(at: int, want: bytes, came: bytes) -> Difference | None:
    """Tell whether something stands here that was never sent, and all goes on behind it."""
    window = want[:WINDOW]
    if len(window) < 4:
        return None
    size = came.find(window)
    if size <= 0:
        return None
    run = first_difference(came[size:], want)
    if came[:size] == want[run : run + size]:
        return _swapped(at, at + run, size)
    what = shown_bytes(came[:size])
    text = f"{_bytes(size)} that nobody sent came before byte {at:,}: {what}"
    return Difference("inserted", at, size, text)


def _bytes(number: int) -> str:
    return f"{number:,} byte{'' if number == 1 else 's'}"


def shown_bytes(data: bytes, most: int = 24) -> str:
    """Return bytes for a sentence: one line of ASCII, cut short."""
    text = ascii(data[:most])[1:]
    return text if len(data) <= most else f"{text}..."


_FIRST = (
    (b"HTTP/", "an HTTP response"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"\x15\x03", "a TLS alert"),
    (b"\x16\x03", "a TLS handshake"),
    (b"SSH-", "the greeting of an SSH server"),
    (b"220 ", "the greeting of a mail or FTP server"),
    (b"-ERR", "an error of a POP3 or Redis server"),
    (b"+OK", "an answer of a POP3 or Redis server"),
)


def what_is(data: bytes) -> str:
    """Say what bytes look like that are no echo, with the first of them."""
    for first, what in _FIRST:
        if data.startswith(first):
            line = data.split(b"\r")[0].split(b"\n")[0]
            return f"{what}, {shown_bytes(line, 60)}"
    return shown_bytes(data, 40)
