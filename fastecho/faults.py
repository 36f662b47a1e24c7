"""Faults as the user writes them: checked, printed, read from text, and as the core's numbers.

Lives here: Fault. Does not live here: what a fault does (src_c/fault.h), who sets it (config.py,
server.py), who gets it (the core).
"""

from __future__ import annotations

from .errors import NO_VALUE, ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, NoReturn

    Distribution = Literal["fixed", "uniform", "normal"]

__all__ = ["Fault"]

NEVER = 2**64 - 1
CERTAIN = 2**53
LONGEST_TIME = 3600.0
MOST_BYTES = 2**62
FASTEST = 10**11
DISTRIBUTIONS = ("fixed", "uniform", "normal")
ENDS = ("silent", "no_read", "deny", "half_close", "stall_after", "close_after", "reset_after")
"""Faults of which a connection can have one: each says how far its replies come."""
TIME_UNITS = {"us": 1_000_000, "ms": 1000, "s": 1}
"""So many of them are a second; "s" is last, since the others end with it."""
BYTE_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}


class Fault:
    """What goes wrong with a connection on purpose. Immutable.

    Args:
        delay: seconds that each reply is held back.
        jitter: seconds by which the delay varies: half its width (uniform), or its standard
            deviation (normal).
        distribution: "fixed", "uniform" or "normal"; None: uniform with jitter, fixed without.
        bandwidth: bytes a second that replies have; None for no limit.
        slice: replies leave in pieces of so many bytes; None: in one.
        gap: seconds between two pieces; None: 0.001.
        stall_after: bytes of reply after which nothing more is sent; the connection stays open.
        close_after, reset_after: bytes of reply that all arrive, and then FIN, or RST.
        corrupt: probability that a byte of a reply is changed, 0 to 1.
        duplicate: probability that a frame is answered twice, 0 to 1; not with frame recv.
        silent: read, and never answer.
        no_read: never read.
        deny: reset each connection at once.
        half_close: send FIN at once, and go on reading.
        accept_delay: seconds that newcomers wait until they are accepted; of the whole server.
        fail_first: only the first so many connections get the fault; None: all do.
        probability: that a connection gets the fault, 0 to 1.
        seed: what all draws begin with, 0 to 2**64 - 1. The same seed, the same behaviour.
    Raises:
        ConfigError: a value is wrong, or two do not go together; the text names them.
    Thread: any; immutable.
    """

    __slots__ = (
        "accept_delay",
        "bandwidth",
        "close_after",
        "corrupt",
        "delay",
        "deny",
        "distribution",
        "duplicate",
        "fail_first",
        "gap",
        "half_close",
        "jitter",
        "no_read",
        "probability",
        "reset_after",
        "seed",
        "silent",
        "slice",
        "stall_after",
    )

    delay: float
    jitter: float
    distribution: Distribution | None
    bandwidth: int | None
    slice: int | None
    gap: float | None
    stall_after: int | None
    close_after: int | None
    reset_after: int | None
    corrupt: float
    duplicate: float
    silent: bool
    no_read: bool
    deny: bool
    half_close: bool
    accept_delay: float
    fail_first: int | None
    probability: float
    seed: int

    def __init__(
        self,
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        distribution: Distribution | None = None,
        bandwidth: int | None = None,
        slice: int | None = None,
        gap: float | None = None,
        stall_after: int | None = None,
        close_after: int | None = None,
        reset_after: int | None = None,
        corrupt: float = 0.0,
        duplicate: float = 0.0,
        silent: bool = False,
        no_read: bool = False,
        deny: bool = False,
        half_close: bool = False,
        accept_delay: float = 0.0,
        fail_first: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        given = locals()
        self._set({name: given[name] for name in OPTIONS}, "")

    def _set(self, given: dict[str, object], label: str) -> None:
        """Check all values and take them; `label` stands before the name in an error."""
        values = {}
        for name, (check, default) in OPTIONS.items():
            value = given.get(name, default)
            if value is not None or default is not None:
                value = check(label + name, value)
            values[name] = value
        _check_together(values, label)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, text: str, label: str = "fault") -> Fault:
        """Return the fault that a text stands for: "delay=50ms,jitter=10ms,slice=1".

        Args:
            text: options as in Fault(), with commas between; a switch needs no value. Times in
                s, ms or us, seconds without a unit; bytes with k, M or G (thousands).
            label: what an error is to name.
        Raises:
            ConfigError: the text is wrong; it names the option.
        """
        given: dict[str, object] = {}
        for part in text.split(","):
            name, equals, value = (one.strip() for one in part.partition("="))
            name = name.replace("-", "_")
            if name not in OPTIONS:
                raise ConfigError(label, text, _no_option(name, text))
            if name in given:
                raise ConfigError(label, text, f"gives {name} twice")
            is_set = not equals and OPTIONS[name][0] is _switch
            given[name] = True if is_set else _read(name, value, f"{label}: {name}")
        fault = cls.__new__(cls)
        fault._set(given, f"{label}: ")
        return fault

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Fault is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Fault is immutable: {name} cannot be deleted")

    def _chosen(self) -> dict[str, object]:
        """Return what differs from no fault."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in values.items() if value != OPTIONS[name][1]}

    def __eq__(self, other: object) -> bool:
        return self._chosen() == other._chosen() if isinstance(other, Fault) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._chosen().items()))

    def __repr__(self) -> str:
        return f"Fault({', '.join(f'{name}={value!r}' for name, value in self._chosen().items())})"

    def __reduce__(self) -> tuple[Callable[[dict[str, object]], Fault], tuple[object]]:
        return _made, (self._chosen(),)

    def __str__(self) -> str:
        """Return the text that parse() reads: "delay=0" for a fault that changes nothing."""
        chosen = self._chosen() or {"delay": 0}
        return ",".join(
            name if value is True else f"{name}={_plain(value)}" for name, value in chosen.items()
        )

    def numbers(self) -> dict[str, int]:
        """Return what the core takes for it."""
        kind = self.distribution or ("uniform" if self.jitter else "fixed")
        stall = 0 if self.silent or self.half_close else self.stall_after
        return {
            "delay_ns": _ns(self.delay),
            "jitter_ns": _ns(self.jitter),
            "distribution": DISTRIBUTIONS.index(kind),
            "bandwidth": self.bandwidth or 0,
            "slice": self.slice or 0,
            "gap_ns": _ns(0.001 if self.gap is None else self.gap),
            "stall_after": NEVER if stall is None else stall,
            "close_after": NEVER if self.close_after is None else self.close_after,
            "reset_after": NEVER if self.reset_after is None else self.reset_after,
            "corrupt": round(self.corrupt * CERTAIN),
            "duplicate": round(self.duplicate * CERTAIN),
            "probability": round(self.probability * CERTAIN),
            "seed": self.seed,
            "fail_first": NEVER if self.fail_first is None else self.fail_first,
            "no_read": self.no_read,
            "deny": self.deny,
            "half_close": self.half_close,
        }


def _made(values: dict[str, object]) -> Fault:
    """Return a Fault, for pickle and copy."""
    return Fault(**values)  # type: ignore[arg-type]


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _plain(value: object) -> str:
    """Return a number without an exponent, which parse() does not read."""
    if not isinstance(value, float):
        return str(value)
    text = repr(value)
    if "e" in text:
        from decimal import Decimal

        text = f"{Decimal(text):f}"
    return text


def _no_option(name: str, text: str) -> str:
    from difflib import get_close_matches

    if not name and text.strip():
        return "has a comma too many, or no name before ="
    near = get_close_matches(name.lower(), OPTIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPTIONS)}"
    return f"has no option {name!r}: {hint}" if name else f"names no fault: {hint}"


def _check_together(values: dict[str, object], label: str) -> None:
    """Refuse values that say two things, or nothing."""
    ends = [name for name in ENDS if values[name] is not None and values[name] is not False]
    if len(ends) > 1:
        reason = f"cannot be combined with {ends[1]}"
        value = NO_VALUE if label and values[ends[0]] is True else values[ends[0]]
        raise ConfigError(label + ends[0], value, reason)
    distribution, jitter = values["distribution"], values["jitter"]
    if distribution == "fixed" and jitter:
        raise ConfigError(label + "jitter", jitter, "has no effect with distribution fixed")
    if distribution in ("uniform", "normal") and not jitter:
        raise ConfigError(label + "distribution", distribution, "needs jitter")
    if values["gap"] is not None and values["slice"] is None:
        raise ConfigError(label + "gap", values["gap"], "needs slice")


def _seconds(name: str, value: object) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= LONGEST_TIME:  # type: ignore[operator]
        raise ConfigError(name, value, f"must be a time from 0 to {LONGEST_TIME:.0f} s, as 50ms")
    return float(value)  # type: ignore[arg-type]


def _chance(name: str, value: object) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:  # type: ignore[operator]
        raise ConfigError(name, value, "must be a probability from 0 to 1")
    return float(value)  # type: ignore[arg-type]


def _whole(low: int, high: int) -> Callable[[str, object], int]:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(name, value, f"must be a whole number from {low} to {high}")
        return int(value)

    return check


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(name, value, "must be true or false")
    return value


def _distribution(name: str, value: object) -> str:
    if value not in DISTRIBUTIONS:
        raise ConfigError(name, value, f"must be one of {', '.join(DISTRIBUTIONS)}")
    return str(value)


def _read(name: str, text: str, label: str) -> object:
    """Return the value of an option in a text, in its own type; the text where it has none."""
    check = OPTIONS[name][0]
    try:
        if check is _seconds:
            unit = next((one for one in TIME_UNITS if text.endswith(one)), "")
            return check(label, _decimal(text.removesuffix(unit)) / TIME_UNITS.get(unit, 1))
        if check is _chance:
            return check(label, _decimal(text))
        if check is _switch:
            return {"yes": True, "true": True, "no": False, "false": False}[text.lower()]
        if check is not _distribution:
            digits = text[:-1] if text[-1:] in BYTE_UNITS else text
            if not (digits.isascii() and digits.isdigit() and len(digits) <= 30):
                raise ValueError(text)
            return check(label, int(digits) * BYTE_UNITS.get(text[len(digits) :], 1))
        return check(label, text)
    except ConfigError as error:
        raise ConfigError(label, text, error.reason) from None
    except (KeyError, ValueError):
        return check(label, text)  # which says what it must be


def _decimal(text: str) -> float:
    """Return a plain decimal number; ValueError for anything else (nan, 1e5, 1_0)."""
    digits = text.replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 400):
        raise ValueError(text)
    return float(text)


OPTIONS: dict[str, tuple[Callable[[str, object], object], object]] = {
    "delay": (_seconds, 0.0),
    "jitter": (_seconds, 0.0),
    "distribution": (_distribution, None),
    "bandwidth": (_whole(1, FASTEST), None),
    "slice": (_whole(1, MOST_BYTES), None),
    "gap": (_seconds, None),
    "stall_after": (_whole(0, MOST_BYTES), None),
    "close_after": (_whole(0, MOST_BYTES), None),
    "reset_after": (_whole(0, MOST_BYTES), None),
    "corrupt": (_chance, 0.0),
    "duplicate": (_chance, 0.0),
    "silent": (_switch, False),
    "no_read": (_switch, False),
    "deny": (_switch, False),
    "half_close": (_switch, False),
    "accept_delay": (_seconds, 0.0),
    "fail_first": (_whole(0, MOST_BYTES), None),
    "probability": (_chance, 1.0),
    "seed": (_whole(0, NEVER), 0),
}
"""How each option is checked, and its value in a fault that does not have it; in order of text."""
