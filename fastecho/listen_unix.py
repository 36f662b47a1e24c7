"""Unix listeners: bind, listen, and the file of the name.

The file of a Unix socket outlives its process. It is stale when connect(2) gives ECONNREFUSED; a
socket that is bound and does not listen yet looks the same, so bind and listen happen under a lock
of the directory.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time

from .errors import StartError
from .listener import Listener, read_somaxconn, refused

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .address import Address
    from .handover.offers import Offers

__all__ = ["open_unix"]

DIRECTORY_LOCK_WAIT = 0.5
"""Seconds; a program may hold the lock for ever (systemd-tmpfiles(8) suggests it)."""


def open_unix(
    address: Address, backlog: int | None, offers: Offers | None = None, mode: int | None = None
) -> Listener:
    """Open a Unix listener, or take the one that is offered.

    Args:
        mode: permissions of a file that is made; None: those that the umask leaves.
    """
    assert address.path is not None
    path = os.path.abspath(address.path)
    offer = None if offers is None else offers.of_file(path)
    if offer is not None:
        from .inherited import take_over

        return take_over(offer, address, None)
    with _DirectoryLock(os.path.dirname(path)):
        return _listen_unix(address, path, backlog, mode)


def _listen_unix(address: Address, path: str, backlog: int | None, mode: int | None) -> Listener:
    assert address.path is not None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if mode is not None:
            os.fchmod(sock.fileno(), mode)  # bind(2) makes the file with it
        _bind_unix(sock, address.path)
        made = os.lstat(path)
        asked = read_somaxconn() if backlog is None else backlog
        sock.listen(asked)
        return Listener(sock, address, backlog=asked, file=(path, made.st_dev, made.st_ino))
    except BaseException as error:
        if sock.fileno() >= 0 and sock.getsockname():  # bound: the file is ours
            os.unlink(path)
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, StartError):
            raise refused(address, str(address), error) from None
        raise


def _bind_unix(sock: socket.socket, path: str) -> None:
    """Bind `path`; a socket file that nobody answers on is replaced, anything else is refused."""
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        before = os.lstat(path)
        if not stat.S_ISSOCK(before.st_mode):
            raise _exists(path, "is not a socket") from None
        if _answers(path):
            raise _exists(path, "is in use") from None
        now = os.lstat(path)
        if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
            raise _exists(path, "is in use") from None  # by one that was faster
        os.unlink(path)
        sock.bind(path)


def _exists(path: str, why: str) -> StartError:
    return StartError(errno.EADDRINUSE, f"cannot listen on unix:{path}: the file exists and {why}")


def _answers(path: str) -> bool:
    """Tell whether a program is behind a socket file; when in doubt, yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno != errno.ECONNREFUSED
    return True


class _DirectoryLock:
    """The advisory lock of a directory, which leaves no file behind; in a `with` block.

    It is not held if it could not be had soon: it only helps against another start at the same
    moment, so that is no error.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        # At most one. It comes and goes within a single call of C code: between two, a signal
        # handler may raise, and a number that nobody knows any more stays open.
        self._descriptors: list[int] = []

    def __enter__(self) -> None:
        import fcntl

        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            self._descriptors.extend(map(os.open, (self._directory,), (flags,)))
        except OSError:
            return  # bind(2) will say what is wrong with it, or it is only unreadable
        deadline = time.monotonic() + DIRECTORY_LOCK_WAIT
        while True:
            try:
                fcntl.flock(self._descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.005)
                    continue
            except OSError:
                pass  # a file system without locks
            self._release()
            return

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        if self._descriptors:
            list(map(os.close, map(self._descriptors.pop, (0,))))

    def __del__(self) -> None:
        # Lost, as of Listener; __init__ may not have come that far.
        if getattr(self, "_descriptors", None):
            self._release()
