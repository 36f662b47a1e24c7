"""What a connection is for, and what stands before its first byte: who is believed, who answers.

Lives here: from a Config to what the core takes for it. Does not live here: the header and the
line themselves (src_c/proxy.h, src_c/identify.h), what the settings mean (settings.py).
"""

from __future__ import annotations

import json
import socket

from ._version import __version__
from .limits import milliseconds

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from .config import Config

__all__ = ["front_of"]

SERVICES = {"echo": 0, "discard": 1, "chargen": 2}
PROXY_MODES = {"off": 0, "optional": 1, "required": 2}


def front_of(config: Config) -> dict[str, object]:
    """Return what Core takes as its `front`.

    Raises:
        OSError: the host's name cannot be told.
    """
    return {
        "service": SERVICES[config.service],
        "proxy": PROXY_MODES[config.proxy_protocol],
        "proxy_timeout_ms": milliseconds(config.proxy_timeout),
        "trusted": [(one.is_ipv6, one.packed, one.bits) for one in config.proxy_trusted],
        "identity": _identity(config.instance) if config.identify else None,
    }


def _identity(instance: str | None) -> bytes:
    """Return the line's beginning, what is the same for every connection."""
    host = socket.gethostname()
    known = {"fastecho": __version__, "instance": instance or host, "host": host}
    return json.dumps(known, separators=(",", ":"))[:-1].encode()
