"""`fastecho serve`: configuration in, a running server, what happened out; no socket here.

The settings come from the table in settings.py; this file only adds what concerns the command: the
file to read, the descriptor for scripts, how much is said, and the process-wide things that a
library must not touch (the descriptor limit, signals before the server waits for them).
"""

from __future__ import annotations

import os
import sys
import time

from fastecho.address import Address
from fastecho.cli import _handover
from fastecho.cli._cpus import usable_cpus
from fastecho.cli._early_signals import EarlySignals, HungUp, Stopped
from fastecho.cli._rights import GROUP, USER, Rights
from fastecho.cli._warnings import without_effect
from fastecho.config import format_toml, merge
from fastecho.errors import ConfigError, FastechoError, StartError
from fastecho.logs import LEVELS
from fastecho.models import NAMES
from fastecho.setting import Setting
from fastecho.settings import SETTINGS

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from fastecho.cli._log import Log
    from fastecho.cli._service_manager import ServiceManager
    from fastecho.config import Merged
    from fastecho.handover.part import Handover
    from fastecho.metrics import MetricsServer
    from fastecho.server import Server

__all__ = ["add_arguments", "run", "tell_ready"]

LOG_LEVEL = Setting(
    "log_level",
    "choice",
    "info",
    "what to say on stderr: error, warning (and errors), info (and the addresses and totals)",
    choices=LEVELS,
    metavar="LEVEL",
)
MODEL = Setting(
    "model",
    "choice",
    "native",
    "how peers are served: native is the compiled core, the others are the I/O models of the "
    "tutorial in pure Python, which take --bind, --backlog and --prefix, and end at once at a "
    "signal (fastecho models)",
    choices=NAMES,
    metavar="NAME",
)
SHOW_MESSAGES = Setting(
    "show_messages",
    "switch",
    False,
    "print on standard output what peers send and when they leave; with --model only",
)
BLACK_HOLE = Setting(
    "black_hole",
    "switch",
    False,
    "serve nobody: hold the addresses of --bind so that every connect to them hangs, until a "
    "signal; then they refuse",
)
METRICS = Setting(
    "metrics",
    "address",
    None,
    "answer HTTP here: /metrics for Prometheus, /healthz, and /readyz, which says 503 while the "
    "server drains; HOST:PORT, [::1]:PORT, unix:PATH or systemd:NAME (needs fastecho[metrics])",
    unset="none",
    metavar="ADDRESS",
)
PROBES = Setting(
    "probes",
    "switch",
    False,
    "obey a connection whose first line orders a behaviour, as fastecho check does to see whether "
    "a path is honest; all others are echoed, by Python: slower",
)
EXTRA = (
    LOG_LEVEL, MODEL, SHOW_MESSAGES, BLACK_HOLE, METRICS, PROBES, _handover.HANDOVER, USER, GROUP,
)  # fmt: skip
"""Settings of the command that are no part of a server's Config."""
DEFAULT_BIND = "127.0.0.1:7777"

DESCRIPTION = """\
Run the echo server. What a peer sends comes back to it, byte for byte; with --prefix
or --suffix, cut into messages by --frame. The real addresses are printed on stderr.

SIGTERM and SIGINT (Ctrl-C) drain: no new connections, the open ones may finish within
--graceful-timeout. A second signal stops at once. SIGHUP with --config reads the file
again and takes limits and fault from it, without touching a connection; without --config it
drains. Exit code 0 after a clean drain, 1 if the time ran out, 2 for a wrong option, 4 if
the server could not start.

Every setting can also come from a variable, FASTECHO_MAX_FRAME for --max-frame, or from
a TOML file, max_frame = 1024. Flags win over variables, those over the file."""

EXAMPLE = """\
examples:
  fastecho serve
  fastecho serve --bind '[::1]:7777' --bind unix:/run/echo.sock --threads 2
  fastecho serve --access-log --log-format json
  fastecho serve --bind 127.0.0.1:7777 --bind udp://127.0.0.1:7777
  fastecho serve --frame line --prefix 'you said: '
  fastecho serve --metrics 127.0.0.1:9477
  fastecho serve --bind :7 --user nobody --handover unix:/run/fastecho/handover
  fastecho serve --fault delay=50ms,jitter=10ms,slice=1
  fastecho serve --model blocking --show-messages
  fastecho serve --black-hole --bind 127.0.0.1:9000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`."""
    from argparse import BooleanOptionalAction

    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    for setting in (*SETTINGS, *EXTRA):
        reloaded = "; SIGHUP reloads it" if setting.live or setting is LOG_LEVEL else ""
        text = f"{setting.help} (default: {_default_text(setting)}{reloaded})"
        if setting.kind == "switch":
            parser.add_argument(setting.flag, action=BooleanOptionalAction, help=text)
        else:
            action = "append" if setting.kind in ("bind", "networks") else "store"
            parser.add_argument(setting.flag, action=action, metavar=setting.metavar, help=text)
    parser.add_argument("--config", metavar="FILE.toml", help="read settings from this file")
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the settings in force as TOML, each with where it came from, and exit",
    )
    parser.add_argument(
        "--ready-fd",
        metavar="N",
        help="after listening, write the addresses to this descriptor, one a line, and close it",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it; return the exit code."""
    ready_fd = _ready_fd(args.ready_fd)  # first: later, N could be a descriptor of ours
    from fastecho.cli import _black_hole, _model, _passed

    threads = usable_cpus()
    bind = _passed.default_bind(DEFAULT_BIND)

    def read() -> Merged:
        return merge(
            {setting.name: getattr(args, setting.name) for setting in (*SETTINGS, *EXTRA)},
            os.environ,
            args.config,
            defaults={"bind": bind, "threads": threads},
            extra=EXTRA,
        )

    merged = read()
    _model.check(merged)
    _black_hole.check(merged)
    _check_probes(merged)
    _passed.check(merged)
    _handover.check(merged)
    if args.print_config:
        if sys.stdout is not None:
            printed = [one for one in (*SETTINGS, *EXTRA) if _is_honoured(one, merged)]
            sys.stdout.buffer.write(format_toml(merged, printed).encode())
        return 0
    log = _model.log_of(merged)
    rights = Rights(merged, log)
    rights.forbid_gains()
    if merged.values["black_hole"]:
        return _black_hole.run(merged, log, ready_fd, rights)
    model = _model.chosen(merged, log)
    if model == "native":
        reader = None if args.config is None else read
        return _Serving(merged, log, reader, rights, _passed.unused(merged)).run(ready_fd)
    return _model.run(model, merged, log, ready_fd, rights)


def _is_honoured(setting: Setting, merged: Merged) -> bool:
    """Tell whether a setting means something beside the others."""
    if not merged.values["black_hole"]:
        return True
    from fastecho.cli._black_hole import HONOURED

    return setting.name in HONOURED or setting in (LOG_LEVEL, BLACK_HOLE, USER, GROUP)


def _check_probes(merged: Merged) -> None:
    """Refuse what a server that takes orders cannot honour."""
    if not merged.values["probes"]:
        return
    name = merged.labels["probes"]
    plains = (("service", "echo"), ("frame", "recv"), ("prefix", b""), ("suffix", b""))
    for other, plain in plains:
        if merged.values[other] != plain:
            reason = f"cannot be used with {name}, which needs a plain echo"
            raise ConfigError(merged.labels[other], merged.given[other], reason)
    for address in merged.config.bind:
        if address.kind == "udp":
            reason = f"cannot be used with {name}: orders come by TCP"
            raise ConfigError(merged.labels["bind"], str(address), reason)
    for other, usual in (("model", "native"), ("black_hole", False)):
        if merged.values[other] != usual:
            reason = f"cannot be used with {name}, which needs the compiled core"
            raise ConfigError(merged.labels[other], merged.given[other], reason)


class _Serving:
    """One run of the server, from the first system call to the line of totals."""

    def __init__(
        self,
        merged: Merged,
        log: Log,
        read: Callable[[], Merged] | None,
        rights: Rights,
        unused: Sequence[str] = (),
    ) -> None:
        self.config = merged.config
        self.rights = rights
        address = merged.values["metrics"]
        self.metrics = address if isinstance(address, Address) else None
        path = merged.values["handover"]
        self.path = path if isinstance(path, Address) else None
        self.takes_orders = bool(merged.values["probes"])
        # Reads the settings again; None: there is no file that could have changed.
        self.read = read
        # Names of passed sockets that nobody asked for.
        self.unused = unused
        self.log = log
        self.say = self.log.say
        self.manager: ServiceManager | None = None

    def run(self, ready_fd: int | None) -> int:
        early = EarlySignals(
            self.read is None
        )  # first: an import that is broken off may leave half a module
        from fastecho import Server

        if "NOTIFY_SOCKET" in os.environ:
            from fastecho.cli._service_manager import ServiceManager, say_anywhere

            self.manager = ServiceManager(say_anywhere)
        self._raise_descriptor_limit()
        self.log.take_over()
        callbacks = {}
        if self.takes_orders:
            from fastecho.probing import Probing

            callbacks = Probing().callbacks()
        server = Server(**self.config.keywords(), **callbacks)
        from fastecho.handover.part import Handover

        handover = Handover(self.path, self.rights.users)
        metrics = None
        try:
            metrics = self._open_metrics(server, handover)
            self._start(server, metrics, handover, early)
            return self._run(server, metrics, early, ready_fd)
        finally:
            if self.manager is not None:
                self.manager.close()
            handover.close()
            if metrics is not None:
                metrics.close()

    def _run(
        self,
        server: Server,
        metrics: MetricsServer | None,
        early: EarlySignals,
        ready_fd: int | None,
    ) -> int:
        try:
            early.release()
            self._banner(server)
            if metrics is not None:
                self._metrics_banner(metrics)
            if ready_fd is not None:
                tell_ready(server.addresses, ready_fd, self.log)
            if self.manager is not None:
                self.manager.serving(server)
            drained = self._serve(server, early)
        except Stopped:
            early.install()  # serve_forever() may have replaced some already
            if early.hung_up:  # asked for before the end was: how long a drain may take, say
                early.held = True
                self._reload(server)
                early.held = False
            drained = _stop(server)
        except OSError as error:
            early.held = True
            server.abort()
            raise _start_error("cannot wait for signals", error) from None
        early.held = True
        self._totals(server, drained)
        early.end()
        return 0 if drained else 1

    def _open_metrics(self, server: Server, handover: Handover) -> MetricsServer | None:
        """Open the metrics' listeners; who comes before the server has started waits."""
        if self.metrics is None:
            return None
        from fastecho.metrics import MetricsServer

        try:
            return MetricsServer(self.metrics, server, offers=handover.metrics, waits=True)
        except StartError as error:
            raise StartError(error.errno or 0, f"--metrics: {error.strerror}") from None

    def _metrics_banner(self, metrics: MetricsServer) -> None:
        from fastecho.address import is_loopback, parse_bind

        for address in metrics.addresses:
            is_unix = address.startswith("unix:")
            where = address if is_unix else f"http://{_reached_at(address)}/metrics"
            self.say("info", f"metrics on {where}")
            host = parse_bind(address).host
            if host is not None and not is_loopback(host):
                self.say("warning", f"metrics on {address} can be reached from other machines")

    def _start(
        self, server: Server, metrics: MetricsServer | None, handover: Handover, early: EarlySignals
    ) -> None:
        """Listen, give the rights up, accept, and only then have the server before leave."""
        others = [*(metrics.listeners if metrics is not None else ()), *handover.listeners]
        server._offers = handover.echo
        server._on_opened = lambda opened: self.rights.drop(
            [one.file for one in (*opened, *others) if one.file is not None] + handover.files
        )
        try:
            server.start()
        except FastechoError:
            raise
        except OSError as error:
            raise _start_error("cannot start", error) from None
        if early.seen:  # it is to end: the one before stays
            return
        try:
            handover.complete(server, metrics)
            if metrics is not None:
                metrics.begin()
        except BaseException:
            server.stop()
            raise

    def _serve(self, server: Server, early: EarlySignals) -> bool:
        """Wait for the end; SIGHUP reloads, or drains. One that came too early is made up for."""
        if self.read is None:
            return server.serve_forever()
        while True:
            while early.hung_up:
                try:
                    early.hung_up = False
                    self._reload(server)
                except Stopped:  # in the middle: run() does it all
                    early.hung_up = True
                    raise
            try:
                early.hangup_raises = True
                if early.hung_up:
                    early.hangup_raises = False
                    continue
                drained = server.serve_forever(lambda: self._reload(server))
                early.hangup_raises = False
                return drained
            except HungUp:
                pass  # once more; a server that has ended by now says so again

    def _reload(self, server: Server) -> None:
        if self.manager is None:
            self._read_again(server)
            return
        self.manager.reloading()
        try:
            self._read_again(server)
        finally:
            self.manager.reloaded()

    def _read_again(self, server: Server) -> None:
        """Read the settings again and take over those that may change; say what has changed."""
        assert self.read is not None
        try:
            merged = self.read()
        except ConfigError as error:
            self.say("error", f"nothing reloaded: {error}")
            return
        old, new = server.config.keywords(), merged.config.keywords()
        changed = [setting for setting in SETTINGS if old[setting.name] != new[setting.name]]
        limits = {setting.name: new[setting.name] for setting in changed if setting.live}
        now = [f"{name} {'none' if value is None else value}" for name, value in limits.items()]
        try:
            # Either may not fit a setting that does not change now; never both: where a limit may
            # not, there is no fault.
            if "fault" in limits:
                server.set_fault(limits.pop("fault"))
            server.set_limits(**limits)
        except ConfigError as error:
            self.say("error", f"nothing reloaded: {error}")
        else:
            self.log.set_level(str(merged.values["log_level"]))
            if now or not changed:
                self.say("info", f"reloaded: {', '.join(now) or 'nothing has changed'}")
        for setting in changed:
            if not setting.live:
                self.say("warning", f"{setting.name} changes at the next start only")

    def _raise_descriptor_limit(self) -> None:
        """Raise the soft limit of open descriptors to the hard one."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            except (OSError, ValueError) as error:
                self.say("warning", f"the descriptor limit stays {soft}: {error}")

    def _banner(self, server: Server) -> None:
        from fastecho.address import is_loopback

        for listener in {one.address: one for one in server.listeners}.values():
            asked = listener.backlog_asked
            force = listener.backlog_effective
            backlog = (
                f"backlog: asked {'nothing' if asked is None else asked}, "
                f"somaxconn {listener.somaxconn}, in force {'unknown' if force is None else force}"
            )
            self.say("info", f"listening on {listener.address} ({backlog})")
            host = listener.address.host
            if host is not None and not is_loopback(host):
                self.say("warning", f"{listener.address} can be reached from other machines")
        for one in {one.address: one for one in server.datagram_sockets}.values():
            self.say("info", f"listening on {one.address} (receive buffer {one.receive_buffer})")
            if not is_loopback(one.address.host or ""):
                self.say("warning", f"{one.address} can be reached from other machines")
        for name in self.unused:
            self.say("warning", f"the passed socket {name} is not used: who connects waits")
        self.say("info", f"threads: {server.threads}")
        if self.config.service != "echo":
            self.say("info", f"service: {self.config.service}")
        for sentence in without_effect(self.config, server):
            self.say("warning", sentence)
        if self.takes_orders:
            self.say("warning", "with --probes, peers can order how the server behaves to them")

    def _totals(self, server: Server, drained: bool) -> None:
        stats = server.stats()
        counts = {
            "connections": stats.connections_accepted,
            "bytes in": stats.bytes_in,
            "bytes out": stats.bytes_out,
        }
        if server.datagram_sockets:
            counts |= {"datagrams in": stats.datagrams_in, "datagrams out": stats.datagrams_out}
        refused = (
            stats.shed_max_connections
            + stats.shed_max_per_ip
            + stats.shed_accept_rate
            + stats.shed_no_descriptors
            + stats.shed_untrusted
        )
        trouble = {
            "bytes dropped": stats.bytes_dropped,
            "connections refused": refused,
            "first byte too late": stats.ended_by_first_byte_timeout,
            "idle too long": stats.ended_by_idle_timeout,
            "frames too long": stats.ended_by_frame_too_long,
            "PROXY headers refused": stats.ended_by_proxy_header,
            "too many of one address": stats.ended_by_max_per_ip,
            "connections reset": stats.ended_by_abort,
            "connections with a fault": stats.connections_faulty,
            "datagrams not answered": (
                stats.datagrams_refused_port
                + stats.datagrams_refused_address
                + stats.datagrams_refused_rate
                + stats.datagrams_refused_loop
            ),
            "datagrams lost": (
                stats.datagrams_overflowed
                + stats.datagrams_unsent
                + stats.datagrams_too_long
                + stats.datagrams_failed
            ),
            "access log lines left out": stats.access_log_dropped,
            **dict(sorted(stats.errors.items())),
        }
        counts |= {what: count for what, count in trouble.items() if count}
        text = ", ".join(f"{what} {count}" for what, count in counts.items())
        self.say("info", f"{'drained' if drained else 'stopped'}: {text}")


def tell_ready(addresses: Sequence[str], ready_fd: int, log: Log) -> None:
    """Write the addresses to the descriptor, one a line, and close it."""
    data = memoryview(b"".join(os.fsencode(one) + b"\n" for one in addresses))
    try:
        while data:
            data = data[os.write(ready_fd, data) :]
    except OSError as error:
        log.say("warning", f"--ready-fd {ready_fd} cannot be written to: {error.strerror}")
    if ready_fd > 2:
        os.close(ready_fd)
    else:  # the number of a standard stream stays taken
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, ready_fd)
        os.close(nowhere)


def _reached_at(address: str) -> str:
    """Return HOST:PORT for an address that is listened on; that of every address has no host."""
    return f"localhost{address}" if address.startswith(":") else address


def _start_error(what: str, error: OSError) -> StartError:
    return StartError(error.errno or 0, f"{what}: {(error.strerror or str(error)).lower()}")


def _stop(server: Server) -> bool:
    """Drain a server that a signal reached before serve_forever(); a second signal aborts."""
    try:
        server.retire()
        time.sleep(server.config.drain_delay)
        return server.stop()
    except Stopped:
        server.abort()
        return False


def _default_text(setting: Setting) -> str:
    if setting.name == "bind":
        return DEFAULT_BIND
    if setting.name == "threads":
        return "the CPUs that the process may use"
    if setting.kind == "switch":
        return "yes" if setting.default else "no"
    if setting.kind == "bytes":
        return "nothing"
    if isinstance(setting.default, float):
        return f"{setting.default:g}"
    return setting.unset if setting.default is None else str(setting.default)


def _ready_fd(text: str | None) -> int | None:
    """Return the descriptor number, or raise ConfigError unless it is open for writing."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ConfigError("--ready-fd", text, "must be a descriptor number")
    import fcntl

    try:
        mode = fcntl.fcntl(int(text), fcntl.F_GETFL)
    except OSError:
        raise ConfigError("--ready-fd", text, "is not open") from None
    if mode & os.O_ACCMODE == os.O_RDONLY:
        raise ConfigError("--ready-fd", text, "is not open for writing")
    return int(text)
