"""Setting: what one setting is called and accepts, and how its value is read.

A wrong value raises ConfigError with the name that the user wrote. Does not live here: which
settings there are (settings.py), where values come from and whether they fit together (config.py).
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

__all__ = ["UDP_BIND", "Setting"]

UDP_BIND = "a udp:// address"
"""In Setting.needs: what the settings for datagrams need."""


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
        needs: without what this one has no effect: a setting, UDP_BIND, or one " or " the other;
            "" for nothing.
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
    address = parse_bind(value, label)
    if address.name == "":
        raise ConfigError(label, str(address), "names no socket: write systemd:NAME")
    if address.kind == "udp":
        raise ConfigError(label, value, "is UDP, which cannot be used here")
    return address


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
