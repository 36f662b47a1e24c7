"""How long a small datagram takes, there and back."""

from __future__ import annotations

from fastecho.check.asking import ask_once, try_seconds
from fastecho.check.pattern import Pattern
from fastecho.check.pings import spread
from fastecho.check.train import answered_socket
from fastecho.check.verdict import NotTestable, passed

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "time of a small datagram"
GROUP, QUICK, PHASE, NEEDS = "path", True, "alone", ()
PASSED = "For information: no time is wrong by itself."
FAILED = "No datagram came back."
SIZE = 64
PAUSE_SECONDS = 0.002


def run(path: Path) -> Finding:
    """Send one after the other; those that are lost are a matter of the probe loss."""
    times, sent = [], 10 if path.quick else 100
    with answered_socket(path, 1) as socket:
        for number in range(sent):
            data = Pattern(path.seed, 340 + number, SIZE).take(0, SIZE)
            took = ask_once(path, socket, data, try_seconds(path))
            if took is not None:
                times.append(took)
            path.sleep(PAUSE_SECONDS)
    if not times:
        raise NotTestable(f"of {sent} datagrams none came back")
    words, values = spread(times)
    return passed(f"{len(times)} datagrams of {SIZE} bytes, {words}", datagrams=sent, **values)
