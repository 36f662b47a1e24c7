"""What can happen while probes are sent: one class for each, data only.

Does not live here: how it is noticed (pinger.py), how it is shown (cli/ping.py).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastecho.identity import Identity

    from .route import Line

__all__ = ["Back", "Event", "Failure", "Opened", "Reply", "named"]


class Event:
    """Something that happened; each kind has its own attributes."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        values = (f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"<{type(self).__name__} {', '.join(values)}>"


class Opened(Event):
    """The first connection is there: `line` says between whom, and how fast it was."""

    __slots__ = ("line",)

    def __init__(self, line: Line) -> None:
        self.line = line


class Reply(Event):
    """The right bytes came back; `late` if after the timeout.

    `connect_ns` is how long its connection had taken to open; `waited_ns` is the part of `time_ns`
    in which the probe was due and another one before it not yet answered. `identity` is who
    answered, if that was asked for. `behind` is the highest number that came back before a smaller
    one, over UDP; else 0.
    """

    __slots__ = ("behind", "connect_ns", "identity", "late", "number", "time_ns", "waited_ns")

    def __init__(
        self,
        number: int,
        time_ns: int,
        late: bool,
        connect_ns: int,
        waited_ns: int = 0,
        identity: Identity | None = None,
        behind: int = 0,
    ) -> None:
        self.behind = behind
        self.identity = identity
        self.number = number
        self.time_ns = time_ns
        self.late = late
        self.connect_ns = connect_ns
        self.waited_ns = waited_ns


class Failure(Event):
    """Something went wrong: `kind` is a key of PingResult.failures, `numbers` whom it cost."""

    __slots__ = ("kind", "numbers", "sentence")

    def __init__(self, kind: str, numbers: Sequence[int], sentence: str) -> None:
        self.kind = kind
        self.numbers = numbers
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{named(self.numbers)}: {self.sentence}" if self.numbers else self.sentence


class Back(Event):
    """The server echoes again, `gap_ns` after it was lost; `lost` probes were.

    `identity` is who answers now, if that was asked for.
    """

    __slots__ = ("gap_ns", "identity", "lost")

    def __init__(self, gap_ns: int, lost: int, identity: Identity | None = None) -> None:
        self.gap_ns = gap_ns
        self.lost = lost
        self.identity = identity


def named(numbers: Sequence[int]) -> str:
    """Return `seq=3`, or `seq=3..5` for successive probes."""
    return f"seq={numbers[0]}" if len(numbers) == 1 else f"seq={numbers[0]}..{numbers[-1]}"
