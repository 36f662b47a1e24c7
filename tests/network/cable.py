"""A long cable between a host of the rig and the switch: frames pass through this program.

    python tests/network/cable.py --delay-ms 20 --ready-fd 3 HOST-NAMESPACE eth0 SWITCH-NAMESPACE p2

Both ends are TAP devices that it makes, with these names, in these network namespaces (of `ip
netns`). Nothing is lost or reordered. The cable is gone when the program is.
"""

from __future__ import annotations

import argparse
import ctypes
import os
from pathlib import Path

from boxes.line import CLONE_NEWNET, IFF_TAP, Line, open_device

NAMESPACES = Path("/run/netns")


def end(namespace: str, name: str) -> int:
    """Go into a network namespace, and make an end of the cable there; return its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / namespace).open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    return open_device(name.encode(), IFF_TAP)


def main() -> None:
    """Make the cable; pass frames until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-ms", type=float, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("ends", nargs=4, metavar="NAME")
    options = parser.parse_args()
    host, host_port, switch, switch_port = options.ends
    one, other = end(host, host_port), end(switch, switch_port)
    with os.fdopen(options.ready_fd, "w") as ready:
        ready.write("ready\n")
    Line(one, other, options.delay_ms / 1e3).run()


if __name__ == "__main__":
    main()
