"""The servers that the conformance suite holds to the same behaviour, as data.

Lives here: one Entry for each server, how it is started and stopped, and what it claims to be
able to do. Does not live here: the tests (test_conformance.py). Another I/O model becomes part
of the suite by one more line in ENTRIES; a test that asks for more than a model claims is not
generated for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Protocol

from commands import read_ready
from sanitize import chosen

import fastecho
from fastecho import models

MANY_PEERS = "many peers"
"""Serves several peers at the same time."""
PREFIX = "prefix"
"""Puts a prefix before what each recv gave."""
ORDERLY_STOP = "orderly stop"
"""A peer that is quiet when the server stops gets FIN, not RST."""
EVERYTHING = frozenset({MANY_PEERS, PREFIX, ORDERLY_STOP})

STOP = 5.0
"""Seconds that stop() may take, whatever the peers do."""


class Running(Protocol):
    """A server that has been started."""

    address: str
    """As peers.connect() takes it."""

    pid: int
    """Of the process that serves."""

    def stop(self) -> None:
        """End it within STOP seconds, quiet peers in order; a second call does nothing."""


@dataclass(frozen=True)
class Entry:
    """One server of the suite."""

    name: str
    start: Callable[[str, bytes], Running]
    """Takes where to listen (HOST:PORT or unix:PATH) and a prefix; returns when it listens."""
    families: tuple[str, ...] = ("ipv4", "ipv6", "unix")
    claims: frozenset[str] = EVERYTHING


class Core:
    """The compiled core."""

    def __init__(self, bind: str, prefix: bytes, **config: Any) -> None:
        self._server = fastecho.Server(bind, prefix=prefix, drain_idle=0.02, **config)
        self._server.start()
        self.address = self._server.address
        self.pid = os.getpid()

    def stop(self) -> None:
        """Drain; who does not read is reset at the deadline."""
        self._server.stop(0.3)


class AsyncioEcho:
    """The oracle: the echo server that the standard library's documentation leads to."""

    GRACE = 0.3
    """Seconds that peers have to take what they are owed."""

    def __init__(self, bind: str, prefix: bytes) -> None:
        self._bind = bind
        self._prefix = prefix
        self._ready = threading.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""
        self.pid = os.getpid()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="asyncio-echo", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Close every connection; who does not read is reset after the grace."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._bind.startswith("unix:"):
            self.address = self._bind
            server = await asyncio.start_unix_server(self._echo, self._bind[5:])
        else:
            host, _, port = self._bind.rpartition(":")
            server = await asyncio.start_server(self._echo, host.strip("[]"), int(port))
            self.address = f"{host}:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for writer in self._writers:
            writer.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        if others:
            await asyncio.wait(others, timeout=self.GRACE)
        for writer in list(self._writers):
            writer.transport.abort()
        if others:
            await asyncio.wait(others)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(self._prefix + data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self._writers.discard(writer)


class Command:
    """`fastecho serve --model NAME` in a process that is forked from one without threads."""

    _processes = multiprocessing.get_context("forkserver")
    _processes.set_forkserver_preload(["fastecho.cli.serve", "fastecho.models.options"])

    @staticmethod
    def prepare() -> None:
        """Start what the processes are forked from; it ends with the tests."""
        resource_tracker.ensure_running()
        forkserver.ensure_running()

    def __init__(self, name: str, bind: str, prefix: bytes) -> None:
        self._ended = False
        self._said = tempfile.NamedTemporaryFile()  # noqa: SIM115 -- closed in stop()
        reader, writer = self._processes.Pipe(duplex=False)
        arguments = ["serve", f"--model={name}", f"--bind={bind}"]
        if prefix:
            arguments.append(f"--prefix={os.fsdecode(prefix)}")
        self._process = self._processes.Process(
            target=_command, args=(arguments, writer, self._said.name)
        )
        self._process.start()
        writer.close()
        with reader:
            (self.address,) = read_ready(reader.fileno())
        assert self._process.pid is not None
        self.pid = self._process.pid

    def stop(self) -> None:
        """Stop it as a service manager does; it must end well, and without a traceback."""
        if self._ended:
            return
        self._ended = True
        self._process.terminate()
        self._process.join(STOP)
        ended = self._process.exitcode
        self._process.kill()
        self._process.join()
        self._process.close()
        said = self._said.read().decode()
        self._said.close()
        assert (ended, "Traceback" in said) == (0, False), said


def _command(arguments: list[str], ready: Connection, said: str) -> None:
    """Run the command in its own process."""
    os.dup2(os.open(said, os.O_WRONLY), 2)
    from fastecho.cli import main

    sys.exit(main([*arguments, f"--ready-fd={ready.fileno()}"]))


def _model(name: str) -> Entry:
    """Return the entry of an I/O model in pure Python: what it claims stands in its file."""
    claims = EVERYTHING if models.described(name).peers is None else frozenset({PREFIX})
    return Entry(f"model-{name}", partial(Command, name), ("ipv4", "ipv6"), claims)


ENTRIES = (
    Entry("core", Core),
    Entry("core-2-threads", lambda bind, prefix: Core(bind, prefix, threads=2)),
    Entry("asyncio", AsyncioEcho),
    # Nothing of theirs is compiled, so there is nothing for a sanitizer to see.
    *(_model(name) for name in models.NAMES if name != "native" and not chosen()),
)
