"""The configuration of a server: checked values, and where each of them came from.

Lives here: Config, merging flags, variables and a TOML file, printing the result. Does not live
here: the settings themselves, with their types and limits (settings.py). The only file that this
module reads is the TOML file; it resolves no name and opens no socket.
"""

from __future__ import annotations

from .errors import NO_VALUE, ConfigError, shown
from .settings import DEFAULT_MAX_FRAME, SETTINGS

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Literal, NoReturn

    from .address import Address
    from .faults import Fault
    from .networks import Network
    from .setting import Setting

    AtLimit = Literal["reset", "queue"]
    Frame = Literal["recv", "line", "length"]
    LogFormat = Literal["text", "json"]
    Service = Literal["echo", "discard", "chargen"]
    ProxyProtocol = Literal["off", "optional", "required"]
    Networks = str | Sequence[str | Network]
    Bind = str | tuple[str, int] | Address
    Bytes = bytes | bytearray | memoryview | str

__all__ = ["Config", "Merged", "format_toml", "merge"]

LARGEST_TOML_FILE = 2**20


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
    service: Service
    frame: Frame
    prefix: bytes
    suffix: bytes
    max_frame: int
    high_water: int
    low_water: int
    max_connections: int | None
    at_limit: AtLimit
    max_per_ip: int | None
    ipv6_prefix: int
    accept_rate: int | None
    udp_rate: int | None
    udp_guards: bool
    first_byte_timeout: float | None
    idle_timeout: float | None
    proxy_protocol: ProxyProtocol
    proxy_trusted: tuple[Network, ...]
    proxy_timeout: float
    identify: bool
    instance: str | None
    user_timeout: float | None
    keepalive: float | None
    send_buffer: int | None
    receive_buffer: int | None
    graceful_timeout: float
    drain_delay: float
    drain_idle: float
    spin_us: int
    access_log: bool
    access_log_sample: int
    access_log_rate: int | None
    log_format: LogFormat
    fault: Fault | None

    def __init__(
        self,
        bind: Bind | Sequence[Bind] = "127.0.0.1:0",
        *,
        threads: int = 1,
        backlog: int | None = None,
        reuse_port: bool = False,
        service: Service = "echo",
        frame: Frame = "recv",
        prefix: Bytes = b"",
        suffix: Bytes = b"",
        max_frame: int | None = None,
        high_water: int = 262144,
        low_water: int | None = None,
        max_connections: int | None = None,
        at_limit: AtLimit = "reset",
        max_per_ip: int | None = None,
        ipv6_prefix: int = 64,
        accept_rate: int | None = None,
        udp_rate: int | None = 1000,
        udp_guards: bool = True,
        first_byte_timeout: float | None = None,
        idle_timeout: float | None = None,
        proxy_protocol: ProxyProtocol = "off",
        proxy_trusted: Networks = "127.0.0.0/8,::1",
        proxy_timeout: float = 5.0,
        identify: bool = False,
        instance: str | None = None,
        user_timeout: float | None = None,
        keepalive: float | None = None,
        send_buffer: int | None = None,
        receive_buffer: int | None = None,
        graceful_timeout: float = 30.0,
        drain_delay: float = 0.0,
        drain_idle: float = 1.0,
        spin_us: int = 0,
        access_log: bool = False,
        access_log_sample: int = 1,
        access_log_rate: int | None = None,
        log_format: LogFormat = "text",
        fault: Fault | str | None = None,
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
    fault: Any = values["fault"]
    if fault is not None and fault.duplicate and values["frame"] == "recv":
        reason = f"duplicates frames, which {label('frame')} recv does not have"
        raise ConfigError(label("fault"), str(fault), reason)
    if values["service"] != "echo":
        from .service import check_service

        check_service(values, label)


class Merged:
    """What merge() found, each by setting name.

    Attributes:
        config: the checked configuration.
        values: checked, those of `extra` too.
        given: as they were written, in an error about a value that is right in itself.
        sources: where each came from: a flag, a variable, a file or "default".
        labels: what an error about it is to name.
    """

    __slots__ = ("config", "given", "labels", "sources", "values")

    def __init__(
        self,
        config: Config,
        values: dict[str, object],
        given: dict[str, object],
        sources: dict[str, str],
        labels: dict[str, str],
    ) -> None:
        self.config = config
        self.values = values
        self.given = given
        self.sources = sources
        self.labels = labels


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
    given: dict[str, object] = {}
    sources: dict[str, str] = {}
    labels: dict[str, str] = {}
    for setting in settings:
        name = setting.name
        flag, text = flags.get(name), environ.get(setting.variable)
        if flag is not None:
            sources[name] = labels[name] = setting.flag
            given[name] = NO_VALUE if flag is True else flag
            value = (
                setting.read(flag, labels[name])
                if isinstance(flag, str)
                else (setting.check(flag, labels[name]))
            )
        elif text:
            sources[name] = labels[name] = setting.variable
            given[name] = text
            value = setting.read(text, labels[name])
        elif name in table:
            assert toml_path is not None
            sources[name], labels[name] = toml_path, f"{toml_path}: {name}"
            given[name] = table[name]
            # TOML has no word for it; so it is that of flags and variables.
            is_none = setting.unset != "" and table[name] == "none"
            value = None if is_none else setting.check(table[name], labels[name])
        else:
            sources[name], labels[name] = "default", f"the default {name}"
            given[name] = (defaults or {}).get(name, setting.default)
            value = setting.check(given[name], labels[name])
        values[name] = value
    _settle(values, labels.__getitem__)
    # Checked again by Config, so that no way leads round its rules.
    config = Config(**{s.name: values[s.name] for s in SETTINGS})  # type: ignore[arg-type]
    return Merged(config, values, given, sources, labels)


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
        if value is None and setting.default is None:
            text = f"# {setting.name} is not set: {setting.unset}"
        else:
            text = f"{setting.name} = {_toml_value('none' if value is None else value)}"
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
