"""`fastecho connect` as people use it: at a terminal, and in a pipe.

The server is the test itself: it listens, accepts and drives the connection, so every byte on the
wire is seen and every misbehaviour happens when it is meant to. No extension is needed.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from terminal import Screen, Terminal

from fastecho.cli._terminal import Decoder, printable, rows_of

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 10.0  # seconds: reached only when something hangs
PROMPT = "Enter a message: "
CHINESE = {"LC_ALL": "zh_CN.UTF-8"}
COMMAND = [sys.executable, "-W", "error", "-m", "fastecho", "connect"]


class Server:
    """A listener on port 0, and the connections that the test accepts from it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(DEADLINE)
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._connections: list[socket.socket] = []

    def accept(self) -> socket.socket:
        """Accept the command's connection."""
        connection, _ = self.listener.accept()
        connection.settimeout(DEADLINE)
        self._connections.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self.listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def at_terminal(server: Server) -> Iterator[Callable[..., tuple[Terminal, socket.socket]]]:
    """Start the command at a terminal; return it and the accepted connection."""
    with ExitStack() as stack:

        def start(*options: str, prompt: str = PROMPT, **more: object) -> Started:
            words = ["connect", server.address, *options]
            terminal = stack.enter_context(Terminal(words, **more))  # type: ignore[arg-type]
            connection = server.accept()
            terminal.wait_for_rows(prompt)
            return terminal, connection

        yield start


Started = tuple[Terminal, socket.socket]
Start = Callable[..., Started]


def receive(connection: socket.socket, size: int) -> bytes:
    """Receive exactly so many bytes, or fewer before the end."""
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def receive_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def reset(connection: socket.socket) -> None:
    """Abort a connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def started(server: Server, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command with pipes; it is ended in any case."""
    process = subprocess.Popen(
        [*COMMAND, server.address, *options],
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


@contextmanager
def serving(server: Server, serve: Callable[[socket.socket], object]) -> Iterator[None]:
    """Accept one connection and serve it in a thread, which must end by itself."""

    def accept() -> None:
        with server.accept() as connection:
            serve(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    yield
    thread.join(DEADLINE)
    assert not thread.is_alive()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(262144):
        connection.sendall(data)


# The conversation


def test_line_goes_out_with_its_newline_and_the_reply_is_shown(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("hello\r")
    assert receive(connection, 6) == b"hello\n"
    connection.sendall(b"you said: hello\n")
    terminal.wait_for_rows(f"{PROMPT}hello", "you said: hello", PROMPT)


def test_empty_line_is_a_newline(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("\r")
    assert receive(connection, 1) == b"\n"
    connection.sendall(b"\n")
    terminal.wait_for_rows(PROMPT, "", PROMPT)


def test_chinese_locale_gets_the_tutorials_words(at_terminal: Start) -> None:
    # The locale need not be installed: typed characters stay whole all the same.
    terminal, connection = at_terminal(prompt="请输入内容: ", variables=CHINESE)
    terminal.type("你好吗\x7f\r")
    assert receive(connection, 7) == "你好\n".encode()
    connection.sendall("服务端收到, 你发的消息是: 你好\n".encode())
    terminal.wait_for_rows("请输入内容: 你好", "服务端收到, 你发的消息是: 你好", "请输入内容:")
    terminal.type("q\r")
    terminal.wait_for_rows("请输入内容: q", "Bye~~~")


@pytest.mark.parametrize(
    ("variables", "prompt"),
    [
        ({"LC_ALL": None, "LC_MESSAGES": "zh_TW.UTF-8", "LANG": "C.UTF-8"}, "请输入内容: "),
        ({"LC_ALL": None, "LANG": "zh_CN.UTF-8"}, "请输入内容: "),
        ({"LC_ALL": "C.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8", "LANG": "zh_CN"}, PROMPT),
        ({"LC_ALL": "", "LC_MESSAGES": "en_US.UTF-8", "LANG": "zh_CN"}, PROMPT),
    ],
)
def test_language_is_the_first_variable_that_is_set(
    at_terminal: Start, variables: dict[str, str | None], prompt: str
) -> None:
    at_terminal(prompt=prompt, variables=variables)


@pytest.mark.parametrize("word", ["q", "quit", "exit", "  QUIT ", "Exit"])
def test_word_of_goodbye_ends_it(at_terminal: Start, word: str) -> None:
    terminal, connection = at_terminal()
    terminal.type(f"{word}\r")
    assert terminal.wait_for_exit() == 0
    terminal.wait_for_rows(f"{PROMPT}{word}", "Bye~~~")
    assert connection.recv(1) == b""
    assert terminal.is_cooked()


def test_end_of_input_ends_it_like_goodbye(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("\x04")
    assert terminal.wait_for_exit() == 0
    terminal.wait_for_rows(PROMPT, "Bye~~~")
    assert connection.recv(1) == b""


def test_goodbye_does_not_wait_for_the_server_to_close(at_terminal: Start) -> None:
    terminal, _ = at_terminal()
    terminal.type("q\r")
    assert terminal.wait_for_exit() == 0  # while the server holds its end open


def test_interrupt_at_the_prompt_ends_it_with_130(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("half")
    terminal.wait_for_rows(f"{PROMPT}half")
    terminal.type("\x03")
    assert terminal.wait_for_exit() == 130
    assert "Traceback" not in terminal.screen.text()
    assert connection.recv(1) == b""
    assert terminal.is_cooked()


def test_interrupt_while_waiting_for_a_reply_ends_it_with_130(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--wait", "60")
    terminal.type("hello\r")
    assert receive(connection, 6) == b"hello\n"
    terminal.type("\x03")
    assert terminal.wait_for_exit() == 130
    assert "Traceback" not in terminal.screen.text()


def test_line_can_be_sent_without_its_newline(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--no-newline", "--wait", "0.05")
    terminal.type("hello\r")
    assert receive(connection, 5) == b"hello"
    connection.sendall(b"got hello")
    terminal.wait_for_rows(f"{PROMPT}hello", "got hello", PROMPT)
    terminal.type("q\r")
    assert connection.recv(100) == b""


def test_empty_line_without_newline_sends_nothing_and_does_not_wait(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--no-newline", "--wait", "60")
    terminal.type("\r")
    terminal.wait_for_rows(PROMPT, PROMPT)
    terminal.type("q\r")
    assert connection.recv(100) == b""


def test_nothing_is_cut_at_a_kibibyte(at_terminal: Start) -> None:
    terminal, connection = at_terminal(columns=100, rows=60)
    line = "".join(f"{number:04}." for number in range(500))
    terminal.type(f"{line}\r")
    assert receive(connection, len(line) + 1) == f"{line}\n".encode()
    connection.sendall(f"{line}\n".encode())
    shown = [line[start : start + 100] for start in range(0, len(line), 100)]
    terminal.wait_for_rows(*shown, PROMPT)


def test_character_that_comes_in_two_halves_is_shown_whole(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--wait", "60")
    terminal.type("x\r")
    assert receive(connection, 2) == b"x\n"
    reply = "收到\n".encode()
    connection.sendall(b"a" + reply[:2])
    terminal.wait_for_rows(f"{PROMPT}x", "a")
    connection.sendall(reply[2:])
    terminal.wait_for_rows(f"{PROMPT}x", "a收到", PROMPT)


def test_server_that_never_answers_leaves_the_prompt_usable(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--wait", "0.05")
    terminal.type("one\r")
    terminal.wait_for_rows(f"{PROMPT}one", PROMPT)
    terminal.type("two\r")
    assert receive(connection, 8) == b"one\ntwo\n"
    terminal.wait_for_rows(f"{PROMPT}one", f"{PROMPT}two", PROMPT)
    connection.sendall(b"late\n")
    terminal.wait_for_rows(f"{PROMPT}two", "late", PROMPT)


def test_line_can_be_recalled_and_edited(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("helo\r")
    assert receive(connection, 5) == b"helo\n"
    connection.sendall(b"helo\n")
    terminal.wait_for_rows("helo", PROMPT)
    terminal.type("\x1b[A\x1b[Dl\r")  # up, left, the missing letter
    assert receive(connection, 6) == b"hello\n"


def test_bytes_typed_that_are_no_utf8_go_out_as_they_are(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type_bytes(b"a\xffb\r")
    assert receive(connection, 4) == b"a\xffb\n"


# What arrives while a line is being typed


def test_bytes_at_the_prompt_are_shown_above_the_half_typed_line(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("hel")
    terminal.wait_for_rows(f"{PROMPT}hel")
    connection.sendall("news 消息\nmore\n".encode())
    terminal.wait_for_rows("news 消息", "more", f"{PROMPT}hel")
    terminal.type("lo\r")
    assert receive(connection, 6) == b"hello\n"
    terminal.wait_for(lambda screen: screen.rows()[-2] == f"{PROMPT}hello", "whole line")


def test_cursor_stays_in_the_middle_of_the_half_typed_line(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("hexx\x1b[D\x1b[D")
    terminal.wait_for(lambda screen: screen.column == len(PROMPT) + 2, "cursor in the middle")
    connection.sendall(b"news\n")
    terminal.wait_for_rows("news", f"{PROMPT}hexx")
    assert terminal.screen.column == len(PROMPT) + 2
    terminal.type("llo")
    terminal.wait_for_rows("news", f"{PROMPT}helloxx")
    terminal.type("\x0b\r")  # cut the rest
    assert receive(connection, 6) == b"hello\n"


def test_half_typed_line_of_several_rows_stays_whole(at_terminal: Start) -> None:
    terminal, connection = at_terminal(columns=30)
    line = "".join(chr(ord("a") + number % 26) for number in range(60))
    shown = [f"{PROMPT}{line[:13]}", line[13:43], line[43:]]
    terminal.type(line)
    terminal.wait_for_rows(*shown)
    connection.sendall(b"news\n")
    terminal.wait_for_rows("news", *shown)
    terminal.type("\x7f!")
    terminal.wait_for_rows("news", *shown[:2], f"{shown[2][:-1]}!")
    terminal.type("\r")
    assert receive(connection, 61) == f"{line[:-1]}!\n".encode()


def test_long_text_at_the_prompt_is_cut_into_rows_and_scrolls(at_terminal: Start) -> None:
    terminal, connection = at_terminal(columns=30, rows=6)
    terminal.type("half")
    terminal.wait_for_rows(f"{PROMPT}half")
    connection.sendall(b"".join(b"line %d\n" % number for number in range(20)) + b"x" * 40 + b"\n")
    terminal.wait_for_rows("line 17", "line 18", "line 19", "x" * 30, "x" * 10, f"{PROMPT}half")


def test_unfinished_line_at_the_prompt_is_shown_after_a_short_wait(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--wait", "0.05")
    terminal.type("half")
    terminal.wait_for_rows(f"{PROMPT}half")
    connection.sendall(b"whole\nunfinished")
    terminal.wait_for_rows("whole", "unfinished", f"{PROMPT}half")


def test_line_that_comes_in_pieces_at_the_prompt_is_shown_as_one(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--wait", "60")
    connection.sendall(b"first\none ")
    terminal.wait_for_rows("first", PROMPT)
    connection.sendall(b"piece\n")
    terminal.wait_for_rows("first", "one piece", PROMPT)


def test_dumb_terminal_gets_no_control_sequence(at_terminal: Start) -> None:
    terminal, connection = at_terminal(variables={"TERM": "dumb"})
    terminal.type("half")
    terminal.wait_for_rows(f"{PROMPT}half")
    connection.sendall(b"news\n")
    terminal.wait_for_rows(f"{PROMPT}half", "news", f"{PROMPT}half")
    assert b"\x1b" not in terminal.raw.replace(b"\x1b[?2004h", b"")  # readline's own
    terminal.type(" done\r")
    assert receive(connection, 10) == b"half done\n"


def test_bytes_at_the_prompt_are_shown_without_readline_too(at_terminal: Start) -> None:
    terminal, connection = at_terminal(before="sys.modules['readline'] = None")
    terminal.type("half")
    terminal.wait_for_rows(f"{PROMPT}half")
    connection.sendall(b"news\n")
    terminal.wait_for_rows("news", f"{PROMPT}half")
    terminal.type(" done\r")
    assert receive(connection, 10) == b"half done\n"


def test_server_that_closes_at_the_prompt_is_told_at_once(
    at_terminal: Start, server: Server
) -> None:
    terminal, connection = at_terminal()
    terminal.type("half")
    terminal.wait_for_rows(f"{PROMPT}half")
    connection.sendall(b"going down")
    connection.close()
    assert terminal.wait_for_exit() == 1
    terminal.wait_for_rows(
        "going down", f"{PROMPT}half", f"fastecho connect: {server.address} closed the connection"
    )
    assert terminal.is_cooked()


def test_server_that_resets_at_the_prompt_is_told_at_once(
    at_terminal: Start, server: Server
) -> None:
    terminal, connection = at_terminal(columns=100)
    reset(connection)
    assert terminal.wait_for_exit() == 1
    terminal.wait_for_rows(
        PROMPT,
        f"fastecho connect: the connection to {server.address} failed: Connection reset by peer",
    )


def test_server_that_closes_instead_of_answering_is_told(
    at_terminal: Start, server: Server
) -> None:
    terminal, connection = at_terminal("--wait", "60")
    terminal.type("hello\r")
    assert receive(connection, 6) == b"hello\n"
    connection.close()
    assert terminal.wait_for_exit() == 1
    terminal.wait_for_rows(
        f"{PROMPT}hello", f"fastecho connect: {server.address} closed the connection"
    )


# What a terminal may be shown


def test_control_sequences_from_the_server_are_shown_and_not_obeyed(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("x\r")
    assert receive(connection, 2) == b"x\n"
    connection.sendall("\x1b[2J\x9b3m\r\a\x7f \u202eabc\u2066 \xff\n".encode() + b"\xff\n")
    terminal.wait_for_rows(
        f"{PROMPT}x", r"\x1b[2J\x9b3m\r\x07\x7f \u202eabc\u2066 ÿ", r"\xff", PROMPT
    )
    assert b"\x1b[2J" not in terminal.raw


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 消息　é\tx\n", "plain 消息　é\tx\n"),
        ("a\u200db", "a\u200db"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("\u2028\u2029\x85\x00", r"\u2028\u2029\x85\x00"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_text_is_made_harmless(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_bytes_cut_anywhere_decode_to_the_same_text() -> None:
    data = "服务端收到, \U0001f600\n".encode() + b"\xe6\x9c" + b"x" + b"\xf0\x9f"
    for cut in range(len(data) + 1):
        decoder = Decoder()
        text = decoder.text(data[:cut]) + decoder.text(data[cut:]) + decoder.text(b"", final=True)
        assert text == "服务端收到, \U0001f600\n\\xe6\\x9cx\\xf0\\x9f"


def test_rows_never_exceed_the_width() -> None:
    assert rows_of("abc\n\nabcdef\n", 4) == ["abc", "", "abcd", "ef"]
    assert rows_of("消息消息", 5) == ["消息", "消息"]
    assert rows_of("e\u0301" * 4, 4) == ["e\u0301" * 4]


# Pipes


def test_piped_input_comes_back_byte_for_byte(server: Server) -> None:
    with serving(server, echo):
        data = b"a\nb\nq\nquit\n" + bytes(range(256)) + b"\xe4\xbd no newline"
        result = run_piped(server.address, data=data)
    assert (result.returncode, result.stdout, result.stderr) == (0, data, b"")


def test_piped_input_is_never_taken_for_a_word_of_goodbye(server: Server) -> None:
    with serving(server, echo):
        result = run_piped(server.address, data=b"q\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"q\n", b"")


def test_large_pipe_is_copied_both_ways_at_once(server: Server) -> None:
    with serving(server, echo):
        data = array("Q", range(4_000_000)).tobytes()
        result = run_piped(server.address, data=data)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == data


def test_reply_that_comes_after_the_end_of_input_is_not_lost(server: Server) -> None:
    def answer_at_the_end(connection: socket.socket) -> None:
        data = receive_all(connection)
        connection.sendall(b"you sent " + data)

    with serving(server, answer_at_the_end):
        result = run_piped(server.address, data=b"a\nb\n")
    assert (result.returncode, result.stdout) == (0, b"you sent a\nb\n")


def test_reply_is_passed_on_at_once(server: Server) -> None:
    with started(server) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        connection = server.accept()
        for message in (b"one", b"two\n"):
            os.write(process.stdin.fileno(), message)
            assert receive(connection, len(message)) == message
            connection.sendall(message)
            assert os.read(process.stdout.fileno(), 100) == message
        process.stdin.close()
        assert connection.recv(1) == b""
        connection.close()
        assert process.wait(DEADLINE) == 0


def test_server_that_closes_ends_it_while_the_input_is_open(server: Server) -> None:
    with started(server) as process:
        connection = server.accept()
        connection.sendall(b"no")
        connection.close()
        assert process.wait(DEADLINE) == 1
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == b"no"
        sentence = f"fastecho connect: {server.address} closed the connection\n"
        assert process.stderr.read().decode() == sentence


def test_server_that_resets_is_told(server: Server) -> None:
    with started(server) as process:
        reset(server.accept())
        assert process.wait(DEADLINE) == 1
        assert process.stderr is not None
        assert process.stderr.read().decode() == (
            f"fastecho connect: the connection to {server.address} failed: "
            "Connection reset by peer\n"
        )


def test_interrupt_ends_a_pipe_with_130(server: Server) -> None:
    with started(server) as process:
        connection = server.accept()
        assert process.stdin is not None
        os.write(process.stdin.fileno(), b"x")
        assert receive(connection, 1) == b"x"  # so it is up and copying
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_reader_that_has_had_enough_ends_it_silently(server: Server) -> None:
    with started(server) as process:
        connection = server.accept()
        assert process.stdout is not None
        process.stdout.close()
        connection.sendall(b"x")
        assert process.wait(DEADLINE) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to /dev/full")
def test_output_that_cannot_be_written_is_told(server: Server) -> None:
    with serving(server, echo), Path("/dev/full").open("wb") as full:
        result = run_piped(server.address, data=b"x", stdout=full.fileno())
    assert result.returncode == 1
    sentence = b"fastecho connect: cannot write standard output: No space left on device\n"
    assert result.stderr == sentence


def test_closed_standard_input_is_an_empty_one(server: Server) -> None:
    with serving(server, echo):
        words = " ".join([*COMMAND, server.address])
        result = subprocess.run(
            ["sh", "-c", f"{words} <&-"], cwd=ROOT, capture_output=True, timeout=30
        )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_piped_input_and_a_terminal_for_output_shows_escapes(server: Server) -> None:
    inner, outer = os.pipe()
    os.write(outer, b"x")
    os.close(outer)
    with Terminal(["connect", server.address], stdin=inner) as terminal:
        os.close(inner)
        connection = server.accept()
        assert receive_all(connection) == b"x"
        connection.sendall(b"\x1b[2J\xe4\xbd")
        connection.sendall(b"\xa0\n")
        connection.close()
        assert terminal.wait_for_exit() == 0
        terminal.wait_for_rows(r"\x1b[2J你")


def test_terminal_for_input_and_a_file_for_output_gets_exact_bytes(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        terminal = Terminal(["connect", server.address], stdout=file.fileno())
    with terminal:
        connection = server.accept()
        terminal.type("hello\r")
        assert receive(connection, 6) == b"hello\n"
        connection.sendall(b"\x1b[2J\xff")
        terminal.type("quit\r")
        assert receive_all(connection) == b""
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
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        result = run_piped(address)
    assert result.returncode == 1
    sentence = f"fastecho connect: cannot connect to {address}: Connection refused\n"
    assert result.stderr.decode() == sentence


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accept queue")
def test_connecting_in_vain_is_one_sentence_and_1() -> None:
    with socket.socket() as listener, socket.socket() as parked:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        parked.connect(listener.getsockname())
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        result = run_piped(address, "--timeout", "0.05")
    assert result.returncode == 1
    sentence = f"fastecho connect: cannot connect to {address}: Connection timed out\n"
    assert result.stderr.decode() == sentence


def test_timeout_is_for_connecting_only(server: Server) -> None:
    with started(server, "--timeout", "0.05") as process:
        connection = server.accept()
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


def test_pipe_needs_neither_readline_nor_slow_modules(server: Server) -> None:
    code = (
        "import sys; from fastecho.cli import main; code = main(); "
        "print(code, *({'asyncio', 'dataclasses', 'inspect', 'readline', 'typing'}"
        " & set(sys.modules)))"
    )
    with serving(server, echo):
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, "connect", server.address],
            cwd=ROOT, input=b"", capture_output=True, timeout=30,
        )  # fmt: skip
    assert (result.stdout, result.stderr) == (b"0\n", b"")


# The screen of these tests itself


def test_screen_refuses_what_it_does_not_know() -> None:
    for raw in ("\x1b]0;title\a and more text", "\x1b[5r", "\x9b", "\x00"):
        with pytest.raises(AssertionError):
            Screen(10, 3).feed(raw)
