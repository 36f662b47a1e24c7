"""`fastecho serve --model NAME`: an I/O model in pure Python, from its options to its end.

Lives here: which model is taken, what such a model can honour of the settings of `serve`, signals,
what is said. Does not live here: the models (fastecho/models), the core's own run (serve.py).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from _thread import allocate_lock

from fastecho.address import format_host_port, is_loopback
from fastecho.errors import ConfigError, ExtensionMissingError, StartError
from fastecho.settings import SETTINGS

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from types import FrameType

    from fastecho.cli._log import Log
    from fastecho.cli._rights import Rights
    from fastecho.config import Merged
    from fastecho.models.options import Options

__all__ = ["check", "chosen", "log_of", "run"]

HONOURED = frozenset({"bind", "backlog", "prefix", "log_format"})
"""The settings of a server that a model in pure Python honours as well."""
LOOK_SECONDS = 0.25
"""How often the timer interrupts what waits."""
CLEAN_SECONDS = 1.0
"""For so long a model may clean up."""
_WHOLE = allocate_lock()
"""Held while a line is written: threads take turns."""


def log_of(merged: Merged) -> Log:
    """Return what writes the lines for the user."""
    from fastecho.cli._log import Log

    return Log(str(merged.values["log_level"]), merged.config.log_format)


def check(merged: Merged) -> None:
    """Refuse what the chosen model cannot honour.

    Raises:
        ConfigError: it names the setting.
    """
    name = str(merged.values["model"])
    if name != "native":
        _check(name, merged)
    elif merged.values["show_messages"]:
        label, given = merged.labels["show_messages"], merged.given["show_messages"]
        raise ConfigError(label, given, "is more than the core can do: choose a --model")


def chosen(merged: Merged, log: Log) -> str:
    """Return the model to serve by; without the compiled core one in pure Python, and say so.

    Raises:
        ExtensionMissingError: the core is missing, and was asked for or cannot be replaced.
    """
    name = str(merged.values["model"])
    if name != "native":
        return name
    try:
        import fastecho

        _ = fastecho.Server
        return name
    except ExtensionMissingError as error:
        name = _fallback()
        if merged.sources["model"] != "default":
            raise
        try:
            _check(name, merged)
        except ConfigError:
            raise error from None
        log.say("warning", f"serving by --model {name}, a single thread of Python: {error}")
        return name


def _fallback() -> str:
    """Return the model that takes the place of a core that is not there."""
    import select

    return "epoll" if hasattr(select, "epoll") else "select"


def _check(name: str, merged: Merged) -> None:
    """Raise ConfigError for a setting that was given and that the model cannot honour."""
    for setting in SETTINGS:
        value = merged.values[setting.name]
        if merged.sources[setting.name] == "default" or value == setting.default:
            continue
        if setting.name not in HONOURED:
            label, given = merged.labels[setting.name], merged.given[setting.name]
            raise ConfigError(label, given, f"is more than --model {name} can do")
    if merged.values["metrics"] is not None:
        label, given = merged.labels["metrics"], merged.given["metrics"]
        raise ConfigError(label, given, f"is more than --model {name} can do")
    binds = merged.config.bind
    if len(binds) > 1:
        reason = f"is one too many: --model {name} listens on one address"
        raise ConfigError(merged.labels["bind"], str(binds[1]), reason)
    if binds[0].kind != "tcp":
        raise ConfigError(
            merged.labels["bind"], str(binds[0]), f"must be HOST:PORT with --model {name}"
        )


def run(name: str, merged: Merged, log: Log, ready_fd: int | None, rights: Rights) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""
    from fastecho import models
    from fastecho.cli._terminal import speaks_chinese
    from fastecho.models.options import Options

    address = merged.config.bind[0]
    asked, most = merged.config.backlog, _somaxconn()

    def listening(host: str, port: int) -> None:
        # Every address of the machine is written as it was asked for: [::] would be IPv6 alone.
        where = format_host_port(host, port) if address.host else f":{port}"
        rights.drop([])
        _announce(where, host, asked, most, log)
        log.say("info", f"model: {name} (fastecho/models/{models.FILES[name]}.py)")
        if ready_fd is not None:
            from fastecho.cli.serve import tell_ready

            tell_ready([format_host_port(host, port)], ready_fd, log)
        if "NOTIFY_SOCKET" in os.environ:
            from fastecho.cli._service_manager import tell_serving

            tell_serving(log)

    options = Options(
        address,
        backlog=most if asked is None else asked,
        prefix=merged.config.prefix,
        show_messages=bool(merged.values["show_messages"]),
        chinese=speaks_chinese(),
        on_listening=listening,
        note=lambda sentence: log.say("warning", sentence),
        put=_put,
    )
    serve = models.serving(name)
    signals = None
    try:
        signals = _Signals(options)
        serve(options)
    except KeyboardInterrupt:
        pass
    except StartError:
        raise
    except OSError as error:
        # create_server() adds where it was; that is said already.
        reason = (error.strerror or str(error)).partition(" (while attempting")[0].lower()
        raise StartError(error.errno or 0, f"cannot serve {address}: {reason}") from None
    finally:
        if signals is not None:
            signals.end()
    log.say("info", "stopped")
    return 0


def _announce(where: str, host: str, asked: int | None, most: int, log: Log) -> None:
    in_force = most if asked is None else min(asked, most)
    backlog = f"asked {'nothing' if asked is None else asked}, somaxconn {most}"
    log.say("info", f"listening on {where} (backlog: {backlog}, in force {in_force})")
    if not is_loopback(host):
        log.say("warning", f"{where} can be reached from other machines")


class _Signals:
    """What ends a server ends the model, by KeyboardInterrupt or as the model wishes.

    Ignored signals stay so (nohup). Once: it shall be able to clean up. But Python acts on a signal
    only between two of its own steps, so one that comes just before a call that waits would wait
    with it; and an exception that comes in the middle of a __del__, or of what a weak reference
    calls, is dropped. So a timer interrupts what waits, and raises again if the model goes on.
    """

    NUMBERS = (
        signal.SIGINT,
        signal.SIGTERM,
        *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []),
    )

    def __init__(self, options: Options) -> None:
        self._options = options
        self._asked_at: float | None = None
        for number in self.NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)
        sys.unraisablehook = self._dropped
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)

    def end(self) -> None:
        """The model has ended: from here on signals change nothing."""
        if hasattr(signal, "pthread_sigmask"):
            # What Python has noted is seen to here; it complains of one that is ignored only then.
            signal.pthread_sigmask(signal.SIG_BLOCK, self.NUMBERS)
        for number in self.NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        # Not SIG_IGN for the next one: Python may have noted it already, and complains.
        if self._asked_at is not None:
            return
        self._asked_at = time.monotonic()
        if self._options.stop is None:
            raise KeyboardInterrupt
        self._options.stop()

    def _dropped(self, what: sys.UnraisableHookArgs) -> None:
        if self._asked_at is None or not isinstance(what.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(what)
        else:
            self._asked_at = -CLEAN_SECONDS  # long ago: the next look raises again

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked_at is not None and time.monotonic() - self._asked_at > CLEAN_SECONDS:
            raise KeyboardInterrupt


def _put(line: str) -> None:
    """Write a line on stdout, whole; one that is closed costs no connection.

    Past Python's buffer: if nobody reads, what is left there would hold up the end of the process.
    """
    if sys.stdout is None:
        return
    try:
        data = memoryview(f"{line}\n".encode(sys.stdout.encoding, sys.stdout.errors or "strict"))
        with _WHOLE:
            while data:
                data = data[os.write(sys.stdout.fileno(), data) :]
    except (OSError, ValueError):
        sys.stdout = None
    except KeyboardInterrupt:
        # The signal that ends the model found it waiting for somebody to read. What is said on
        # the way out would wait as well.
        sys.stdout = None
        raise


def _somaxconn() -> int:
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 128
