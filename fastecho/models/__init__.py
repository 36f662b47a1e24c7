"""The I/O models of the tutorial, each a file that can be read on its own.

Lives here: which there are. Does not live here: what a model does (its file), what they share
(options.py), how they are started (cli/serve.py) and measured (cli/_models_run.py).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable

    from .options import Model, Options

__all__ = ["FILES", "NAMES", "described", "serving"]

FILES = {
    "blocking": "blocking",
    "threaded": "thread_per_connection",
    "socketserver": "threading_server",
    "nonblocking": "busy_loop",
    "select": "select_loop",
    "poll": "poll_loop",
    "epoll": "epoll_loop",
    "callbacks": "event_callbacks",
    "asyncio": "asyncio_streams",
    "native": "native",
}
"""Name of each model: its module, in the order of the tutorial."""
NAMES = tuple(FILES)


def described(name: str) -> Model:
    """Return what is known of a model; imports its file."""
    model: Model = _module(name).MODEL
    return model


def serving(name: str) -> Callable[[Options], None]:
    """Return the function that serves by a model in pure Python."""
    serve: Callable[[Options], None] = _module(name).serve
    return serve


def _module(name: str):  # type: ignore[no-untyped-def]
    from importlib import import_module

    return import_module(f"{__name__}.{FILES[name]}")
