"""Admission: the thread that asks the accept callback about each newcomer, and tells of ends.

Lives here: running the callback, and what counts as its answer. Does not live here: what becomes
of the newcomer (the core), what a callback is told (peer.py), message callbacks (callbacks.py).

The callback runs on a thread of its own and never on a worker: taking the GIL back beside a busy
Python thread costs milliseconds, and would stall every connection of that worker. Newcomers come
in batches; each is served as soon as its own answer is there.
"""

from __future__ import annotations

import logging
import time

from .errors import ConfigError
from .peer import Peer, read_peer
from .signals import block_signals

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._core import Core
    from .callbacks import Callbacks
    from .faults import Fault
    from .listener import Listener

__all__ = ["ask_for_each"]

log = logging.getLogger("fastecho")

NO_MEMORY_WAIT = 0.01
"""Seconds until a verdict is posted again: lost, it would leave its newcomer without an end."""


def ask_for_each(
    core: Core,
    on_accept: Callable[[Peer], object] | None,
    calls: Callbacks | None,
    listeners: Sequence[Listener],
    check: Callable[[Fault], object],
    has_ended: Callable[[], bool],
) -> None:
    """Ask the accept callback about every newcomer until the server has ended.

    `check` raises ConfigError for a fault that the server cannot have.
    on_close, where there is no on_message, is called from here as well.

    Thread: the body of one daemon thread. It is not waited for: a callback that never returns
    keeps nobody but its own newcomer and those behind it.
    """
    block_signals()
    try:
        over = False
        while not over:
            over = has_ended()  # looked at before: what came until then is still told
            newcomers, ended = core.admissions(0 if over else -1)
            for worker, slot, generation, listener, _, address, wait in newcomers:
                assert on_accept is not None
                peer = read_peer(address, listeners[listener], wait)
                accept, fault = _answer(on_accept, check, peer)
                while not core.verdict(worker, slot, generation, accept, fault):
                    time.sleep(NO_MEMORY_WAIT)
            for connection, reason in ended:
                assert calls is not None
                calls.ended(connection, reason)
    finally:
        core.end_admissions()


def _answer(
    on_accept: Callable[[Peer], object], check: Callable[[Fault], object], peer: Peer
) -> tuple[bool, dict[str, int] | None]:
    """Return the callback's answer and the fault for this peer; whatever goes wrong is a no."""
    try:
        answer = on_accept(peer)
    except BaseException:
        log.exception("on_accept failed for %r: the connection is reset", peer)
        return False, None
    if answer is None or answer is True:
        return True, None
    from .faults import Fault

    if isinstance(answer, Fault):
        try:
            check(answer)
        except ConfigError as error:
            log.error("on_accept returned what cannot be: %s: reset", error)
            return False, None
        return True, answer.numbers()
    if answer is not False:
        log.error("on_accept must return None, True, False or a Fault, not %r: reset", answer)
    return False, None
