"""UDP sockets: resolve, bind, and what the echo needs of the kernel.

What the kernel does that is easy to get wrong:

* With SO_REUSEPORT two programs of one user may bind the same port, and each would get a part of
  the datagrams. So a socket without it looks first whether the port is free.
* A socket of every address answers from the address that the route chooses, which may not be the
  one that was asked. Packet info tells which was asked, and the reply says so.
* A socket may be bound to a broadcast address or a group: one datagram would have many answers.
  connect(2) tells: EACCES, since nobody has asked for SO_BROADCAST.
* SO_RCVBUF is cut to net.core.rmem_max, SO_RCVBUFFORCE is not, and takes CAP_NET_ADMIN.
"""

from __future__ import annotations

import errno
import socket

from .address import Address
from .datagram_socket import DatagramSocket
from .errors import StartError
from .listen_tcp import has_ipv6, host_of, open_on_one_port, resolve

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .config import Config
    from .handover.offers import Offers
    from .listen_tcp import SocketAddress, Targets

__all__ = ["check_single", "open_udp", "prepare_datagrams", "set_trains", "udp_address"]

RECEIVE_BUFFER = 4 * 1024 * 1024
"""Bytes to ask for: room for some thousand datagrams of a burst, where the system gives so much."""
SO_RCVBUFFORCE = 33
"""Of asm-generic/socket.h; Python has no name for it."""
IP_PKTINFO = 8
"""Of linux/in.h; Python has no name for it before 3.14."""
SOL_UDP, UDP_GRO = 17, 104
"""Of linux/udp.h; Python has no names for them."""


def open_udp(
    address: Address, config: Config, workers: int, offers: Offers | None = None
) -> list[DatagramSocket]:
    """Open every socket of one UDP address, one for each worker, all on one port; or take them.

    Raises:
        StartError: it cannot be resolved or bound; nothing stays open.
    """
    assert address.port is not None
    targets = _every_address(address.port) if address.host == "" else resolve(address)

    def open_at(family: int, name: SocketAddress) -> Iterator[tuple[list[DatagramSocket], bool]]:
        taken = _take(offers, family, name, address, config, workers) if offers else []
        yield taken, bool(taken)
        if taken:
            return
        with _bind(family, name, reuse_port=False) as free:
            check_single(address, free)
            name = free.getsockname()
        for worker in range(workers):
            sock = _bind(family, name, reuse_port=workers > 1, config=config)
            yield [DatagramSocket(sock, udp_address(sock), worker=worker)], False

    return open_on_one_port(address, targets, open_at)


def _take(
    offers: Offers, family: int, name: SocketAddress, address: Address, config: Config, workers: int
) -> list[DatagramSocket]:
    """Take what another server hands over of one address, as listen_tcp.py does it."""
    from .inherited import take_over_udp

    found = offers.at(family, socket.SOCK_DGRAM, name, False, address)
    own = {one.worker for one in found} == set(range(workers))
    return [take_over_udp(one, config, one.worker if own else None) for one in found]


def _every_address(port: int) -> Targets:
    """Return what :PORT binds: a socket for each family, so that each knows its own addresses."""
    targets: Targets = [(socket.AF_INET, ("0.0.0.0", port))]
    if has_ipv6("::"):
        targets.append((socket.AF_INET6, ("::", port, 0, 0)))
    return targets


def _bind(
    family: int, target: SocketAddress, *, reuse_port: bool, config: Config | None = None
) -> socket.socket:
    """Return a bound socket; with a config, one that is ready to echo."""
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(target)
        if config is not None:
            prepare_datagrams(sock, config)
        return sock
    except BaseException:
        sock.close()
        raise


def check_single(address: Address, sock: socket.socket) -> None:
    """Refuse a broadcast address or a group."""
    name = sock.getsockname()
    many = _is_group(name[0])
    if not many and not _is_any(name[0]):
        with socket.socket(sock.family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(name)
            except OSError as error:
                many = error.errno == errno.EACCES
    if many:
        text = f"cannot listen on {address}: {name[0]} is not an address of one machine"
        raise StartError(errno.EADDRNOTAVAIL, text)


def _has_both(sock: socket.socket) -> bool:
    """Whether an IPv6 socket has IPv4 datagrams as well; only an inherited one can."""
    return not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _is_group(host: str) -> bool:
    host = host.removeprefix("::ffff:") if "." in host else host
    if ":" in host:
        return host.lower().startswith("ff")
    return 224 <= int(host.partition(".")[0]) < 240


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::", "::ffff:0.0.0.0")


def set_trains(sock: socket.socket, config: Config) -> None:
    """Have a socket give datagrams of one source that came together as one, or none so."""
    trains = not config.prefix and not config.suffix  # each of a train would need its own
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, trains)
    except OSError:
        pass  # before Linux 5.0


def prepare_datagrams(sock: socket.socket, config: Config, *, shared: bool = False) -> None:
    """Set what the echo needs on a bound UDP socket, as far as the kernel has it.

    Args:
        shared: another server receives from it, which may not be able to answer trains.
    """
    if _is_any(sock.getsockname()[0]):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if sock.family == socket.AF_INET or _has_both(sock):
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    if not shared or config.prefix or config.suffix:
        set_trains(sock, config)
    if config.send_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer)
    size = config.receive_buffer or RECEIVE_BUFFER
    if config.receive_buffer is None and _receive_buffer(sock) >= 2 * size:
        return  # somebody has asked for as much: who handed it over, or a unit
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        # One that a server with that right has handed over stays as large as it is.
        if _receive_buffer(sock) < 2 * size:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _receive_buffer(sock: socket.socket) -> int:
    """Return what the kernel has made of SO_RCVBUF: twice what was asked for."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def udp_address(sock: socket.socket) -> Address:
    """Return where a UDP socket really is bound."""
    return Address("udp", host=host_of(sock), port=sock.getsockname()[1])
