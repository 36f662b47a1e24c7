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

from ._core import proxy_error_name
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
REPEAT_LASTING_MS = 60_000
"""The same, if nothing is new but what may last for hours: accepting still rests, or more datagrams
came that are not answered."""
LASTING = (1, 5, 6, 7, 8)
"""Where these stand among the counts."""


def write_log(
    core: Core, config: Config, listeners: Sequence[Listener], has_ended: Callable[[], bool]
) -> None:
    """Write the log until the server has ended and everything is written.

    Thread: the body of one daemon thread.
    """
    block_signals()
    line = access_json if config.log_format == "json" else access_text
    trouble = _Trouble()
    timeout_ms, ended, written = -1, False, 0
    while written or not ended:
        ended = has_ended()  # before the look: what comes after it is put before that
        counts = core.news(0 if ended or written else timeout_ms)
        written = _write_entries(core, config.threads, listeners, line, trouble)
        timeout_ms = trouble.tell(counts)
    trouble.tell(core.news(0), at_once=True)


def _write_entries(
    core: Core,
    workers: int,
    listeners: Sequence[Listener],
    line: Callable[[Entry], str],
    trouble: _Trouble,
) -> int:
    """Write what the workers have finished; return how many lines that were."""
    behind = time.time() - time.monotonic()
    written = 0
    for worker in range(workers):
        for (
            number, address, index, began, ended, taken, given, reason, error, wait,
        ) in core.log_entries(worker):  # fmt: skip
            listener = listeners[index]
            entry = Entry(
                number=number or None,
                peer=read_name(address),
                listener=str(listener.address),
                ended_at=behind + ended / 1e9,
                queue_wait=wait / 1000 if wait >= 0 else None,
                duration=(ended - began) / 1e9,
                bytes_in=taken,
                bytes_out=given,
                ended_by=reason,
                error=errorcode.get(error, f"errno {error}") if error else None,
            )
            try:
                access_log.info("%s", line(entry), extra={"entry": entry})
            except Exception as raised:  # a handler's: it costs its line
                trouble.failed += 1
                trouble.failure = raised
            written += 1
    return written


class _Trouble:
    """What was told last, and when the next line may come."""

    def __init__(self) -> None:
        # Lines that a handler of the access log has raised at, and what it raised last.
        self.failed = 0
        self.failure: Exception | None = None
        self._told: tuple[int, ...] = (0,) * 10
        self._next = self._next_lasting = 0.0

    def _is_lasting(self, now: tuple[int, ...]) -> bool:
        """Tell whether all that is new is of the kind that may last."""
        return all(i in LASTING for i, n in enumerate(now) if n != self._told[i])

    def tell(self, counts: tuple[int, ...], *, at_once: bool = False) -> int:
        """Write a line about what is new; return in how many ms to look again, -1 for never."""
        *counted, proxy_error = counts
        now = (*counted, self.failed)
        shed, pauses, dropped, refused, untrusted, port, address, rate, loop, failed = (
            n - was for n, was in zip(now, self._told, strict=True)
        )
        if now == self._told:
            # A worker says nothing more within a second of its last word: look once more then.
            due = self._next
        else:
            due = self._next_lasting if self._is_lasting(now) else self._next
        wait = due - time.monotonic()
        if wait > 0 and not at_once:
            return int(wait * 1000) + 1
        if now == self._told:
            return -1
        self._told = now
        self._next = time.monotonic() + REPEAT_MS / 1000
        if shed:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            who = _counted(shed, "newcomer was", "newcomers were")
            _warn("no descriptor was left: %s reset (the limit is %d)", who, limit)
        if pauses:
            self._next_lasting = time.monotonic() + REPEAT_LASTING_MS / 1000
            often = _counted(pauses, "time", "times")
            _warn("accepting rested %s: no descriptors or memory, or the system forbids it", often)
        if dropped:
            who = _counted(dropped, "connection is", "connections are")
            _warn("%s not in the access log", who)
        if refused:
            who = _counted(refused, "newcomer was", "newcomers were")
            _warn("%s reset for the PROXY header: %s", who, proxy_error_name(proxy_error))
        if untrusted:
            who = _counted(untrusted, "newcomer was", "newcomers were")
            _warn("%s reset: a PROXY header is required, and proxy_trusted does not name them", who)
        guards = {"port": port, "address": address, "rate": rate, "loop": loop}
        if any(guards.values()):
            self._next_lasting = time.monotonic() + REPEAT_LASTING_MS / 1000
            by = ", ".join(f"{guard} {n}" for guard, n in guards.items() if n)
            who = _counted(sum(guards.values()), "datagram was", "datagrams were")
            _warn("%s not answered, by guard: %s", who, by)
        if failed:
            lines = _counted(failed, "line", "lines")
            _warn("a logging handler failed at %s of the access log: %r", lines, self.failure)
        return REPEAT_MS


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _warn(message: str, *values: object) -> None:
    """Log a warning; a handler that raises has nobody left to be told of."""
    try:
        log.warning(message, *values)
    except Exception:
        pass
