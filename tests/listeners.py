"""Opening listeners for a test, and closing them after it: a helper of the listeners' tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from fastecho.config import Config
from fastecho.listener import Listener
from fastecho.opening import open_listeners


@contextmanager
def listening(*bind: str, workers: int = 1, **settings: object) -> Iterator[list[Listener]]:
    """Open the listeners of these addresses; close them at the end."""
    with ExitStack() as stack:
        listeners = open_listeners(Config(list(bind), **settings), workers)  # type: ignore[arg-type]
        for listener in listeners:
            stack.enter_context(closing(listener))
        yield listeners
