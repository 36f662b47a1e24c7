"""Whatever peers and users do to a server, in any order, it does what the model says is due.

A state machine of hypothesis over one fastecho.Server at a time: connections, sizes and segments,
half-closes, resets, a limit of connections, frames that are too long, stop, abort and a new start.
The model knows what each connection has sent, and so what must have come back.

Few steps in an ordinary run; with the profile `fuzz` (`make fuzz`) 100,000.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
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
from peers import (
    DEADLINE,
    connect,
    exchange,
    expect_stats,
    is_reset,
    is_turned_away,
    pattern,
    read_to_eof,
    reset,
    same,
)

import fastecho

LONG = settings.get_current_profile_name() == "fuzz"
STEPS = settings(
    max_examples=1000 if LONG else 80,
    stateful_step_count=100 if LONG else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
NOISE = pattern(1 << 20)
REASONS = ("peer", "error", "frame_too_long", "drain", "abort")

configs = st.fixed_dictionaries(
    {
        "frame": st.sampled_from(["recv", "line", "length"]),
        "prefix": st.sampled_from([b"", b"<pre>", b"\r\n"]),
        "suffix": st.sampled_from([b"", b"</suf>"]),
        "max_frame": st.sampled_from([1, 2, 50, 5000]),
        "high_water": st.sampled_from([5000, 262144]),
        "max_connections": st.sampled_from([None, 1, 3]),
        "threads": st.integers(1, 2),
    }
)
pieces = st.one_of(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"a\n", b"\0\0\0\0", b"\0\0\0\1x", b"\0\0\0\2", b"\0"]),
    st.binary(max_size=60),
    st.integers(0, 6000).map(lambda size: NOISE[:size].replace(b"\n", b"-") + b"\n"),
    st.integers(0, 5100).map(lambda size: size.to_bytes(4, "big") + NOISE[:size]),
    st.integers(60_000, 1 << 20).map(lambda size: NOISE[:size]),
)
segments = st.lists(pieces, min_size=1, max_size=6)
which = st.integers(0, 7)


class Model:
    """One connection: what it has sent, and what is due for that."""

    def __init__(self, sock: socket.socket, config: dict[str, Any]) -> None:
        self.sock = sock
        self.config = config
        self.unread = b""
        """What was sent and is no frame yet, from `at` on: a frame is not cut off by a copy."""
        self.at = 0
        self.too_long = False

    def send(self, data: bytes, ended: bool = False) -> bytes:
        """Return the reply that becomes due when the server has got `data`, and then FIN."""
        self.unread += data
        cut = {"recv": self.any, "line": self.line, "length": self.length}[self.config["frame"]]
        reply = []
        while not self.too_long and (frame := cut(ended)) is not None:
            reply.append(frame)
        self.unread, self.at = self.unread[self.at :], 0
        return b"".join(reply)

    def any(self, ended: bool) -> bytes | None:
        frame = self.unread[self.at :]
        self.at = len(self.unread)
        return frame or None

    def line(self, ended: bool) -> bytes | None:
        found = self.unread.find(b"\n", self.at)
        line = self.unread[self.at : None if found < 0 else found]
        newline = b"" if found < 0 else b"\n"
        size = len(line) + len(newline)
        if size > self.config["max_frame"]:
            self.too_long = True
            return None
        if not newline and not (ended and line):
            return None
        self.at += size
        end = b"\r\n" if newline and line.endswith(b"\r") else newline
        return self.added(line[: size - len(end)]) + end

    def length(self, ended: bool) -> bytes | None:
        head = self.unread[self.at : self.at + 4]
        if len(head) < 4:
            return None
        size = int.from_bytes(head, "big")
        self.too_long = size > self.config["max_frame"]
        if self.too_long or len(self.unread) < self.at + 4 + size:
            return None
        payload = self.unread[self.at + 4 : self.at + 4 + size]
        self.at += 4 + size
        reply = self.added(payload)
        return len(reply).to_bytes(4, "big") + reply

    def added(self, payload: bytes) -> bytes:
        prefix, suffix = self.config["prefix"], self.config["suffix"]
        return bytes(prefix + payload + suffix)


class Machine(RuleBasedStateMachine):
    """A server, and the connections that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.server: fastecho.Server | None = None
        self.config: dict[str, Any] = {}
        self.models: list[Model] = []
        self.ended = dict.fromkeys(REASONS, 0)
        self.shed = 0

    @initialize(config=configs)
    def start(self, config: dict[str, Any]) -> None:
        if config["frame"] == "recv":  # what TCP made of the segments would show
            config = {**config, "prefix": b"", "suffix": b""}
        self.config = config
        self.ended = dict.fromkeys(REASONS, 0)
        self.shed = 0
        self.server = fastecho.Server(drain_idle=0.0, **config)
        self.server.start()

    @rule()
    def join(self) -> None:
        assert self.server is not None
        most = self.config["max_connections"]
        if most is not None and len(self.models) >= most:
            self.shed += 1
            assert is_turned_away(self.server)
        else:
            self.models.append(Model(connect(self.server), self.config))
            expect_stats(self.server, connections_open=len(self.models))

    @rule(which=which, segments=segments)
    def send(self, which: int, segments: list[bytes]) -> None:
        model = self.pick(which)
        due = model.send(b"".join(segments))
        if not model.too_long:
            assert same(exchange(model.sock, segments, len(due)), due)
            return
        with ThreadPoolExecutor(1) as pool:
            # What follows the frame is discarded, up to a limit; then it is reset.
            sending = pool.submit(self.send_what_is_taken, model.sock, segments)
            assert same(read_to_eof(model.sock), due)
            sending.result()
        self.leave(model, "frame_too_long")

    @staticmethod
    def send_what_is_taken(sock: socket.socket, segments: list[bytes]) -> None:
        try:
            for segment in segments:
                sock.sendall(segment)
        except (ConnectionResetError, BrokenPipeError):
            pass

    @rule(which=which, segments=st.one_of(st.just([b""]), segments))
    def send_and_half_close(self, which: int, segments: list[bytes]) -> None:
        model = self.pick(which)
        due = model.send(b"".join(segments), ended=True)
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(self.send_what_is_taken, model.sock, segments)
            sending.add_done_callback(lambda _: self.half_close(model.sock))
            assert same(read_to_eof(model.sock), due)
            sending.result()
        self.leave(model, "frame_too_long" if model.too_long else "peer")

    @staticmethod
    def half_close(sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # reset already

    @rule(which=which)
    def reset(self, which: int) -> None:
        model = self.pick(which)
        reset(model.sock)
        self.leave(model, "error")

    def leave(self, model: Model, reason: str) -> None:
        """Take a connection that has ended out of the model; its reason must be counted."""
        assert self.server is not None
        model.sock.close()
        self.models.remove(model)
        self.ended[reason] += 1
        expect_stats(self.server, connections_open=len(self.models))

    def pick(self, which: int) -> Model:
        """Return one of the connections; with none, connect."""
        if not self.models:
            self.join()
        return self.models[which % len(self.models)]

    @rule(drained=st.booleans(), config=configs)
    def end_and_start_another(self, drained: bool, config: dict[str, Any]) -> None:
        """Quiet connections end by FIN in a drain, by RST in an abort; nothing comes before it."""
        assert self.server is not None
        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(self.server.stop if drained else self.abort, DEADLINE)
            for model in self.models:
                if drained:
                    assert read_to_eof(model.sock) == b""
                else:
                    assert is_reset(model.sock)
                model.sock.close()
            assert stopped.result(DEADLINE)
        self.ended["drain" if drained else "abort"] += len(self.models)
        self.models.clear()
        self.counters_agree()
        check_books(self.server.stats())
        self.start(config)

    def abort(self, timeout: float) -> bool:
        assert self.server is not None
        self.server.abort()
        return self.server.wait(timeout)

    @invariant()
    def counters_agree(self) -> None:
        """Also that nothing is pending: every step waits for all that it is owed."""
        if self.server is not None:
            ended = {f"ended_by_{name}": count for name, count in self.ended.items()}
            expect_stats(
                self.server,
                connections_open=len(self.models),
                bytes_pending=0,
                shed_max_connections=self.shed,
                **ended,
            )

    def teardown(self) -> None:
        """Leave nothing behind, also after a step that failed."""
        for model in self.models:
            model.sock.close()
        if self.server is not None:
            self.server.abort()
            assert self.server.wait(DEADLINE)


@pytest.mark.timeout(7200 if LONG else 180)
def test_any_order_of_events_gives_what_the_model_says() -> None:
    run_state_machine_as_test(Machine, settings=STEPS)
