"""Settings of `fastecho serve` that were chosen and do less than they say, or nothing."""

from __future__ import annotations

from fastecho.setting import UDP_BIND
from fastecho.settings import SETTINGS

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastecho.config import Config
    from fastecho.server import Server

__all__ = ["without_effect"]

OF_CONNECTIONS = (
    "backlog", "reuse_port", "frame", "max_connections", "max_per_ip", "accept_rate",
    "first_byte_timeout", "idle_timeout", "proxy_protocol", "identify", "user_timeout", "keepalive",
    "drain_idle", "access_log", "fault",
)  # fmt: skip
"""Settings that datagrams do not know."""


def without_effect(config: Config, server: Server) -> Iterator[str]:
    """Yield a sentence for each setting that was chosen and does less than it says, or nothing."""
    for setting in SETTINGS:
        needed = setting.needs.split(" or ") if setting.needs else []
        if not needed or any(
            bool(server.datagram_sockets)
            if one == UDP_BIND
            else getattr(config, one) not in (None, False, "off")
            for one in needed
        ):
            continue
        if getattr(config, setting.name) != setting.check(setting.default, setting.name):
            yield f"{setting.name} has no effect without {setting.needs}"
    for setting in SETTINGS if not server.listeners else ():
        if setting.name in OF_CONNECTIONS and getattr(config, setting.name) != setting.default:
            yield f"{setting.name} has no effect without connections: all addresses are UDP"
    for name, limit in (("send_buffer", "wmem_max"), ("receive_buffer", "rmem_max")):
        asked = getattr(config, name)
        try:
            with open(f"/proc/sys/net/core/{limit}", encoding="ascii") as file:
                most = int(file.read())
        except (OSError, ValueError):
            continue  # other namespaces of the network may not show it
        if asked is not None and asked > most:
            yield f"{name} {asked} is cut to {most} by the kernel (net.core.{limit})"
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = config.max_connections
    if wanted is not None and most != resource.RLIM_INFINITY and wanted >= most:
        yield f"max_connections {wanted} needs more than the {most} descriptors of ulimit -n"
