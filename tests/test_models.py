"""The I/O models: what `serve --model` and `models` say and refuse, and where each model breaks.

That each echoes as it should is held by the conformance suite.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import COMMAND, Serving, assert_refused, environment, exchange, run, serving
from peers import connect, is_reset, recv_exactly, wait_until

from fastecho import models

PURE = [name for name in models.NAMES if name != "native"]
MANY = [name for name in PURE if models.described(name).peers is None]
CHINESE = {"LC_ALL": "zh_CN.UTF-8", "PYTHONUTF8": "1"}


def command_with(descriptors: int) -> list[str]:
    """Return the command, with a limit of open descriptors."""
    script = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors},) * 2);"
        "from fastecho.cli import main; raise SystemExit(main())"
    )
    return [sys.executable, "-c", script]


def cpu_seconds(server: Serving) -> float:
    """Return the CPU that a process has used so far."""
    text = Path(f"/proc/{server.process.pid}/stat").read_text(encoding="ascii")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the tutorial's dialogue ------------------------------------------------------------------


@pytest.mark.parametrize("name", models.NAMES)
def test_the_dialogue_of_the_tutorial(name: str) -> None:
    prefix = "服务端收到, 你发的消息是: "
    with serving(f"--model={name}", f"--prefix={prefix}") as server:
        client = subprocess.run(
            [*COMMAND, "connect", server.addresses[0]],
            input="你好\nhello world\n",
            capture_output=True,
            text=True,
            timeout=20,
            env=environment(**CHINESE),
            check=False,
        )
        assert (client.returncode, client.stderr) == (0, "")
        # Two messages may reach the server in one recv: then one prefix goes before both.
        assert client.stdout.replace(prefix, "") == "你好\nhello world\n"
        assert client.stdout.startswith(prefix)


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize(
    ("locale", "lines"),
    [
        ({"LC_ALL": "C.UTF-8"}, ["peer (ip: {}, port: {}) sent: ", "peer (ip: {}, port: {}) has "]),
        (CHINESE, ["客户端(ip: {}, port: {}) 发来消息: ", "客户端(ip: {}, port: {}) 已经断开连接"]),
    ],
    ids=["english", "chinese"],
)
def test_messages_are_shown_in_the_words_of_the_tutorial(
    name: str, locale: dict[str, str], lines: list[str], tmp_path: Path
) -> None:
    """A character in two pieces is shown once it is whole; what steers a terminal is escaped."""
    shown = tmp_path / "shown"
    script = (
        f"import sys; sys.stdout = open({str(shown)!r}, 'w', encoding='utf-8');"
        "from fastecho.cli import main; raise SystemExit(main())"
    )
    options = (f"--model={name}", "--show-messages")
    with serving(*options, program=[sys.executable, "-c", script], env=locale) as server:
        with server.connect() as client:
            said, gone = (line.format(*client.getsockname()[:2]) for line in lines)
            for piece in (b"a\xe4\xbd", b"\xa0\n", b"\x1b[2J\r\n", b"\xff"):
                assert exchange(client, piece, len(piece)) == piece
        wait_until(lambda: gone in shown.read_text(encoding="utf-8"), what="the last line")
        code, _ = server.end(signal.SIGTERM)
    assert code == 0
    found = shown.read_text(encoding="utf-8").splitlines()
    expected = [f"{said}a", f"{said}你", f"{said}\\x1b[2J\\r", f"{said}\\xff"]
    assert found[:4] == expected
    assert len(found) == 5


# --- what a model cannot do -------------------------------------------------------------------


def test_blocking_serves_the_second_peer_when_the_first_has_left() -> None:
    """The second one's connect() returns long before the server's accept()."""
    with serving("--model=blocking") as server, server.connect() as first:
        assert exchange(first, b"one", 3) == b"one"
        with server.connect() as second:
            second.sendall(b"two")
            second.settimeout(0.2)
            with pytest.raises(TimeoutError):
                second.recv(1)
            first.close()
            assert recv_exactly(second, 3) == b"two"


@pytest.mark.parametrize("name", PURE)
def test_what_a_model_takes_while_nothing_happens_is_what_it_says(name: str) -> None:
    with serving(f"--model={name}") as server, server.connect() as client:
        assert exchange(client, b"hello", 5) == b"hello"
        before, begin = cpu_seconds(server), time.monotonic()
        end = begin + 0.4
        wait_until(lambda: time.monotonic() > end, what="a while without a message")
        share = (cpu_seconds(server) - before) / (time.monotonic() - begin)
    # A machine that is shared does not always give the whole core.
    assert share > 0.3 if models.described(name).idle_cpu else share < 0.1


@pytest.mark.parametrize("name", MANY)
def test_without_a_descriptor_left_newcomers_wait_and_the_others_are_served(name: str) -> None:
    program = command_with(descriptors=24)
    with serving(f"--model={name}", program=program) as server:
        peers = [server.connect() for _ in range(30)]
        try:
            assert exchange(peers[0], b"first", 5) == b"first"
            peers[-1].sendall(b"last")
            if not models.described(name).idle_cpu:
                before = cpu_seconds(server)
                end = time.monotonic() + 0.3
                wait_until(lambda: time.monotonic() > end, what="a while at the limit")
                assert cpu_seconds(server) - before < 0.1
            for peer in peers[:20]:
                peer.close()
            assert recv_exactly(peers[-1], 4) == b"last"
        finally:
            for peer in peers:
                peer.close()
        code, said = server.end(signal.SIGTERM)
    assert (code, said[-1]) == (0, "fastecho: stopped")
    assert not any("Traceback" in line for line in said)


def test_select_turns_away_whom_it_cannot_wait_for_and_says_so_once() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with serving("--model=select", program=command_with(2048)) as server:
            peers = [connect(server.addresses[0]) for _ in range(1030)]
            try:
                assert is_reset(peers[-1])
                assert exchange(peers[500], b"hello", 5) == b"hello"
            finally:
                for peer in peers:
                    peer.close()
            code, said = server.end(signal.SIGTERM)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == 0
    assert [line for line in said if "turned away" in line] == [
        "fastecho: warning: peers are turned away: select ends at descriptor 1,023"
    ]


# --- options, signals, ends -------------------------------------------------------------------


@pytest.mark.parametrize("name", PURE)
def test_what_a_model_cannot_honour_is_refused_by_name(name: str) -> None:
    for flag in ("--max-connections=5", "--frame=line", "--threads=2", "--suffix=x"):
        done = run("serve", f"--model={name}", flag)
        assert_refused(done, 2, f"{flag.partition('=')[0]} ")
        assert f"is more than --model {name} can do" in done.stderr
    done = run("serve", f"--model={name}", "--idle-timeout=5", FASTECHO_MAX_PER_IP="3")
    assert_refused(done, 2, "FASTECHO_MAX_PER_IP 3 is more than")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--show-messages"], "--show-messages True is more than the core can do: choose a --mod"),
        (["--model=kqueue"], "--model 'kqueue' must be one of blocking, threaded, "),
        (["--model=poll", "--bind=unix:x"], "--bind 'unix:x' must be HOST:PORT with --model poll"),
        (["--model=poll", "--bind=:1", "--bind=:2"], "is one too many: --model poll listens on "),
    ],
    ids=str,
)
def test_a_wrong_choice_is_one_sentence(flags: list[str], sentence: str) -> None:
    assert_refused(run("serve", *flags), 2, sentence)


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_model_cleanly_with_peers_connected(name: str, number: int) -> None:
    with serving(f"--model={name}") as server, server.connect() as client:
        assert exchange(client, b"hello", 5) == b"hello"
        code, said = server.end(number, number)
        assert client.recv(1) == b""
    assert code == 0
    assert said[-1] == "fastecho: stopped"
    assert len(said) == 3


@pytest.mark.parametrize("name", PURE)
def test_an_address_in_use_is_one_sentence(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", f"--model={name}", f"--bind={where}")
    assert_refused(done, 4, f"cannot serve {where}: address already in use\n")


# --- the list and the files -------------------------------------------------------------------


def test_the_list_is_a_line_each_with_what_it_is_good_for_and_what_it_cannot_do() -> None:
    text = run("models").stdout
    data = json.loads(run("models", "--json").stdout)
    assert [one["name"] for one in data] == list(models.NAMES)
    lines = text.splitlines()
    for one, line in zip(data, lines[: len(data)], strict=True):
        assert line.startswith(f"{one['name']} ")
        assert one["good_for"] in line
    limits = {line.split()[0]: line.partition("   ")[2].rpartition("  ")[2] for line in lines[:10]}
    assert limits["blocking"] == "serves 1 at a time"
    assert limits["select"] == "descriptors to 1,023"
    assert limits["nonblocking"] == "a core, even when idle"
    assert max(map(len, lines)) <= 100
    assert_refused(run("models", "kqueue"), 2, "NAME 'kqueue' is no model: there are blocking, ")


@pytest.mark.parametrize("name", models.NAMES)
def test_a_model_is_one_short_file_that_stands_on_the_standard_library(name: str) -> None:
    text = run("models", name).stdout
    tree = ast.parse(text)
    head = ast.get_docstring(tree) or ""
    assert head.startswith(f"`{name}`")
    for part in ("The idea: ", "Its cost: ", "Where it breaks: "):
        assert part in head
    assert len(text.splitlines()) <= 140
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    comments = {
        number
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
        for number in range(node.body[0].lineno - 1, node.body[0].end_lineno or 0)
    }
    code = [
        line
        for number, line in enumerate(text.splitlines())
        if number not in comments and line.strip() and not line.lstrip().startswith("#")
    ]
    assert len(code) <= 100
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(one.name in sys.stdlib_module_names for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            ours = node.level == 1 and node.module == "options"
            top = str(node.module).partition(".")[0]
            assert ours or top in sys.stdlib_module_names


def test_a_signal_that_comes_with_the_first_line_ends_a_model() -> None:
    for name in PURE:
        for _ in range(3):
            with serving(f"--model={name}") as server:
                code, said = server.end(signal.SIGTERM)
            assert (code, said[-1]) == (0, "fastecho: stopped"), name


@pytest.mark.parametrize("name", PURE)
def test_every_ipv6_address_is_no_ipv4_address(name: str) -> None:
    with serving(f"--model={name}", "--bind=[::]:0") as server:
        port = int(server.addresses[0].rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        with connect(f"[::1]:{port}") as client:
            assert exchange(client, b"hello", 5) == b"hello"
