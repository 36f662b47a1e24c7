"""serve_forever: waiting in any thread; in the main thread, signals end the server.

The main thread's part runs in processes of its own: a signal handler belongs to the process.
"""

from __future__ import annotations

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from conftest import Join, MakeServer
from peers import connect, exchange, is_refused, is_reset, wait_until
from programs import Program

from fastecho import Server

SERVE = """
import signal, sys
from fastecho import Server

numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
before = [signal.getsignal(number) for number in numbers]
server = Server(drain_idle=float(sys.argv[1]), graceful_timeout=30.0, threads=2)
server.start()
print(server.address, flush=True)
result = server.serve_forever()
print(result, server.is_serving(), server.wait(0), flush=True)
print([signal.getsignal(number) for number in numbers] == before, signal.set_wakeup_fd(-1))
"""

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def serving(program: Program, *numbers: int) -> str:
    """Read its address, and wait until it is in serve_forever, which catches these signals."""
    address = program.line()
    for number in numbers or (signal.SIGTERM, signal.SIGHUP):
        wait_until(partial(program.catches, number), what=f"a handler of {number}")
    return address


def end_in_order(program: Program) -> None:
    """The program has served to the end, put everything back, and complained of nothing."""
    assert program.line() == "True False True"
    assert program.line() == "True -1"
    assert program.end() == 0
    assert program.errors() == ""


# --- in another thread -----------------------------------------------------------------------


def test_in_a_thread_it_serves_until_somebody_stops_it(join: Join) -> None:
    server = Server(drain_idle=0.05)
    handlers = [signal.getsignal(number) for number in ENDING]
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(server.serve_forever)
        wait_until(server.is_serving, what="the start")
        peer = join(server)
        assert exchange(peer, b"hello") == b"hello"
        assert [signal.getsignal(number) for number in ENDING] == handlers
        assert not served.done()
        peer.close()
        assert server.stop(10) is True
        assert served.result(10) is True


def test_it_tells_that_connections_were_reset(join: Join) -> None:
    server = Server()
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(server.serve_forever)
        wait_until(server.is_serving, what="the start")
        assert exchange(join(server), b"hello") == b"hello"
        server.abort()
        assert served.result(10) is False


def test_a_started_server_is_not_started_again(make_server: MakeServer) -> None:
    server = make_server()
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(server.serve_forever)
        assert server.stop() is True
        assert served.result(10) is True


def test_in_the_main_thread_stop_of_another_thread_ends_it(make_server: MakeServer) -> None:
    """No signal comes: the wait in the main thread must be woken all the same."""
    server = make_server()
    assert threading.current_thread() is threading.main_thread()
    handlers = [signal.getsignal(number) for number in ENDING]
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(server.stop)
        assert server.serve_forever() is True
        assert stopped.result(10) is True
    assert [signal.getsignal(number) for number in ENDING] == handlers
    assert signal.set_wakeup_fd(-1) == -1


def test_after_the_end_it_returns_at_once(make_server: MakeServer) -> None:
    server = make_server()
    server.stop()
    assert server.serve_forever() is True


# --- signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_drains_and_everything_is_put_back(number: signal.Signals) -> None:
    with Program(SERVE, "0.05") as program:
        with connect(serving(program)) as peer:
            assert exchange(peer, b"hello") == b"hello"
            program.send(number)
            assert not is_reset(peer)
        end_in_order(program)


def test_after_the_first_signal_echoing_goes_on_and_the_port_is_free() -> None:
    with Program(SERVE, "30.0") as program:
        address = serving(program)
        with connect(address) as peer:
            assert exchange(peer, b"before") == b"before"
            program.send(signal.SIGTERM)
            wait_until(lambda: is_refused(address), what="the port to be free")
            assert exchange(peer, b"after") == b"after"
        end_in_order(program)


@pytest.mark.parametrize("second", ENDING, ids=lambda number: number.name)
def test_a_second_signal_ends_everything_at_once(second: signal.Signals) -> None:
    with Program(SERVE, "30.0") as program:
        address = serving(program)
        with connect(address) as peer:
            assert exchange(peer, b"before") == b"before"
            program.send(signal.SIGINT)
            wait_until(lambda: is_refused(address), what="the drain")
            program.send(second)
            assert is_reset(peer)
        assert program.line() == "False False True"
        assert program.line() == "True -1"
        assert program.end() == 0
        assert program.errors() == ""


def test_signals_that_are_ignored_stay_ignored() -> None:
    """As under nohup, or as a shell's background job ignores SIGINT."""
    ignored = (signal.SIGHUP, signal.SIGINT)
    with Program(SERVE, "0.05", ignored=ignored) as program:
        address = serving(program, signal.SIGTERM)
        with connect(address) as peer:
            for number in ignored:
                program.send(number)
            assert exchange(peer, b"still here") == b"still here"
            assert not is_refused(address)
            program.send(signal.SIGTERM)
            assert not is_reset(peer)
        end_in_order(program)


def test_a_signal_right_after_the_start_is_not_lost() -> None:
    """It comes while serve_forever takes the signals over, before each line of that in turn.

    Until the handlers are there it meets the program's own, which stops the server as well.
    """
    script = """
        import os, signal, sys
        from fastecho import Server

        def trace_lines(frame, event, argument):
            global left
            left -= event == "line"
            if left == 0 or event == "return":
                sys.settrace(None)
                os.kill(os.getpid(), signal.SIGTERM)
                print("sent" if left == 0 else "no such line", flush=True)
                return None
            return trace_lines

        def trace(frame, event, argument):
            code = frame.f_code
            if code.co_filename.endswith("signals.py") and code.co_name == "__enter__":
                return trace_lines

        left = int(sys.argv[1])
        signal.signal(signal.SIGTERM, lambda number, frame: server.stop())
        server = Server()
        server.start()
        sys.settrace(trace)
        print(server.serve_forever(), flush=True)
    """
    place, said = 0, "sent"
    while said == "sent":
        place += 1
        with Program(script, str(place)) as program:
            said = program.line()
            assert program.line() == "True", f"lost at line {place}"
            assert program.end() == 0
    assert said == "no such line"
    assert place > 5


def test_ctrl_c_while_it_prepares_to_wait_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises nowhere once it is to drain, and everything is put back."""
    make_pair = socket.socketpair

    def interrupted() -> tuple[socket.socket, socket.socket]:
        signal.raise_signal(signal.SIGINT)
        return make_pair()

    handlers = [signal.getsignal(number) for number in ENDING]
    monkeypatch.setattr("fastecho.signals.socket.socketpair", interrupted)
    server = Server()
    try:
        assert server.serve_forever() is True
    except KeyboardInterrupt:
        pytest.fail("it was raised")
    finally:
        server.abort()
    assert [signal.getsignal(number) for number in ENDING] == handlers
    assert signal.set_wakeup_fd(-1) == -1


def test_ctrl_c_while_it_puts_handlers_back_finds_all_of_them_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of SIGINT is the last: what raises from there on finds nothing left to do."""
    put_back = signal.signal

    def interrupting(number: int, handler: Any) -> Any:
        before = put_back(number, handler)
        if number == signal.SIGINT and handler is own:
            signal.raise_signal(signal.SIGINT)
        return before

    own = signal.default_int_handler
    monkeypatch.setattr("fastecho.signals.signal.signal", interrupting)
    handlers = [signal.getsignal(number) for number in ENDING]
    server = Server()
    server.start()
    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        pool.submit(server.stop)
        server.serve_forever()
    assert [signal.getsignal(number) for number in ENDING] == handlers
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_is_not_lost_when_another_one_raises_while_it_prepares_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was noted already, and nobody is going to wait: it goes to the handler of before."""

    class HungUpError(Exception):
        pass

    def hang_up(*_: object) -> None:
        raise HungUpError

    install = signal.signal

    def interrupted(number: int, handler: Any) -> Any:
        if number == signal.SIGHUP and handler is not hang_up:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
        return install(number, handler)

    came: list[int] = []
    before = {
        signal.SIGTERM: install(signal.SIGTERM, lambda number, _: came.append(number)),
        signal.SIGHUP: install(signal.SIGHUP, hang_up),
    }
    monkeypatch.setattr("fastecho.signals.signal.signal", interrupted)
    server = Server()
    server.start()
    try:
        with pytest.raises(HungUpError):
            server.serve_forever()
    finally:
        monkeypatch.undo()
        server.abort()
        for number, handler in before.items():
            install(number, handler)
    assert came == [signal.SIGTERM]


def test_other_handlers_run_while_it_waits() -> None:
    script = """
        import signal
        from fastecho import Server

        signal.signal(signal.SIGUSR1, lambda number, frame: print("usr1", flush=True))
        server = Server()
        server.start()
        print(server.address, flush=True)
        server.serve_forever()
    """
    with Program(script) as program:
        address = serving(program)
        program.send(signal.SIGUSR1)
        assert program.line() == "usr1"
        with connect(address) as peer:
            assert exchange(peer, b"still here") == b"still here"
        program.send(signal.SIGTERM)
        assert program.end() == 0
        assert program.errors() == ""


def test_an_exception_of_another_handler_comes_through() -> None:
    """The handlers are back, and the server lives on and ends as usual."""
    script = """
        import signal
        from fastecho import Server

        class Enough(Exception):
            pass

        def raise_it(number, frame):
            raise Enough

        signal.signal(signal.SIGUSR1, raise_it)
        handler = signal.getsignal(signal.SIGTERM)
        server = Server()
        server.start()
        print(server.address, flush=True)
        try:
            server.serve_forever()
        except Enough:
            print(signal.getsignal(signal.SIGTERM) is handler, signal.set_wakeup_fd(-1))
            print(server.is_serving(), server.stop(), server.wait(0), flush=True)
    """
    with Program(script) as program:
        serving(program)
        # Earlier, what socketpair() returns might be lost, and its end told as a warning.
        wait_until(program.waits_for_signals)
        program.send(signal.SIGUSR1)
        assert program.line() == "True -1"
        assert program.line() == "True True True"
        assert program.end() == 0
        assert program.errors() == ""


def test_ctrl_c_ends_a_drain_in_with() -> None:
    """Without serve_forever SIGINT is Python's own: KeyboardInterrupt, and `with` aborts."""
    script = """
        import time
        from fastecho import Server

        try:
            with Server(drain_idle=30.0) as server:
                print(server.address, flush=True)
                time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", server.wait(0), flush=True)
    """
    with Program(script) as program:
        with connect(program.line()) as peer:
            assert exchange(peer, b"hello") == b"hello"
            program.send(signal.SIGINT)
            assert is_reset(peer)
        assert program.line() == "interrupted True"
        assert program.end() == 0
        assert program.errors() == ""
