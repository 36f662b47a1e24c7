"""Listeners: resolve, bind, listen, and close again; nothing here ever accepts.

open_listeners() is all or nothing: when one address fails, everything that it opened is closed and
removed, and StartError says in one sentence which address the machine refused and why.

What the kernel does that is easy to get wrong:

* A socket of [::] takes IPv4 as well unless IPV6_V6ONLY says otherwise, and the default of that is
  a sysctl. Both are set here: [::]:7 is IPv6 only, :7 is one socket for both families.
* With SO_REUSEADDR two sockets may bind one port as long as neither listens; it is listen(2) that
  then fails. Both calls therefore share one rule for errors.
* The accept queue's limit is min(backlog, somaxconn) of the network namespace at the moment of
  listen(2). TCP_INFO of a listener tells what is in force (`tcpi_sacked`).
* shutdown(2) of a listener makes its port refuse, and listen(2) brings it back, but only a port
  that bind(2) was given by number: one that the kernel chose is given back, and listen(2) takes
  another. A second shutdown(2) sticks: every connection is accepted with its input at an end.
* TCP_NODELAY set on a listener is inherited by every socket that it accepts.
* The file of a Unix socket outlives its process. It is stale when connect(2) gives ECONNREFUSED;
  a socket that is bound and does not listen yet looks the same, so bind and listen happen under a
  lock of the directory. Only the process that made the file removes it, and only while the name
  still leads to that inode.
* An inherited descriptor is shared with whoever passed it on: it is duplicated, never shut down,
  and its file is never removed.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import time

from .address import Address, format_host_port, is_loopback
from .errors import StartError, shown
from .limits import milliseconds

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import Config

    SocketAddress = tuple[str, int] | tuple[str, int, int, int]
    Targets = list[tuple[int, SocketAddress]]

__all__ = ["Listener", "handshake_grace", "open_listeners", "read_somaxconn"]

PORT_TRIES = 16
"""Free ports to try when one port has to be free on several addresses at once."""
HANDSHAKE_LOOPBACK = 0.002
"""Seconds that a handshake over loopback may take: the grace at the end of accepting."""
HANDSHAKE_ELSEWHERE = 0.1
"""The same for any other address: one round trip, with room for most of the world."""
KEEPALIVE_QUESTIONS = 3
"""Questions without an answer after which TCP gives a silent peer up."""
DIRECTORY_LOCK_WAIT = 0.5
"""Seconds; a program may hold the lock for ever (systemd-tmpfiles(8) suggests it)."""
TCP_INFO_LIMIT = slice(28, 32)
"""Where tcp_info keeps `tcpi_sacked`: for a listener, the limit of its accept queue."""


class Listener:
    """A bound, listening, non-blocking socket, closed on exec.

    Attributes:
        socket: the socket itself; the Listener owns it.
        address: where it really listens, with the port that the kernel chose; ":PORT" for one
            socket of both families.
        family: socket.AF_INET, AF_INET6 or AF_UNIX.
        backlog_asked: the argument of listen(2); None if an inherited socket was left as it came.
        somaxconn: the limit of every backlog in the network namespace at that moment.
        backlog_effective: the limit in force, in connections; None if the kernel does not tell
            (an inherited Unix socket).
        owned: False for an inherited socket, which must not be shut down.
        deepest: of a Unix socket, the deepest accept queue that was told so far.
        worker: the one worker that accepts here (reuse_port), or None: all of them.
    """

    __slots__ = (
        "_file",
        "_process",
        "address",
        "backlog_asked",
        "backlog_effective",
        "deepest",
        "family",
        "owned",
        "socket",
        "somaxconn",
        "worker",
    )

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        *,
        backlog: int | None,
        worker: int | None = None,
        owned: bool = True,
        file: tuple[str, int, int] | None = None,
    ) -> None:
        self.socket = sock
        self.address = address
        self.family = sock.family
        self.backlog_asked = backlog
        self.somaxconn = read_somaxconn()
        self.backlog_effective = self._backlog_in_force()
        self.deepest = 0
        self.owned = owned
        self.worker = worker
        self._process = os.getpid()
        self._file = file  # absolute path, device, inode

    def _backlog_in_force(self) -> int | None:
        asked = self.backlog_asked
        if self.family != socket.AF_UNIX:
            try:
                info = self.socket.getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_LIMIT.stop
                )
                limit = int.from_bytes(info[TCP_INFO_LIMIT], sys.byteorder)
                if limit or asked == 0:
                    return limit
            except (OSError, AttributeError):
                pass  # a kernel that does not tell: work it out
        return None if asked is None else min(asked, self.somaxconn)

    @property
    def can_refuse(self) -> bool:
        """False for a Unix socket, which never listens again, and an inherited, shared one."""
        return self.owned and self.family != socket.AF_UNIX

    def refuse(self) -> None:
        """Listen no more, and keep the port: who connects is refused, who is queued is reset.

        Only while it listens.
        """
        self.socket.shutdown(socket.SHUT_RD)

    def admit(self) -> None:
        """Listen again after refuse()."""
        assert self.backlog_asked is not None
        self.socket.listen(self.backlog_asked)

    def close(self) -> None:
        """Close the socket and remove its own file; a second call does nothing."""
        if self._process == os.getpid():
            # Taken first: of two threads, one removes it. Put back if a signal handler raises.
            file, self._file = self._file, None
            try:
                if file is not None:
                    _remove(*file)
            except BaseException:
                self._file = file
                raise
        self.socket.close()

    def __del__(self) -> None:
        # Lost on the way to its owner: a signal handler has raised.
        if getattr(self, "_file", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<Listener {self.address} fd={self.socket.fileno()}>"


def _remove(path: str, device: int, inode: int) -> None:
    """Remove a socket's file, unless the name leads somewhere else by now.

    Before the socket is closed: until then nobody takes the name for stale.
    """
    try:
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (device, inode):
            os.unlink(path)
    except OSError:
        pass  # somebody else removed it, or the directory: nothing of ours is left


def open_listeners(config: Config, workers: int) -> list[Listener]:
    """Open every listener that `config.bind` asks for, or none.

    Args:
        config: its bind, backlog and reuse_port are used.
        workers: how many sockets each TCP address gets with reuse_port; int >= 1.
    Returns:
        list[Listener]: in the order of `bind`; the addresses of a name stand together and share
        one port, also when port 0 was asked; so do the sockets of reuse_port, worker 0 first.
    Raises:
        StartError: an address cannot be resolved, bound or listened on; nothing stays open.
    Thread: any.   Cost: a few system calls each; a name waits for the resolver.
    Source: ip(7), ipv6(7), unix(7), listen(2); sd_listen_fds(3) for inherited descriptors.
    """
    listeners: list[Listener] = []
    copies = workers if config.reuse_port else 1
    try:
        for address in config.bind:
            if address.kind == "unix":
                listeners.append(_open_unix(address, config.backlog))
            elif address.kind == "fd":
                listeners.append(_adopt(address, config))
            else:
                opened = _open_tcp(address, config, copies)
                twice = {one.address for one in opened} & {one.address for one in listeners}
                listeners.extend(opened)
                if twice:  # the kernel allows that with SO_REUSEPORT
                    raise _refused(address, str(twice.pop()), OSError(errno.EADDRINUSE, ""))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def handshake_grace(listeners: Sequence[Listener]) -> float:
    """Return the seconds to wait for handshakes that are under way when accepting ends."""
    tcp = [one for one in listeners if one.family != socket.AF_UNIX and one.owned]
    if not tcp:
        return 0.0
    loopback = all(is_loopback(one.address.host or "") for one in tcp)
    return HANDSHAKE_LOOPBACK if loopback else HANDSHAKE_ELSEWHERE


def read_somaxconn() -> int:
    """Return the limit that this network namespace puts on every backlog."""
    try:
        with open("/proc/sys/net/core/somaxconn", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return socket.SOMAXCONN


# --- TCP ---------------------------------------------------------------------------------------


def _open_tcp(address: Address, config: Config, copies: int) -> list[Listener]:
    """Open every socket of one TCP address, all on one port."""
    assert address.host is not None and address.port is not None
    if address.host == "":
        targets, dual_stack = _every_address(address.port)
    else:
        targets, dual_stack = _resolve(address), False
    tries = PORT_TRIES if address.port == 0 and len(targets) > 1 else 1
    while True:
        tries -= 1
        listeners: list[Listener] = []
        port = address.port
        try:
            for family, target in targets:
                for copy in range(copies):
                    worker = copy if config.reuse_port else None
                    listener = _listen_tcp(
                        family, (target[0], port, *target[2:]), config, worker, dual_stack
                    )
                    listeners.append(listener)
                    assert listener.address.port is not None
                    port = listener.address.port
            return listeners
        except BaseException as error:
            for listener in listeners:
                listener.close()
            if not isinstance(error, OSError):
                raise
            if error.errno != errno.EADDRINUSE or tries == 0:
                at = format_host_port(target[0], port) if address.host else str(address)
                raise _refused(address, at, error) from None


def _resolve(address: Address) -> Targets:
    """Return (family, socket address) of every address of a name, without repetition."""
    assert address.host is not None and address.port is not None
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        why = f"{shown(address.host)} does not resolve ({error.strerror})"
        raise StartError(error.errno or 0, f"cannot listen on {address}: {why}") from None
    except (OSError, UnicodeError) as error:
        raise StartError(0, f"cannot listen on {address}: the resolver failed ({error})") from None
    targets: Targets = []
    for family, _, _, _, target in found:
        if isinstance(target[0], str) and (family, target) not in targets:
            targets.append((family, target))
    # A hosts file often gives localhost an IPv6 address where IPv6 is switched off.
    if len(targets) > 1 and not _has_ipv6("::1"):
        targets = [one for one in targets if one[0] != socket.AF_INET6] or targets
    return targets


def _every_address(port: int) -> tuple[Targets, bool]:
    """Return what :PORT binds, and whether that is one socket of both families."""
    if _has_ipv6("::"):
        return [(socket.AF_INET6, ("::", port, 0, 0))], True
    return [(socket.AF_INET, ("0.0.0.0", port))], False


def _has_ipv6(host: str) -> bool:
    """Tell whether this network namespace can bind an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _listen_tcp(
    family: int, target: SocketAddress, config: Config, worker: int | None, dual_stack: bool
) -> Listener:
    if target[1] == 0:  # by its number a port is kept for good: see refuse()
        with _bind_tcp(family, target, config, worker, dual_stack) as chosen:
            return _listen_tcp(family, chosen.getsockname(), config, worker, dual_stack)
    sock = _bind_tcp(family, target, config, worker, dual_stack)
    try:
        asked = read_somaxconn() if config.backlog is None else config.backlog
        sock.listen(asked)
        return Listener(sock, _tcp_address(sock), backlog=asked, worker=worker)
    except BaseException:
        sock.close()
        raise


def _bind_tcp(
    family: int, target: SocketAddress, config: Config, worker: int | None, dual_stack: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if worker is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual_stack else 1)
        _set_options(sock, config)
        sock.bind(target)
        return sock
    except BaseException:
        sock.close()
        raise


def _set_options(sock: socket.socket, config: Config) -> None:
    """Set what every connection inherits from its TCP listener: no call for each of them.

    The buffers stand before listen(): the window's scale is settled in the handshake.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if config.send_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer)
    if config.receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, config.receive_buffer)
    if config.user_timeout is not None:
        span_ms = milliseconds(config.user_timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, span_ms)
    if config.keepalive is not None:
        seconds = int(-(-config.keepalive // 1))  # the kernel takes whole ones only
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_QUESTIONS)


def _tcp_address(sock: socket.socket) -> Address:
    """Return where a TCP socket really is bound."""
    name = sock.getsockname()
    host, port = name[0], name[1]
    if sock.family == socket.AF_INET6:
        if host == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            host = ""
        elif name[3] and "%" not in host:
            host = f"{host}%{_zone(name[3])}"
    return Address("tcp", host=host, port=port)


def _zone(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _refused(address: Address, at: str, error: OSError) -> StartError:
    """Turn the errno of bind or listen into the sentence that the user reads."""
    number = error.errno or 0
    where = str(address) if at == str(address) else f"{address} ({at})"
    if number == errno.EADDRINUSE:
        why = "the address is in use"
    elif number == errno.EADDRNOTAVAIL:
        why = "it is not an address of this machine"
    elif number == errno.EACCES and address.port is not None and 0 < address.port < 1024:
        why = "no right to a port below 1024 (that takes root or CAP_NET_BIND_SERVICE)"
    elif number == errno.EAFNOSUPPORT:
        why = "this machine has no IPv6"
    else:
        why = (error.strerror or str(error)).lower()
    return StartError(number, f"cannot listen on {where}: {why}")


# --- Unix sockets ------------------------------------------------------------------------------


def _open_unix(address: Address, backlog: int | None) -> Listener:
    assert address.path is not None
    path = os.path.abspath(address.path)
    with _DirectoryLock(os.path.dirname(path)):
        return _listen_unix(address, path, backlog)


def _listen_unix(address: Address, path: str, backlog: int | None) -> Listener:
    assert address.path is not None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
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
            raise _refused(address, str(address), error) from None
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


# --- inherited descriptors ---------------------------------------------------------------------


def _adopt(address: Address, config: Config) -> Listener:
    """Take an inherited listening socket over by a duplicate of its descriptor."""
    assert address.fd is not None
    try:
        is_socket = stat.S_ISSOCK(os.fstat(address.fd).st_mode)
    except OSError as error:
        raise _unfit(address, error.errno or 0, "the descriptor is not open") from None
    if not is_socket:
        raise _unfit(address, errno.ENOTSOCK, "the descriptor is not a socket")
    sock = _duplicate(address.fd)
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise _unfit(address, errno.EAFNOSUPPORT, "the socket is neither TCP nor Unix")
        if sock.type != socket.SOCK_STREAM:
            raise _unfit(address, errno.EINVAL, "the socket is not a stream socket")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise _unfit(address, errno.EINVAL, "the socket does not listen")
        sock.setblocking(False)
        if config.backlog is not None:
            sock.listen(config.backlog)
        if sock.family == socket.AF_UNIX:
            name = sock.getsockname()
            path = os.fsdecode(name) if isinstance(name, bytes) else str(name)
            real = Address("unix", path=path)
        else:
            _set_options(sock, config)
            real = _tcp_address(sock)
        return Listener(sock, real, backlog=config.backlog, owned=False)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, StartError):
            raise _refused(address, str(address), error) from None
        raise


def _duplicate(descriptor: int) -> socket.socket:
    """Return a socket object on a duplicate of a socket's descriptor.

    Until the object has the number, a list has it, from within one call of C code: a signal handler
    that raises finds it in one of the two, and it is closed.
    """
    import fcntl

    copies: list[int] = []
    sock = socket.socket.__new__(socket.socket)
    try:
        copies.extend(map(fcntl.fcntl, (descriptor,), (fcntl.F_DUPFD_CLOEXEC,), (0,)))
        socket.socket.__init__(sock, fileno=copies[0])
        return sock
    except BaseException:
        if sock.fileno() < 0:
            list(map(os.close, copies))
        else:
            os.close(sock.detach())
        raise


def _unfit(address: Address, number: int, why: str) -> StartError:
    return StartError(number, f"cannot listen on {address}: {why}")
