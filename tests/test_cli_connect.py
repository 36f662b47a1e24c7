"""`fastecho connect` at a terminal: the conversation, and what arrives while a line is typed.

The server is the test itself: it accepts and drives the connection, so every byte on the wire is
seen and every misbehaviour happens when it is meant to. No extension is needed. Pipes are in
test_cli_connect_pipe.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from driven import DrivenServer
from peers import recv_exactly, reset
from terminal import Terminal

PROMPT = "Enter a message: "
CHINESE = {"LC_ALL": "zh_CN.UTF-8"}

Started = tuple[Terminal, socket.socket]
Start = Callable[..., Started]


@pytest.fixture
def driven() -> Iterator[DrivenServer]:
    with DrivenServer() as server:
        yield server


@pytest.fixture
def at_terminal(driven: DrivenServer) -> Iterator[Callable[..., tuple[Terminal, socket.socket]]]:
    """Start the command at a terminal; return it and the accepted connection."""
    with ExitStack() as stack:

        def start(*options: str, prompt: str = PROMPT, **more: object) -> Started:
            words = ["connect", driven.address, *options]
            terminal = stack.enter_context(Terminal(words, **more))  # type: ignore[arg-type]
            connection = driven.accept()
            terminal.wait_for_rows(prompt)
            return terminal, connection

        yield start


# The conversation


def test_line_goes_out_with_its_newline_and_the_reply_is_shown(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("hello\r")
    assert recv_exactly(connection, 6) == b"hello\n"
    connection.sendall(b"you said: hello\n")
    terminal.wait_for_rows(f"{PROMPT}hello", "you said: hello", PROMPT)


def test_empty_line_is_a_newline(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("\r")
    assert recv_exactly(connection, 1) == b"\n"
    connection.sendall(b"\n")
    terminal.wait_for_rows(PROMPT, "", PROMPT)


def test_chinese_locale_gets_the_tutorials_words(at_terminal: Start) -> None:
    # The locale need not be installed: typed characters stay whole all the same.
    terminal, connection = at_terminal(prompt="请输入内容: ", variables=CHINESE)
    terminal.type("你好吗\x7f\r")
    assert recv_exactly(connection, 7) == "你好\n".encode()
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
    assert recv_exactly(connection, 6) == b"hello\n"
    terminal.type("\x03")
    assert terminal.wait_for_exit() == 130
    assert "Traceback" not in terminal.screen.text()


def test_line_can_be_sent_without_its_newline(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--no-newline", "--wait", "0.05")
    terminal.type("hello\r")
    assert recv_exactly(connection, 5) == b"hello"
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
    assert recv_exactly(connection, len(line) + 1) == f"{line}\n".encode()
    connection.sendall(f"{line}\n".encode())
    shown = [line[start : start + 100] for start in range(0, len(line), 100)]
    terminal.wait_for_rows(*shown, PROMPT)


def test_character_that_comes_in_two_halves_is_shown_whole(at_terminal: Start) -> None:
    terminal, connection = at_terminal("--wait", "60")
    terminal.type("x\r")
    assert recv_exactly(connection, 2) == b"x\n"
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
    assert recv_exactly(connection, 8) == b"one\ntwo\n"
    terminal.wait_for_rows(f"{PROMPT}one", f"{PROMPT}two", PROMPT)
    connection.sendall(b"late\n")
    terminal.wait_for_rows(f"{PROMPT}two", "late", PROMPT)


def test_line_can_be_recalled_and_edited(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("helo\r")
    assert recv_exactly(connection, 5) == b"helo\n"
    connection.sendall(b"helo\n")
    terminal.wait_for_rows("helo", PROMPT)
    terminal.type("\x1b[A\x1b[Dl\r")  # up, left, the missing letter
    assert recv_exactly(connection, 6) == b"hello\n"


def test_bytes_typed_that_are_no_utf8_go_out_as_they_are(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type_bytes(b"a\xffb\r")
    assert recv_exactly(connection, 4) == b"a\xffb\n"


# What arrives while a line is being typed


def test_bytes_at_the_prompt_are_shown_above_the_half_typed_line(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("hel")
    terminal.wait_for_rows(f"{PROMPT}hel")
    connection.sendall("news 消息\nmore\n".encode())
    terminal.wait_for_rows("news 消息", "more", f"{PROMPT}hel")
    terminal.type("lo\r")
    assert recv_exactly(connection, 6) == b"hello\n"
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
    assert recv_exactly(connection, 6) == b"hello\n"


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
    assert recv_exactly(connection, 61) == f"{line[:-1]}!\n".encode()


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
    assert recv_exactly(connection, 10) == b"half done\n"


def test_bytes_at_the_prompt_are_shown_without_readline_too(at_terminal: Start) -> None:
    terminal, connection = at_terminal(before="sys.modules['readline'] = None")
    terminal.type("half")
    terminal.wait_for_rows(f"{PROMPT}half")
    connection.sendall(b"news\n")
    terminal.wait_for_rows("news", f"{PROMPT}half")
    terminal.type(" done\r")
    assert recv_exactly(connection, 10) == b"half done\n"


def test_server_that_closes_at_the_prompt_is_told_at_once(
    at_terminal: Start, driven: DrivenServer
) -> None:
    terminal, connection = at_terminal()
    terminal.type("half")
    terminal.wait_for_rows(f"{PROMPT}half")
    connection.sendall(b"going down")
    connection.close()
    assert terminal.wait_for_exit() == 1
    terminal.wait_for_rows(
        "going down", f"{PROMPT}half", f"fastecho connect: {driven.address} closed the connection"
    )
    assert terminal.is_cooked()


def test_server_that_resets_at_the_prompt_is_told_at_once(
    at_terminal: Start, driven: DrivenServer
) -> None:
    terminal, connection = at_terminal(columns=100)
    reset(connection)
    assert terminal.wait_for_exit() == 1
    terminal.wait_for_rows(
        PROMPT,
        f"fastecho connect: the connection to {driven.address} failed: Connection reset by peer",
    )


def test_server_that_closes_instead_of_answering_is_told(
    at_terminal: Start, driven: DrivenServer
) -> None:
    terminal, connection = at_terminal("--wait", "60")
    terminal.type("hello\r")
    assert recv_exactly(connection, 6) == b"hello\n"
    connection.close()
    assert terminal.wait_for_exit() == 1
    terminal.wait_for_rows(
        f"{PROMPT}hello", f"fastecho connect: {driven.address} closed the connection"
    )


# What a terminal may be shown


def test_control_sequences_from_the_server_are_shown_and_not_obeyed(at_terminal: Start) -> None:
    terminal, connection = at_terminal()
    terminal.type("x\r")
    assert recv_exactly(connection, 2) == b"x\n"
    connection.sendall("\x1b[2J\x9b3m\r\a\x7f \u202eabc\u2066 \xff\n".encode() + b"\xff\n")
    terminal.wait_for_rows(
        f"{PROMPT}x", r"\x1b[2J\x9b3m\r\x07\x7f \u202eabc\u2066 ÿ", r"\xff", PROMPT
    )
    assert b"\x1b[2J" not in terminal.raw
