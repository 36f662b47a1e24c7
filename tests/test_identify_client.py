"""`--identify` of the commands that connect: the server's line comes first, and is no echo.

What a server writes is in test_identify.py; here it is read, shown and counted, and what comes in
its place is told in one sentence.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run, serving
from conftest import MakeServer
from driven import DrivenServer, echo
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import has_ipv6, recv_exactly, reset
from proxy_headers import v2
from scripted import scripted

from fastecho.identity import LINE_BYTES, Greeting, NotIdentifiedError, identity_of
from fastecho.measure.instances import MOST_NAMES
from fastecho.measure.ping_events import Back, Opened, Reply
from fastecho.measure.ping_result import PingResult
from fastecho.measure.pinger import Pinger

LINE = b'{"fastecho":"0.1.0","instance":"web-1","host":"node7","connection":17,"seen":"[::1]:7"}\n'
SHORT = b'{"instance":"a"}\n'
MEND = "start it with --identify"

# What is no line of that kind, and how it is shown.
WRONG = {
    "an echo": (b"hello\n", "b'hello\\n'"),
    "no JSON": (b"{hello}\n", "b'{hello}\\n'"),
    "Python's NaN": (b'{"instance":"a","x":NaN}\n', "b'{\"instance\":\"a\",\"x\":NaN}\\n'"),
    "no object": (b"{} 1\n", "b'{} 1\\n'"),
    "no name": (b'{"host":"a"}\n', "b'{\"host\":\"a\"}\\n'"),
    "an empty name": (b'{"instance":""}\n', "b'{\"instance\":\"\"}\\n'"),
    "a name that is a number": (b'{"instance":1}\n', "b'{\"instance\":1}\\n'"),
    "no ASCII": (b'{"instance":"\xff"}\n', "b'{\"instance\":\"\\xff\"}\\n'"),
    "one that is too long": (b'{"instance":"' + b"a" * 8192 + b'"}\n', "b'{\"instance\":\"aaaaa"),
    "the depth of a well": (b'{"a":' + b"[" * 4000 + b"\n", "b'{\"a\":[[["),
    "a frame too long": (b"\0\0\x20\x01" + b"a" * 8193, "b'\\x00\\x00 \\x01aaa"),
    "an empty frame": (b"\0\0\0\0", "b'\\x00\\x00\\x00\\x00'"),
    "escapes": (b"\x1b[2J\n", "b'\\x1b[2J\\n'"),
}  # fmt: skip


def framed(line: bytes) -> bytes:
    """Return a frame with its length before it."""
    return len(line).to_bytes(4, "big") + line


# --- the line --------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [LINE, framed(LINE), framed(LINE[:-1])], ids=["line", "f", "f1"])
@pytest.mark.parametrize("step", [1, 7, 5000])
def test_the_line_may_come_in_pieces_and_with_more_behind_it(data: bytes, step: int) -> None:
    greeting, rest = Greeting(), data + b'{"more"}\n'
    while not greeting.is_whole:
        taken = greeting.feed(rest[:step])
        assert taken > 0
        rest = rest[taken:]
    assert rest == b'{"more"}\n'
    told = greeting.identity("here:7")
    assert (told.instance, told.host, told.connection) == ("web-1", "node7", 17)
    assert str(told) == "web-1 (node7) answers, connection 17, sees [::1]:7"


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("step", [1, 5000])
@pytest.mark.parametrize("frame", [False, True])
def test_it_is_no_longer_than_so_many_bytes(frame: bool, step: int, more: int) -> None:
    line = b'{"instance":"a"}'.ljust(LINE_BYTES + more - 1) + b"\n"
    greeting, rest = Greeting(), framed(line) if frame else line
    while not greeting.is_whole:
        rest = rest[greeting.feed(rest[:step]) :]
    if not more:
        assert greeting.identity("here:7").instance == "a" and not rest
        return
    with pytest.raises(NotIdentifiedError):
        greeting.identity("here:7")


@given(data=st.binary(max_size=200), step=st.integers(1, 100), begin=st.sampled_from([b"", b"{"]))
def test_no_bytes_do_harm(data: bytes, step: int, begin: bytes) -> None:
    greeting, rest = Greeting(), begin + data + bytes(LINE_BYTES + 4)
    while not greeting.is_whole:
        rest = rest[greeting.feed(rest[:step]) :]
    with pytest.raises(NotIdentifiedError, match="did not say who answers") as caught:
        greeting.identity("here:7")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_of_what_has_another_type_nothing_is_told() -> None:
    told = identity_of(b'{"instance":"a","host":1,"connection":true,"seen":[],"claimed":{}}')
    assert str(told) == "a answers"


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=50)
def test_nothing_of_it_acts_on_a_terminal(name: str) -> None:
    told = identity_of(json.dumps({"instance": name, "host": name, "seen": name}).encode())
    assert told is not None and told.instance == name
    assert str(told).isprintable()


def send_and_wait(data: bytes, connection: socket.socket) -> None:
    """Send it, and wait until the other side has had enough."""
    with suppress(ConnectionResetError):
        connection.sendall(data)
        connection.recv(1)


# --- connect ---------------------------------------------------------------------------------


def _connect(*arguments: str, given: str = "hi\n") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "connect", *arguments],
        input=given, capture_output=True, text=True, timeout=DEADLINE, env=environment(),
    )  # fmt: skip


@pytest.mark.parametrize("where", ["127.0.0.1:0", "[::1]:0"])
def test_connect_shows_who_answers(make_server: MakeServer, where: str) -> None:
    if where == "[::1]:0" and not has_ipv6():
        pytest.skip("no IPv6")
    server = make_server(where, identify=True, instance="web-1")
    done = _connect(server.address, "--identify")
    host = socket.gethostname()
    assert (done.returncode, done.stdout) == (0, "hi\n")
    said = f"fastecho connect: web-1 ({host}) answers, connection 1, sees "
    assert done.stderr.startswith(said + server.address.rpartition(":")[0])
    assert done.stderr.count("\n") == 1


def test_with_a_header_it_says_whom_the_server_was_told_of(make_server: MakeServer) -> None:
    server = make_server(identify=True, proxy_protocol="required", proxy_timeout=60)
    done = _connect(server.address, "--identify", "--send-proxy", "v2")
    assert (done.returncode, done.stdout) == (0, "hi\n")
    seen = done.stderr.partition(", sees ")[2].partition(",")[0]
    assert seen.startswith("127.0.0.1:")
    assert done.stderr.endswith(f", sees {seen}, is told of {seen}\n")


def test_what_stands_behind_the_line_is_shown_whole() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(SHORT + b"and more")

    with DrivenServer() as driven, driven.serving(serve):
        done = _connect(driven.address, "--identify", given="")
    assert done.stdout == "and more"
    assert done.stderr.splitlines()[0] == "fastecho connect: a answers"


@pytest.mark.parametrize(("data", "start"), WRONG.values(), ids=WRONG)
def test_connect_tells_what_came_instead(data: bytes, start: str) -> None:
    with DrivenServer() as driven, driven.serving(partial(send_and_wait, data)):
        done = _connect(driven.address, "--identify")
    sentence = f"--identify: {driven.address} did not say who answers, but sent {start}"
    assert_refused(done, 1, sentence)
    assert done.stderr.endswith(f" first: {MEND}\n")


@pytest.mark.parametrize("command", [("connect",), ("ping", "-c1")])
def test_a_server_that_says_nothing_is_named(make_server: MakeServer, command: Any) -> None:
    address = make_server().address
    word, *options = command
    done = run(word, address, "--identify", "--timeout", "0.2", *options)
    assert_refused(done, 1, f"--identify: {address} did not say who answers within 0.2 s: {MEND}")


@pytest.mark.parametrize(
    ("end", "how"), [(socket.socket.close, "closed"), (reset, "reset")], ids=["FIN", "RST"]
)
@pytest.mark.parametrize(("word", "code"), [("connect", 1), ("ping", 4)])
def test_a_connection_that_ends_first_is_told(
    word: str, code: int, end: Callable[[socket.socket], None], how: str
) -> None:
    def serve(connection: socket.socket) -> None:
        recv_exactly(connection, len(v2()))
        end(connection)

    with DrivenServer() as driven, driven.serving(serve):
        done = run(word, driven.address, "--identify", "--send-proxy=v2")
    assert_refused(done, code, f"{driven.address} {how} the connection before it said who answers")


# --- ping ------------------------------------------------------------------------------------


def test_ping_says_who_answers_and_counts(make_server: MakeServer) -> None:
    server = make_server(identify=True, instance="web-1")
    done = run("ping", server.address, "-i0", "-c3", "--identify")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[1].startswith(f"web-1 ({socket.gethostname()}) answers, connection 1, sees 127")
    assert "web-1 answered 3 probes on 1 connection" in lines


def test_ping_counts_by_instance(make_server: MakeServer) -> None:
    server = make_server(identify=True, instance="a b")
    done = run("ping", server.address, "-i0", "-c3", "--identify", "--new-connection", "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["plan"]["identify"] is True
    assert told["instances"] == {"a b": {"connections": 3, "received": 3}}
    assert "seq=3 instance=a b connect=" in done.stderr


@pytest.mark.parametrize("more", [(), ("--new-connection",)], ids=["one", "several"])
def test_nothing_that_ping_shows_of_a_name_acts_on_a_terminal(more: tuple[str, ...]) -> None:
    def named(connection: socket.socket) -> None:
        connection.sendall(rb'{"instance":"\u001b[2J\n\u202e\ud800","host":"\u009b2J"}' + b"\n")
        echo(connection)

    with scripted(named) as server:
        done = run("ping", server.address, "-i0", "-c1", "--identify", *more)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(line.isprintable() for line in lines)
    name = r"\x1b[2J\n\u202e\ud800"
    assert lines[1] == rf"{name} (\x9b2J) answers"
    assert f"{name} answered 1 probe on 1 connection" in lines
    assert (f" instance={name} " in done.stdout) == bool(more)


def test_without_the_option_nobody_is_counted(make_server: MakeServer) -> None:
    pinger = Pinger(make_server().address, count=1, interval=0)
    list(pinger)
    assert pinger.result().to_json()["instances"] is None


def test_without_the_option_the_line_is_a_wrong_echo(make_server: MakeServer) -> None:
    pinger = Pinger(make_server(identify=True).address, count=1, interval=0)
    list(pinger)
    assert not pinger.result().is_clean


@contextmanager
def relay(*backends: str) -> Iterator[str]:
    """Pass one connection after the other on to the first of the backends that takes it."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(DEADLINE)
    errors: list[BaseException] = []

    def reached() -> socket.socket:
        for backend in backends:
            host, _, port = backend.rpartition(":")
            try:
                return socket.create_connection((host, int(port)))
            except ConnectionRefusedError:
                continue
        raise AssertionError("no backend is left")

    def serve() -> None:
        try:
            while True:
                with listener.accept()[0] as client:
                    if done.is_set():
                        return
                    with reached() as backend:
                        pump(client, backend)
        except BaseException as error:
            errors.append(error)

    def pump(client: socket.socket, backend: socket.socket) -> None:
        other = {client: backend, backend: client}
        while True:
            for sock in select.select(list(other), [], [], DEADLINE)[0]:
                try:
                    data = sock.recv(1 << 16)
                except ConnectionResetError:
                    return
                if not data:
                    return
                other[sock].sendall(data)

    done = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    yield "{}:{}".format(*listener.getsockname())
    done.set()
    socket.create_connection(listener.getsockname()).close()
    thread.join(DEADLINE)
    listener.close()
    assert not thread.is_alive() and not errors, errors


def test_after_a_failover_ping_says_that_another_instance_answers(make_server: MakeServer) -> None:
    second = make_server(identify=True, instance="web-2")
    events: list[Any] = []
    with (
        serving("--identify", "--instance=web-1") as first,
        relay(*first.addresses, second.address) as address,
    ):
        pinger = Pinger(address, interval=0.005, timeout=DEADLINE, identify=True)
        for event in pinger:
            events.append(event)
            if pinger.result().received == 3 and first.process.poll() is None:
                first.process.kill()
                first.process.wait(DEADLINE)
            if isinstance(event, Reply) and event.identity and event.identity.instance == "web-2":
                pinger.stop()
    opened = events[0]
    assert isinstance(opened, Opened) and opened.line.identity is not None
    assert opened.line.identity.instance == "web-1"
    back = next(event for event in events if isinstance(event, Back))
    assert back.identity is not None and str(back.identity).startswith("web-2 (")
    told = pinger.result().to_json()["instances"]
    assert told["web-1"] == {"connections": 1, "received": 3}
    assert told["web-2"] == {"connections": 1, "received": 1}


def test_one_that_comes_back_without_a_line_is_not_back() -> None:
    def hello(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        connection.recv(1)

    def again(connection: socket.socket) -> None:
        connection.sendall(SHORT)
        echo(connection)

    def begin(connection: socket.socket) -> None:
        connection.sendall(SHORT)
        connection.sendall(connection.recv(64))

    with scripted(begin, hello, again) as server:
        pinger = Pinger(server.address, interval=0.01, timeout=DEADLINE, identify=True)
        for event in pinger:
            if isinstance(event, Back):
                pinger.stop()
    result = pinger.result()
    sentence = f"--identify: {server.address} did not say who answers, but sent b'hello' first"
    assert any(f"{sentence}: {MEND}; trying again" in one for one in result.described)
    assert result.failures["other"] == 1
    assert result.instances["a"].connections == 2


def test_so_many_instances_have_a_name_and_the_others_are_counted_together() -> None:
    result = PingResult({"target": "here:7", "new_connection": False, "identify": True})
    for number in [*range(MOST_NAMES + 3), 0]:
        tally = result.tally_of(identity_of(b'{"instance":"%d"}' % number))
        assert tally is not None
        tally.received += 1
    told = result.to_json()["instances"]
    assert len(told) == MOST_NAMES + 1
    assert (told["0"]["received"], told[""]["received"]) == (2, 3)
