"""Signals that come while `fastecho serve` does not wait for them yet, or no more."""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["EarlySignals", "HungUp", "Stopped"]


class Stopped(KeyboardInterrupt):
    """A signal came while serve_forever() did not wait for signals yet, or no more."""


class HungUp(KeyboardInterrupt):
    """SIGHUP came when all earlier ones were made up for, and serve_forever() does not wait yet."""


class EarlySignals:
    """The handler of the signals that end the server, for as long as serve_forever() has none.

    While it holds them back they are only remembered, so that start() does everything or nothing
    and the totals are printed. Otherwise each raises Stopped wherever the main thread is.
    """

    def __init__(self, hangup_ends: bool) -> None:
        self.held = True
        self.seen = False
        # SIGHUP came, and is to make the settings be read again.
        self.hung_up = False
        # The next one raises HungUp.
        self.hangup_raises = False
        self._hangup_ends = hangup_ends
        self.install()

    def install(self) -> None:
        """Take the signals over, but for those that are ignored, as nohup leaves SIGHUP."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not self._hangup_ends:
            self.hung_up = True
            if self.hangup_raises:
                self.hangup_raises = False
                raise HungUp
            return
        self.seen = True
        if not self.held:
            self.hangup_raises = False
            raise Stopped

    def end(self) -> None:
        """The exit code is decided: from here on SIGHUP only asks for what cannot be had any more.

        Python puts the default back when it ends, and that would kill.
        """
        if not self._hangup_ends and signal.getsignal(signal.SIGHUP) is self:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def release(self) -> None:
        """Raise Stopped from now on, and at once if a signal was held back."""
        self.held = False
        if self.seen:
            raise Stopped
