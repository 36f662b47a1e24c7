"""The table of settings: each with its default, type, unit and limits, and how a value is read.

The table is the only place that knows them: the keywords of Config, the flags of `fastecho serve`,
the FASTECHO_ variables, the keys of a TOML file and --print-config are all read from it. A wrong
value raises ConfigError with the name that the user wrote. Does not live here: where values come
from and whether they fit together (config.py).
"""

from __future__ import annotations

import os

from .address import Address, parse_bind
from .errors import ConfigError
from .networks import Network, parse_networks

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, NoReturn

    from .faults import Fault

    Kind = Literal[
        "address", "bind", "whole", "seconds", "bytes", "switch", "choice", "fault", "name",
        "networks",
    ]  # fmt: skip

__all__ = ["DEFAULT_MAX_FRAME", "DEFAULT_MAX_PENDING", "SETTINGS", "Setting"]

LARGEST_INT = 2**31 - 1
LARGEST_BUFFER = 2**30
LONGEST_TIME = 1_000_000.0
"""Seconds, 11 days: every smaller time fits in 31 bits of milliseconds."""
DEFAULT_MAX_FRAME = 65536
DEFAULT_MAX_PENDING = 67108864


class Setting:
    """One setting: what it is called, what it accepts, what it means.

    Attributes:
        name: the keyword; the flag is --na-me, the variable FASTECHO_NAME, the TOML key the name.
        kind: how a value is checked and read.
        default: the library's default; `serve` replaces some (see cli/serve.py).
        low, high: limits, both allowed: of the number, or of the length of bytes.
        choices: the values of a "choice".
        unset: what None stands for; "" where None is no value.
        live: whether it may change while a server runs.
        needs: the setting without which this one has no effect; "" for none.
        metavar, help: for --help; help names the unit.
    """

    __slots__ = (
        "choices",
        "default",
        "help",
        "high",
        "kind",
        "live",
        "low",
        "metavar",
        "name",
        "needs",
        "unset",
    )

    def __init__(
        self,
        name: str,
        kind: Kind,
        default: object,
        help: str,
        *,
        low: float = 0,
        high: float = 0,
        choices: tuple[str, ...] = (),
        unset: str = "",
        metavar: str = "",
        live: bool = False,
        needs: str = "",
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.help = help
        self.low = low
        self.high = high
        self.choices = choices
        self.unset = unset
        self.metavar = metavar
        self.live = live
        self.needs = needs

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "FASTECHO_" + self.name.upper()

    def check(self, value: object, label: str) -> object:
        """Return `value` (from Python or TOML) in the setting's own type, or raise ConfigError."""
        if value is None and self.unset:
            return None
        return _CHECKS[self.kind](self, value, label)

    def read(self, text: str, label: str) -> object:
        """Return the value that `text` (a flag or a variable) stands for, or raise ConfigError."""
        if self.unset and text.lower() == "none":
            return None
        if self.kind == "bytes":
            return self.check(os.fsencode(text), label)
        if self.kind == "bind":
            return self.check(text.split(","), label)
        if self.kind == "fault":
            return self.check(text, label)  # an error names the part that is wrong
        if self.kind == "switch":
            if text.lower() not in _SWITCH:
                raise ConfigError(label, text, "must be yes or no")
            return _SWITCH[text.lower()]
        number: object = text
        if self.kind == "whole":
            digits = text.removeprefix("-")
            if digits.isascii() and digits.isdigit() and len(digits) <= 30:
                number = int(text)
        elif self.kind == "seconds":
            try:
                number = text if "_" in text else float(text)  # Python would read 1_0 as 10
            except ValueError:
                pass
        try:
            return self.check(number, label)
        except ConfigError as error:
            raise ConfigError(label, text, error.reason) from None

    def refuse(self, value: object, label: str, must: str) -> NoReturn:
        """Raise ConfigError with the limits of this setting."""
        raise ConfigError(label, value, f"must be {must}{', or none' if self.unset else ''}")


_SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _check_whole(setting: Setting, value: object, label: str) -> int:
    low, high = int(setting.low), int(setting.high)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        setting.refuse(value, label, f"a whole number from {low} to {high}")
    return int(value)


def _check_seconds(setting: Setting, value: object, label: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not setting.low <= value <= setting.high:  # type: ignore[operator]
        setting.refuse(value, label, f"seconds from {setting.low:g} to {setting.high:.0f}")
    return float(value)  # type: ignore[arg-type]


def _check_bytes(setting: Setting, value: object, label: str) -> bytes:
    must = "text or bytes"
    if isinstance(value, str):
        try:
            data = value.encode()
        except UnicodeEncodeError:
            setting.refuse(value, label, "text that UTF-8 can encode")
    elif isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
    elif isinstance(value, list):  # how TOML carries bytes that are not UTF-8
        try:
            data = bytes(value)
        except (TypeError, ValueError):
            setting.refuse(value, label, must + " (or a list of numbers from 0 to 255)")
    else:
        setting.refuse(value, label, must)
    if len(data) > setting.high:
        raise ConfigError(label, value, f"has {len(data)} bytes: at most {setting.high:.0f}")
    return data


def _check_switch(setting: Setting, value: object, label: str) -> bool:
    if not isinstance(value, bool):
        setting.refuse(value, label, "true or false")
    return value


def _check_choice(setting: Setting, value: object, label: str) -> str:
    if not isinstance(value, str) or value not in setting.choices:
        setting.refuse(value, label, f"one of {', '.join(setting.choices)}")
    return value


def _check_bind(setting: Setting, value: object, label: str) -> tuple[Address, ...]:
    """Check one address or several; a (host, port) pair is one, any other sequence several."""
    pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int)
    several = [value] if pair or isinstance(value, (str, Address)) else value
    if not isinstance(several, (list, tuple)):
        setting.refuse(value, label, "an address or a list of addresses")
    if not several:
        raise ConfigError(label, value, "names no address to listen on")
    addresses: list[Address] = []
    for one in several:
        address = parse_bind(one, label)
        if address in addresses and address.port != 0:
            raise ConfigError(label, str(address), "is given twice")
        addresses.append(address)
    return tuple(addresses)


def _check_address(setting: Setting, value: object, label: str) -> Address:
    if not isinstance(value, (str, tuple, Address)):
        setting.refuse(value, label, "an address")
    return parse_bind(value, label)


def _check_fault(setting: Setting, value: object, label: str) -> Fault:
    from .faults import Fault  # here: a server without a fault starts without it

    if isinstance(value, Fault):
        return value
    if not isinstance(value, str):
        setting.refuse(value, label, "a Fault, or text such as delay=50ms,slice=1")
    return Fault.parse(value, label)


def _check_name(setting: Setting, value: object, label: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= setting.high:
        setting.refuse(value, label, f"1 to {setting.high:.0f} printable characters")
    return value


def _check_networks(_: Setting, value: object, label: str) -> tuple[Network, ...]:
    return parse_networks(value, label)


_CHECKS: dict[Kind, Callable[[Setting, object, str], object]] = {
    "address": _check_address,
    "bind": _check_bind,
    "whole": _check_whole,
    "seconds": _check_seconds,
    "bytes": _check_bytes,
    "switch": _check_switch,
    "choice": _check_choice,
    "fault": _check_fault,
    "name": _check_name,
    "networks": _check_networks,
}

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "bind",
        "bind",
        "127.0.0.1:0",
        "where to listen: HOST:PORT (a name binds every address it resolves to, port 0 picks "
        "one), [::1]:7, [::]:7 (IPv6 only), :7 (every address, IPv4 and IPv6), unix:PATH, or "
        "fd://3 (inherited); repeatable",
        metavar="ADDRESS",
    ),
    Setting(
        "threads",
        "whole",
        1,
        "worker threads, each with its own loop",
        low=1,
        high=1024,
        metavar="N",
    ),
    Setting(
        "backlog",
        "whole",
        None,
        "length of the accept queue, in connections, as for listen(2)",
        low=0,
        high=LARGEST_INT,
        unset="somaxconn",
        metavar="N",
    ),
    Setting(
        "reuse_port",
        "switch",
        False,
        "one listener for each thread with SO_REUSEPORT, instead of one for all",
    ),
    Setting(
        "frame",
        "choice",
        "recv",
        "how the bytes are cut into messages for prefix and suffix: recv (whatever one recv "
        "gave), line (up to a newline) or length (4 bytes, big-endian, then the payload)",
        choices=("recv", "line", "length"),
        metavar="FORM",
    ),
    Setting(
        "prefix", "bytes", b"", "put before each message of the reply", high=4096, metavar="TEXT"
    ),
    Setting(
        "suffix",
        "bytes",
        b"",
        "put after each message of the reply, before a line's newline",
        high=4096,
        metavar="TEXT",
    ),
    Setting(
        "max_frame",
        "whole",
        None,
        "longest message, in bytes; a longer one ends the connection (frames line and length)",
        low=1,
        high=LARGEST_BUFFER,
        unset=f"{DEFAULT_MAX_FRAME}, or high_water if that is less",
        metavar="BYTES",
    ),
    Setting(
        "high_water",
        "whole",
        262144,
        "stop reading from a peer while so many bytes wait to be sent to it",
        low=1,
        high=LARGEST_BUFFER,
        metavar="BYTES",
    ),
    Setting(
        "low_water",
        "whole",
        None,
        "read again when no more than so many bytes wait",
        low=0,
        high=LARGEST_BUFFER,
        unset="a quarter of high_water",
        metavar="BYTES",
    ),
    Setting(
        "max_connections",
        "whole",
        None,
        "open connections at a time; at_limit says what becomes of a newcomer above it",
        low=1,
        high=LARGEST_INT,
        unset="no limit",
        metavar="N",
        live=True,
    ),
    Setting(
        "at_limit",
        "choice",
        "reset",
        "what becomes of a newcomer above max_connections: reset (at once, and counted) or queue "
        "(it waits in the kernel's accept queue until a connection ends)",
        choices=("reset", "queue"),
        metavar="WHAT",
        needs="max_connections",
    ),
    Setting(
        "max_per_ip",
        "whole",
        None,
        "open connections of one peer address; a newcomer above it is reset and counted",
        low=1,
        high=LARGEST_INT,
        unset="no limit",
        metavar="N",
        live=True,
    ),
    Setting(
        "ipv6_prefix",
        "whole",
        64,
        "bits of an IPv6 address that count as one address for max_per_ip",
        high=128,
        metavar="BITS",
        live=True,
        needs="max_per_ip",
    ),
    Setting(
        "accept_rate",
        "whole",
        None,
        "newcomers a second, with bursts of a tenth of that; one above it is reset and counted",
        low=1,
        high=1_000_000_000,
        unset="no limit",
        metavar="N",
        live=True,
    ),
    Setting(
        "first_byte_timeout",
        "seconds",
        None,
        "close a connection that has not sent its first byte within so many seconds",
        low=0.001,
        high=LONGEST_TIME,
        unset="no limit",
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "idle_timeout",
        "seconds",
        None,
        "close a connection when no byte went either way for so many seconds",
        low=0.001,
        high=LONGEST_TIME,
        unset="no limit",
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "proxy_protocol",
        "choice",
        "off",
        "a PROXY header (version 1 or 2) before the first byte tells who the peer is: off, "
        "optional (who sends none is echoed) or required (who sends none is reset)",
        choices=("off", "optional", "required"),
        metavar="WHAT",
    ),
    Setting(
        "proxy_trusted",
        "networks",
        "127.0.0.0/8,::1",
        "whose PROXY headers are believed: addresses or ranges, as in 10.0.0.0/8,fd00::/8; peers "
        "of a Unix socket always are",
        metavar="RANGES",
        needs="proxy_protocol",
    ),
    Setting(
        "proxy_timeout",
        "seconds",
        5.0,
        "seconds that a PROXY header may take to come",
        low=0.001,
        high=3600,
        metavar="SECONDS",
        needs="proxy_protocol",
    ),
    Setting(
        "identify",
        "switch",
        False,
        "say who answers: one line of JSON, before all else on each connection",
    ),
    Setting(
        "instance",
        "name",
        None,
        "the server's name in that line",
        high=255,
        unset="the host's name",
        metavar="NAME",
        needs="identify",
    ),
    Setting(
        "user_timeout",
        "seconds",
        None,
        "give a TCP peer up that has not acknowledged what was sent to it for so many seconds",
        low=0.001,
        high=LONGEST_TIME,
        unset="the system's",
        metavar="SECONDS",
    ),
    Setting(
        "keepalive",
        "seconds",
        None,
        "ask a silent TCP peer every so many seconds whether it is there; after the third "
        "question without an answer it is given up",
        low=1,
        high=32767,
        unset="never",
        metavar="SECONDS",
    ),
    Setting(
        "send_buffer",
        "whole",
        None,
        "kernel memory for what a TCP peer has not taken yet (SO_SNDBUF; Linux doubles it)",
        low=1,
        high=LARGEST_BUFFER,
        unset="the system's, growing",
        metavar="BYTES",
    ),
    Setting(
        "receive_buffer",
        "whole",
        None,
        "kernel memory for what a TCP peer has sent and the server has not read (SO_RCVBUF; Linux "
        "doubles it)",
        low=1,
        high=LARGEST_BUFFER,
        unset="the system's, growing",
        metavar="BYTES",
    ),
    Setting(
        "graceful_timeout",
        "seconds",
        30.0,
        "on SIGTERM, seconds that connections have to finish before the rest is reset",
        high=LONGEST_TIME,
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "drain_delay",
        "seconds",
        0.0,
        "on SIGTERM, seconds to go on accepting before the drain begins, while /readyz says 503: "
        "for load balancers that need some time to look elsewhere",
        high=LONGEST_TIME,
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "drain_idle",
        "seconds",
        1.0,
        "while draining, end a connection that was quiet for so many seconds",
        high=LONGEST_TIME,
        metavar="SECONDS",
        live=True,
    ),
    Setting(
        "spin_us",
        "whole",
        0,
        "microseconds to look for work before a thread sleeps: less latency for more CPU",
        high=100_000,
        metavar="MICROSECONDS",
    ),
    Setting(
        "access_log",
        "switch",
        False,
        "one line for each connection at its end: who, how long, bytes in and out, how it ended",
    ),
    Setting(
        "access_log_sample",
        "whole",
        1,
        "a line for one connection in so many: the first, and every N-th from there",
        low=1,
        high=LARGEST_INT,
        metavar="N",
        needs="access_log",
    ),
    Setting(
        "access_log_rate",
        "whole",
        None,
        "lines of the access log a second, with bursts of a tenth of that; those above are counted",
        low=1,
        high=1_000_000_000,
        unset="no limit",
        metavar="N",
        needs="access_log",
    ),
    Setting(
        "log_format",
        "choice",
        "text",
        "lines of the log for people (text) or for machines (json)",
        choices=("text", "json"),
        metavar="FORM",
    ),
    Setting(
        "fault",
        "fault",
        None,
        "what goes wrong on purpose, for those who test a client: delay=50ms,jitter=10ms; "
        "bandwidth=100k (bytes a second); slice=1,gap=1ms; stall_after=10 (bytes), close_after, "
        "reset_after; corrupt=0.01, duplicate=0.1; silent, no_read, deny, half_close; "
        "accept_delay=1s; with fail_first=3 (connections) or probability=0.1, and seed=1",
        unset="none",
        metavar="FAULT",
        live=True,
    ),
)
