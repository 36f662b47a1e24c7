"""The thread that writes the log: the access log's lines, and trouble of which it is told.

Lives here: taking entries from the core and giving lines to logging. Does not live here: what a
line looks like (logs.py), what is counted (the core).

A worker never waits for this thread. Whoever reads the log may stand still: entries then fill the
core's rings, and what finds no room is counted; one line says how many, once a second at the most.
The same holds for newcomers that were shed for want of a descriptor.

Loggers: "fastecho.access" (INFO) gets the access log, its Entry as the attribute `entry` of the
LogRecord; "fastecho" (WARNING) gets the rest.
"""

from __future__ import annotations

import logging
import resource
import time
from errno import errorcode

from .logs import Entry, access_json, access_text
from .peer import read_name
from .signals import block_signals

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._core import Core
    from .config import Config
    from .listener import Listener

__all__ = ["write_log"]

log = logging.getLogger("fastecho")
access_log = logging.getLogger("fastecho.access")

REPEAT_MS = 1000
"""Trouble that lasts is told so often at the most."""


def write_log(
    core: Core, config: Config, listeners: Sequence[Listener], has_ended: Callable[[], bool]
) -> None:
    """Write the log until the server has ended and everything is written.

    Thread: the body of one daemon thread.
    """
    block_signals()
    line = access_json if config.log_format == "json" else access_text
    trouble = _Trouble()
    timeout_ms, ended = -1, False
    while not ended:
        ended = has_ended()  # before the look: what comes after it is put before that
        counts = core.news(0 if ended else timeout_ms)
        while _write_entries(core, config.threads, listeners, line):
            pass
        timeout_ms = trouble.tell(counts, at_once=ended)


def _write_entries(
    core: Core, workers: int, listeners: Sequence[Listener], line: Callable[[Entry], str]
) -> int:
    """Write what the workers have finished; return how many lines that were."""
    behind = time.time() - time.monotonic()
    written = 0
    for worker in range(workers):
        for number, address, index, began, ended, taken, given, reason, error in core.log_entries(
            worker
        ):
            listener = listeners[index]
            entry = Entry(
                number=number or None,
                peer=read_name(address, listener.family),
                listener=str(listener.address),
                ended_at=behind + ended / 1e9,
                duration=(ended - began) / 1e9,
                bytes_in=taken,
                bytes_out=given,
                ended_by=reason,
                error=errorcode.get(error, f"errno {error}") if error else None,
            )
            access_log.info("%s", line(entry), extra={"entry": entry})
            written += 1
    return written


class _Trouble:
    """What was told last, and when the next line may come."""

    def __init__(self) -> None:
        self._told = (0, 0, 0)
        self._next = 0.0

    def tell(self, counts: tuple[int, int, int], *, at_once: bool) -> int:
        """Write a line about what is new; return in how many ms to look again, -1 for never."""
        if counts == self._told:
            return -1
        wait = self._next - time.monotonic()
        if wait > 0 and not at_once:
            return int(wait * 1000) + 1
        shed, pauses, dropped = (now - was for now, was in zip(counts, self._told, strict=True))
        self._told = counts
        self._next = time.monotonic() + REPEAT_MS / 1000
        if shed:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            log.warning(
                "no descriptor was left: newcomers reset %d (a process may have %d)", shed, limit
            )
        if pauses:
            log.warning("accepting rested for want of descriptors or memory: times %d", pauses)
        if dropped:
            log.warning("the access log leaves out connections: %d", dropped)
        return REPEAT_MS
