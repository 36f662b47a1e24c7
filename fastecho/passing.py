"""Passing on: what a running server does to its listeners when another one takes them over.

Lives here: Passing, a part of Server. Does not live here: how the two servers talk (handover/),
draining (server.py), what the core makes of it (_listeners.pxd).

_lend() opens a time in which another process has the sockets as well, and may or may not come to
serve. In it nothing may be done to a listener that the other one would notice: a drain that is
asked for (SIGTERM) waits until it is over, one that ends everything (a second signal) leaves
sockets and files as they are. _keep() or _give() end that time.
"""

from __future__ import annotations

from .changing import Changing

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from . import _core
    from .handover.offers import Offers
    from .listener import Listener

__all__ = ["Passing"]


class Passing(Changing):
    """The part of Server that hands its listeners over, and takes those of another one."""

    # What another server offers: set before start().
    _offers: Offers | None = None
    # Called between opening the listeners and starting threads, with the listeners.
    _on_opened: Callable[[Sequence[Listener]], None] | None = None
    # Between _lend() and _keep() or _give(): a successor has the listeners as well.
    _lent = False
    # A drain was asked for meanwhile.
    _drain_asked = False

    def _lend(self) -> bool:
        """For handover/: show the listeners to a successor; False: the end has begun."""
        with self._lock:
            if not self._accepting or self._ending or self._drain_asked or self._lent:
                return False
            self._lent = True
            return True

    def _keep(self) -> None:
        """For handover/: the successor has failed. It may have been woken for a newcomer."""
        self._share(())
        self._lent = False
        if self._drain_asked and self._core is not None:
            self._drain(self._core)

    def _give(self, taken: Collection[int]) -> None:
        """For handover/: the successor serves on these listeners; drain, and leave them to it."""
        for number in taken:
            self._opened()[number].give()
        self._share(taken)
        self._lent = False
        if self._core is not None:
            self._drain(self._core)

    def _own(self) -> None:
        """For handover/: the listeners that were taken are ours alone from now on."""
        self._share(())

    def _share(self, given: Collection[int]) -> None:
        with self._lock:
            if self._core is not None:
                whose = [(one.owned, i in given) for i, one in enumerate(self._listeners)]
                self._core.share(whose)

    def _drain(self, core: _core.Core) -> None:
        raise NotImplementedError
