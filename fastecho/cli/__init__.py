"""The command `fastecho`: finds the sub-command, runs it, turns what it raises into an exit code.

The table COMMANDS names the module of each sub-command, which is imported only when it is used: so
`fastecho --version` costs little more than Python itself. A module has `add_arguments(parser)`,
which also sets the parser's description and an example as its epilog, and `run(args) -> int`.

Exit codes: 0 done, 1 the run failed, 2 usage, 3 a threshold or probe failed, 4 could not start,
130 interrupted. What goes wrong is one line on stderr, never a traceback (FASTECHO_TRACEBACK=1
shows it, for reports of bugs).
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from fastecho.logs import one_line

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "complain", "main", "put_line"]

COMMANDS = {
    "serve": ("fastecho.cli.serve", "run the echo server"),
    "connect": ("fastecho.cli.connect", "talk to a server, line by line"),
    "ping": ("fastecho.cli.ping", "send probes and time the replies"),
    "bench": ("fastecho.cli.bench", "measure a server: rate, latency, every byte checked"),
    "check": ("fastecho.cli.check", "find out whether the path to a server is honest"),
    "report": ("fastecho.cli.report", "show, compare and add up saved measurements"),
    "queues": ("fastecho.cli.queues", "show both kernel queues of any listener, and what is wrong"),
    "models": ("fastecho.cli.models", "list the ways to serve many peers, or measure them"),
}
"""Name of each sub-command: its module, and what it does in a few words."""

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_START, EXIT_INTERRUPTED = 0, 1, 2, 4, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fastecho` with these arguments (those of the process if None); return the exit code."""
    try:
        if argv is None and isinstance(sys.stdout, TextIOWrapper):
            # As on stderr: a label that the terminal's encoding lacks must not cost the result.
            sys.stdout.reconfigure(errors="backslashreplace")
        code = _run(list(sys.argv[1:] if argv is None else argv))
        if argv is None:
            _leave_ctrl_c_to_the_system()
    except KeyboardInterrupt:
        if argv is None:
            try:
                _leave_ctrl_c_to_the_system()
            except KeyboardInterrupt:  # a second one, before that was done
                _leave_ctrl_c_to_the_system()
        return EXIT_INTERRUPTED
    return code


def _run(arguments: list[str]) -> int:
    name = f"fastecho {arguments[0]}" if arguments and arguments[0] in COMMANDS else "fastecho"
    try:
        code = _dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop(1)
        return EXIT_FAILED
    except Exception as error:
        if os.environ.get("FASTECHO_TRACEBACK"):
            raise
        return _explain(name, error)


def _leave_ctrl_c_to_the_system() -> None:
    """From here on Ctrl-C ends the process: Python, on its way out, would answer by a traceback.

    A command that handles it itself is left alone; one that never imported signal is out at once.
    """
    signal = sys.modules.get("signal")
    if signal is not None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def complain(name: str, message: str) -> None:
    """Write what is wrong on stderr, as one line."""
    put_line(f"{name}: {one_line(message)}")


def put_line(line: str) -> None:
    """Write a line on stderr; a stderr that is closed, full or read by nobody is no error."""
    if sys.stderr is None:
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _drop(2)  # what is buffered would be tried again at exit, and make its code 120
    except ValueError:
        pass


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first == "--version":
        from fastecho._version import __version__

        print(f"fastecho {__version__}")
        return EXIT_DONE
    if first in ("-h", "--help"):
        print(_help(), end="")
        return EXIT_DONE
    if first not in COMMANDS:
        return _unknown(first)
    from importlib import import_module

    from fastecho.cli._parser import Parser

    command = import_module(COMMANDS[first][0])
    parser = Parser(prog=f"fastecho {first}")
    command.add_arguments(parser)
    try:
        args = parser.parse(arguments[1:])
    except SystemExit as request:  # after --help or a usage error
        return request.code if isinstance(request.code, int) else EXIT_FAILED
    code: int = command.run(args)
    return code


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    commands = "".join(f"  {n:{width}}  {what}\n" for n, (_, what) in COMMANDS.items())
    return (
        "usage: fastecho [--version] COMMAND ...\n\n"
        "An echo server, and tools, for people who test networks and network clients.\n\n"
        f"commands:\n{commands}\n"
        "`fastecho COMMAND --help` shows the options of a command and an example.\n"
        "example: fastecho serve --bind 127.0.0.1:7777\n"
    )


def _unknown(first: str) -> int:
    """Say what is wrong with the first argument."""
    if not first:
        *names, last = COMMANDS
        complain("fastecho", f"no command: {', '.join(names)} or {last}; see fastecho --help")
        return EXIT_USAGE
    from difflib import get_close_matches

    names = ["--version", "--help"] if first.startswith("-") else list(COMMANDS)
    near = get_close_matches(first, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "see fastecho --help"
    what = "option" if first.startswith("-") else "command"
    complain("fastecho", f"there is no {what} {first!r}: {hint}")
    return EXIT_USAGE


def _drop(stream: int) -> None:
    """Point stdout or stderr at nothing, so that the last flush of the interpreter succeeds."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream)
        os.close(nowhere)
    except OSError:
        pass  # no descriptor is left


def _explain(name: str, error: Exception) -> int:
    """Say in one line what happened; return the exit code."""
    from fastecho.errors import ConfigError, ExtensionMissingError, FastechoError, StartError

    if isinstance(error, FastechoError):
        complain(name, str(error))
        if isinstance(error, ConfigError):
            return EXIT_USAGE
        return EXIT_START if isinstance(error, StartError | ExtensionMissingError) else EXIT_FAILED
    if isinstance(error, OSError):
        _drop(1)  # it may be the one that refused, and would again at exit
        where = f"{error.filename}: " if error.filename is not None else ""
        complain(name, f"{where}{error.strerror or error}")
        return EXIT_FAILED
    complain(
        name,
        f"internal error: {type(error).__name__}: {error} "
        "(FASTECHO_TRACEBACK=1 shows where; please report it)",
    )
    return EXIT_FAILED
