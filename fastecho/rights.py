"""Rights: giving up those of root for good, and those that a program could gain by starting others.

Lives here: whom a name means, the drop, and reading back what came of it. Does not live here: when
a server does it (cli/_rights.py).

What the kernel does that is easy to get wrong:

* Capabilities, no_new_privs and securebits are a thread's, not a process's: the drop comes before
  the first thread is started, which inherits it, and all threads are looked at afterwards.
* setresuid(2) from 0 to another user empties the permitted, effective and ambient sets, but neither
  the inheritable nor the bounding one; and it does not touch groups, so these come first.
* The bounding set needs CAP_SETPCAP to shrink: before everything else.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from .errors import ConfigError, StartError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Identity", "drop", "forbid_gains", "look_up"]

PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
MOST_CAPABILITIES = 64


class Identity:
    """Who a process is to be.

    Attributes:
        name: of the user, as it was written.
        user, group: numbers.
        groups: all of its groups.
    """

    def __init__(self, name: str, user: int, group: int, groups: list[int]) -> None:
        self.name = name
        self.user = user
        self.group = group
        self.groups = groups

    @property
    def is_mine(self) -> bool:
        """Whether the process is that already, and in no other group."""
        return (
            os.getresuid() == (self.user,) * 3
            and os.getresgid() == (self.group,) * 3
            and not {*os.getgroups()} - {*self.groups}
        )


def look_up(text: str, group: str | None, label: str, group_label: str) -> Identity:
    """Return who NAME or NAME:GROUP is; each may be a number.

    Args:
        group: a group that is named apart from it.
        label, group_label: the options, for errors.
    Raises:
        ConfigError: there is no such user or group, or it is root.
    """
    import grp
    import pwd

    name, colon, named = text.partition(":")
    if colon and group is not None:
        raise ConfigError(label, text, f"names a group, and so does {group_label}")
    user: int | None = None
    primary: int | None = None
    try:
        entry = pwd.getpwuid(int(name)) if _is_number(name) else pwd.getpwnam(name)
        name, user, primary = entry.pw_name, entry.pw_uid, entry.pw_gid
    except (KeyError, ValueError, OverflowError):
        if not _is_number(name):
            raise ConfigError(label, text, "is no user of this machine") from None
        user = int(name)
    wanted = named if colon else group
    if wanted is not None:
        where, given = (label, text) if colon else (group_label, wanted)
        try:
            numeric = _is_number(wanted)
            primary = int(wanted) if numeric else grp.getgrnam(wanted).gr_gid
        except (KeyError, ValueError):
            raise ConfigError(where, given, "is no group of this machine") from None
    if primary is None:
        raise ConfigError(label, text, "is a number without an entry: write USER:GROUP")
    if user == 0:
        raise ConfigError(label, text, "is root: name a user without its rights")
    if not (0 < user < 2**32 - 1 and 0 <= primary < 2**32 - 1):
        raise ConfigError(label, text, "is out of range")
    groups = [primary] if _is_number(name) else os.getgrouplist(name, primary)
    return Identity(text, user, primary, groups)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def forbid_gains() -> None:
    """Set no_new_privs: no program that this thread, or one that it starts, executes gains rights.

    Raises:
        OSError: the kernel has no such thing.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def drop(identity: Identity, label: str, files: Sequence[tuple[str, int, int]]) -> list[str]:
    """Become that user, without capabilities; from the only thread of the process.

    Args:
        files: of Unix sockets: path, device, inode; they become that user's.
    Returns:
        list[str]: files that cannot be removed any more: their directory is not the user's.
    Raises:
        StartError: the kernel refused, or something is left.
    """
    try:
        for path, *inode in files:
            with suppress(OSError):  # then it stays whose it was
                found = os.lstat(path)
                if [found.st_dev, found.st_ino] == inode:
                    os.chown(path, identity.user, identity.group, follow_symlinks=False)
        for number in range(MOST_CAPABILITIES):
            with suppress(OSError):  # without CAP_SETPCAP, or there is no such capability
                _prctl(PR_CAPBSET_DROP, number)
        if not identity.is_mine:
            os.setgroups(identity.groups)
            os.setresgid(identity.group, identity.group, identity.group)
            os.setresuid(identity.user, identity.user, identity.user)
        with suppress(OSError):  # kernels before 4.3 have none
            _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        _clear_capabilities()
        forbid_gains()
    except OSError as error:
        if error.errno == errno.EPERM and os.geteuid() != 0:
            why = "only root may become another user, or leave a group"
        else:
            why = (error.strerror or str(error)).lower()
        raise StartError(error.errno or 0, f"{label} {identity.name}: {why}") from None
    left = what_is_left(identity)
    if left:
        raise StartError(0, f"{label} {identity.name}: the rights are not gone: {', '.join(left)}")
    return [path for path, *_ in files if not os.access(os.path.dirname(path), os.W_OK | os.X_OK)]


def what_is_left(identity: Identity) -> list[str]:
    """Return in words what any thread still has that it should not; read back from the kernel."""
    left = []
    if os.getresuid() != (identity.user,) * 3 or os.getresgid() != (identity.group,) * 3:
        left.append("user or group")
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:
        return left  # without /proc; this is the only thread, and the calls have succeeded
    for thread in threads:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            path = f"/proc/self/task/{thread}/status"
            with open(path, encoding="ascii", errors="replace") as file:
                text = file.read()
            left += [one for one in _left_of(text, identity) if one not in left]
    return left


def _left_of(text: str, identity: Identity) -> list[str]:
    """Return what a thread has too much, by its /proc/self/task/N/status."""
    lines = dict(line.partition(":")[::2] for line in text.splitlines())
    wanted = {"Uid": [identity.user] * 4, "Gid": [identity.group] * 4}
    left = [name for name, numbers in wanted.items() if lines[name].split() != [*map(str, numbers)]]
    if not {*lines.get("Groups", "").split()} <= {*map(str, identity.groups)}:
        left.append("Groups")
    sets = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    left += [name for name in sets if int(lines.get(name, "0"), 16)]
    if lines.get("NoNewPrivs", "1").strip() != "1":
        left.append("NoNewPrivs")
    return left


def _clear_capabilities() -> None:
    """Empty the permitted, effective and inheritable set of this thread."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, nothing) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, value: int) -> int:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    result = prctl(option, value, 0, 0, 0)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
