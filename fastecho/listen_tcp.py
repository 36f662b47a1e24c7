"""TCP listeners: resolve, bind, listen.

What the kernel does that is easy to get wrong:

* A socket of [::] takes IPv4 as well unless IPV6_V6ONLY says otherwise, and the default of that is
  a sysctl. Both are set here: [::]:7 is IPv6 only, :7 is one socket for both families.
* With SO_REUSEADDR two sockets may bind one port as long as neither listens; it is listen(2) that
  then fails. Both calls therefore share one rule for errors.
* TCP_NODELAY set on a listener is inherited by every socket that it accepts.
"""

from __future__ import annotations

import errno
import socket

from .address import Address, format_host_port
from .errors import StartError, shown
from .limits import milliseconds
from .listener import Listener, read_somaxconn, refused

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from .config import Config
    from .datagram_socket import DatagramSocket
    from .handover.offers import Offers

    Opened = TypeVar("Opened", bound=Listener | DatagramSocket)
    SocketAddress = tuple[str, int] | tuple[str, int, int, int]
    Targets = list[tuple[int, SocketAddress]]

__all__ = [
    "has_ipv6", "host_of", "open_on_one_port", "open_tcp", "resolve", "set_options", "tcp_address",
]  # fmt: skip

PORT_TRIES = 16
"""Free ports to try when one port has to be free on several addresses at once."""
KEEPALIVE_QUESTIONS = 3
"""Questions without an answer after which TCP gives a silent peer up."""


def open_tcp(
    address: Address, config: Config, copies: int, offers: Offers | None = None
) -> list[Listener]:
    """Open every socket of one TCP address, all on one port; or take what is offered of it."""
    assert address.port is not None
    if address.host == "":
        targets, dual_stack = _every_address(address.port)
    else:
        targets, dual_stack = resolve(address), False

    def open_at(family: int, name: SocketAddress) -> Iterator[tuple[list[Listener], bool]]:
        workers = copies if config.reuse_port else 0
        taken = _take(offers, family, name, dual_stack, address, workers) if offers else []
        yield taken, bool(taken)
        for copy in range(0 if taken else copies):
            worker = copy if config.reuse_port else None
            listener = _listen_tcp(family, name, config, worker, dual_stack)
            yield [listener], False
            name = (name[0], listener.address.port or 0, *name[2:])

    return open_on_one_port(address, targets, open_at)


def open_on_one_port(
    address: Address,
    targets: Targets,
    open_at: Callable[[int, SocketAddress], Iterator[tuple[list[Opened], bool]]],
) -> list[Opened]:
    """Open the sockets of all targets of an address on the same port, or none.

    Args:
        address: whose port is asked for; 0 looks for one that is free at all targets.
        targets: family and socket address of each; their port does not count.
        open_at: opens the sockets of one target at the port that it is given, and yields them as
            they come, with whether another server has handed them over.
    Raises:
        StartError: one cannot be bound or listened on; nothing stays open.
    """
    assert address.port is not None
    tries = PORT_TRIES if address.port == 0 and len(targets) > 1 else 1
    while True:
        tries -= 1
        opened: list[Opened] = []
        port = address.port
        try:
            for family, target in targets:
                name: SocketAddress = (target[0], port, *target[2:])
                for several, are_taken in open_at(family, name):
                    opened += several
                    if are_taken:
                        tries = 0  # they cannot be had again
                port = opened[-1].address.port or 0
            return opened
        except BaseException as error:
            for one in opened:
                one.close()
            if not isinstance(error, OSError) or isinstance(error, StartError):
                raise
            if error.errno != errno.EADDRINUSE or tries <= 0:
                at = format_host_port(name[0], port) if address.host else str(address)
                raise refused(address, at, error) from None


def _take(
    offers: Offers,
    family: int,
    name: SocketAddress,
    dual_stack: bool,
    address: Address,
    workers: int,
) -> list[Listener]:
    """Take what another server hands over of one address.

    No copy of a port may be left without a worker: the kernel goes on giving connections to it. So
    each has its own worker only if there are as many; otherwise all workers accept from all.
    """
    from .inherited import take_over

    found = offers.at(family, socket.SOCK_STREAM, name, dual_stack, address)
    own = {one.worker for one in found} == set(range(workers))
    return [take_over(one, address, one.worker if own else None) for one in found]


def resolve(address: Address) -> Targets:
    """Return (family, socket address) of every address of a name, without repetition."""
    assert address.host is not None and address.port is not None
    kind = socket.SOCK_DGRAM if address.kind == "udp" else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(address.host, address.port, type=kind, flags=socket.AI_PASSIVE)
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
    if len(targets) > 1 and not has_ipv6("::1"):
        targets = [one for one in targets if one[0] != socket.AF_INET6] or targets
    return targets


def _every_address(port: int) -> tuple[Targets, bool]:
    """Return what :PORT binds, and whether that is one socket of both families."""
    if has_ipv6("::"):
        return [(socket.AF_INET6, ("::", port, 0, 0))], True
    return [(socket.AF_INET, ("0.0.0.0", port))], False


def has_ipv6(host: str) -> bool:
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
        return Listener(sock, tcp_address(sock), backlog=asked, worker=worker)
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
        set_options(sock, config)
        sock.bind(target)
        return sock
    except BaseException:
        sock.close()
        raise


def set_options(sock: socket.socket, config: Config) -> None:
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


def tcp_address(sock: socket.socket) -> Address:
    """Return where a TCP socket really is bound."""
    return Address("tcp", host=host_of(sock), port=sock.getsockname()[1])


def host_of(sock: socket.socket) -> str:
    """Return the address that a socket really is bound to; "" for every one of both families."""
    name = sock.getsockname()
    host: str = name[0]
    if sock.family == socket.AF_INET6:
        if host == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return ""
        if name[3] and "%" not in host:
            return f"{host}%{_zone(name[3])}"
    return host


def _zone(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)
