"""Whatever callbacks and other threads do to connections, in any order, peers see what is due.

A state machine of hypothesis. A peer's frames are orders, which the callback obeys: write, reply,
pause, half-close, close, abort, raise. Between them the test itself writes, resumes and ends
through the handle, from another thread than the callbacks'. The model knows what each peer must
receive, and which callbacks must have been called.
"""

from __future__ import annotations

import queue
import socket
import struct
from typing import Any

import pytest
from conftest import check_books
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from peers import DEADLINE, connect, expect_stats, pattern, read_to_eof, recv_exactly, reset, same

import fastecho
from fastecho import Connection, Reason

LONG = settings.get_current_profile_name() == "fuzz"
STEPS = settings(
    max_examples=400 if LONG else 40,
    stateful_step_count=60 if LONG else 30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
NOISE = pattern(1 << 18).replace(b"\n", b"-")
which = st.integers(0, 5)
sizes = st.one_of(st.integers(0, 50), st.integers(1000, 100_000))


class OrderError(Exception):
    """What the callback raises when it is told to."""


def obey(connection: Connection, data: Any) -> bytes | None:
    """Do what a frame says: a letter, and a number of bytes."""
    data = bytes(data).rstrip(b"\n")
    order, size = data[:1], int(data[1:] or 0)
    text = NOISE[:size] + b"\n" if size else b""
    if order == b"w":
        connection.write(text)
        return b"written\n"
    if order == b"p":
        connection.pause_reading()
        return b"paused\n"
    if order == b"e":
        connection.write(text)
        connection.write_eof()
        return None
    if order == b"c":
        connection.write(text)
        connection.close()
    elif order == b"a":
        connection.abort()
    elif order == b"x":
        raise OrderError
    return text


class End:
    """One connection: its peer's socket, its handle, and what is due."""

    def __init__(self, peer: socket.socket, handle: Connection) -> None:
        self.peer = peer
        self.handle = handle
        self.paused = False
        self.held: list[bytes] = []
        self.half_closed = False


class Machine(RuleBasedStateMachine):
    """Connections to one server, each in lock step with what was asked of it."""

    @initialize(
        frame=st.sampled_from(["line", "length"]),
        threads=st.integers(1, 2),
        memoryviews=st.booleans(),
        high_water=st.sampled_from([10_000, 262_144]),
    )
    def start(self, frame: str, threads: int, memoryviews: bool, high_water: int) -> None:
        self.frame = frame
        self.notes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.ends: list[End] = []
        self.raised = 0

        def on_message(connection: Connection, data: Any) -> bytes | None:
            if connection.context is None:
                connection.context = True
                self.notes.put(connection)
                return None
            return obey(connection, data)

        self.server = fastecho.Server(
            on_message=on_message,
            on_close=lambda connection, reason: self.notes.put((connection, reason)),
            frame=frame,  # type: ignore[arg-type]
            threads=threads,
            memoryviews=memoryviews,
            high_water=high_water,
        )
        self.server.start()

    def framed(self, text: bytes) -> bytes:
        """Return a frame."""
        if self.frame == "length":
            return struct.pack(">I", len(text)) + text
        return text

    def due(self, end: End, *texts: bytes) -> None:
        """Read what must come; nothing is a frame as well, if frames have a length."""
        for text in texts:
            if text or self.frame == "length":
                whole = self.framed(text)
                assert same(recv_exactly(end.peer, len(whole)), whole)

    def text(self, size: int) -> bytes:
        """Return what an order writes."""
        return NOISE[:size] + b"\n" if size else b""

    def pick(self, number: int) -> End:
        """Return one of the connections, a new one if there is none of that number."""
        if number < len(self.ends):
            return self.ends[number]
        peer = connect(self.server)
        peer.sendall(self.framed(b"hello\n"))
        handle = self.notes.get(timeout=DEADLINE)
        assert isinstance(handle, Connection)
        self.ends.append(End(peer, handle))
        return self.ends[-1]

    def gone(self, end: End, reason: Reason) -> None:
        """It has ended: on_close is told, once."""
        assert self.notes.get(timeout=DEADLINE) == (end.handle, reason)
        assert end.handle.is_closing()
        assert not end.handle.write(b"too late")
        self.ends.remove(end)

    def order(self, end: End, letter: bytes, size: int = 0) -> bool:
        """Send an order; False: it is held back."""
        order = letter + b"%d\n" % size
        end.peer.sendall(self.framed(order))
        if end.paused:
            end.held.append(order)
        return not end.paused

    @rule(which=which, size=sizes)
    def reply(self, which: int, size: int) -> None:
        end = self.pick(which)
        if not end.half_closed and self.order(end, b"r", size):
            self.due(end, self.text(size))

    @rule(which=which, size=sizes)
    def write_inside(self, which: int, size: int) -> None:
        end = self.pick(which)
        if not end.half_closed and self.order(end, b"w", size):
            self.due(end, self.text(size), b"written\n")

    @rule(which=which, size=sizes)
    def write_outside(self, which: int, size: int) -> None:
        end = self.pick(which)
        if end.half_closed:
            with pytest.raises(RuntimeError):
                end.handle.write(b"x")
        else:
            end.handle.write(self.text(size) or b"\n")
            self.due(end, self.text(size) or b"\n")

    @rule(which=which, inside=st.booleans())
    def pause(self, which: int, inside: bool) -> None:
        end = self.pick(which)
        if end.half_closed or end.paused:
            return
        if inside:
            self.order(end, b"p")
        else:
            end.handle.pause_reading()
            end.handle.write(b"paused\n")
        self.due(end, b"paused\n")
        end.paused = True

    @rule(which=which)
    def resume(self, which: int) -> None:
        end = self.pick(which)
        if not end.paused:
            return
        end.handle.resume_reading()
        end.paused = False
        held, end.held = end.held, []
        for order in held:
            size = int(order[1:])
            self.due(end, self.text(size))
            if order[:1] == b"w":
                self.due(end, b"written\n")

    @rule(which=which, size=sizes)
    def half_close(self, which: int, size: int) -> None:
        end = self.pick(which)
        if not (end.half_closed or end.paused):
            self.order(end, b"e", size)
            self.due(end, self.text(size))
            assert read_to_eof(end.peer) == b""
            end.half_closed = True

    @rule(which=which, size=sizes, inside=st.booleans())
    def close(self, which: int, size: int, inside: bool) -> None:
        end = self.pick(which)
        if end.paused or end.half_closed:
            inside = False
        if inside:
            self.order(end, b"c", size)
            self.due(end, self.text(size))
        else:
            end.handle.close()
        assert read_to_eof(end.peer) == b""
        end.peer.close()
        self.gone(end, Reason.CLOSE)

    @rule(which=which, inside=st.booleans())
    def abort(self, which: int, inside: bool) -> None:
        end = self.pick(which)
        if inside and not end.paused:
            self.order(end, b"a")
        else:
            end.handle.abort()
        self.gone(end, Reason.RESET)
        end.peer.close()

    @rule(which=which)
    def fail(self, which: int) -> None:
        end = self.pick(which)
        if not end.paused:
            self.order(end, b"x")
            self.raised += 1
            self.gone(end, Reason.CALLBACK_ERROR)
            end.peer.close()

    @rule(which=which, in_order=st.booleans())
    def leave(self, which: int, in_order: bool) -> None:
        end = self.pick(which)
        if end.paused:  # nobody looks
            return
        if in_order:
            end.peer.close()
        else:
            reset(end.peer)
        self.gone(end, Reason.PEER if in_order else Reason.ERROR)

    @invariant()
    def nothing_else_is_told(self) -> None:
        if hasattr(self, "server"):
            assert self.notes.empty()

    def teardown(self) -> None:
        if hasattr(self, "server"):
            expect_stats(self.server, callback_errors=self.raised, connections_open=len(self.ends))
            self.server.abort()
            for end in self.ends:
                end.peer.close()
            assert self.server.wait(DEADLINE)
            told = [self.notes.get(timeout=DEADLINE)[1] for _ in self.ends]
            assert set(told) <= {Reason.ABORT}
            check_books(self.server.stats())


@pytest.mark.timeout(7200 if LONG else 120)
def test_any_order_of_callbacks_gives_what_the_model_says(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")  # what callbacks raise is meant
    run_state_machine_as_test(Machine, settings=STEPS)
