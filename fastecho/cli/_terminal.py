"""What a command needs of a terminal: harmless text, a place to draw, line editing, Ctrl-C.

What lives here: making a peer's bytes safe to show, writing text at the end of a terminal or above
the line that the user is typing, switching on readline, the language of the user, interrupting a
main thread that waits. What may not live here: connections, options and commands.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CHUNK_BYTES", "RESEND_SECONDS", "Decoder", "Interrupts", "Screen", "can_interrupt",
    "interrupt", "printable", "read_some", "speaks_chinese", "start_readline", "write_all",
]  # fmt: skip

CHUNK_BYTES = 262144
"""At most so many bytes from one read: what Client gives at once."""


RESEND_SECONDS = 0.02
"""A signal that may have been lost is sent again after this time, which nobody notices."""


def printable(text: str) -> str:
    """Return text from a peer with everything escaped that could act on a terminal.

    Control characters other than newline and tab, the marks that change the direction of text,
    line and paragraph separators and lone surrogates become backslash escapes. The two joiners
    stay: scripts and emoji are spelt with them.
    """
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(c if _is_harmless(c) else _escape(c) for c in text)


def _is_harmless(character: str) -> bool:
    from unicodedata import category

    if character in "\n\t\u200c\u200d":
        return True
    return category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def width(character: str) -> int:
    """Return how many columns a character takes, at most: what is ambiguous counts as wide."""
    from unicodedata import category, east_asian_width

    if category(character) in {"Mn", "Me", "Cf"}:
        return 0
    if character < " " or character == "\x7f":
        return 8 if character == "\t" else 2  # readline shows ^X
    return 2 if east_asian_width(character) in "WFA" else 1


def rows_of(text: str, columns: int) -> list[str]:
    """Cut text into rows that fit the terminal's width."""
    rows = []
    for line in text.removesuffix("\n").split("\n"):
        row, used = "", 0
        for character in line.expandtabs(8):
            needed = width(character)
            if used + needed > columns:
                rows.append(row)
                row, used = "", 0
            row += character
            used += needed
        rows.append(row)
    return rows


class Decoder:
    """UTF-8 that arrives in pieces, to text that a terminal may show.

    A character whose bytes are split over two receives is kept until it is whole; bytes that are
    no UTF-8 are shown as escapes.
    """

    def __init__(self) -> None:
        from codecs import getincrementaldecoder

        self._decoder = getincrementaldecoder("utf-8")("backslashreplace")

    def text(self, data: bytes, *, final: bool = False) -> str:
        """Return what can be shown now; with `final` also the bytes of a character cut short."""
        return printable(self._decoder.decode(data, final))


class Screen:
    """The terminal on standard output: text at its end, or above the line being typed.

    Bytes go to the descriptor at once: a thread that is stuck in sys.stdout would hinder the
    interpreter's exit, and readline writes to the same terminal unbuffered.
    """

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._fd = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding
        # The cursor stands in a fresh row.
        self._fresh = True
        # Nothing but text may be sent to it.
        self._plain = os.environ.get("TERM", "dumb") == "dumb"

    def write(self, text: str) -> None:
        """Write text at the end."""
        if text:
            self._put(text)
            self._fresh = text.endswith("\n")

    def end_row(self) -> None:
        """Go to a fresh row, unless the cursor is in one."""
        if not self._fresh:
            self.write("\n")

    def line_begins(self) -> None:
        """Note that the prompt is about to be shown (by readline)."""
        self._fresh = False

    def line_ends(self) -> None:
        """Note that the user's Enter has moved the cursor to a fresh row."""
        self._fresh = True

    def insert(self, text: str, typed: str) -> None:
        """Show text above the prompt and the line being typed, wherever its cursor is.

        IND as often as that line has rows, then up again, makes a free row below it. Then for
        each row of text: save the cursor, insert a row (IL) above the line, fill it with wrapping
        switched off, go back; the place where the cursor was is now one row further down.
        """
        columns, rows = self._size()
        # The rows of the typed line, never too few; too many only put the text higher up.
        height = sum(map(width, self._prompt + typed)) // (columns - 1) + 1
        if self._plain or height + 2 > rows:
            end = "" if text.endswith("\n") else "\n"
            self._put(f"\n{text}{end}{self._prompt}{printable(typed)}")
            return
        room = "\x1bD" * height + f"\x1b[{height}A"
        above = f"\x1b[{height - 1}A" if height > 1 else ""
        drawn = "".join(
            f"{room}\x1b7{above}\r\x1b[L{row}\x1b8\x1b[B" for row in rows_of(text, columns)
        )
        self._put(f"\x1b[?7l{drawn}\x1b[?7h")

    def _put(self, text: str) -> None:
        write_all(self._fd, text.encode(self._encoding, "backslashreplace"))

    def _size(self) -> tuple[int, int]:
        """Return columns and rows; some terminals (serial lines) know neither."""
        try:
            columns, rows = os.get_terminal_size(self._fd)
        except OSError:
            columns = rows = 0
        return max(columns or 80, 3), rows or 24


def write_all(fd: int, data: bytes) -> None:
    """Write all of the data, also to a descriptor that somebody has made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            from select import select

            select([], [fd], [])


def read_some(fd: int) -> bytes:
    """Read what is there, b"" at the end; wait if there is nothing."""
    while True:
        try:
            return os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            from select import select

            select([fd], [], [])


def can_interrupt() -> bool:
    """Tell whether another thread can interrupt this one, which must be the main thread."""
    import signal
    import threading

    in_main = threading.current_thread() is threading.main_thread()
    return hasattr(signal, "pthread_kill") and in_main


def interrupt(number: int | None = None) -> None:
    """End what the main thread is waiting in, for a moment: its signal handlers run then.

    Args:
        number: the signal; None takes SIGURG, whose default action is to do nothing.
    """
    import signal
    from threading import main_thread

    thread = main_thread().ident
    if thread is not None:
        signal.pthread_kill(thread, signal.SIGURG if number is None else number)


class Interrupts:
    """In a `with` block in the main thread: Ctrl-C is noticed at once, whatever it waits in.

    A signal that arrives just before the main thread goes to wait only sets a flag in CPython, and
    nobody looks at the flag until the wait is over: a Ctrl-C is lost until the next key or byte.
    But the signal is also told to a pipe. A thread reads that, and as long as the handler has not
    run it sends the same signal again (not another one: input() bears no two at a time).
    """

    def __enter__(self) -> None:
        import signal
        from threading import Thread

        # KeyboardInterrupt has been raised, or the block has ended, or Ctrl-C is not for us.
        self._noticed = True
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._handler = signal.getsignal(signal.SIGINT)
        if self._handler is signal.default_int_handler:
            self._noticed = False
            signal.signal(signal.SIGINT, self._on_signal)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        Thread(target=self._watch, name="fastecho-interrupts", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        import signal

        self._noticed = True
        signal.set_wakeup_fd(self._wakeup)
        if self._handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handler)
        os.close(self._writer)

    def _on_signal(self, *_: object) -> None:
        self._noticed = True
        raise KeyboardInterrupt

    def _watch(self) -> None:
        """Read which signals came; see to it that Ctrl-C is handled (second thread)."""
        import signal
        from time import sleep

        while signals := os.read(self._reader, 256):
            if signal.SIGINT in signals:
                sleep(RESEND_SECONDS)
                if not self._noticed:
                    interrupt(signal.SIGINT)
        os.close(self._reader)


def speaks_chinese() -> bool:
    """Tell whether the user's language is Chinese, by the variables that setlocale(3) reads."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    language = next(filter(None, map(os.environ.get, names)), "")
    return language == "zh" or language.startswith(("zh_", "zh-", "zh."))


def start_readline() -> Callable[[], str]:
    """Switch on line editing where Python has it; return what tells the line being typed."""
    import io

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes go out as they were typed
    _settle_locale()
    try:
        import readline
    except ImportError:
        return str
    return readline.get_line_buffer


def _settle_locale() -> None:
    """Let readline see UTF-8 when Python does.

    With a locale in the environment that is not installed, Python falls back to UTF-8, but the C
    library to single bytes: readline would take a Chinese character apart.
    """
    import locale

    if sys.stdin.encoding.lower().replace("-", "") != "utf8":
        return
    try:
        locale.setlocale(locale.LC_CTYPE, "")
        if locale.nl_langinfo(locale.CODESET).upper() == "UTF-8":
            return
    except (locale.Error, AttributeError):
        pass
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        pass
