"""Services beside the echo: discard (RFC 863) and chargen (RFC 864), and what cannot go with them.

Lives here: refusing what makes no sense beside a service. Does not live here: what a service does
(_service.pxd, src_c/chargen.h), settings that merely have no effect on it (high_water, max_frame).
"""

from __future__ import annotations

from .errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["check_service"]

NEEDS_ECHO = (
    ("frame", "recv", "cuts what is echoed into messages"),
    ("prefix", b"", "is put before what is echoed"),
    ("suffix", b"", "is put after what is echoed"),
    ("fault", None, "spoils an echo"),
    ("identify", False, "puts a line before the echo"),
)
"""Settings with their plain values, and why another value needs an echo."""


def check_service(values: Mapping[str, object], label: Callable[[str], str]) -> None:
    """Raise ConfigError for what cannot be used with a service other than echo.

    Args:
        values: of a Config, by name, each checked.
        label: what an error calls a setting.
    """
    service = values["service"]
    name = f"{label('service')} {service}"
    for other, plain, why in NEEDS_ECHO:
        if (value := values[other]) != plain:
            shown = str(value) if other == "fault" else value
            raise ConfigError(label(other), shown, f"{why}, and {name} echoes nothing")
    late = values["first_byte_timeout"]
    if service == "chargen" and late is not None:
        reason = f"would end those that only read, which {name} is for"
        raise ConfigError(label("first_byte_timeout"), late, reason)
    binds = values["bind"]
    assert isinstance(binds, tuple)
    for one in binds:
        if one.kind == "udp":
            raise ConfigError(
                label("bind"), str(one), f"cannot be used with {name}: {_WHY_NOT_UDP}"
            )


_WHY_NOT_UDP = (
    "it is for streams, and over UDP one datagram with a forged sender would set it on somebody "
    "else (CERT CA-1996-01)"
)
