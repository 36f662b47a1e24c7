"""`fastecho connect` in a pipe, and what it says to bad addresses and options.

The server is the test itself, as in test_cli_connect.py. No extension is needed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from driven import DrivenServer, address_of, black_hole, echo, refusing_address
from peers import DEADLINE, read_to_eof, recv_exactly, reset
from terminal import Terminal

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-W", "error", "-m", "fastecho", "connect"]


@pytest.fixture
def driven() -> Iterator[DrivenServer]:
    with DrivenServer() as server:
        yield server


@contextmanager
def started(driven: DrivenServer, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command with pipes; it is ended in any case."""
    process = subprocess.Popen(
        [*COMMAND, driven.address, *options],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run_piped(
    *words: str, data: bytes = b"", stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *words], cwd=ROOT, input=data, stdout=stdout, stderr=subprocess.PIPE, timeout=30
    )


# Pipes


def test_piped_input_comes_back_byte_for_byte(driven: DrivenServer) -> None:
    with driven.serving(echo):
        data = b"a\nb\nq\nquit\n" + bytes(range(256)) + b"\xe4\xbd no newline"
        result = run_piped(driven.address, data=data)
    assert (result.returncode, result.stdout, result.stderr) == (0, data, b"")


def test_piped_input_is_never_taken_for_a_word_of_goodbye(driven: DrivenServer) -> None:
    with driven.serving(echo):
        result = run_piped(driven.address, data=b"q\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"q\n", b"")


def test_large_pipe_is_copied_both_ways_at_once(driven: DrivenServer) -> None:
    with driven.serving(echo):
        data = array("Q", range(4_000_000)).tobytes()
        result = run_piped(driven.address, data=data)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == data


def test_reply_that_comes_after_the_end_of_input_is_not_lost(driven: DrivenServer) -> None:
    def answer_at_the_end(connection: socket.socket) -> None:
        data = read_to_eof(connection)
        connection.sendall(b"you sent " + data)

    with driven.serving(answer_at_the_end):
        result = run_piped(driven.address, data=b"a\nb\n")
    assert (result.returncode, result.stdout) == (0, b"you sent a\nb\n")


def test_reply_is_passed_on_at_once(driven: DrivenServer) -> None:
    with started(driven) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        connection = driven.accept()
        for message in (b"one", b"two\n"):
            os.write(process.stdin.fileno(), message)
            assert recv_exactly(connection, len(message)) == message
            connection.sendall(message)
            assert os.read(process.stdout.fileno(), 100) == message
        process.stdin.close()
        assert connection.recv(1) == b""
        connection.close()
        assert process.wait(DEADLINE) == 0


def test_server_that_closes_ends_it_while_the_input_is_open(driven: DrivenServer) -> None:
    with started(driven) as process:
        connection = driven.accept()
        connection.sendall(b"no")
        connection.close()
        assert process.wait(DEADLINE) == 1
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == b"no"
        sentence = f"fastecho connect: {driven.address} closed the connection\n"
        assert process.stderr.read().decode() == sentence


def test_server_that_resets_is_told(driven: DrivenServer) -> None:
    with started(driven) as process:
        reset(driven.accept())
        assert process.wait(DEADLINE) == 1
        assert process.stderr is not None
        assert process.stderr.read().decode() == (
            f"fastecho connect: the connection to {driven.address} failed: "
            "Connection reset by peer\n"
        )


def test_interrupt_ends_a_pipe_with_130(driven: DrivenServer) -> None:
    with started(driven) as process:
        connection = driven.accept()
        assert process.stdin is not None
        os.write(process.stdin.fileno(), b"x")
        assert recv_exactly(connection, 1) == b"x"  # so it is up and copying
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


LATE = """
import atexit, signal, sys
from fastecho.cli import main

atexit.register(signal.raise_signal, signal.SIGINT)
sys.exit(main())
"""


def test_interrupt_on_the_way_out_ends_it_without_a_word(driven: DrivenServer) -> None:
    """By the signal, which a shell shows as 130; Python would show a traceback."""
    with driven.serving(echo):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", LATE, "connect", driven.address],
            cwd=ROOT,
            input=b"x",
            capture_output=True,
            timeout=30,
        )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"x", b"")


def test_reader_that_has_had_enough_ends_it_silently(driven: DrivenServer) -> None:
    with started(driven) as process:
        connection = driven.accept()
        assert process.stdout is not None
        process.stdout.close()
        connection.sendall(b"x")
        assert process.wait(DEADLINE) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to /dev/full")
def test_output_that_cannot_be_written_is_told(driven: DrivenServer) -> None:
    with driven.serving(echo), Path("/dev/full").open("wb") as full:
        result = run_piped(driven.address, data=b"x", stdout=full.fileno())
    assert result.returncode == 1
    sentence = b"fastecho connect: cannot write standard output: No space left on device\n"
    assert result.stderr == sentence


def test_closed_standard_input_is_an_empty_one(driven: DrivenServer) -> None:
    with driven.serving(echo):
        words = " ".join([*COMMAND, driven.address])
        result = subprocess.run(
            ["sh", "-c", f"{words} <&-"], cwd=ROOT, capture_output=True, timeout=30
        )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_input_that_cannot_be_read_is_told(driven: DrivenServer) -> None:
    with driven.serving(echo), Path(os.devnull).open("wb") as unreadable:
        result = subprocess.run(
            [*COMMAND, driven.address], cwd=ROOT, stdin=unreadable, capture_output=True, timeout=30
        )
    assert (result.returncode, result.stdout) == (1, b"")
    sentence = b"fastecho connect: cannot read standard input: Bad file descriptor\n"
    assert result.stderr == sentence


def test_closed_standard_output_is_told_before_anything_is_sent(driven: DrivenServer) -> None:
    words = " ".join([*COMMAND, driven.address])
    result = subprocess.run(
        ["sh", "-c", f"{words} >&-"], cwd=ROOT, input=b"x", capture_output=True, timeout=30
    )
    assert result.returncode == 1
    assert result.stderr == b"fastecho connect: standard output is closed\n"


def test_piped_input_and_a_terminal_for_output_shows_escapes(driven: DrivenServer) -> None:
    inner, outer = os.pipe()
    os.write(outer, b"x")
    os.close(outer)
    with Terminal(["connect", driven.address], stdin=inner) as terminal:
        os.close(inner)
        connection = driven.accept()
        assert read_to_eof(connection) == b"x"
        connection.sendall(b"\x1b[2J\xe4\xbd")
        connection.sendall(b"\xa0\n")
        connection.close()
        assert terminal.wait_for_exit() == 0
        terminal.wait_for_rows(r"\x1b[2J你")


def test_terminal_for_input_and_a_file_for_output_gets_exact_bytes(
    driven: DrivenServer, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        terminal = Terminal(["connect", driven.address], stdout=file.fileno())
    with terminal:
        connection = driven.accept()
        terminal.type("hello\r")
        assert recv_exactly(connection, 6) == b"hello\n"
        connection.sendall(b"\x1b[2J\xff")
        terminal.type("quit\r")
        assert read_to_eof(connection) == b""
        connection.close()
        assert terminal.wait_for_exit() == 0
        terminal.wait_for_rows("hello", "quit", "Bye~~~")
    assert path.read_bytes() == b"\x1b[2J\xff"


# Addresses and options


def test_unix_socket_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(DEADLINE)
        process = subprocess.Popen(
            [*COMMAND, f"unix:{path}"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        with process:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"hello")
                assert connection.recv(1) == b""
            assert process.communicate(timeout=DEADLINE)[0] == b"hello"


def test_refused_connection_is_one_sentence_and_1() -> None:
    with ExitStack() as stack:
        address = refusing_address(stack)
        result = run_piped(address)
    assert result.returncode == 1
    sentence = f"fastecho connect: cannot connect to {address}: Connection refused\n"
    assert result.stderr.decode() == sentence


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accept queue")
def test_connecting_in_vain_is_one_sentence_and_1() -> None:
    with ExitStack() as stack:
        address = address_of(black_hole(stack, socket.AF_INET, ("127.0.0.1", 0)))
        result = run_piped(address, "--timeout", "0.05")
    assert result.returncode == 1
    sentence = f"fastecho connect: cannot connect to {address}: Connection timed out\n"
    assert result.stderr.decode() == sentence


def test_timeout_is_for_connecting_only(driven: DrivenServer) -> None:
    with started(driven, "--timeout", "0.05") as process:
        connection = driven.accept()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        connection.sendall(b"late")
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"late"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "address 'nowhere' has no port: write HOST:PORT"),
        (["unix:"], "address 'unix:' has no path: write unix:PATH"),
        (["--timeout", "soon"], "--timeout 'soon' must be a number of seconds"),
        (["--timeout", "1_0"], "--timeout '1_0' must be a number of seconds"),
        (["--timeout", "0"], "--timeout '0' must be a finite number of seconds above 0"),
        (["--wait=-1"], "--wait '-1' must be a finite number of seconds of at least 0"),
        (["--wait", "nan"], "--wait 'nan' must be a finite number of seconds of at least 0"),
    ],
)
def test_bad_input_is_one_sentence_and_2(words: list[str], sentence: str) -> None:
    result = run_piped(*words)
    assert result.returncode == 2
    assert result.stderr.decode() == f"fastecho connect: {sentence}\n"
    assert result.stdout == b""


def test_pipe_needs_neither_readline_nor_slow_modules(driven: DrivenServer) -> None:
    code = (
        "import sys; from fastecho.cli import main; code = main(); "
        "print(code, *({'asyncio', 'dataclasses', 'inspect', 'readline', 'typing'}"
        " & set(sys.modules)))"
    )
    with driven.serving(echo):
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, "connect", driven.address],
            cwd=ROOT, input=b"", capture_output=True, timeout=30,
        )  # fmt: skip
    assert (result.stdout, result.stderr) == (b"0\n", b"")
