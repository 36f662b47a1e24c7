"""SIGINT at a chosen moment of a program, and the moments that there are.

Lives here: where CPython looks for signals, and sending one there. Does not live here: what is
interrupted (scenes.py, orders.py), what must hold afterwards (player.py, judge.py).

A handler of Python's, such as the one that raises KeyboardInterrupt, does not run when the signal
comes but when the main thread next looks for signals: on entering a function, on coming back from
one that is written in C (before its result is kept anywhere), and when a loop goes back. So what
can be interrupted is a row of moments, and the same program has the same ones each time.
"""

from __future__ import annotations

import dis
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

LOOKS_BEHIND = {"CALL", "CALL_FUNCTION_EX", "CALL_KW"}
"""Instructions behind which CPython looks, if what they called is not written in Python."""
BY_C = {"__init__", "__new__", "__del__"}
"""Functions in Python that C calls: from the instruction's point of view, C has been called."""

Trace = Callable[[FrameType, str, Any], Any]


class Interruption:
    """In a `with` block: SIGINT in the main thread at the moment of that number, counted from 1.

    Args:
        number: nothing happens if there are fewer moments.
        folder: only moments in files below it count; "" for all.
        note: called with the place before the signal is sent.
    """

    def __init__(
        self, number: int, folder: str = "", note: Callable[[str], object] = lambda _: None
    ) -> None:
        self.place = ""
        """Where the signal was sent: file, line, function; "" if it was not."""
        self._left = number
        self._folder = folder
        self._note = note
        # Whoever traced before, such as a measurement of coverage, goes on after the block.
        self._before = sys.gettrace()
        # The frame to which a function in Python has just returned.
        self._returned_to = 0

    def begin(self) -> None:
        """Count from here on, without an end."""
        sys.settrace(self._enter)

    def __enter__(self) -> Interruption:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Trace | None:
        """Watch a function that is entered."""
        code = frame.f_code
        if code.co_filename == __file__:
            return None
        counts = code.co_filename.startswith(self._folder)
        instructions = code.co_code
        before = -1

        def watch(frame: FrameType, event: str, argument: Any) -> Trace:
            nonlocal before
            if event == "opcode":
                here = frame.f_lasti
                from_python = self._returned_to == id(frame)
                self._returned_to = 0
                if counts and (
                    before < 0
                    or here < before
                    or (not from_python and dis.opname[instructions[before]] in LOOKS_BEHIND)
                ):
                    self._moment(frame, "entry of " if before < 0 else "")
                before = here
            elif event == "return" and code.co_name not in BY_C:
                self._returned_to = id(frame.f_back)
            return watch

        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return watch

    def _moment(self, frame: FrameType, where: str) -> None:
        self._left -= 1
        if self._left == 0:
            sys.settrace(None)
            code = frame.f_code
            self.place = f"{code.co_filename}:{frame.f_lineno}, {where}{code.co_qualname}"
            self._note(self.place)
            signal.raise_signal(signal.SIGINT)
