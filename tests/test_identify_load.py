"""A load that asks who answers: the line is taken off before the first reply, and counted by name.

The servers here are functions of a connection. What such a line is: tests/c/test_load_greeting.c;
what `connect` and `ping` make of it: test_identify_client.py.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import DEADLINE, assert_refused, run
from conftest import MakeServer
from load_servers import Handler, echo, exact, hold, serving
from peers import connect
from proxy_headers import AUTHORITY, CRC32C, UNIQUE_ID, binary, crc32c, tlv

from fastecho._load import Load
from fastecho.identity import LINE_BYTES, identity_of
from fastecho.measure import Plan, Result
from fastecho.measure import run as measure
from fastecho.measure.instances import MOST_NAMES, add_up, from_json, of_load
from fastecho.measure.merge import merge

LINE = b'{"fastecho":"0.1.0","instance":"web-1","host":"node7","connection":17,"proxy":{"a":[1]}}\n'
MEND = "start it with --identify"
MODES: dict[str, dict[str, Any]] = {
    "closed": {},
    "deep": {"depth": 16},
    "open": {"mode": "open", "rate": 2000.0},
    "reconnect": {"mode": "reconnect"},
    "sendfile": {"sendfile": True},
    "large": {"size": 100_000},
}


def at_once(sock: socket.socket) -> None:
    """Say who answers, and echo."""
    sock.sendall(LINE)
    echo(sock)


def as_frame(sock: socket.socket) -> None:
    """Say it in a frame."""
    sock.sendall(len(LINE).to_bytes(4, "big") + LINE)
    echo(sock)


def byte_by_byte(sock: socket.socket) -> None:
    """Say it in as many segments as it has bytes."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(len(LINE)):
        sock.sendall(LINE[i : i + 1])
    echo(sock)


def with_the_reply(sock: socket.socket) -> None:
    """Say half of it when a message has come, and the rest in front of the reply."""
    data = sock.recv(1 << 18)
    if data:
        sock.sendall(LINE[:40])
        time.sleep(0.002)  # lets it come alone; it is right if it does not
        sock.sendall(LINE[40:] + data)
        echo(sock)


def named(*names: str) -> Handler:
    """Return a handler whose connections say these names in turn, the last one for ever."""
    left = itertools.chain(names, itertools.repeat(names[-1]))
    lock = threading.Lock()

    def handler(sock: socket.socket) -> None:
        with lock:
            name = next(left)
        sock.sendall(b'{"instance":"%s"}\n' % name.encode("ascii"))
        echo(sock)

    return handler


def instead(data: bytes) -> Handler:
    """Return a handler that sends this and nothing else."""

    def handler(sock: socket.socket) -> None:
        sock.sendall(data)
        hold(sock)

    return handler


# --- the load --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
@pytest.mark.parametrize("handler", [at_once, as_frame, byte_by_byte, with_the_reply])
def test_the_line_is_no_echo_however_it_comes(handler: Handler, settings: dict[str, Any]) -> None:
    with serving(handler) as server, server.load(identify=True, connections=3, **settings) as load:
        load.connect()
        result = load.run(DEADLINE, messages=60)
        told = load.instances()
    assert result["failures"] == []
    assert (result["messages"], result["sent"]) == (60, 60)
    connections = 60 if settings.get("mode") == "reconnect" else 3
    assert told == [("web-1", connections, 60)]
    size = settings.get("size", 64)
    frame = 4 if handler is as_frame else 0
    if "mode" not in settings:
        assert result["bytes_sent"] == 60 * size
    if settings.get("mode") == "reconnect":
        assert result["bytes_received"] == 60 * (size + len(LINE) + frame)
    assert load.unidentified is None


def test_idle_connections_begin_by_it_as_well() -> None:
    with serving(at_once) as server, server.load(identify=True, connections=3, mode="idle") as load:
        load.connect()
        result = load.run(0.05)
        assert load.instances() == [("web-1", 3, 0)]
    assert result["failures"] == []


def test_each_connection_counts_for_its_own_instance() -> None:
    with (
        serving(named("a", "b", "b")) as server,
        server.load(identify=True, connections=3, depth=1) as load,
    ):
        load.connect()
        result = load.run(0.05)
        told = {name: counts for name, *counts in load.instances()}
        assert {name: counts[0] for name, counts in told.items()} == {"a": 1, "b": 2}
        assert sum(counts[1] for counts in told.values()) == result["messages"]
        again = load.run(0.05)
        told = {name: counts for name, *counts in load.instances()}
        assert {name: counts[0] for name, counts in told.items()} == {"a": 0, "b": 0}
        assert sum(counts[1] for counts in told.values()) == again["messages"]


def test_connections_of_the_warm_up_are_left_out_in_reconnect_mode() -> None:
    with serving(at_once) as server, server.load(identify=True, mode="reconnect") as load:
        result = load.run(0.05, warmup=0.05)
        ((_, connections, messages),) = load.instances()
    assert messages == result["messages"] > 0
    assert abs(connections - result["connects"]) <= 1  # the one under way at the beginning


def test_who_comes_in_the_place_of_one_that_is_lost_is_counted() -> None:
    names = iter(["first", *["second"] * 100])

    def handler(sock: socket.socket) -> None:
        name = next(names)
        sock.sendall(b'{"instance":"%s"}\n' % name.encode())
        if name == "first":
            for _ in range(3):
                sock.sendall(exact(sock, 64))
            return
        echo(sock)

    with serving(handler) as server, server.load(identify=True, reopen=True) as load:
        load.connect()
        result = load.run(0.3)
        told = load.instances()
    assert told[0] == ("first", 1, 3)
    assert told[1][:2] == ("second", 1)
    assert told[1][2] == result["messages"] - 3 > 0
    assert (result["reopened"], result["corrupt"]) == (1, 0)


def test_a_line_that_is_cut_off_by_the_end_is_forgotten() -> None:
    def handler(sock: socket.socket) -> None:
        if next(numbers) == 0:
            sock.sendall(LINE[:30])
        else:
            at_once(sock)

    numbers = itertools.count()
    with serving(handler) as server, server.load(identify=True, reopen=True) as load:
        load.connect()
        result = load.run(0.3)
        assert load.instances()[0][:2] == ("web-1", 1)
    assert result["closed"] + result["reset"] == 1
    assert result["messages"] > 0


def test_so_many_names_are_kept_and_all_others_are_counted_together() -> None:
    names = [f"web-{i}" for i in range(MOST_NAMES + 5)]
    with serving(named(*names)) as server, server.load(identify=True, mode="reconnect") as load:
        load.run(DEADLINE, messages=len(names))
        told = {name: counts for name, *counts in load.instances()}
    assert len(told) == MOST_NAMES + 1
    assert told["web-0"] == [1, 1]
    assert told[""] == [5, 5]


def test_a_name_is_one_however_it_is_escaped() -> None:
    with (
        serving(named("\\u0061\\n", "a\\n", "\\u0061\\u000a")) as server,
        server.load(identify=True, mode="reconnect") as load,
    ):
        load.run(DEADLINE, messages=3)
        assert of_load(load) == {"a\n": {"connections": 3, "messages": 3}}


WRONG = {
    "an echo": b"\x01hello",
    "no JSON": b"{hello}\n",
    "no name": b'{"host":"a"}\n',
    "no ASCII": b'{"instance":"\xff"}\n',
    "too long": b"{" + b" " * 8192 + b"\n",
    "an empty frame": b"\0\0\0\0",
    "a frame too long": b"\0\0\x20\x01",
    "a frame of something": b"\0\0\0\x05hello",
}


@pytest.mark.parametrize("mode", ["closed", "reconnect", "idle"])
@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_no_such_line_ends_the_run(data: bytes, mode: Any) -> None:
    with (
        serving(instead(data)) as server,
        Load([server.target()], identify=True, mode=mode) as load,
    ):
        load.connect()
        began = time.monotonic()
        result = load.run(DEADLINE)
        assert time.monotonic() - began < DEADLINE / 2
        assert load.unidentified == (0, data[:40])
        assert load.instances() == []
    assert result["other"] == 1
    sentence = "connection 0: it did not begin by a line that says who answers"
    assert sentence in [text for _, text in result["failures"]]


def test_which_target_it_was_is_known() -> None:
    with serving(at_once) as good, serving(instead(b"x")) as bad:
        targets = [good.target(), bad.target()]
        with Load(targets, identify=True, connections=4) as load:
            load.connect()
            load.run(DEADLINE)
            assert load.unidentified == (1, b"x")


def test_of_two_that_are_wrong_the_first_is_told() -> None:
    """What came first is in front of the load, too, when it looks at both."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
        Load([(one.family, sock.getsockname()) for sock in (one, other)],
             identify=True, connections=2) as load,
    ):  # fmt: skip
        load.connect()
        with one.accept()[0] as first, other.accept()[0] as second:
            first.sendall(b"first")
            second.sendall(b"second")
            load.run(DEADLINE)
            assert load.unidentified == (0, b"first")


def test_the_line_shows_that_the_server_is_there() -> None:
    """A reply that comes in time behind it is late, and the connection is not given up."""

    def slowly(sock: socket.socket) -> None:
        time.sleep(0.5)  # less than the timeout, twice
        sock.sendall(LINE)
        data = sock.recv(64)
        time.sleep(0.5)
        sock.sendall(data)

    with serving(slowly) as server, server.load(identify=True, timeout=0.8) as load:
        load.connect()
        result = load.run(DEADLINE, messages=1)
    assert (result["late"], result["timed_out"]) == (1, 0)


def test_the_longest_line_of_a_server_of_ours_is_one(make_server: MakeServer) -> None:
    name, path = "\U0001f600" * 255, b"\xff" * 108
    server = make_server(identify=True, instance=name, proxy_protocol="required")
    tlvs = tlv(AUTHORITY, b"\xff" * 255) + tlv(UNIQUE_ID, bytes(128)) + tlv(CRC32C, bytes(4))
    blank = binary(0x21, 0x31, path + path + tlvs)
    with connect(server) as peer:
        peer.sendall(blank[:-4] + crc32c(blank).to_bytes(4, "big"))
        line = bytearray()
        while not line.endswith(b"\n"):
            line += peer.recv(1 << 16)
    assert identity_of(bytes(line)) is not None and LINE_BYTES * 3 // 4 < len(line) <= LINE_BYTES

    def say(sock: socket.socket) -> None:
        sock.sendall(line)
        echo(sock)

    with serving(say) as other, other.load(identify=True) as load:
        load.connect()
        load.run(DEADLINE, messages=1)
        assert load.unidentified is None and list(of_load(load)) == [name]


# --- bench -----------------------------------------------------------------------------------


def test_bench_counts_by_instance_in_text_and_json(make_server: MakeServer, tmp_path: Path) -> None:
    servers = [make_server(identify=True, instance=name) for name in ("web-2", "a\u00e9 b")]
    file = tmp_path / "result.json"
    done = run("bench", *[one.address for one in servers], "--identify", "-c4", "-t2", "-n40",
               "--idle-connections=2", f"--json={file}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text())
    assert told["plan"]["identify"] is True
    assert list(told["instances"]) == ["a\u00e9 b", "web-2"]
    assert [one["connections"] for one in told["instances"].values()] == [2, 2]
    assert sum(one["messages"] for one in told["instances"].values()) == told["messages"] == 40
    lines = done.stdout.splitlines()
    number = told["instances"]["a\u00e9 b"]["messages"]
    at = lines.index(f"answered   a\u00e9 b: {number} messages on 2 connections")
    assert lines[at + 1] == f"           web-2: {40 - number} messages on 2 connections"
    shown = run("report", str(file))
    assert f"a\u00e9 b: {number} messages on 2 connections" in shown.stdout


def test_with_a_header_too(make_server: MakeServer) -> None:
    """A server that waits for the header says who it is after that."""
    server = make_server(identify=True, proxy_protocol="required", proxy_timeout=60)
    for loop in ({}, {"reconnect": True}, {"rate": 2000}):
        plan = Plan(server.address, messages=20, identify=True, send_proxy="v2", **loop)
        result = measure(plan)
        assert (result.messages, result.failed) == (20, 0)
        assert result.instances is not None
        assert [one["messages"] for one in result.instances.values()] == [20]


def test_the_server_of_a_run_says_it() -> None:
    done = run("bench", "--server", "--identify", "--send-proxy=v1", "-n20", "--json")
    assert done.returncode == 0, done.stderr
    name = socket.gethostname()
    assert json.loads(done.stdout)["instances"] == {name: {"connections": 10, "messages": 20}}


def test_without_the_option_it_is_a_wrong_echo(make_server: MakeServer) -> None:
    done = run("bench", make_server(identify=True).address, "-d", "200ms")
    assert done.returncode in (1, 4)  # before the first message, or after it


def assert_refused_last(done: Any, code: int, sentence: str) -> None:
    """Assert one sentence behind the one that says what will be done."""
    first, _, done.stderr = done.stderr.partition("\n")
    assert first.endswith("the next message when the reply is in.")
    assert_refused(done, code, sentence)


@pytest.mark.parametrize(("threads", "connections"), [(1, 4), (2, 4), (2, 2)])
def test_a_server_that_does_not_say_it_is_named(
    make_server: MakeServer, threads: int, connections: int
) -> None:
    """At once: the other threads, which may not see it, do not go on to the end."""
    good, bad = make_server(identify=True), make_server()
    done = run("bench", good.address, bad.address, "--identify", "-d600s", f"-t{threads}",
               f"-c{connections}")  # fmt: skip
    sentence = f"--identify: {bad.address} did not say who answers, but sent b"
    assert_refused_last(done, 1, sentence)
    assert done.stderr.endswith(f" first: {MEND}\n")


def test_nothing_of_what_came_acts_on_a_terminal() -> None:
    with serving(instead(b"\x1b[2J\x07\n")) as server:
        host, port = server.target()[1]
        done = run("bench", f"{host}:{port}", "--identify")
    assert_refused_last(done, 1, "but sent b'\\x1b[2J\\x07\\n' first")


def test_a_server_that_says_nothing_is_named() -> None:
    with serving(hold) as server:
        host, port = server.target()[1]
        done = run("bench", f"{host}:{port}", "--identify", "--timeout=0.1", "-d100ms")
    sentence = f"--identify: {host}:{port} did not say who answers within 0.1 s: {MEND}"
    assert_refused_last(done, 1, sentence)


# --- results ---------------------------------------------------------------------------------

ONE = {"a": {"connections": 1, "messages": 10}, "": {"connections": 2, "messages": 3}}


def test_a_result_survives_json_and_results_are_added_up() -> None:
    plan = Plan("127.0.0.1:7", identify=True)
    results = [Result(plan, started_at=at, elapsed=1.0, instances=ONE) for at in (10.0, 20.0)]
    data = json.loads(json.dumps(results[0].to_json()))
    assert list(data["instances"]) == ["a", ""]
    assert Result.from_json(data).instances == ONE
    assert merge(results).instances == add_up([ONE, ONE])
    assert add_up([ONE, ONE])["a"] == {"connections": 2, "messages": 20}
    assert Result(plan).to_json()["instances"] is None
    assert merge([Result(plan)]).instances is None


def test_a_sum_keeps_so_many_names() -> None:
    many = [{str(i): {"connections": 1, "messages": 1}} for i in range(MOST_NAMES + 3)]
    found = add_up([ONE, *many, *many])
    assert len(found) == MOST_NAMES + 1
    assert list(found)[-1] == ""
    assert sum(one["messages"] for one in found.values()) == 13 + 2 * len(many)


@pytest.mark.parametrize(
    "data",
    [[], "a", {"a": 1}, {"a": {}}, {"a": {"connections": 1}},
     {"a": {"connections": -1, "messages": 0}},
     {"a": {"connections": 1.5, "messages": 0}}, {"a": {"connections": True, "messages": 0}},
     {"a": {"connections": 2**63, "messages": 0}}],
)  # fmt: skip
def test_broken_json_is_refused_in_a_sentence(data: object) -> None:
    with pytest.raises(ValueError, match=r"^has .*instance.*: it must "):
        from_json(data)


def test_a_plan_that_asks_is_another_load() -> None:
    plan = Plan("127.0.0.1:7")
    asking = plan.replace(identify=True)
    assert asking.to_json()["identify"] is True
    results = [Result(one, started_at=at, elapsed=1.0) for one, at in ((plan, 1.0), (asking, 9.0))]
    with pytest.raises(ValueError, match="identify False and True"):
        merge(results)
