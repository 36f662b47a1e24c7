"""Runs in one direction, `--upload` and `--download`: what fits them, and what is said of them.

Lives here: options that make no sense beside them, their sentences, the error of one that found no
such server. Does not live here: how bytes are sent, verified and counted (src_c/load_oneway.h).
"""

from __future__ import annotations

import errno

from fastecho.errors import StartError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn, Protocol

    class Refuse(Protocol):
        """Raises ConfigError for an option."""

        label: Callable[[str], str]

        def __call__(self, name: str, reason: str) -> NoReturn:
            """Raise it."""


__all__ = ["SEND_SIZE", "SERVICES", "load_text", "no_service", "rate_text", "refuse_misfits", "way"]

SEND_SIZE = "262144"
"""Bytes of one send of an upload where the command is told nothing: as many as one read of the
server takes in."""
SERVICES = {"upload": "discard", "download": "chargen"}
"""The service that each way needs."""

_NO_MESSAGES = "there are no messages"
_MISFITS: dict[str, tuple[object, str]] = {
    "messages": (None, _NO_MESSAGES),
    "rate": (None, _NO_MESSAGES),
    "schedule": ("fixed", _NO_MESSAGES),
    "depth": (1, _NO_MESSAGES),
    "frame": ("recv", _NO_MESSAGES),
    "prefix": (b"", _NO_MESSAGES),
    "suffix": (b"", _NO_MESSAGES),
    "reconnect": (False, "its connections stay"),
    "close": ("fin", "it ends connections in its own way"),
    "idle_connections": (0, "all its connections carry bytes"),
    "identify": (False, "such a server says nothing of itself"),
}
"""Options that mean nothing in one direction: their usual values, and why."""


def way(found: Mapping[str, Any]) -> str:
    """Return which of the two the values of a plan ask for, or ""."""
    return next((name for name in SERVICES if found[name]), "")


def refuse_misfits(found: Mapping[str, Any], refuse: Refuse) -> None:
    """Raise ConfigError for what cannot be used beside --upload or --download."""
    if not (name := way(found)):
        return
    flag = refuse.label(name)
    if found["upload"] and found["download"]:
        refuse("upload", f"does not go together with {refuse.label('download')}: one at a time")
    for other, (usual, why) in _MISFITS.items():
        if found[other] != usual:
            refuse(other, f"does not go together with {flag}: {why}")
    if name == "download" and found["size"] != "64":
        refuse("size", f"has no effect with {flag}: the server decides what it sends")
    if name == "upload" and not found["size"].isdigit():
        refuse("size", f"must be one number with {flag}: the bytes of each send")
    if any(target.kind != "tcp" for target in found["targets"]):
        refuse(name, "goes over TCP: it takes no udp:// and no unix: target")


def load_text(plan: Any) -> str:
    """Say in a sentence what each connection does."""
    if plan.upload:
        sent = "1 byte" if plan.size == "1" else f"{int(plan.size):,} bytes"
        return f"Upload: each connection sends {sent} at a time, as fast as they are taken."
    return "Download: each connection reads the pattern of RFC 864, and every byte is verified."


def rate_text(loop: str, bytes_: int, elapsed: float, bytes_text: Callable[[float], str]) -> str:
    """Say how many bytes moved in the window, and what is known of them."""
    known = "acknowledged" if loop == "upload" else "every byte right"
    return f"{bytes_text(bytes_)} in {elapsed:.4g} s, {known}"


def no_service(
    names: str, plan: Any, counts: Mapping[str, int], described: list[str]
) -> StartError | None:
    """Return the error of a run in which nothing moved; None: it is that of any other run."""
    service = SERVICES[plan.loop]
    first = f" ({described[0]})" if described else ""
    if counts["corrupt"] or counts["extra_bytes"]:
        return StartError(errno.EPROTO, f"{names} answered, but is no {service} server{first}")
    if counts["timed_out"]:
        what = "took" if plan.upload else "sent"
        text = f"{names} took the connection, but {what} nothing: no {service} server{first}"
        return StartError(errno.ETIMEDOUT, text)
    return None
