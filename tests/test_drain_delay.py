"""drain_delay: after the first signal newcomers are served on, and probes say that none are wanted.

So a load balancer that looks every second loses nobody to a server that ends.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from commands import Serving, run, serving
from peers import exchange, is_refused, wait_until
from programs import Program

pytest.importorskip("prometheus_client")
from test_metrics import ask

LONG = "--drain-delay=30"


def is_ready(where: str) -> bool:
    return ask(where, "/readyz")[0] == 200


def echoes(server: Serving) -> bool:
    with server.connect() as peer:
        return exchange(peer, b"x") == b"x"


def test_newcomers_are_served_until_the_delay_is_over(tmp_path: Path) -> None:
    where = f"unix:{tmp_path / 'metrics'}"
    with serving("--drain-delay=0.7", "--drain-idle=0", f"--metrics={where}") as server:
        assert is_ready(where)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_ready(where))
        served = 0
        while time.monotonic() - began < 0.5:
            assert echoes(server)
            served += 1
        code, said = server.end()
        took = time.monotonic() - began
    assert (code, served > 5) == (0, True), said
    assert 0.7 <= took < 10
    assert is_refused(server.addresses[0])


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    where = f"unix:{tmp_path / 'metrics'}"
    with serving(LONG, f"--metrics={where}") as server, server.connect() as peer:
        assert exchange(peer, b"x") == b"x"
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_ready(where))
        began = time.monotonic()
        code, _ = server.end(signal.SIGTERM)
        assert time.monotonic() - began < 10
        assert code == 1
    assert is_refused(server.addresses[0])


def test_the_queue_is_told_while_it_goes_on_accepting(tmp_path: Path) -> None:
    where = f"unix:{tmp_path / 'metrics'}"
    with serving(LONG, f"--metrics={where}") as server:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_ready(where))
        assert "fastecho_accept_queue_depth{" in ask(where, "/metrics")[2]
        server.end(signal.SIGTERM)


NO_THREAD = """
import threading
import fastecho

def refused(self):
    raise RuntimeError("can't start new thread")

server = fastecho.Server(drain_delay=30, drain_idle=0)
server.start()
threading.Timer.start = refused
print(server.address, flush=True)
print(server.serve_forever(), flush=True)
"""


def test_without_a_thread_for_the_delay_it_drains_at_once() -> None:
    """A thread that is refused cannot be provoked."""
    with Program(NO_THREAD) as program:
        program.line()
        wait_until(lambda: program.catches(signal.SIGTERM))
        program.send(signal.SIGTERM)
        assert program.line() == "True"
        assert program.end() == 0


ENDED_BEFORE = """
import threading
import fastecho

server = fastecho.Server(drain_delay=1000)
server.start()
print(server.address, flush=True)
server.serve_forever()
left = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
for thread in left:
    thread.join(10)
print(any(thread.is_alive() for thread in left), flush=True)
"""


def test_no_thread_waits_for_a_delay_that_is_over_before_its_time() -> None:
    with Program(ENDED_BEFORE) as program:
        program.line()
        wait_until(lambda: program.catches(signal.SIGTERM))
        threads = Path(f"/proc/{program.pid}/task")
        before = len(list(threads.iterdir()))
        program.send(signal.SIGTERM)
        wait_until(lambda: len(list(threads.iterdir())) > before)
        program.send(signal.SIGTERM)
        assert program.line() == "False"
        assert program.end() == 0


def test_a_wrong_delay_is_named() -> None:
    done = run("serve", "--drain-delay=-1")
    assert done.returncode == 2
    assert "--drain-delay '-1' must be seconds from 0 to 1000000" in done.stderr
