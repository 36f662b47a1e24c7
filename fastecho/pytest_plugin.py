"""Fixtures for pytest: servers and addresses for the tests of a network client.

Lives here: the fixtures' names. Does not live here: what they give (testing.py, hole.py,
refused.py). pytest loads this file at every start, in every project of an environment: whatever it
needs is imported by the fixture that needs it.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from . import hole
    from .refused import RefusedAddress
    from .testing import EchoServer

__all__ = ["black_hole", "echo_server", "make_echo_server", "refused_address"]


@pytest.fixture
def make_echo_server() -> Iterator[Callable[..., EchoServer]]:
    """Start echo servers with the arguments of fastecho.Server; they end with the test.

    The test fails at its end if a callback has raised.
    """
    from contextlib import ExitStack

    from fastecho.testing import EchoServer

    with ExitStack() as stack:
        yield lambda *bind, **config: stack.enter_context(EchoServer(*bind, **config))


@pytest.fixture
def echo_server(make_echo_server: Callable[..., EchoServer]) -> EchoServer:
    """An echo server in the background, on a free port of 127.0.0.1.

    It has address, host, port, url, received, wait_for(bytes=...), stats(), and the other methods
    of fastecho.Server.
    """
    return make_echo_server()


@pytest.fixture
def black_hole() -> Iterator[hole.black_hole]:
    """An address (address, host, port) on which connect hangs, until close() or the test's end."""
    from fastecho import black_hole as open_one

    with open_one() as hole:
        yield hole


@pytest.fixture
def refused_address() -> Iterator[RefusedAddress]:
    """An address (address, host, port) that refuses connections and is nobody else's."""
    from fastecho.refused import RefusedAddress

    with RefusedAddress() as refused:
        yield refused
