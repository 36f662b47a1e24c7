"""Opening: all listeners of a configuration, or none.

When one address fails, everything that was opened is closed and removed, and StartError says in
one sentence which address the machine refused and why.
"""

from __future__ import annotations

import errno

from .address import Address
from .inherited import adopt
from .listen_tcp import open_tcp
from .listen_unix import open_unix
from .listener import refused

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .config import Config
    from .listener import Listener

__all__ = ["open_listeners"]


def open_listeners(config: Config, workers: int) -> list[Listener]:
    """Open every listener that `config.bind` asks for, or none.

    Args:
        config: its bind, backlog and reuse_port are used.
        workers: how many sockets each TCP address gets with reuse_port; int >= 1.
    Returns:
        list[Listener]: in the order of `bind`; the addresses of a name stand together and share
        one port, also when port 0 was asked; so do the sockets of reuse_port, worker 0 first.
    Raises:
        ConfigError: systemd:NAME, and no such socket was passed.
        StartError: an address cannot be resolved, bound or listened on; nothing stays open.
    Thread: any.   Cost: a few system calls each; a name waits for the resolver.
    Source: ip(7), ipv6(7), unix(7), listen(2); sd_listen_fds(3) for inherited descriptors.
    """
    listeners: list[Listener] = []
    copies = workers if config.reuse_port else 1
    try:
        for address in config.bind:
            if address.kind == "unix":
                listeners.append(open_unix(address, config.backlog))
            elif address.kind == "fd":
                listeners.append(adopt(address, config))
            elif address.kind == "systemd":
                _adopt_passed(address, config, listeners)
            elif address.kind == "udp":
                raise refused(address, str(address), OSError(errno.EPROTONOSUPPORT, "no UDP yet"))
            else:
                opened = open_tcp(address, config, copies)
                twice = {one.address for one in opened} & {one.address for one in listeners}
                listeners.extend(opened)
                if twice:  # the kernel allows that with SO_REUSEPORT
                    raise refused(address, str(twice.pop()), OSError(errno.EADDRINUSE, ""))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _adopt_passed(address: Address, config: Config, listeners: list[Listener]) -> None:
    """Append what was passed under the address's name."""
    from .passed import choose, name_some  # here: other servers start without it

    assert address.name is not None
    name_some(one.name for one in config.bind if one.name)
    listeners.extend(
        adopt(Address("systemd", name=one.name, fd=one.fd), config)
        for one in choose(address.name, "bind")
    )
