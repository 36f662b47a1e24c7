"""`fastecho connect udp://...`: lines are datagrams, at a terminal and in a pipe; what gets lost.

The server is the test itself. No extension is needed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from datagram_peers import DatagramServer, Send, answering_datagrams, refusing_port
from peers import DEADLINE, has_ipv6
from terminal import Terminal

import fastecho
import fastecho.aio
from fastecho.cli._connect_udp import DatagramPeer
from fastecho.datagrams import LARGEST
from fastecho.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-W", "error", "-m", "fastecho", "connect"]
PROMPT = "Enter a message: "


def run_piped(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *words], cwd=ROOT, input=data, capture_output=True, timeout=30, check=False
    )


# Pipes


def test_each_line_is_a_datagram_with_its_newline() -> None:
    data = b"one\n\ntwo q\nq\nquit\n" + bytes(range(256)) + b"\nno newline"
    with answering_datagrams() as server:
        done = run_piped(server.address, data=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")
    *lines, last = data.split(b"\n")
    assert server.came == [*(line + b"\n" for line in lines), last]


def test_an_empty_input_sends_nothing() -> None:
    with answering_datagrams() as server:
        done = run_piped(server.address)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert server.came == []


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_ipv6() -> None:
    with answering_datagrams(host="::1") as server:
        done = run_piped(server.address, data=b"a\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\n", b"")


def test_what_has_no_answer_is_told_and_waited_for_no_longer_than_asked() -> None:
    def second_is_lost(send: Send, data: bytes, number: int) -> None:
        if number != 2:
            send(data)

    with answering_datagrams(second_is_lost) as server:
        done = run_piped(server.address, "--timeout=0.2", data=b"a\nb\nc\n")
    assert (done.returncode, done.stdout) == (1, b"a\nc\n")
    says = "1 of 3 datagrams were not answered within 0.2 s"
    assert done.stderr.decode() == f"fastecho connect: {says}\n"


def test_what_comes_twice_is_printed_twice_and_stands_for_no_other() -> None:
    def twice_or_never(send: Send, data: bytes, number: int) -> None:
        for _ in range(2 if number == 1 else 0):
            send(data)

    with answering_datagrams(twice_or_never) as server:
        done = run_piped(server.address, "--timeout=0.2", data=b"a\nb\n")
    assert (done.returncode, done.stdout) == (1, b"a\na\n")
    assert b"1 of 2 datagrams were not answered" in done.stderr


def test_equal_lines_want_an_answer_each() -> None:
    def only_the_second(send: Send, data: bytes, number: int) -> None:
        if number == 2:
            send(data)

    with answering_datagrams(only_the_second) as server:
        done = run_piped(server.address, "--timeout=0.2", data=b"a\na\n")
    assert (done.returncode, done.stdout) == (1, b"a\n")
    assert b"1 of 2 datagrams were not answered" in done.stderr


def test_a_server_that_adds_something_has_answered() -> None:
    with answering_datagrams(lambda send, data, _: send(b"said: " + data)) as server:
        done = run_piped(server.address, data=b"a\nb\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"said: a\nsaid: b\n", b"")


def test_a_refusal_ends_it_at_once() -> None:
    address = f"udp://127.0.0.1:{refusing_port()}"
    done = run_piped(address, "--timeout=20", data=b"a\nb\n")
    assert (done.returncode, done.stdout) == (1, b"")
    says = "refused: nothing listens on that port (ICMP port unreachable)"
    assert done.stderr.decode() == f"fastecho connect: {address}: {says}\n"


def test_a_line_that_fits_into_no_datagram_is_refused() -> None:
    with answering_datagrams() as server:
        whole = run_piped(server.address, data=b"x" * (LARGEST - 1) + b"\n")
        more = run_piped(server.address, data=b"x" * LARGEST + b"\n")
    assert (whole.returncode, len(whole.stdout)) == (0, LARGEST)
    assert (more.returncode, more.stdout) == (1, b"")
    assert b"a line of more than 65,507 bytes does not fit into a datagram" in more.stderr


def test_an_answer_from_elsewhere_is_told_and_not_shown() -> None:
    servers: list[DatagramServer] = []

    def elsewhere(send: Send, data: bytes, _number: int) -> None:
        servers[0].other.sendto(b"mine!", servers[0].peer or ("", 0))
        send(data)

    with answering_datagrams(elsewhere) as server:
        servers.append(server)
        done = run_piped(server.address, data=b"a\nb\n")
    assert (done.returncode, done.stdout) == (0, b"a\nb\n")
    assert done.stderr.decode().count("a datagram of 5 bytes came from 127.0.0.1:") == 1


def test_interrupt_ends_a_pipe_with_130() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with (
        answering_datagrams() as server,
        subprocess.Popen([*COMMAND, server.address], cwd=ROOT, **pipes) as process,  # type: ignore[call-overload]
    ):
        try:
            os.write(process.stdin.fileno(), b"x\n")
            assert os.read(process.stdout.fileno(), 10) == b"x\n"  # at once, and it is copying
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--send-proxy=v1", "--send-proxy 'v1' needs a connection, which {} does not have"),
        ("--identify", "--identify needs a connection, which {} does not have"),
    ],
)
def test_what_needs_a_connection_is_refused(option: str, sentence: str) -> None:
    done = run_piped("udp://127.0.0.1:7", option)
    assert done.returncode == 2
    whole = sentence.format("udp://127.0.0.1:7")
    assert done.stderr.decode() == f"fastecho connect: {whole}\n"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("udp://255.255.255.255:9", "cannot reach udp://255.255.255.255:9: Permission denied"),
        ("udp://" + "x" * 64 + ":9", None),
    ],
)
def test_an_address_without_a_way_is_one_sentence(address: str, sentence: str | None) -> None:
    done = run_piped(address, data=b"a\n")
    assert (done.returncode, done.stdout) == (1 if sentence else 2, b"")
    assert done.stderr.decode().startswith(f"fastecho connect: {sentence or 'address '}")
    assert done.stderr.count(b"\n") == 1


# At a terminal


def test_a_conversation_in_datagrams() -> None:
    def late_news(send: Send, data: bytes, number: int) -> None:
        send(data)
        if number == 2:
            send(b"and something unasked\n")

    with (
        answering_datagrams(late_news) as server,
        Terminal(["connect", server.address]) as terminal,
    ):
        terminal.wait_for_rows(PROMPT)
        terminal.type("hello\r")
        terminal.wait_for_rows(f"{PROMPT}hello", "hello", PROMPT)
        terminal.type("b\r")
        terminal.wait_for_rows(
            f"{PROMPT}hello", "hello", f"{PROMPT}b", "b", "and something unasked", PROMPT
        )
        terminal.type("q\r")
        terminal.wait_for_rows(
            f"{PROMPT}hello", "hello", f"{PROMPT}b", "b", "and something unasked", f"{PROMPT}q",
            "Bye~~~",
        )  # fmt: skip
    assert server.came == [b"hello\n", b"b\n"]


def test_a_refusal_ends_the_conversation() -> None:
    address = f"udp://127.0.0.1:{refusing_port()}"
    with Terminal(["connect", address]) as terminal:
        terminal.wait_for_rows(PROMPT)
        terminal.type("hello\r")
        said = f"fastecho connect: {address}: refused: nothing listens on that port"
        terminal.wait_for(lambda screen: said in screen.text().replace("\n", ""), said)
        assert terminal.wait_for_exit() == 1


# The library


def test_the_next_address_of_a_name_gets_what_the_first_refused() -> None:
    with answering_datagrams() as server:
        ports = (refusing_port(), server.port)
        places = [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]
        peer = DatagramPeer(places, "test")
        peer.send(b"a\n")
        peer.send(b"b\n")
        assert {peer.recv(100), peer.recv(100)} == {b"a\n", b"b\n"}
        assert peer.peer_address == server.address
        peer.close()


def test_client_says_that_it_is_for_streams() -> None:
    for client in (fastecho.Client, fastecho.aio.Client):
        with pytest.raises(ConfigError) as caught:
            client("udp://127.0.0.1:7")
        assert str(caught.value) == (
            "address 'udp://127.0.0.1:7' is UDP: Client is for streams (TCP and Unix sockets); "
            "use socket.SOCK_DGRAM"
        )
