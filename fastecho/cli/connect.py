"""`fastecho connect`: type lines to an echo server and read what it sends.

What lives here: the command's options, the conversation at a terminal (prompt, reply, bytes that
arrive while the user types) and the copying of piped input. What may not live here: sockets
(fastecho.Client has them), drawing on the terminal (_terminal has it), anything about servers.

Two threads share the one connection, which Client allows. At a terminal the main thread asks for
lines and sends them and a second one receives; with piped input the main thread receives and a
second one reads and sends, so that the end of the connection ends the program even while a read
from standard input is stuck.

Showing bytes while a line is being typed. Readline waits in select(2) for keys, in the main
thread, and Python offers no way to wait for a socket beside it. But when a signal interrupts that
select, CPython runs the Python handler right there, between two keys, and goes on waiting. So the
receiving thread hands over what has come and sends the main thread a signal, and the handler shows
it above the line. A signal that comes just before the select would be lost: it is sent again until
the main thread has answered. The handler raises nothing for bytes (an exception could drop a line
that input() has just completed), only for the end of the connection. As handlers and Ctrl-C may
interrupt the main thread anywhere, it takes no lock: SimpleQueue, whose operations they cannot cut
in two, is all that the threads share. Only the main thread writes to the terminal.
"""

from __future__ import annotations

import sys
from time import monotonic

from fastecho.address import parse_target
from fastecho.cli import complain
from fastecho.cli._terminal import (
    CHUNK_BYTES,
    RESEND_SECONDS,
    Decoder,
    Interrupts,
    Screen,
    can_interrupt,
    interrupt,
    read_some,
    speaks_chinese,
    start_readline,
    write_all,
)
from fastecho.client import Client
from fastecho.errors import NO_VALUE, ConfigError
from fastecho.identity import PATIENCE, read_identity
from fastecho.proxy_header import checked_version, header_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from fastecho.address import Address
    from fastecho.cli._connect_udp import DatagramPeer

__all__ = ["add_arguments", "run"]

NAME = "fastecho connect"
DEFAULT_ADDRESS = "127.0.0.1:7777"
DEFAULT_WAIT = "0.2"
UDP_SECONDS = 1.0
"""Without --timeout, so long a datagram of piped input is given for its answer."""
HELD_CHARACTERS = 65536
"""No longer part of a line is held back at the prompt."""
GOODBYE = frozenset({"q", "quit", "exit"})
BYE = "Bye~~~"
EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130

DESCRIPTION = """\
Connect to an echo server. At a terminal: type a line and see the reply, and at once
whatever else arrives; q, quit, exit or Ctrl-D end it, Ctrl-C breaks it off (130).

Piped input is sent byte for byte and never interpreted. What comes back goes to
standard output. At the end of the input the connection is half-closed, and the command
ends when the server closes too, so nothing is lost.

Over UDP each line is a datagram. At the end of piped input it ends when each was
answered, or when nothing has come for --timeout (default: 1 s), which is exit code 1.

On a terminal, control characters and the like from the server are shown as escapes.
Exit code 0 at the end, 1 if the connection failed or the server ended it, 2 for a wrong
option."""

EXAMPLE = """\
examples:
  fastecho connect
  fastecho connect '[::1]:7777'
  fastecho connect 127.0.0.1:7777 --send-proxy v2 --identify
  printf 'a\\nb\\n' | fastecho connect unix:/run/echo.sock
  printf 'a\\nb\\n' | fastecho connect udp://127.0.0.1:7777"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `connect`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    parser.add_argument(
        "address",
        nargs="?",
        default=DEFAULT_ADDRESS,
        metavar="ADDRESS",
        help="HOST:PORT, [IPV6]:PORT, :PORT (this machine), udp://HOST:PORT or unix:PATH "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--no-newline",
        action="store_true",
        help="send typed lines without their newline; an empty line then sends nothing",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        help="give up connecting after this time (default: when the system gives up); over UDP: "
        "how long piped input waits for answers (default: 1)",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        default=DEFAULT_WAIT,
        help="after each piece of a reply wait so long for the end of its line before the next "
        "prompt; what comes later is shown above the prompt; over UDP also how long piped input "
        "waits for what comes twice (default: %(default)s)",
    )
    parser.add_argument(
        "--send-proxy",
        metavar="VERSION",
        help="first of all send a PROXY header with the connection's own addresses: v1 or v2",
    )
    parser.add_argument(
        "--identify",
        action="store_true",
        help="expect the line by which a server with --identify says who answers, within "
        f"--timeout or {PATIENCE:g} s, and show it as a note on standard error",
    )


def run(args: argparse.Namespace) -> int:
    """Connect, then converse or copy; return the exit code."""
    timeout = None if args.timeout is None else _seconds("--timeout", args.timeout, above=True)
    wait = _seconds("--wait", args.wait)
    if args.send_proxy is not None:
        checked_version(args.send_proxy, "--send-proxy")
    if sys.stdout is None:
        complain(NAME, "standard output is closed")
        return EXIT_FAILED
    address = parse_target(args.address, udp=True)
    if address.kind == "udp":
        return _run_udp(args, address, timeout or UDP_SECONDS, wait)
    try:
        client = Client(address, timeout)
    except OSError as error:
        complain(NAME, error.strerror or str(error))
        return EXIT_FAILED
    if failure := _begin(client, args.send_proxy, args.identify, timeout or PATIENCE):
        complain(NAME, failure)
        client.close()
        return EXIT_FAILED
    client.timeout = None
    newline = not args.no_newline
    typed = sys.stdin is not None and sys.stdin.isatty()
    if not can_interrupt():
        return Copy(client, typed=typed, newline=newline).run()
    with Interrupts():
        if typed and sys.stdout.isatty():
            return Conversation(client, newline=newline, wait=wait).run()
        return Copy(client, typed=typed, newline=newline).run()


def _run_udp(args: argparse.Namespace, address: Address, patience: float, wait: float) -> int:
    """Converse or copy, in datagrams; return the exit code."""
    from fastecho.cli._connect_udp import DatagramPeer, LineCopy
    from fastecho.dial import resolve

    for option, value in (
        ("--send-proxy", args.send_proxy),
        ("--identify", NO_VALUE if args.identify else None),
    ):
        if value is not None:
            raise ConfigError(option, value, f"needs a connection, which {address} does not have")
    what = ""
    try:
        targets = resolve(address)
        what = f"cannot reach {address}: "
        peer = DatagramPeer(targets, NAME)
    except OSError as error:
        complain(NAME, f"{what}{error.strerror or error}")
        return EXIT_FAILED
    typed = sys.stdin is not None and sys.stdin.isatty()
    newline = not args.no_newline

    def copy() -> int:
        return LineCopy(
            peer,
            name=NAME,
            goodbye=GOODBYE,
            typed=typed,
            newline=newline,
            wait=wait,
            patience=patience,
        ).run()

    if not can_interrupt():
        return copy()
    with Interrupts():
        if typed and sys.stdout.isatty():
            return Conversation(peer, newline=newline, wait=wait).run()
        return copy()


def _seconds(option: str, text: str, *, above: bool = False) -> float:
    """Return a number of seconds from the command line: 0 or more, or above 0."""
    try:
        if "_" in text:
            raise ValueError  # Python would read 1_0 as 10
        value = float(text)
    except ValueError:
        raise ConfigError(option, text, "must be a number of seconds") from None
    if not 0 <= value < float("inf") or (above and value == 0):
        limit = "above 0" if above else "of at least 0"
        raise ConfigError(option, text, f"must be a finite number of seconds {limit}")
    return value


def _begin(client: Client, send_proxy: str | None, identify: bool, patience: float) -> str:
    """Send and read what comes before the first byte; return what went wrong, "" if nothing did."""
    try:
        if send_proxy is not None:
            client.send(header_of(client, send_proxy))
    except OSError as error:
        return _lost(client, error)
    try:
        if identify:
            complain(NAME, str(read_identity(client, client.peer_address, patience)))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _lost(client: Client | DatagramPeer, failure: OSError | None) -> str:
    """Return the sentence for a connection that ended before the user ended it."""
    if failure is not None and client.peer_address.startswith("udp://"):
        return f"{client.peer_address}: {failure.strerror or failure}"
    if failure is None:
        return f"{client.peer_address} closed the connection"
    return f"the connection to {client.peer_address} failed: {failure.strerror or failure}"


class Copy:
    """Standard input to the server, what comes back to standard output, both to their ends.

    Bytes are copied as they are; only on a terminal the received ones are made harmless.
    """

    def __init__(self, client: Client, *, typed: bool, newline: bool) -> None:
        self._client = client
        # Standard input is a terminal (and standard output is none, or cannot be drawn on).
        self._typed = typed
        self._newline = newline
        # Set before our FIN: what the server closes after this, it closes in order.
        self._input_ended = False
        # Why reading the input, sending it or receiving failed.
        self._input_failure: OSError | None = None
        self._send_failure: OSError | None = None
        self._receive_failure: OSError | None = None
        # Each thread's last word: whoever comes second closes the connection.
        self._fed = self._received = False

    def run(self) -> int:
        """Copy until the server closes or something fails; return the exit code."""
        from threading import Thread

        show = self._output()
        Thread(target=self._feed, name="fastecho-input", daemon=True).start()
        try:
            while data := self._receive():
                show(data)
        except BrokenPipeError:
            raise  # as with any filter: whoever reads the output has had enough
        except OSError as error:
            complain(NAME, f"cannot write standard output: {error.strerror}")
            return EXIT_FAILED
        finally:
            self._received = True
            if self._fed:
                self._client.close()
        return self._conclude()

    def _receive(self) -> bytes:
        """Return more bytes from the server, b"" at the end, also when that is a failure."""
        try:
            return self._client.recv(CHUNK_BYTES)
        except OSError as error:
            self._receive_failure = error
            return b""

    def _conclude(self) -> int:
        """Tell what went wrong, if anything did; return the exit code."""
        failure = self._receive_failure or self._send_failure
        if self._input_failure is not None:
            complain(NAME, f"cannot read standard input: {self._input_failure.strerror}")
        elif failure is not None or not self._input_ended:
            complain(NAME, _lost(self._client, failure))
        else:
            return EXIT_DONE
        return EXIT_FAILED

    def _output(self) -> Callable[[bytes], None]:
        """Return what shows received bytes: exact, or harmless on a terminal."""
        fd = sys.stdout.fileno()
        if not sys.stdout.isatty():
            return lambda data: write_all(fd, data)
        decoder = Decoder()
        screen = Screen("")
        return lambda data: screen.write(decoder.text(data))

    def _feed(self) -> None:
        """Read standard input and send it; half-close at its end (second thread)."""
        # Not through sys.stdin: a thread stuck in its lock would break the interpreter's exit.
        fd = -1 if sys.stdin is None else sys.stdin.fileno()
        try:
            while data := self._read(fd):
                self._client.send(data)
            self._input_ended = True
            self._client.shutdown()
        except OSError as error:
            self._send_failure = error  # the receiving thread sees the end as well
        finally:
            self._fed = True
            if self._received:
                self._client.close()

    def _read(self, fd: int) -> bytes:
        """Return the next bytes to send, b"" at the end or when a word of goodbye was typed."""
        while fd >= 0:
            try:
                data = read_some(fd)
            except OSError as error:
                self._input_failure = error
                return b""
            if not self._typed:
                return data
            if data.decode("utf-8", "replace").strip().lower() in GOODBYE:
                print(BYE, file=sys.stderr)
                return b""
            line = data if self._newline else data.removesuffix(b"\n")
            if line or not data:
                return line
        return b""


class ConnectionEndedError(Exception):
    """Raised in the main thread when the connection has ended."""


class Conversation:
    """Prompt, line, reply, prompt: the main thread asks, sends and shows, another one receives."""

    def __init__(self, client: Client | DatagramPeer, *, newline: bool, wait: float) -> None:
        from queue import SimpleQueue

        self._client = client
        self._newline = newline
        # Seconds to wait for the end of a line.
        self._wait = wait
        self._prompt = _prompt()
        self._screen = Screen(self._prompt)
        self._decoder = Decoder()
        # Tells the line being typed.
        self._typed: Callable[[], str] = str
        # What the main thread shall do with what has come, one at a time; and its answers.
        self._arrived: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._answers: SimpleQueue[None] = SimpleQueue()
        # The user is at the prompt, or about to be, or was just now.
        self._asking = False
        # The main thread asks or sends: it takes what arrives only in the signal handler.
        self._blocked = False
        # Received at the prompt, and kept back until its line is complete.
        self._held = ""
        # Newlines shown since the last line was sent, and when the last bytes were shown.
        self._newlines = 0
        self._shown_at = 0.0
        # The connection has ended, and why (None: the peer closed it).
        self._ended = False
        self._failure: OSError | None = None
        # The user has ended it: nothing more is shown.
        self._finished = False

    def run(self) -> int:
        """Converse until the user or the connection ends it; return the exit code."""
        import signal
        from threading import Thread

        self._typed = start_readline()
        before = signal.signal(signal.SIGURG, self._on_signal) or signal.SIG_DFL
        Thread(target=self._listen, name="fastecho-receive", daemon=True).start()
        try:
            self._talk()
            self._finish(f"{BYE}\n")
        except ConnectionEndedError:
            self._finish("")
            complain(NAME, _lost(self._client, self._failure))
            return EXIT_FAILED
        except KeyboardInterrupt:
            self._finish("")
            return EXIT_INTERRUPTED
        finally:
            signal.signal(signal.SIGURG, before)
        return EXIT_DONE

    def _talk(self) -> None:
        """Ask, send and wait for the reply until the user ends it."""
        while True:
            try:
                line = self._ask()
            except EOFError:
                return
            if line.strip().lower() in GOODBYE:
                return
            text = line + "\n" if self._newline else line
            if text:
                self._send(text.encode("utf-8", "surrogateescape"))
                self._await_reply(text.count("\n") or 1)

    def _ask(self) -> str:
        """Return the next line that the user types, without its newline."""
        while self._take_next(0):
            pass
        if self._ended:
            raise ConnectionEndedError
        self._screen.end_row()
        self._screen.line_begins()
        try:
            self._asking = self._blocked = True
            line = input(self._prompt)
            self._screen.line_ends()
            return line
        except SystemError as error:
            # input() runs the handlers of other signals after one has raised, and CPython
            # makes this of it: `X returned a result with an exception set`.
            raise _first_cause(error) from None
        finally:
            self._asking = self._blocked = False
            held, self._held = self._held, ""
            self._screen.write(held)

    def _send(self, data: bytes) -> None:
        """Send a line; what comes back meanwhile is shown by the signal handler."""
        self._newlines = 0
        try:
            self._blocked = True
            self._client.send(data)
        except OSError as error:
            self._blocked = False
            self._failure = error
            self._await_reply(sys.maxsize)  # the peer's last words may still come
            raise ConnectionEndedError from None
        finally:
            self._blocked = False

    def _await_reply(self, newlines: int) -> None:
        """Show what comes until so many lines have, or nothing does for a short time."""
        self._shown_at = monotonic()
        while not self._ended and self._newlines < newlines:
            if not self._take_next(max(self._shown_at + self._wait - monotonic(), 0)):
                return

    def _finish(self, farewell: str) -> None:
        """Say goodbye and send our FIN; the receiving thread reads on, so nothing is reset."""
        self._finished = True
        self._screen.end_row()
        self._screen.write(farewell)
        try:
            self._client.shutdown()
        except OSError:
            pass  # the peer was faster

    def _take_next(self, seconds: float) -> bool:
        """Do with what has come what is to be done; wait for it; False if nothing came."""
        from queue import Empty

        try:
            act = self._arrived.get(seconds > 0, seconds)
        except Empty:
            return False
        act()
        self._answers.put(None)
        return True

    def _on_signal(self, *_: object) -> None:
        """Take what has come while the main thread asks or sends (in it, between two keys)."""
        if self._blocked:
            self._take_next(0)
            if self._ended:
                self._blocked = False  # once is enough
                raise ConnectionEndedError

    def _show(self, data: bytes, *, final: bool = False) -> None:
        """Show received bytes: at the end, or at the prompt, line by line, above it."""
        text = self._held + self._decoder.text(data, final=final)
        self._held = ""
        if not self._asking:
            self._screen.write(text)
            self._newlines += text.count("\n")
            self._shown_at = monotonic()
            return
        end = text.rfind("\n") + 1 if len(text) < HELD_CHARACTERS else len(text)
        self._held = text[end:]
        if end:
            self._screen.insert(text[:end], self._typed())

    def _show_held(self) -> None:
        """Show what is kept back: its time is over."""
        held, self._held = self._held, ""
        if held:
            self._screen.insert(held, self._typed())

    def _note_end(self, failure: OSError | None) -> None:
        """Show the rest and note that the connection has ended."""
        self._show(b"", final=True)
        self._show_held()
        self._ended = True
        self._failure = failure or self._failure

    def _listen(self) -> None:
        """Receive until the connection ends (second thread)."""
        from functools import partial

        # When a line that has begun is shown though it is not complete; None: none has.
        due: float | None = None
        failure: OSError | None = None
        try:
            while True:
                if due is not None and not self._is_readable(due - monotonic()):
                    due = None
                    self._hand_over(self._show_held)
                data = self._client.recv(CHUNK_BYTES)
                if not data:
                    break
                if data.endswith(b"\n"):
                    due = None
                elif due is None:
                    due = monotonic() + self._wait
                self._hand_over(partial(self._show, data))
        except OSError as error:
            failure = error
        self._hand_over(partial(self._note_end, failure))
        self._client.close()

    def _is_readable(self, seconds: float) -> bool:
        """Wait for more bytes of a line that has begun; False when its time is over."""
        import selectors

        with selectors.DefaultSelector() as selector:
            selector.register(self._client, selectors.EVENT_READ)
            return bool(seconds > 0 and selector.select(seconds))

    def _hand_over(self, act: Callable[[], None]) -> None:
        """Have the main thread do something, and wait until it has (second thread)."""
        from queue import Empty

        if not self._finished:
            self._arrived.put(act)
        while not self._finished:
            if self._blocked:
                interrupt()
            try:
                self._answers.get(timeout=RESEND_SECONDS)
            except Empty:
                continue
            return


def _first_cause(error: BaseException) -> BaseException:
    """Return the exception that an exception was made of, and that one of, and so on."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _prompt() -> str:
    """Return the prompt: the tutorial's words under a Chinese locale, else English."""
    chinese = "请输入内容: "
    if speaks_chinese():
        try:
            chinese.encode(sys.stdout.encoding)
        except UnicodeEncodeError:
            pass
        else:
            return chinese
    return "Enter a message: "
