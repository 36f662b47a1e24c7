"""The settings of a server: one table with every default, type, unit and limit.

The table is the only place that knows them: the keywords of Config, the flags of `fastecho serve`,
the FASTECHO_ variables, the keys of a TOML file and --print-config are all read from it. A wrong
value raises ConfigError with the name that the user wrote. The only file that this module reads is
the TOML file; it resolves no name and opens no socket.
"""

from __future__ import annotations

import os

from .address import Address, parse_bind
from .errors import ConfigError, shown

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Literal, NoReturn

    Frame = Literal["recv", "line", "length"]
    Kind = Literal["bind", "whole", "seconds", "bytes", "switch", "choice"]
    Bind = str | tuple[str, int] | Address
    Bytes = bytes | bytearray | memoryview | str

__all__ = ["SETTINGS", "Config", "Merged", "Setting", "format_toml", "merge"]

LARGEST_INT = 2**31 - 1
LARGEST_BUFFER = 2**30
LONGEST_TIME = 1_000_000.0
"""Seconds, 11 days: every smaller time fits in 31 bits of milliseconds."""
LARGEST_TOML_FILE = 2**20
DEFAULT_MAX_FRAME = 65536


class Setting:
    """One setting: what it is called, what it accepts, what it means.

    Attributes:
        name: the keyword; the flag is --na-me, the variable FASTECHO_NAME, the TOML key the name.
        kind: how a value is checked and read.
        default: the library's default; `serve` replaces some (see cli/serve.py).
        low, high: limits, both allowed: of the number, or of the length of bytes.
        choices: the values of a "choice".
        unset: what None stands for; "" where None is no value.
        metavar, help: for --help; help names the unit.
    """

    __slots__ = ("choices", "default", "help", "high", "kind", "low", "metavar", "name", "unset")

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
                number = float(text)
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


_CHECKS: dict[Kind, Callable[[Setting, object, str], object]] = {
    "bind": _check_bind,
    "whole": _check_whole,
    "seconds": _check_seconds,
    "bytes": _check_bytes,
    "switch": _check_switch,
    "choice": _check_choice,
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
        "open connections at a time; a newcomer above it is reset and counted",
        low=1,
        high=LARGEST_INT,
        unset="no limit",
        metavar="N",
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
    ),
    Setting(
        "graceful_timeout",
        "seconds",
        30.0,
        "on SIGTERM, seconds that connections have to finish before the rest is reset",
        high=LONGEST_TIME,
        metavar="SECONDS",
    ),
    Setting(
        "drain_idle",
        "seconds",
        1.0,
        "while draining, end a connection that was quiet for so many seconds",
        high=LONGEST_TIME,
        metavar="SECONDS",
    ),
    Setting(
        "spin_us",
        "whole",
        0,
        "microseconds to look for work before a thread sleeps: less latency for more CPU",
        high=100_000,
        metavar="MICROSECONDS",
    ),
)


class Config:
    """The settings of one server, checked and immutable.

    Every attribute has the name, type and limits of its row in SETTINGS. `max_frame` and
    `low_water` are never None: what was left out is worked out from `high_water`.

    Raises:
        ConfigError: a value has a wrong type, breaks a limit, or does not fit another value.
    Thread: any; immutable.   Cost: tens of microseconds.
    """

    # Not a dataclass: that costs 8 ms of every start (it imports inspect).
    __slots__ = tuple(setting.name for setting in SETTINGS)

    bind: tuple[Address, ...]
    threads: int
    backlog: int | None
    reuse_port: bool
    frame: Frame
    prefix: bytes
    suffix: bytes
    max_frame: int
    high_water: int
    low_water: int
    max_connections: int | None
    idle_timeout: float | None
    graceful_timeout: float
    drain_idle: float
    spin_us: int

    def __init__(
        self,
        bind: Bind | Sequence[Bind] = "127.0.0.1:0",
        *,
        threads: int = 1,
        backlog: int | None = None,
        reuse_port: bool = False,
        frame: Frame = "recv",
        prefix: Bytes = b"",
        suffix: Bytes = b"",
        max_frame: int | None = None,
        high_water: int = 262144,
        low_water: int | None = None,
        max_connections: int | None = None,
        idle_timeout: float | None = None,
        graceful_timeout: float = 30.0,
        drain_idle: float = 1.0,
        spin_us: int = 0,
    ) -> None:
        given = locals()
        values = {s.name: s.check(given[s.name], s.name) for s in SETTINGS}
        _settle(values, lambda name: name)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Config is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Config is immutable: {name} cannot be deleted")

    def keywords(self) -> dict[str, Any]:
        """Return every setting by name, as keywords for Config or Server."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return self.keywords() == other.keywords()

    def __hash__(self) -> int:
        return hash(tuple(self.keywords().values()))

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{n}={shown(v)}' for n, v in self.keywords().items())})"


def _settle(values: dict[str, object], label: Callable[[str], str]) -> None:
    """Fill in what depends on other settings, and refuse what does not fit together."""
    high, low, longest = values["high_water"], values["low_water"], values["max_frame"]
    assert isinstance(high, int)
    if low is None:
        low = values["low_water"] = high // 4
    if longest is None:
        longest = values["max_frame"] = min(DEFAULT_MAX_FRAME, high)
    assert isinstance(low, int) and isinstance(longest, int)
    if longest > high:
        raise ConfigError(label("max_frame"), longest, f"is above {label('high_water')} {high}")
    if low >= high:
        raise ConfigError(label("low_water"), low, f"is not below {label('high_water')} {high}")


class Merged:
    """What merge() found: `config`, the checked `values`, and where each came from (`sources`)."""

    __slots__ = ("config", "sources", "values")

    def __init__(self, config: Config, values: dict[str, object], sources: dict[str, str]) -> None:
        self.config = config
        self.values = values
        self.sources = sources


def merge(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    toml_path: str | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
    extra: Iterable[Setting] = (),
) -> Merged:
    """Merge flags over FASTECHO_ variables over a TOML file over defaults.

    Args:
        flags: setting name to text, a list of texts (bind), a bool (switches), or None where the
            flag was not given.
        environ: usually os.environ. A variable that is empty counts as not set; one of no setting
            is ignored, because cluster managers invent FASTECHO_PORT and its like.
        toml_path: a file with one key for each setting, or None.
        defaults: values that replace the library's defaults.
        extra: settings of the command that are no part of a Config (its log level).
    Returns:
        Merged: with the values of `extra` too.
    Raises:
        ConfigError: a value, a key or the file is wrong; it names the flag, variable or key.
    Thread: any.   Cost: under a millisecond; with a file, the import of tomllib (5 ms).
    """
    settings = (*SETTINGS, *extra)
    table = {} if toml_path is None else _read_toml(toml_path, settings)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    labels: dict[str, str] = {}
    for setting in settings:
        name = setting.name
        flag, text = flags.get(name), environ.get(setting.variable)
        if flag is not None:
            sources[name] = labels[name] = setting.flag
            value = (
                setting.read(flag, labels[name])
                if isinstance(flag, str)
                else (setting.check(flag, labels[name]))
            )
        elif text:
            sources[name] = labels[name] = setting.variable
            value = setting.read(text, labels[name])
        elif name in table:
            assert toml_path is not None
            sources[name], labels[name] = toml_path, f"{toml_path}: {name}"
            value = setting.check(table[name], labels[name])
        else:
            sources[name], labels[name] = "default", f"the default {name}"
            value = setting.check((defaults or {}).get(name, setting.default), labels[name])
        values[name] = value
    _settle(values, labels.__getitem__)
    # Checked again by Config, so that no way leads round its rules.
    config = Config(**{s.name: values[s.name] for s in SETTINGS})  # type: ignore[arg-type]
    return Merged(config, values, sources)


def _read_toml(path: str, settings: Iterable[Setting]) -> dict[str, object]:
    """Return the keys of a TOML file, or raise ConfigError that names --config or the key."""
    import tomllib

    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_TOML_FILE + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError("--config", path, f"cannot be read: {why}") from None
    if len(data) > LARGEST_TOML_FILE:
        raise ConfigError("--config", path, f"has more than {LARGEST_TOML_FILE} bytes")
    try:
        table: dict[str, object] = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ConfigError("--config", path, f"is not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError("--config", path, f"is not valid TOML: {error}") from None
    names = [setting.name for setting in settings]
    for key in table:
        if key not in names:
            from difflib import get_close_matches

            near = get_close_matches(key.lower().replace("-", "_"), names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise ConfigError(f"{path}: key", key, f"is not a setting: {hint}")
    return table


def format_toml(merged: Merged, settings: Iterable[Setting]) -> str:
    """Return the merged configuration as TOML that --config accepts, each line with its source."""
    lines = []
    for setting in settings:
        value, source = merged.values[setting.name], merged.sources[setting.name]
        text = (
            f"# {setting.name} is not set: {setting.unset}"
            if value is None
            else (f"{setting.name} = {_toml_value(value)}")
        )
        lines.append(f"{text}  # {_toml_value(source)[1:-1]}\n")
    return "".join(lines)


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, bytes):
        try:
            return _toml_value(value.decode())
        except UnicodeDecodeError:
            return str(list(value))
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(str(one)) for one in value)}]"
    return '"' + "".join(_toml_character(character) for character in str(value)) + '"'


def _toml_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
