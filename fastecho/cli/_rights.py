"""`fastecho serve --user NAME`: what is done as root, and from when on nothing is.

Lives here: the settings, and what is said. Does not live here:
the drop itself (fastecho/rights.py).
"""

from __future__ import annotations

from contextlib import suppress

from fastecho.errors import ConfigError
from fastecho.setting import Setting

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastecho.cli._log import Log
    from fastecho.config import Merged
    from fastecho.rights import Identity

__all__ = ["GROUP", "USER", "Rights"]

USER = Setting(
    "user",
    "name",
    None,
    "after listening, become this user, with its groups and without any capability: NAME or "
    "NAME:GROUP, or numbers; takes root",
    high=255,
    unset="who starts it",
    metavar="NAME",
)
GROUP = Setting(
    "group",
    "name",
    None,
    "the group to become a member of instead of the user's own",
    high=255,
    unset="the user's",
    metavar="NAME",
    needs="user",
)

LATE = ("difflib", "encodings.ascii", "encodings.idna", "fastecho.faults", "tomllib")
"""Modules that a reload or a complaint needs: the user may not be able to read them later."""


class Rights:
    """What --user and --group ask for.

    Raises:
        ConfigError: there is no such user or group.
    """

    def __init__(self, merged: Merged, log: Log) -> None:
        self._log = log
        self._label = merged.labels["user"]
        self.identity: Identity | None = None
        user, group = merged.values["user"], merged.values["group"]
        if user is None:
            if group is not None:
                reason = f"has no effect without {USER.flag}"
                raise ConfigError(merged.labels["group"], str(group), reason)
            return
        from fastecho.rights import look_up

        self.identity = look_up(
            str(user), None if group is None else str(group), self._label, merged.labels["group"]
        )

    @property
    def users(self) -> tuple[int, ...]:
        """Whom the process becomes, if anybody."""
        return () if self.identity is None else (self.identity.user,)

    def forbid_gains(self) -> None:
        """Nothing that `serve` does executes a program: none could ever gain rights for it."""
        from fastecho.rights import forbid_gains

        with suppress(OSError):  # before Linux 3.5
            forbid_gains()

    def drop(self, files: Sequence[tuple[str, int, int]]) -> None:
        """Become the user, if there is one; these files of Unix sockets become that user's.

        Raises:
            StartError: it is not allowed, or something is left.
        """
        if self.identity is None:
            return
        from importlib import import_module

        from fastecho.rights import drop

        for name in LATE:
            import_module(name)
        stay = drop(self.identity, self._label, files)
        self._log.say(
            "info", f"user {self.identity.user}, group {self.identity.group}, no capabilities"
        )
        for path in stay:  # said before the end comes
            self._log.say(
                "warning", f"unix:{path} will stay at the end: its directory is not the user's"
            )
