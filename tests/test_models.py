"""The I/O models: what `serve --model` and `models` say and refuse, and where each model breaks.

That each echoes as it should is held by the conformance suite.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import json
import os
import queue
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from commands import COMMAND, Serving, assert_refused, environment, exchange, run, serving
from peers import (
    connect,
    fill,
    has_ipv6,
    is_reset,
    plenty,
    read_to_eof,
    recv_exactly,
    reset,
    wait_until,
)

from fastecho import models
from fastecho.address import parse_bind
from fastecho.models.options import Options, out_of_descriptors

PURE = [name for name in models.NAMES if name != "native"]
MANY = [name for name in PURE if models.described(name).peers is None]
CHINESE = {"LC_ALL": "zh_CN.UTF-8", "PYTHONUTF8": "1"}


def command_after(script: str) -> list[str]:
    """Return the command, with something that its process does first; warnings end it."""
    first = textwrap.dedent(script)
    end = "from fastecho.cli import main; raise SystemExit(main())"
    return [sys.executable, "-W", "error", "-c", f"{first}\n{end}"]


def command_with(descriptors: int) -> list[str]:
    """Return the command, with a limit of open descriptors."""
    limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors},) * 2)"
    return command_after(f"import resource; {limit}")


def active_seconds(server: Serving) -> float:
    """Return for how long a process's threads have run so far, or waited for a CPU to run on."""
    active = 0
    for task in Path(f"/proc/{server.process.pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            ran, waited, _ = task.read_text(encoding="ascii").split()
            active += int(ran) + int(waited)
    return active / 1e9


def state(server: Serving) -> str:
    """Return what a process's first thread does: R, it runs; S, it waits."""
    text = Path(f"/proc/{server.process.pid}/stat").read_text(encoding="ascii")
    return text.rpartition(")")[2].split()[0]


def assert_rests(server: Serving, when: str, seconds: float = 0.1) -> None:
    """Assert that a server comes to rest; a loop that spins runs always, or wants to.

    It is looked at ten times at most: on a busy machine it may still have had work to do.
    """
    for _ in range(10):
        before, end = active_seconds(server), time.monotonic() + seconds
        wait_until(lambda end=end: time.monotonic() > end, what="a while")  # type: ignore[misc]
        if active_seconds(server) - before < seconds / 4:
            return
    raise AssertionError(f"it is at work though {when}")


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
    """A character in two pieces is shown once it is whole; what steers a terminal is escaped.

    Half a character stays when a peer leaves; who is there when the server ends leaves as well.
    """
    shown = tmp_path / "shown"
    program = command_after(f"import sys; sys.stdout = open({str(shown)!r}, 'w', encoding='utf-8')")
    options = (f"--model={name}", "--show-messages")
    with serving(*options, program=program, env=locale) as server:
        with server.connect() as client:
            said, gone = (line.format(*client.getsockname()[:2]) for line in lines)
            for piece in (b"a\xe4\xbd", b"\xa0\n", b"\x1b[2J\r\n", b"\xff", b"\xe4\xbd"):
                assert exchange(client, piece, len(piece)) == piece
        wait_until(lambda: gone in shown.read_text(encoding="utf-8"), what="the last line")
        with server.connect() as client:
            last, left = (line.format(*client.getsockname()[:2]) for line in lines)
            assert exchange(client, b"stays\n", 6) == b"stays\n"
            code, _ = server.end(signal.SIGTERM)
    assert code == 0
    texts = ["a", "你", r"\x1b[2J\r", r"\xff", r"\xe4\xbd"]
    found = shown.read_text(encoding="utf-8").splitlines()
    assert found[:5] == [f"{said}{text}" for text in texts]
    assert [found[5].startswith(gone), *found[6:7]] == [True, f"{last}stays"]
    if name != "socketserver":  # it does not wait for its threads
        assert [line.startswith(left) for line in found[7:]] == [True]


@pytest.mark.parametrize("stdout", ["gone", "closed"])
def test_a_reader_of_the_messages_that_has_gone_costs_no_connection(stdout: str) -> None:
    lose = {
        "gone": "reader, writer = os.pipe(); os.dup2(writer, 1); os.close(reader)",
        "closed": "os.close(1)",
    }
    script = f"import os, sys; {lose[stdout]}; os.execv(sys.argv[1], sys.argv[1:])"
    program = [sys.executable, "-c", script, *COMMAND]
    with serving("--model=epoll", "--show-messages", program=program) as server:
        with server.connect() as client:
            for message in (b"one\n", b"two\n"):
                assert exchange(client, message, 4) == message
        code, said = server.end(signal.SIGTERM)
    assert (code, said[2:]) == (0, ["fastecho: stopped"])


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
    """While a peer is owed more than it reads, when it has read all of it, when it has left."""
    spins = models.described(name).idle_cpu
    with serving(f"--model={name}") as server:
        with connect(server.addresses[0], receive_buffer=65536) as peer:
            assert exchange(peer, b"hello", 5) == b"hello"
            if spins:
                before = active_seconds(server)
                wait_until(lambda: active_seconds(server) - before > 0.1, what="a core's work")
                return
            owed = fill(peer, plenty())
            assert_rests(server, "a reply waits")
            recv_exactly(peer, owed)
            assert_rests(server, "no reply waits any more")
            peer.shutdown(socket.SHUT_WR)
            assert read_to_eof(peer) == b""
        assert_rests(server, "the peer has left")


LOOPS = ("select", "poll", "epoll", "callbacks")


@pytest.mark.parametrize("name", ["nonblocking", *LOOPS])
def test_no_call_on_a_socket_waits_where_one_thread_serves_all(name: str) -> None:
    with serving(f"--model={name}") as server, server.connect() as peer:
        assert exchange(peer, b"hello", 5) == b"hello"
        place = Path(f"/proc/{server.process.pid}")
        sockets = [one for one in place.glob("fd/*") if os.readlink(one).startswith("socket:")]
        for one in sockets:
            said = (place / "fdinfo" / one.name).read_text(encoding="ascii")
            (flags,) = re.findall(r"^flags:\s+(\d+)$", said, re.M)
            assert int(flags, 8) & os.O_NONBLOCK
        assert len(sockets) == 2


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_forgets_a_peer_of_which_a_child_process_has_a_copy(name: str) -> None:
    """The kernel's lists hold open files, not descriptors: close() alone takes nothing out."""
    reader, writer = os.pipe()
    script = f"""
        import os, signal
        def fork(*_):
            if os.fork() == 0:
                os._exit(len(os.read({reader}, 1)))  # when the test is over
        signal.signal(signal.SIGUSR1, fork)
    """
    try:
        program = command_after(script)
        with serving(f"--model={name}", program=program, pass_fds=[reader]) as server:
            peer = server.connect()
            assert exchange(peer, b"before", 6) == b"before"
            with server.connect() as other:
                assert exchange(other, b"before", 6) == b"before"
                server.process.send_signal(signal.SIGUSR1)
                assert exchange(peer, b"forked", 6) == b"forked"
                reset(peer)
                assert exchange(other, b"after", 5) == b"after"
                assert_rests(server, "the peer is gone, and the child has its socket")
            os.close(writer)
            writer = -1
            assert server.end(signal.SIGTERM)[0] == 0
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


@pytest.mark.parametrize("name", PURE)
def test_a_peer_that_has_left_leaves_nothing_in_the_tables(name: str) -> None:
    reader, writer = os.pipe()
    script = f"""
        import gc, os, signal, socket
        def count(*_):
            gc.collect()
            found = sum(type(one) is socket.socket for one in gc.get_objects())
            os.write({writer}, bytes([found]))
        signal.signal(signal.SIGUSR1, count)
    """

    def sockets() -> int:
        server.process.send_signal(signal.SIGUSR1)
        return os.read(reader, 1)[0]

    try:
        program = command_after(script)
        with serving(f"--model={name}", program=program, pass_fds=[writer]) as server:
            before = sockets()
            for _ in range(5):
                with server.connect() as peer:
                    assert exchange(peer, b"hello", 5) == b"hello"
            # The last one may still have the name by which it was accepted.
            wait_until(lambda: sockets() <= before + 1, 3, "the end of four sockets of five")
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("name", MANY)
def test_without_a_descriptor_left_newcomers_wait_and_the_others_are_served(name: str) -> None:
    program = command_with(descriptors=24)
    with serving(f"--model={name}", program=program) as server:
        peers = [server.connect() for _ in range(30)]
        try:
            assert exchange(peers[0], b"first", 5) == b"first"
            peers[-1].sendall(b"last")
            if not models.described(name).idle_cpu:
                assert_rests(server, "no descriptor is left", seconds=0.3)
            for peer in peers[:20]:
                peer.close()
            assert recv_exactly(peers[-1], 4) == b"last"
        finally:
            for peer in peers:
                peer.close()
        code, said = server.end(signal.SIGTERM)
    assert (code, said[-1]) == (0, "fastecho: stopped")
    assert not any("Traceback" in line for line in said)


@pytest.mark.parametrize(
    ("number", "is_one"),
    [
        (errno.EMFILE, True),
        (errno.ENFILE, True),
        (errno.ENOBUFS, True),
        (errno.ENOMEM, True),
        (errno.EBADF, False),
    ],
    ids=lambda value: errno.errorcode.get(value, value) if value is not True else "yes",
)
def test_what_accept_may_lack_for_a_while(number: int, is_one: bool) -> None:
    assert out_of_descriptors(OSError(number, "")) is is_one


@pytest.mark.parametrize("name", ["threaded", "socketserver"])
def test_a_peer_for_whom_no_thread_can_be_started_is_turned_away(name: str) -> None:
    """Its stack is larger than the memory that the process may still take."""
    program = command_after("import threading; threading.stack_size(1 << 26)")
    with serving(f"--model={name}", program=program) as server, server.connect() as first:
        assert exchange(first, b"first", 5) == b"first"
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + (1 << 24)
        resource.prlimit(pid, resource.RLIMIT_AS, (most, before[1]))
        with server.connect() as second:
            is_reset(second)  # an end, either way
        assert exchange(first, b"still", 5) == b"still"
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        with server.connect() as third:
            assert exchange(third, b"third", 5) == b"third"
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    sentence = "fastecho: warning: a peer is turned away: can't start new thread"
    assert said[2:] == [sentence, "fastecho: stopped"]


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
    assert_refused(done, 2, "FASTECHO_MAX_PER_IP '3' is more than")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--show-messages"], "--show-messages is more than the core can do: choose a --model"),
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
    program = command_after("")
    with serving(f"--model={name}", program=program) as server, server.connect() as client:
        assert exchange(client, b"hello", 5) == b"hello"
        code, said = server.end(number, number)
        assert client.recv(1) == b""
    assert code == 0
    assert said[-1] == "fastecho: stopped"
    assert len(said) == 3


@pytest.mark.parametrize("name", PURE)
def test_a_signal_just_before_a_call_that_waits_ends_a_model(name: str) -> None:
    """Python has noted it then, and acts on it only when the call returns."""
    reader, writer = os.pipe()
    script = f"""
        import _thread, os, signal, threading
        def note():
            os.read({reader}, 1)
            _thread.interrupt_main(signal.SIGTERM)  # without an end of what the thread waits for
        threading.Thread(target=note, daemon=True).start()
    """
    try:
        program = command_after(script)
        with (
            serving(f"--model={name}", program=program, pass_fds=[reader]) as server,
            server.connect() as client,
        ):
            assert exchange(client, b"hello", 5) == b"hello"
            if not models.described(name).idle_cpu:
                wait_until(lambda: state(server) == "S", what="a call that waits")
            os.write(writer, b"!")
            code, said = server.end()  # without another signal
    finally:
        os.close(reader)
        os.close(writer)
    assert (code, said[2:]) == (0, ["fastecho: stopped"])


def test_asyncio_resets_who_does_not_read_when_it_stops() -> None:
    """In this process: the end of one resets everybody."""
    places: queue.Queue[tuple[str, int]] = queue.Queue()
    options = Options(
        parse_bind("127.0.0.1:0"), on_listening=lambda host, port: places.put((host, port))
    )
    thread = threading.Thread(target=models.serving("asyncio"), args=[options])
    thread.start()
    with connect(places.get(timeout=20), receive_buffer=65536) as peer:
        fill(peer, plenty())
        assert options.stop is not None
        options.stop()
        thread.join(5)
        assert not thread.is_alive()
        assert is_reset(peer, 5)


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


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("bind", [":0", "[::]:0"])
def test_every_address_is_both_families_and_every_ipv6_address_is_one(name: str, bind: str) -> None:
    with serving(f"--model={name}", f"--bind={bind}") as server:
        port = int(server.addresses[0].rpartition(":")[2])
        with connect(f"[::1]:{port}") as client:
            assert exchange(client, b"hello", 5) == b"hello"
        if bind == ":0":
            with connect(f"127.0.0.1:{port}") as client:
                assert exchange(client, b"hello", 5) == b"hello"
        else:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
