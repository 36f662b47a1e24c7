"""The I/O models in trouble: signals while peers come and go, no descriptor, many who talk at once.

What they say and refuse in quiet times is in test_models.py.
"""

from __future__ import annotations

import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest
from commands import exchange, read_ready, serving
from peers import connect, recv_exactly

from fastecho import models

PURE = [name for name in models.NAMES if name != "native"]
MANY = [name for name in PURE if models.described(name).peers is None]
ENDS = [(signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)]


@pytest.mark.parametrize("name", PURE)
def test_a_signal_ends_a_model_in_order_while_peers_come_and_go(name: str) -> None:
    for _ in range(5):
        with serving(f"--model={name}") as server:
            enough, over = threading.Event(), threading.Event()

            def come_and_go(address: str, enough: threading.Event, over: threading.Event) -> None:
                exchanges = 0
                while not over.is_set():
                    try:
                        with connect(address) as peer:
                            exchange(peer, b"x", 1)
                    except (OSError, AssertionError):
                        continue
                    exchanges += 1
                    if exchanges == 5:
                        enough.set()

            visitor = threading.Thread(target=come_and_go, args=(server.addresses[0], enough, over))
            visitor.start()
            try:
                assert enough.wait(20)
                code, said = server.end(signal.SIGTERM)
            finally:
                over.set()
                visitor.join()
        assert (code, said[2:]) == (0, ["fastecho: stopped"])


IN_A_DEL = """
import signal
from fastecho.cli import _model, main

class Last:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        iter(())

def announce(*_):
    Last()

_model._announce = announce
raise SystemExit(main(["serve", "--bind=127.0.0.1:0", "--model=threaded"]))
"""


def test_a_signal_in_the_middle_of_a_del_is_not_lost() -> None:
    """Python drops the exception of whatever runs there; `threaded` has weak references."""
    command = [sys.executable, "-c", IN_A_DEL]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    model = "fastecho: model: threaded (fastecho/models/thread_per_connection.py)"
    assert (ended.returncode, ended.stderr.splitlines()) == (0, [model, "fastecho: stopped"])


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("signals", ENDS, ids=["TERM-INT", "HUP-TERM"])
def test_two_different_signals_at_once_are_one(
    name: str, signals: tuple[signal.Signals, ...]
) -> None:
    for _ in range(3):
        with serving(f"--model={name}") as server:
            code, said = server.end(*signals)
        assert (code, said[2:]) == (0, ["fastecho: stopped"])


@pytest.mark.parametrize("name", PURE)
def test_without_a_descriptor_and_without_peers_it_waits_for_one(name: str) -> None:
    with serving(f"--model={name}") as server:
        with server.connect() as peer:
            assert exchange(peer, b"hello", 5) == b"hello"
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        server.connect().close()  # an accept() that waits has taken its descriptor already
        with server.connect() as peer:
            peer.sendall(b"later")
            peer.settimeout(0.3)
            with pytest.raises(TimeoutError):
                peer.recv(1)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            assert recv_exactly(peer, 5) == b"later"
        code, said = server.end(signal.SIGTERM)
    assert (code, said[-1]) == (0, "fastecho: stopped")


@pytest.mark.parametrize("name", ["threaded", "socketserver", "epoll", "asyncio"])
def test_a_signal_ends_it_while_nobody_reads_what_it_shows(name: str) -> None:
    program = [sys.executable, "-m", "fastecho", "serve", "--bind=127.0.0.1:0"]
    unread, writer = os.pipe()
    reader, ready = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, unread)
        stack.callback(os.close, reader)
        process = stack.enter_context(
            subprocess.Popen(
                [*program, f"--model={name}", "--show-messages", f"--ready-fd={ready}"],
                stdout=writer,
                stderr=subprocess.DEVNULL,
                pass_fds=[ready],
            )
        )
        stack.callback(process.kill)
        os.close(writer)
        os.close(ready)
        (address,) = read_ready(reader)
        peers = [stack.enter_context(connect(address)) for _ in range(3)]
        with pytest.raises(TimeoutError):  # the pipe takes 64 KiB
            for peer in itertools.cycle(peers):
                peer.settimeout(0.3)
                peer.sendall(b"x" * 100)
                peer.recv(1000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("name", MANY)
def test_messages_of_many_peers_are_shown_in_whole_lines(name: str) -> None:
    program = [sys.executable, "-m", "fastecho", "serve", "--bind=127.0.0.1:0"]
    reader, writer = os.pipe()
    with (
        subprocess.Popen(
            [*program, f"--model={name}", "--show-messages", f"--ready-fd={writer}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[writer],
            text=True,
        ) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        os.close(writer)
        with os.fdopen(reader) as ready:
            address = ready.read().strip()
        peers = [stack.enter_context(connect(address)) for _ in range(6)]

        def talk(peer: socket.socket) -> None:
            for _ in range(100):
                exchange(peer, b"message", 7)
            peer.close()

        talkers = [threading.Thread(target=talk, args=[peer]) for peer in peers]
        for one in talkers:
            one.start()
        for one in talkers:
            one.join()
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6 * 101)]
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.wait(20) == 0
    assert sum(line.endswith(" sent: message\n") for line in lines) == 600
    assert sum(line.endswith(" has disconnected\n") for line in lines) == 6
