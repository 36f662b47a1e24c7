"""Any fault with any client: nothing is lost, kept, or left open, and who has none is untouched."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from conftest import MakeServer, Serve
from peers import connect, exchange, expect_stats, is_turned_away, pattern, reset, same

from fastecho import Fault

if TYPE_CHECKING:
    import fastecho

SECONDS = 1.2
DATA = pattern(300_000)


def any_fault(dice: random.Random) -> Fault:
    """Return a fault of anything that there is, with small times."""
    values: dict[str, object] = {"seed": dice.getrandbits(64)}
    options: list[tuple[str, Callable[[], object]]] = [
        ("delay", lambda: dice.choice([0.0001, 0.005, 0.03])),
        ("bandwidth", lambda: dice.choice([1000, 1_000_000, 10**9])),
        ("slice", lambda: dice.choice([1, 100, 65536])),
        ("corrupt", dice.random),
        ("duplicate", dice.random),
        ("probability", lambda: 0.8),
    ]
    for name, value in options:
        if dice.random() < 0.4:
            values[name] = value()
    if "delay" in values and dice.random() < 0.5:
        values["jitter"] = 0.003
        values["distribution"] = dice.choice(["uniform", "normal"])
    if "slice" in values:
        values["gap"] = dice.choice([0.0, 0.0001, 0.002])
    end = dice.choice(
        [
            None,
            "stall_after",
            "close_after",
            "reset_after",
            "silent",
            "no_read",
            "deny",
            "half_close",
        ]
    )
    if end is not None:
        values[end] = dice.choice([0, 1, 1000, 100_000]) if end.endswith("_after") else True
    return Fault(**values)  # type: ignore[arg-type]


def any_client(server: fastecho.Server, dice: random.Random) -> None:
    """Send, read, wait, and end in one way or another."""
    with connect(server, receive_buffer=dice.choice([None, 8192])) as sock:
        sock.setblocking(False)
        for _ in range(dice.randrange(8)):
            with suppress(BlockingIOError):
                if dice.random() < 0.7:
                    sock.send(DATA[: dice.choice([1, 10, 5000, 300_000])])
                else:
                    sock.recv(100_000)
            time.sleep(dice.choice([0, 0, 0.002]))
        if dice.random() < 0.4:
            with suppress(OSError):  # ENOTCONN: it was reset
                sock.shutdown(socket.SHUT_WR)
            time.sleep(dice.choice([0, 0.01]))
        if dice.random() < 0.4:
            reset(sock)


def echo(_: object, data: bytes) -> bytes:
    return data


@pytest.mark.parametrize(("frame", "on_message"), [("recv", None), ("line", None), ("line", echo)])
def test_storm_of_faults(make_server: MakeServer, frame: str, on_message: Any) -> None:
    server = make_server(
        threads=2, frame=frame, high_water=100_000, max_frame=2000, on_message=on_message
    )
    until = time.monotonic() + SECONDS
    strange: list[BaseException] = []

    def attack(seed: int) -> None:
        dice = random.Random(seed)
        try:
            while time.monotonic() < until:
                with suppress(ConnectionError):
                    any_client(server, dice)
        except BaseException as error:
            strange.append(error)

    threads = [threading.Thread(target=attack, args=[seed]) for seed in range(4)]
    dice = random.Random(5)
    lines = b"".join(b"%d\n" % i for i in range(2000))
    with connect(server) as calm:
        assert exchange(calm, lines) == lines
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            fault = any_fault(dice)
            if (frame == "line" and on_message is None) or not fault.duplicate:
                server.set_fault(fault)
            assert same(exchange(calm, lines), lines)
            time.sleep(0.005)
        for thread in threads:
            thread.join()
    assert strange == []
    server.stop(0.3)
    stats = server.stats()
    assert stats.connections_faulty > 20
    assert (stats.bytes_pending, stats.ended_by_no_memory) == (0, 0)


def test_no_descriptor_for_the_timer_refuses_the_connection(serve_apart: Serve) -> None:
    served = serve_apart(fault="delay=1ms")
    served.stats()
    taken = {int(name) for name in os.listdir(f"/proc/{served.pid}/fd")}
    free = [number for number in range(3, len(taken) + 5) if number not in taken]
    served.limit_descriptors(free[1])  # the first is the connection's
    assert is_turned_away(served.address)
    expect_stats(served, ended_by_no_memory=1, errors={"EMFILE": 1}, connections_open=0)


def test_timer_that_cannot_be_registered_refuses_the_connection(serve_shimmed: Serve) -> None:
    served = serve_shimmed(fault="delay=1ms")
    served.rule("epoll_ctl", error="ENOSPC", times=1, operation="add")
    assert is_turned_away(served.address)
    expect_stats(served, ended_by_no_memory=1, errors={"ENOSPC": 1}, connections_open=0)
    with connect(served.address) as peer:
        assert exchange(peer, b"x") == b"x"
