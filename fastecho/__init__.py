"""fastecho: an exact echo server, and a client, for people who test networks.

Here are the public names, and where each of them lives. They are imported when they are
first used, so that `import fastecho` costs next to nothing. This is also the one place that
tolerates a missing extension: everything but the server works without it.
"""

from fastecho._version import __version__

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho._core import Connection
    from fastecho.client import Client
    from fastecho.errors import (
        ConfigError,
        ExtensionMissingError,
        FastechoError,
        ForkedError,
        StartError,
    )
    from fastecho.faults import Fault
    from fastecho.hole import black_hole
    from fastecho.listen_queue import ListenQueue
    from fastecho.peer import Peer
    from fastecho.reason import Reason
    from fastecho.server import Server
    from fastecho.stats import Stats
    from fastecho.tcp_info import TcpInfo

__all__ = [
    "Client",
    "ConfigError",
    "Connection",
    "ExtensionMissingError",
    "FastechoError",
    "Fault",
    "ForkedError",
    "ListenQueue",
    "Peer",
    "Reason",
    "Server",
    "StartError",
    "Stats",
    "TcpInfo",
    "__version__",
    "black_hole",
]

_HOMES = {
    "Client": "client",
    "ConfigError": "errors",
    "Connection": "_core",
    "ExtensionMissingError": "errors",
    "FastechoError": "errors",
    "Fault": "faults",
    "ForkedError": "errors",
    "ListenQueue": "listen_queue",
    "Peer": "peer",
    "Reason": "reason",
    "Server": "server",
    "StartError": "errors",
    "Stats": "stats",
    "TcpInfo": "tcp_info",
    "black_hole": "hole",
}
_NEEDS_CORE = frozenset({"_core", "server"})


def _find(name: str) -> object:
    """Return a public name, importing its module; the next access no longer comes here.

    Raises:
        ExtensionMissingError: the name needs the compiled core, which is absent or broken.
        AttributeError: there is no such public name.
    """
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if home in _NEEDS_CORE:
        _require_core(name)
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def _require_core(name: str) -> None:
    """Import the compiled core, or say in one sentence why it cannot be had."""
    try:
        # The core's module start imports inspect as well, and crashes if that is interrupted
        # (Cython 3.3, limited API). Imported here, an interruption is a KeyboardInterrupt.
        import inspect  # noqa: F401

        import fastecho._core  # noqa: F401
    except ImportError as error:
        import sys

        from fastecho.errors import ExtensionMissingError

        if sys.platform != "linux" or sys.implementation.name != "cpython":
            state = "exists for CPython on Linux only; fastecho.Client works here"
        elif isinstance(error, ModuleNotFoundError) and _is_source_tree():
            state = (
                f"is not compiled in {__path__[0]}: make serve compiles it there; or leave that"
                " folder, if fastecho is installed elsewhere"
            )
        elif isinstance(error, ModuleNotFoundError) and error.name == "fastecho._core":
            state = (
                "is not installed: reinstall fastecho with a C compiler and Python's headers"
                " present and FASTECHO_NO_EXTENSION unset"
            )
        elif "interpreter" in str(error):
            state = "works in the main interpreter of a process only"
        else:
            state = f"does not load: reinstall fastecho ({' '.join(str(error).split())})"
        raise ExtensionMissingError(
            f"fastecho.{name} needs the compiled core, which {state}"
        ) from None


def _is_source_tree() -> bool:
    """Tell whether this package stands where it is written: a wheel has no .pyx."""
    import os

    return os.path.exists(os.path.join(__path__[0], "_core.pyx"))


def __dir__() -> list[str]:
    """List what can be had here: without the extension, the server's names are left out."""
    from importlib.util import find_spec

    absent = frozenset[str]() if find_spec(f"{__name__}._core") else _NEEDS_CORE
    public = {name for name in __all__ if _HOMES.get(name) not in absent}
    return sorted(public | {name for name in globals() if name.startswith("__")})


if not TYPE_CHECKING:  # for a type checker, an unknown name stays an error
    __getattr__ = _find
