"""Opening: all sockets of a configuration, or none.

When one address fails, everything that was opened is closed and removed, and StartError says in
one sentence which address the machine refused and why.
"""

from __future__ import annotations

import errno

from .address import Address
from .datagram_socket import DatagramSocket
from .errors import StartError
from .inherited import adopt
from .listen_tcp import open_tcp
from .listen_udp import open_udp
from .listen_unix import open_unix
from .listener import Listener, refused

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import Config
    from .handover.offers import Offers

__all__ = ["open_listeners", "open_sockets"]


def open_sockets(
    config: Config, workers: int, offers: Offers | None = None
) -> tuple[list[Listener], list[DatagramSocket]]:
    """Open every socket that `config.bind` asks for, or none.

    Args:
        config: its bind, backlog and reuse_port are used, and what sockets are set to.
        workers: how many sockets each UDP address gets, and with reuse_port each TCP address;
            int >= 1.
        offers: what another server hands over; of an address that is among them, those are taken.
    Returns:
        tuple: the listeners and the UDP sockets, each in the order of `bind`; the addresses of a
        name stand together and share one port, also when port 0 was asked; so do the sockets of
        one address, worker 0 first.
    Raises:
        ConfigError: systemd:NAME, and no such socket was passed.
        StartError: an address cannot be resolved, bound or listened on; nothing stays open.
    Thread: any.   Cost: a few system calls each; a name waits for the resolver.
    Source: ip(7), ipv6(7), udp(7), unix(7), listen(2); sd_listen_fds(3) for inherited descriptors.
    """
    opened: list[Listener | DatagramSocket] = []
    copies = workers if config.reuse_port else 1
    try:
        for address in config.bind:
            before = len(opened)
            if address.kind == "unix":
                opened.append(open_unix(address, config.backlog, offers))
            elif address.kind == "fd":
                opened.append(adopt(address, config))
            elif address.kind == "systemd":
                _adopt_passed(address, config, opened)
            elif address.kind == "udp":
                _add(address, open_udp(address, config, workers, offers), opened)
            else:
                _add(address, open_tcp(address, config, copies, offers), opened)
            for one in opened[before:]:
                one.asked = address
    except BaseException:
        for one in opened:
            one.close()
        raise
    return (
        [one for one in opened if isinstance(one, Listener)],
        [one for one in opened if isinstance(one, DatagramSocket)],
    )


def _add(
    address: Address,
    sockets: Sequence[Listener | DatagramSocket],
    opened: list[Listener | DatagramSocket],
) -> None:
    """Add the sockets of one address, unless the same one is there already."""
    twice = {one.address for one in sockets} & {one.address for one in opened}
    opened.extend(sockets)
    if twice:  # the kernel allows that with SO_REUSEPORT
        raise refused(address, str(twice.pop()), OSError(errno.EADDRINUSE, ""))


def open_listeners(config: Config, workers: int, offers: Offers | None = None) -> list[Listener]:
    """Open every listener of a configuration without UDP, or none; as open_sockets()."""
    listeners, datagrams = open_sockets(config, workers, offers)
    if datagrams:  # an inherited one: what is asked for is looked at before
        for listener in listeners:
            listener.close()
        for one in datagrams:
            one.close()
        sentence = f"cannot listen on {datagrams[0].address}: UDP cannot be used here"
        raise StartError(errno.EINVAL, sentence)
    return listeners


def _adopt_passed(
    address: Address, config: Config, opened: list[Listener | DatagramSocket]
) -> None:
    """Append what was passed under the address's name."""
    from .passed import choose, name_some  # here: other servers start without it

    assert address.name is not None
    name_some(one.name for one in config.bind if one.name)
    opened.extend(
        adopt(Address("systemd", name=one.name, fd=one.fd), config)
        for one in choose(address.name, "bind")
    )
