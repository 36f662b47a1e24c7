"""Whether every IPv6 address of the name answers."""

from __future__ import annotations

from socket import AF_INET6

from fastecho.check.families import reach_all

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "it can be reached over IPv6"
GROUP, ORDER, QUICK, PHASE, NEEDS = "reach", 6, True, "beside", ("tcp",)
PASSED = "Every IPv6 address of the name accepts connections and echoes."
FAILED = (
    "The name has an IPv6 address that does not serve: clients that prefer it fail, or wait for "
    "their timeout before they try another; usually a DNS record that is too old, a server that "
    "listens on one family only, or a firewall."
)


def run(path: Path) -> Finding:
    """Connect to each, and let a line come back."""
    return reach_all(path, AF_INET6, "IPv6")
