"""Admission: the thread that asks the accept callback about each newcomer, and tells of ends.

Lives here: what counts as its answer, and on_close without on_message. Does not live here: what
becomes of the newcomer (the core), what a callback is told (peer.py), how a failure is told
(callbacks.py), message callbacks (the core).

The callback runs on a thread of its own and never on a worker: taking the GIL back beside a busy
Python thread costs milliseconds, and would stall every connection of that worker. Newcomers come
in batches; each is served as soon as its own answer is there.
"""

from __future__ import annotations

import time

from .errors import ConfigError
from .signals import block_signals

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._core import Core
    from .callbacks import Callbacks
    from .faults import Fault
    from .peer import Peer

__all__ = ["ask_for_each"]

NO_MEMORY_WAIT = 0.01
"""Seconds until a verdict is posted again: lost, it would leave its newcomer without an end."""


def ask_for_each(
    core: Core, calls: Callbacks, check: Callable[[Fault], object], has_ended: Callable[[], bool]
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
            for worker, slot, generation, listener, _, address, wait, proxy in newcomers:
                accept, fault = _answer(calls, check, calls.peer(address, listener, wait, proxy))
                while not core.verdict(worker, slot, generation, accept, fault):
                    time.sleep(NO_MEMORY_WAIT)
            for connection, reason in ended:
                calls.ended(connection, reason)
            calls.rounds += 1
    finally:
        core.end_admissions()


def _answer(
    calls: Callbacks, check: Callable[[Fault], object], peer: Peer
) -> tuple[bool, dict[str, int] | None]:
    """Return the callback's answer and the fault for this peer; whatever goes wrong is a no."""
    try:
        answer = calls.call("on_accept", peer)
        if answer is None or isinstance(answer, bool):
            return answer is not False, None
        from .faults import Fault

        if not isinstance(answer, Fault):
            raise TypeError(f"on_accept must return None, True, False or a Fault, not {answer!r}")
        try:
            check(answer)
        except ConfigError as error:
            raise ValueError(f"on_accept returned what cannot be: {error}") from None
        return True, answer.numbers()
    except BaseException as error:
        calls.failed_here("on_accept", peer, error)
        return False, None
