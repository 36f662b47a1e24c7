"""Passed sockets: what a service manager has opened for this process before it started it.

Lives here: the protocol of sd_listen_fds(3), which is three variables: LISTEN_PID says for whom the
descriptors are, LISTEN_FDS how many there are, from 3 on, LISTEN_FDNAMES what each is called. Does
not live here: what becomes of a descriptor (inherited.py).

The variables are read once, and removed: no process that is started from here may take them for its
own. The descriptors stay open to the end: a server that ends leaves them to the next one.
"""

from __future__ import annotations

import os
import threading

from .errors import NO_VALUE, ConfigError, StartError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PassedSocket", "choose", "name_some", "passed_sockets"]

FIRST = 3
"""The first descriptor that is passed."""
MOST = 65536
VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")
UNNAMED = "unknown"
"""What sd_listen_fds_with_names(3) calls a socket that nobody has named."""


class PassedSocket:
    """A descriptor and its name (FileDescriptorName=); several may share one."""

    __slots__ = ("fd", "name")

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name


_lock = threading.Lock()
_known: list[tuple[PassedSocket, ...]] = []
"""What was passed, once that is known."""
_names: set[str] = set()
"""Asked for by name so far."""


def passed_sockets() -> tuple[PassedSocket, ...]:
    """Return the sockets that were passed to this process, none if it was not activated.

    Raises:
        ConfigError: a variable has no valid form.
        StartError: a descriptor is not open.
    Thread: any.
    Source: sd_listen_fds(3).
    """
    with _lock:
        if not _known:
            if os.environ.get("LISTEN_PID") != str(os.getpid()):
                return ()
            found = _read()
            for one in found:
                try:
                    os.set_inheritable(one.fd, False)
                except OSError as error:  # later the number could be a descriptor of ours
                    sentence = f"LISTEN_FDS is {len(found)}, but descriptor {one.fd} is not open"
                    raise StartError(error.errno or 0, sentence) from None
            _known.append(found)
            for variable in VARIABLES:
                os.environ.pop(variable, None)
        return _known[0]


def name_some(names: Iterable[str]) -> None:
    """Note names that are asked for: systemd: without a name does not take these."""
    _names.update(name for name in names if name)


def choose(name: str, option: str) -> list[PassedSocket]:
    """Return the passed sockets of a name; with "", all that nobody asks for by name.

    Args:
        option: the name that an error shall show.
    Raises:
        ConfigError: there is none.
    """
    passed = passed_sockets()
    asked = f"systemd:{name}"
    if not passed:
        raise ConfigError(option, asked, f"finds no passed sockets: {_why_none()}")
    if name:
        name_some([name])
        found = [one for one in passed if one.name == name]
    else:
        found = [one for one in passed if one.name not in _names]
    if not found:
        there = ", ".join(dict.fromkeys(one.name for one in passed))
        lacks = "names no passed socket" if name else "leaves no passed socket without a name"
        raise ConfigError(option, asked, f"{lacks}: there are {there}")
    return found


def _why_none() -> str:
    """Return what may be the reason that there is nothing for this process."""
    pid = os.environ.get("LISTEN_PID")
    if _known:
        return "LISTEN_FDS was 0"
    if pid is None:
        return "this process was not started by socket activation (LISTEN_PID is not set)"
    return f"they are for process {pid[:20]} (LISTEN_PID), and this one is {os.getpid()}"


def _read() -> tuple[PassedSocket, ...]:
    text = os.environ.get("LISTEN_FDS", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= MOST):
        raise ConfigError("LISTEN_FDS", text, f"must be a whole number from 0 to {MOST}")
    count = int(text)
    names = os.environ.get("LISTEN_FDNAMES")
    called = [UNNAMED] * count if names is None else names.split(":") if count else []
    if len(called) != count:
        reason = f"has {len(called)} names for {count} sockets"
        raise ConfigError("LISTEN_FDNAMES", NO_VALUE, reason)
    return tuple(PassedSocket(FIRST + i, name) for i, name in enumerate(called))
