"""Inherited descriptors: sockets that somebody else has opened.

Lives here: taking one over, be it of fd:// or passed by a service manager. Does not live here: the
protocol by which sockets are passed (passed.py).

Such a socket is shared with whoever passed it on: its descriptor is duplicated, it is never shut
down, and its file is never removed. One that another server hands over (handover/) is ours once
that one has left it; until then nothing about it is changed.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from .address import Address
from .datagram_socket import DatagramSocket
from .errors import StartError
from .listen_tcp import set_options, tcp_address
from .listen_udp import check_single, prepare_datagrams, set_trains, udp_address
from .listener import Listener, read_somaxconn, refused

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .config import Config
    from .handover.offers import Offer

__all__ = ["adopt", "make_own", "take_over"]

IP_RECVERR, IPV6_RECVERR = 11, 25
"""Of linux/in.h and linux/in6.h; Python has no names for them."""


def adopt(address: Address, config: Config) -> Listener | DatagramSocket:
    """Take an inherited socket over by a duplicate of its descriptor.

    Args:
        address: has the descriptor, and is what an error shows.
    """
    assert address.fd is not None
    try:
        is_socket = stat.S_ISSOCK(os.fstat(address.fd).st_mode)
    except OSError as error:
        raise _unfit(address, error.errno or 0, "the descriptor is not open") from None
    if not is_socket:
        raise _unfit(address, errno.ENOTSOCK, "the descriptor is not a socket")
    sock = _duplicate(address.fd)
    try:
        if sock.type == socket.SOCK_DGRAM and sock.family in (socket.AF_INET, socket.AF_INET6):
            return _adopt_udp(address, sock, config)
        _check(sock, address)
        sock.setblocking(False)
        if config.backlog is not None:
            sock.listen(config.backlog)
        if sock.family != socket.AF_UNIX:
            set_options(sock, config)
        return Listener(sock, _address(sock), backlog=config.backlog, owned=False)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, StartError):
            raise refused(address, str(address), error) from None
        raise


def _check(sock: socket.socket, address: Address) -> None:
    """Raise StartError unless it is a socket to accept streams from."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise _unfit(address, errno.EAFNOSUPPORT, "the socket is neither TCP, UDP nor Unix")
    if sock.type != socket.SOCK_STREAM:
        raise _unfit(address, errno.EINVAL, "the socket is not a stream socket")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise _unfit(address, errno.EINVAL, "the socket does not listen")


def _address(sock: socket.socket) -> Address:
    """Return where it listens."""
    if sock.family != socket.AF_UNIX:
        return tcp_address(sock)
    name = sock.getsockname()
    return Address("unix", path=os.fsdecode(name) if isinstance(name, bytes) else str(name))


def _adopt_udp(address: Address, sock: socket.socket, config: Config) -> DatagramSocket:
    """Make an inherited UDP socket ready; all workers receive from it."""
    if sock.getsockname()[1] == 0:
        raise _unfit(address, errno.EINVAL, "the socket is not bound")
    if config.service != "echo":
        raise _unfit(
            address, errno.EINVAL, f"it is UDP, and service {config.service} is for streams"
        )
    check_single(address, sock)
    sock.setblocking(False)
    # Errors that ICMP brings would wait in a queue that nobody reads, and wake us for ever.
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 0)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 0)
    prepare_datagrams(sock, config)
    return DatagramSocket(sock, udp_address(sock), owned=False)


def take_over(offer: Offer, address: Address, worker: int | None) -> Listener:
    """Take what another server hands over for `address`; that one still accepts from it."""
    try:
        _check(offer.sock, address)
        offer.sock.setblocking(False)
        found = address if address.kind == "unix" else _address(offer.sock)
    except OSError as error:
        if isinstance(error, StartError):
            raise
        raise refused(address, str(address), error) from None
    listener = Listener(offer.sock, found, backlog=None, worker=worker, owned=False)
    offer.taken = listener
    return listener


def take_over_udp(offer: Offer, config: Config, worker: int | None) -> DatagramSocket:
    """Take a UDP socket that another server hands over; that one still answers from it.

    The receive buffer is set now: later the right to a large one may be gone.
    """
    offer.sock.setblocking(False)
    prepare_datagrams(offer.sock, config, shared=True)
    taken = DatagramSocket(offer.sock, udp_address(offer.sock), worker=worker, owned=False)
    offer.taken = taken
    return taken


def make_own(offer: Offer, config: Config) -> None:
    """The other server has left what was taken: it is as if it had been opened here.

    Raises:
        OSError: an option was refused, where the server before had another value.
    """
    taken = offer.taken
    assert taken is not None
    if offer.owned:
        taken.own(offer.file)
    if not isinstance(taken, Listener):
        set_trains(taken.socket, config)
        return
    if offer.owned or config.backlog is not None:
        asked = read_somaxconn() if config.backlog is None else config.backlog
        taken.socket.listen(asked)
        taken.take_backlog(asked)
    if taken.family != socket.AF_UNIX:
        set_options(taken.socket, config)


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
