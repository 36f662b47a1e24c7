"""`fastecho serve --handover unix:PATH`: the setting, and what it goes together with.

Does not live here: what is done (fastecho/handover).
"""

from __future__ import annotations

from fastecho.address import Address
from fastecho.errors import ConfigError
from fastecho.setting import Setting

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.config import Merged

__all__ = ["HANDOVER", "check"]

HANDOVER = Setting(
    "handover",
    "address",
    None,
    "replace a running server, and be replaced: take the listeners of the one that serves at this "
    "path, which drains then, and wait there for the next one; unix:PATH",
    unset="none",
    metavar="unix:PATH",
)


def check(merged: Merged) -> None:
    """Refuse what is no path, and servers that cannot hand over."""
    address, label = merged.values["handover"], merged.labels["handover"]
    if not isinstance(address, Address):
        return
    if address.kind != "unix":
        raise ConfigError(label, str(address), "must be unix:PATH")
    if merged.values["black_hole"] or merged.values["model"] != "native":
        other = merged.labels["black_hole" if merged.values["black_hole"] else "model"]
        reason = f"cannot be used with {other}: only the compiled core hands over"
        raise ConfigError(label, str(address), reason)
    if address in merged.config.bind or address == merged.values["metrics"]:
        raise ConfigError(label, str(address), "is listened on for something else")
