"""What runs on a worker of a Dask cluster: its clock, one load, and the end of it.

Lives here: the functions that are sent to a worker; it imports fastecho to run them. Does not live
here: whom they are sent to, and when (cluster.py).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plan import Plan
    from .result import Interval

__all__ = ["TOPIC", "clock", "run_here", "stop"]

TOPIC = "fastecho-bench"
"""Under which the intervals of all workers are told."""
_stopped = threading.Event()
"""Set by stop(), seen by the load that runs in this process."""


def clock() -> tuple[str, float]:
    """Return the version of fastecho here, and the time of day."""
    from fastecho import _load  # noqa: F401 - without the extension there is no load
    from fastecho._version import __version__

    return __version__, time.time()


def run_here(plan: Plan, begin: float, address: str) -> dict[str, Any] | str:
    """Run a plan that begins at a time of this machine's clock.

    Returns:
        dict: the result as for JSON; or str: why there is none. (Dask would log what is raised.)
    """
    from fastecho.errors import FastechoError

    from .runner import run

    _stopped.clear()
    try:
        return run(plan, on_interval=_Teller(address), start_at=begin).to_json()
    except KeyboardInterrupt:
        return "it was ended before there was a result"
    except (FastechoError, OSError) as error:
        return str(error)


def stop() -> None:
    """End the window of the load that runs here."""
    _stopped.set()


class _Teller:
    """Tells the scheduler of each interval; after stop(), ends the window as Ctrl-C would."""

    def __init__(self, address: str) -> None:
        from distributed import get_worker

        self._address = address
        self._worker = get_worker()

    def __call__(self, interval: Interval) -> None:
        self._worker.log_event(TOPIC, (self._address, interval.to_json()))
        if _stopped.is_set():
            _stopped.clear()
            raise KeyboardInterrupt
