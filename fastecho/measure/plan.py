"""What a run shall do: a checked, immutable plan, and the table of its options.

Lives here: OPTIONS (each with its default, flag, unit and how text becomes a value), Plan, whether
values fit together, a plan as JSON and as a sentence. Does not live here: how a single value is
read and checked (values.py), names that resolve and limits of the machine (runner.py). Nothing
here opens a socket.
"""

from __future__ import annotations

from fastecho.errors import NO_VALUE, ConfigError, shown

from . import datagrams, values
from .values import seconds_text
from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal, NoReturn

    from fastecho.address import Address

    Loop = Literal["closed", "open", "reconnect"]
    Target = str | tuple[str, int] | Address

__all__ = [
    "DEFAULT_DURATION", "OPTIONS", "Option", "Plan", "as_written", "flag_of", "read_options",
]  # fmt: skip

DEFAULT_DURATION = 10.0
"""Seconds of a run that is limited by nothing else."""
DEFAULT_TIMEOUT = 5.0
"""Seconds until a reply over TCP is late; a lost datagram is found sooner."""


class Option:
    """One option of a plan: what it is called, what it accepts, what it means.

    Attributes:
        name: the keyword; the flag is --na-me unless `flag` says otherwise.
        check: takes a value (or the text of a flag) and the name that an error shall show; returns
            the value in the option's own type or raises ConfigError.
        default: the plan's default; None where `unset` says what that means.
        group: heading in --help.
        letter: the short flag, or "".
        key: the name in JSON, with its unit.
    """

    __slots__ = (
        "check", "default", "flag", "group", "help", "key", "letter", "metavar", "name", "unset",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        check: Callable[[object, str], object],
        default: object,
        help: str,
        *,
        group: str,
        metavar: str = "",
        flag: str = "",
        letter: str = "",
        key: str = "",
        unset: str = "",
    ) -> None:
        self.name = name
        self.check = check
        self.default = default
        self.help = help
        self.group = group
        self.metavar = metavar
        self.flag = flag or "--" + name.replace("_", "-")
        self.letter = letter
        self.key = key or name
        self.unset = unset

    def read(self, value: object, label: str) -> object:
        """Return the checked value; None passes where it stands for something."""
        if value is None and (self.unset or self.default is None):
            return None
        return self.check(value, label)


LOAD, MESSAGES, CONNECTIONS, OTHER = "load", "messages", "connections", "run"

OPTIONS: tuple[Option, ...] = (
    Option(
        "connections", values.whole(1, values.MOST_CONNECTIONS), 10,
        "connections that carry messages", group=LOAD, letter="-c", metavar="N",
    ),
    Option(
        "threads", values.whole(1, values.MOST_THREADS), 1,
        "threads of the generator; each takes its share of connections, rate and messages",
        group=LOAD, letter="-t", metavar="N",
    ),
    Option(
        "duration", values.seconds(0.001, values.LONGEST), None,
        "how long to send, such as 10, 10s, 500ms or 2m", group=LOAD, letter="-d",
        metavar="TIME", key="duration_s", unset="10s, with --messages no limit",
    ),
    Option(
        "messages", values.whole(1, 2**53), None,
        "end once so many messages were sent", group=LOAD, letter="-n", metavar="N",
        unset="no limit",
    ),
    Option(
        "rate", values.rate, None,
        "open loop: messages a second over all connections, such as 50000 or 50k, whatever the "
        "server does; latency counts from when each was due", group=LOAD, letter="-R",
        metavar="N", key="rate_per_s", unset="closed loop: the next message after each reply",
    ),
    Option(
        "schedule", values.choice("fixed", "poisson"), "fixed",
        "when the messages of an open loop are due: fixed (evenly) or poisson (at random, as "
        "independent users would)",
        group=LOAD, metavar="KIND",
    ),
    Option(
        "depth", values.whole(1, values.DEEPEST), 1,
        "messages that may be outstanding on a connection (pipelining)", group=LOAD,
        letter="-p", metavar="N",
    ),
    Option(
        "warmup", values.seconds(0, values.LONGEST), 0.0,
        "send for this long before the measurement; it is not counted", group=LOAD,
        metavar="TIME", key="warmup_s",
    ),
    Option(
        "ramp", values.seconds(0, values.LONGEST), 0.0,
        "open the connections evenly over this time from the start (that of the warm-up, if any), "
        "rather than all before it", group=LOAD, metavar="TIME", key="ramp_s",
    ),
    Option(
        "size", values.size, "64",
        "bytes of a message: 64, 64:1024 (each as likely) or 64*9,1024*1 (nine of ten have 64)",
        group=MESSAGES, letter="-s", metavar="SIZE",
    ),
    Option(
        "frame", values.choice("recv", "line", "length"), "recv",
        "how messages are cut, as the server does: recv (bytes alone), line or length (4 bytes "
        "before each)", group=MESSAGES, metavar="KIND",
    ),
    Option(
        "prefix", values.affix, b"",
        "what the server puts before each reply (with --frame line or length, or over UDP)",
        group=MESSAGES,
        flag="--expect-prefix", metavar="TEXT",
    ),
    Option(
        "suffix", values.affix, b"",
        "what the server puts after each reply (with --frame line or length, or over UDP)",
        group=MESSAGES,
        flag="--expect-suffix", metavar="TEXT",
    ),
    Option(
        "timeout", values.seconds(0.001, 1e6), None,
        "a reply later than this after its message was given to a connection is late, which is a "
        "failure (latency with --rate counts from when it was due); a connection that is silent "
        "for so long while one is awaited is given up; over UDP the message is lost then, and the "
        "next is sent", group=MESSAGES, metavar="TIME", key="timeout_s", unset="5s, over UDP 1s",
    ),
    Option(
        "seed", values.whole(0, 2**64 - 1), 1,
        "decides the bytes and sizes of all messages, and a poisson schedule", group=MESSAGES,
        metavar="N",
    ),
    Option(
        "reconnect", values.switch, False,
        "a new connection for every message: connect, echo, close", group=CONNECTIONS,
    ),
    Option(
        "close", values.choice("fin", "reset"), "fin",
        "how --reconnect ends a connection; reset leaves no port in TIME_WAIT",
        group=CONNECTIONS, metavar="KIND",
    ),
    Option(
        "idle_connections", values.whole(0, values.MOST_CONNECTIONS), 0,
        "further connections that are held open and carry nothing", group=CONNECTIONS,
        metavar="N",
    ),
    Option(
        "sources", values.sources, (),
        "local address to connect from; repeat it, or separate by commas, for more ports than one "
        "address has; without it, connections to 127.0.0.0/8 come from several addresses of it "
        "with --reconnect or above 8,000", group=CONNECTIONS, flag="--source", metavar="ADDR",
    ),
    Option(
        "send_proxy", values.choice("v1", "v2"), None,
        "first on each connection send a PROXY header with its own addresses: v1 or v2",
        group=CONNECTIONS, metavar="VERSION", unset="none",
    ),
    Option(
        "identify", values.switch, False,
        "expect the line by which a server with --identify says who answers, and count "
        "connections and messages by instance", group=CONNECTIONS,
    ),
    Option(
        "interval", values.seconds(0.01, 3600), 1.0,
        "length of the intervals that the terminal, --live, --jsonl and charts show one by one; "
        "`fastecho report` compares runs by them, and needs 4 or more of each", group=OTHER,
        metavar="TIME", key="interval_s",
    ),
    Option(
        "label", values.label, "",
        "a name for this run, in reports", group=OTHER, metavar="TEXT",
    ),
)  # fmt: skip

ADDED = ("connections", "threads", "rate", "messages", "idle_connections")
"""What several runs have more of together than each: a sum keeps no limit of a single run."""

# A file that says `loop` needs no `reconnect`, and the label is the result's.
_NOT_IN_JSON = {"reconnect", "label"}


def flag_of(name: str) -> str:
    """Return the flag of an option of the plan, or of the command."""
    named = "--" + name.replace("_", "-")
    return next((one.flag for one in OPTIONS if one.name == name), named)


class Plan:
    """What a run shall do, checked and immutable.

    Args:
        targets: one or more of HOST:PORT, [V6]:PORT, :PORT (this machine) and unix:PATH, or all
            of them udp://HOST:PORT; connections (over UDP: sockets) take them in turn. A name is
            resolved when the plan is run.
        connections, threads: how many; each thread drives its share of the connections.
        depth: messages that may be outstanding on a connection.
        duration: seconds, or a text such as "500ms"; None: 10 s, or no limit if `messages` is
            given.
        messages: the run ends once so many were sent; None: no limit.
        rate: messages a second over all connections (open loop); None: closed loop.
        schedule: of an open loop or find_max(), "fixed" or "poisson".
        size: bytes of a message, or a distribution: "64:1024", "64*9,1024*1", or sizes in a list.
        frame: "recv", "line" or "length"; prefix, suffix: what the server adds to each reply.
        reconnect: a new connection for each message; close: "fin" or "reset", how it ends.
        warmup, ramp, timeout, interval: seconds; timeout None: 5 s, over UDP 1 s.
        idle_connections: further connections that carry nothing.
        sources: local addresses to connect from.
        send_proxy: "v1" or "v2": a PROXY header comes first on each connection; None: none.
        identify: each connection begins by the server's line that says who answers.
        seed: decides bytes, sizes and a Poisson schedule.
        label: a name for the run.
    Raises:
        ConfigError: a value has a wrong type, breaks a limit, or does not fit another value.
    Thread: any; immutable.   Cost: tens of microseconds.
    """

    # Not a dataclass: that costs 8 ms of every start (it imports inspect).
    __slots__ = ("targets", *(option.name for option in OPTIONS))

    targets: tuple[Address, ...]
    connections: int
    threads: int
    duration: float | None
    messages: int | None
    rate: float | None
    schedule: Literal["fixed", "poisson"]
    depth: int
    warmup: float
    ramp: float
    size: str
    frame: Literal["recv", "line", "length"]
    prefix: bytes
    suffix: bytes
    timeout: float
    seed: int
    reconnect: bool
    close: Literal["fin", "reset"]
    idle_connections: int
    sources: tuple[str, ...]
    send_proxy: Literal["v1", "v2"] | None
    identify: bool
    interval: float
    label: str

    def __init__(
        self,
        targets: Target | Sequence[Target],
        *,
        connections: int = 10,
        threads: int = 1,
        depth: int = 1,
        duration: float | str | None = None,
        messages: int | None = None,
        rate: float | str | None = None,
        schedule: Literal["fixed", "poisson"] = "fixed",
        size: int | str | Sequence[int] = "64",
        frame: Literal["recv", "line", "length"] = "recv",
        prefix: bytes | str = b"",
        suffix: bytes | str = b"",
        reconnect: bool = False,
        close: Literal["fin", "reset"] = "fin",
        warmup: float | str = 0.0,
        ramp: float | str = 0.0,
        timeout: float | str | None = None,
        idle_connections: int = 0,
        sources: str | Sequence[str] = (),
        send_proxy: Literal["v1", "v2"] | None = None,
        identify: bool = False,
        seed: int = 1,
        label: str = "",
        interval: float | str = 1.0,
    ) -> None:
        given = locals()
        found = {one.name: one.read(given[one.name], one.name) for one in OPTIONS}
        found["targets"] = values.targets(targets, "targets")
        _settle(found, _Refuse(given, lambda name: name))
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def loop(self) -> Loop:
        """What decides when the next message is sent: "closed", "open" or "reconnect"."""
        return "reconnect" if self.reconnect else "closed" if self.rate is None else "open"

    @property
    def udp(self) -> bool:
        """Whether messages are datagrams."""
        return self.targets[0].kind == "udp"

    @property
    def sizes(self) -> int | list[int]:
        """The size of every message, or the table from which each draws one."""
        return values.size_table(self.size)

    def keywords(self) -> dict[str, Any]:
        """Return every value by name, as keywords for Plan."""
        return {name: getattr(self, name) for name in self.__slots__}

    def replace(self, **changes: Any) -> Plan:
        """Return a plan with other values, checked anew."""
        return Plan(**{**self.keywords(), **changes})

    def with_sums(self, sums: Mapping[str, Any], **changes: Any) -> Plan:
        """Return the plan of several runs as one.

        Args:
            sums: values of ADDED that may be above the limits of one run; what is left out stays.
            changes: other values, checked anew.
        """
        own = {name: getattr(self, name) for name in ADDED}
        least = {name: 1 for name, value in own.items() if value}
        plan = self.replace(**{**least, **changes})
        for name, value in {**own, **sums}.items():
            object.__setattr__(plan, name, value)
        return plan

    def to_json(self) -> dict[str, Any]:
        """Return the plan as it stands in a result's JSON: units are in the keys."""
        found: dict[str, Any] = {"targets": [str(one) for one in self.targets], "loop": self.loop}
        for option in OPTIONS:
            if option.name in _NOT_IN_JSON:
                continue
            value = getattr(self, option.name)
            if isinstance(value, bytes):
                value = value.decode("utf-8", "surrogateescape")
            found[option.key] = list(value) if isinstance(value, tuple) else value
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any], label: str = "", *, merged: bool = False) -> Plan:
        """Return the plan that to_json() gave; what is missing has its default.

        Args:
            data: as to_json() gives it.
            label: of the run.
            merged: it is that of several runs, with sums that one of them could not have.
        Raises:
            ConfigError: a value is wrong; it names the key.
        """
        found: dict[str, Any] = {"label": label, "reconnect": data.get("loop") == "reconnect"}
        sums: dict[str, Any] = {}
        for option in OPTIONS:
            if option.name in _NOT_IN_JSON or option.key not in data:
                continue
            name, value = f"plan.{option.key}", data[option.key]
            if merged and option.name in ADDED and value:
                sums[option.name] = _sum(value, name, float if option.name == "rate" else int)
                value = 1  # stands for it: whether the others fit together is still checked
            if option.check is values.affix and isinstance(value, str):
                value = value.encode("utf-8", "surrogateescape")
            found[option.name] = option.read(value, name)
        plan = cls(values.targets(data.get("targets"), "plan.targets"), **found)
        return plan.with_sums(sums) if sums else plan

    def __str__(self) -> str:
        """Say in a sentence or two what a run will do."""
        return " ".join(_sentences(self))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Plan is immutable: {name} cannot be set; use replace()")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Plan is immutable: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self.keywords() == other.keywords()

    def __hash__(self) -> int:
        return hash(tuple(self.keywords().values()))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.keywords(),))

    def __repr__(self) -> str:
        defaults = {one.name: one.default for one in OPTIONS}
        defaults["timeout"] = _usual_timeout(self.targets)
        differing = "".join(
            f", {name}={shown(value)}"
            for name, value in self.keywords().items()
            if name != "targets" and value != defaults[name]
        )
        names = [str(one) for one in self.targets]
        return f"Plan({names[0] if len(names) == 1 else names!r}{differing})"


def _sum(value: object, label: str, kind: type) -> int | float:
    """Check what several runs have together: there may be any number of runs."""
    number = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not number or not 0 < value < 2**63:  # type: ignore[operator]
        what = "whole number" if kind is int else "number"
        raise ConfigError(label, value, f"must be a {what} above 0")
    return kind(value)  # type: ignore[no-any-return]


def _rebuild(keywords: dict[str, Any]) -> Plan:
    """Unpickle a Plan, which may be that of several runs."""
    plan = object.__new__(Plan)
    for name, value in keywords.items():
        object.__setattr__(plan, name, value)
    return plan


def read_options(flags: Mapping[str, object], targets: Sequence[Target]) -> Plan:
    """Return the plan that the flags of a command ask for; a flag that was not given is None.

    Raises:
        ConfigError: names the flag that is wrong.
    """
    found: dict[str, Any] = {}
    for one in OPTIONS:
        value = flags.get(one.name)
        found[one.name] = one.default if value is None else one.read(value, one.flag)
    found["targets"] = values.targets(list(targets), "target")
    given = {name: as_written(flags, name) for name in found if flags.get(name) is not None}
    _settle(found, _Refuse({**found, **given}, flag_of))
    return Plan(**found)


def as_written(flags: Mapping[str, object], name: str) -> object:
    """Return the value of a flag for a sentence: what was repeated, as one text with commas."""
    value = flags[name]
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _settle(found: dict[str, Any], refuse: _Refuse) -> None:
    """Fill in what depends on other values, and refuse what does not fit together."""
    if found["duration"] is None and found["messages"] is None:
        found["duration"] = DEFAULT_DURATION
    if found["timeout"] is None:
        found["timeout"] = _usual_timeout(found["targets"])
    _refuse_misfits(found, refuse)


def _usual_timeout(targets: Sequence[Address]) -> float:
    return datagrams.TIMEOUT if targets[0].kind == "udp" else DEFAULT_TIMEOUT


class _Refuse:
    """Raises ConfigError for an option, whose name and value are as the user wrote them."""

    def __init__(self, given: Mapping[str, object], label: Callable[[str], str]) -> None:
        self._given = given
        self.label = label

    def __call__(self, name: str, reason: str) -> NoReturn:
        value = self._given[name]
        raise ConfigError(self.label(name), NO_VALUE if value is True else value, reason)


def _refuse_misfits(found: dict[str, Any], refuse: _Refuse) -> None:
    threads, label = found["threads"], refuse.label
    for name in ("connections", "messages"):
        if found[name] is not None and found[name] < threads:
            refuse(name, f"is less than {label('threads')} {threads}: each thread needs one")
    is_udp = found["targets"][0].kind == "udp"
    if is_udp:
        datagrams.refuse_misfits(found, values.size_table(found["size"]), refuse)
    for name in ("prefix", "suffix"):
        if found[name] and found["frame"] == "recv" and not is_udp:
            refuse(name, f"needs {label('frame')} line or length: bytes alone have no beginning")
    if found["reconnect"]:
        instead = f"there {label('connections')} are open at a time, each for one message"
        for name, usual in (("rate", None), ("depth", 1), ("ramp", 0)):
            if found[name] != usual:
                refuse(name, f"does not go together with {label('reconnect')}: {instead}")
    elif found["close"] != "fin":
        refuse("close", f"has no effect without {label('reconnect')}")
    if found["ramp"] and found["duration"] is not None:
        span = found["warmup"] + found["duration"]
        if found["ramp"] >= span:
            parts = f"{label('duration')} and {label('warmup')} are {seconds_text(span)} together"
            refuse("ramp", f"does not end before the run: {parts}")
    rate = found["rate"]
    if rate is not None and not values.SLOWEST <= rate / threads <= values.FASTEST:
        limits = f"{values.SLOWEST:g} to {values.FASTEST:.0f} messages a second"
        refuse("rate", f"must be {limits} for each of {label('threads')} {threads}")
    if found["sources"] and {one.kind for one in found["targets"]} == {"unix"}:
        refuse("sources", "has no effect: a Unix socket has no local address")


def _sentences(plan: Plan) -> list[str]:
    targets = ", ".join(str(one) for one in plan.targets)
    span = f"for {seconds_text(plan.duration)}" if plan.duration is not None else ""
    if plan.messages is not None:
        span += (" or " if span else "") + f"until {counted(plan.messages, 'message')}"
        span += " was sent" if plan.messages == 1 else " were sent"
    by = counted(plan.connections, "connection")
    if plan.threads > 1:
        by += f" by {plan.threads:,} threads"
    size = "1 byte" if plan.size == "1" else f"{plan.size} bytes"
    frame = "" if plan.frame == "recv" else f", frame {plan.frame}"
    first = f"{targets}: {by} {span}, messages of {size}{frame}."
    if plan.loop == "open":
        assert plan.rate is not None
        how = "evenly" if plan.schedule == "fixed" else "at random times (Poisson)"
        second = f"Open loop: {plan.rate:,.10g} messages/s, {how}, whatever the server does."
    elif plan.loop == "reconnect":
        second = "Closed loop, a new connection for every message: connect, echo, close."
    elif plan.depth == 1:
        after = ", or the timeout is over" if plan.udp else ""
        second = f"Closed loop: each connection sends the next message when the reply is in{after}."
    else:
        second = f"Closed loop: each connection keeps {plan.depth:,} messages outstanding."
    before = []
    if plan.warmup:
        before.append(f"{seconds_text(plan.warmup)} of warm-up is not counted")
    if plan.ramp:
        before.append(f"connections open over {seconds_text(plan.ramp)}")
    if plan.idle_connections:
        before.append(f"{counted(plan.idle_connections, 'further connection')} stay idle")
    if plan.send_proxy is not None:
        before.append(f"each connection begins by a PROXY header ({plan.send_proxy})")
    third = "; ".join(before)
    return [first, second, *([third[0].upper() + third[1:] + "."] if third else [])]
