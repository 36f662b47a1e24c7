"""What is seen of listeners: depth, limit and drops, against `ss` and against what was done.

The listeners are of this process or of others; nobody accepts. Does not live here: the SYN queue
(test_syn_queue.py), the command (test_cli_queues.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from peers import has_ipv6, reset, wait_until

from fastecho.diagnose import proc_net, sock_diag
from fastecho.diagnose.listening import Listening
from fastecho.diagnose.places import Place
from fastecho.diagnose.queues import PORTS_APART, Watch, look, look_closely, name_processes
from fastecho.diagnose.verdicts import Verdict, verdict
from fastecho.errors import ConfigError

MORE = 3
"""Clients that find no place."""
needs_ss = pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed")
FAMILIES = [
    pytest.param("127.0.0.1", id="IPv4"),
    pytest.param("::1", id="IPv6", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6")),
]


@contextmanager
def knocked(listener: socket.socket, clients: int) -> Iterator[list[socket.socket]]:
    """Have so many clients connect, none of which waits."""
    socks = [socket.socket(listener.family) for _ in range(clients)]
    try:
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield socks
    finally:
        for sock in socks:
            sock.close()


def listen(host: str, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, backlog=backlog)


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def seen(sock: socket.socket) -> Listening:
    """Return what a look shows of a socket."""
    return next(one for one in look().listeners if one.inode == inode_of(sock))


def judged(sock: socket.socket, watch: Watch) -> Verdict | None:
    assert watch.last is not None
    one = next(one for one in watch.last.listeners if one.inode == inode_of(sock))
    return verdict(one, watch.seen(one), watch.seconds, watch.last.settings)


def ss(*arguments: str) -> str:
    """Return what `ss` prints. It is not ours: what a sanitizer preloads would find its leaks."""
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = ["ss", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=env)
    return done.stdout


def told_by_ss(port: int) -> tuple[int, int, int]:
    """Return depth, limit and drops in the words of `ss -ltnm`."""
    line = ss("-ltnmHO", "sport", "=", f":{port}")
    words = line.split()
    (drops,) = re.findall(r"skmem:\(.*,d(\d+)\)", line)
    return int(words[1]), int(words[2]), int(drops)


@needs_ss
@pytest.mark.parametrize("backlog", [0, 1, 5, 128])
@pytest.mark.parametrize("host", FAMILIES)
def test_depth_limit_and_drops_are_those_of_ss(host: str, backlog: int) -> None:
    with listen(host, backlog) as listener, knocked(listener, backlog + 1 + MORE):
        before, told, after = seen(listener), told_by_ss(listener.getsockname()[1]), seen(listener)
        assert (before.depth, before.limit) == told[:2] == (backlog + 1, backlog)
        assert before.holds == backlog + 1
        assert before.is_full
        # Each of those who found no place sends its SYN again, the first time after a second.
        assert before.drops is not None
        assert after.drops is not None
        assert before.drops <= told[2] <= after.drops
        assert before.drops % MORE == 0 or before.drops > MORE


@pytest.mark.parametrize("host", FAMILIES)
def test_drops_are_exact_before_anybody_knocks_again(host: str) -> None:
    for _ in range(5):
        began = time.monotonic()
        with listen(host, 5) as listener:
            assert (seen(listener).depth, seen(listener).drops) == (0, 0)
            with knocked(listener, 6):
                assert (seen(listener).depth, seen(listener).drops) == (6, 0)
                with knocked(listener, 7):
                    drops = seen(listener).drops
        if time.monotonic() - began < 0.9:
            assert drops == 7
            return
    pytest.fail("the machine never had 0.9 s in one piece")


@needs_ss
@pytest.mark.parametrize("backlog", [0, 1, 5, 128])
@pytest.mark.parametrize("name", ["a path", "the abstract namespace"])
def test_unix_listeners_have_depth_and_limit(backlog: int, name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path if name == "a path" else f"\0{path}")
        listener.listen(backlog)
        shown = path if name == "a path" else f"@{path}"
        with knocked(listener, backlog + 1 + MORE):
            one = seen(listener)
            assert ss("-lxHO", "src", shown).split()[2:5] == [str(backlog + 1), str(backlog), shown]
        assert (one.address, one.depth, one.limit) == (f"unix:{shown}", backlog + 1, backlog)
        assert one.drops is None
        assert one.handshakes is None


def test_an_address_for_both_kinds_is_written_as_bind_takes_it() -> None:
    if not has_ipv6():
        pytest.skip("no IPv6")
    with (
        socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both,
        socket.create_server(("::", 0), family=socket.AF_INET6) as only,
    ):
        assert seen(both).address == f":{both.getsockname()[1]}"
        assert seen(only).address == f"[::]:{only.getsockname()[1]}"


def test_a_listener_of_another_process_is_seen_with_its_process() -> None:
    program = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0), backlog=2)\n"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = look()
        name_processes(found, lambda one: one.port == port)
        (one,) = [one for one in found.listeners if one.port == port]
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        assert one.processes == ((process.pid, name),)
        assert one.uid == os.getuid()
        assert one.limit == 2
        process.communicate()


def test_what_proc_tells_is_what_sock_diag_tells() -> None:
    """But for what it does not tell: /proc is asked where sock_diag is not allowed."""
    with listen("127.0.0.1", 1) as listener, knocked(listener, 4):
        one = seen(listener)
        others, _ = proc_net.tcp_sockets()
        (other,) = [found for found in others if found.inode == one.inode]
        assert (other.address, other.depth, other.uid) == (one.address, one.depth, one.uid)
        assert other.limit is other.drops is None


def test_counters_of_the_namespace_rise_with_the_drops() -> None:
    watch = Watch()
    with listen("127.0.0.1", 0) as listener, knocked(listener, 1):
        watch.add(look())
        with knocked(listener, MORE):
            watch.add(look())
    assert watch.counted()["listen_overflows"] >= MORE
    assert watch.counted()["listen_drops"] >= MORE


def test_the_highest_depth_and_the_drops_of_the_last_interval_are_kept() -> None:
    watch = Watch()
    with listen("127.0.0.1", 5) as listener, knocked(listener, 4):
        watch.add(look())
        for _ in range(3):
            listener.accept()[0].close()
        watch.begin()
        watch.add(look())
        one = seen(listener)
        assert (watch.seen(one).highest, watch.seen(one).deepest) == (4, 1)
        with knocked(listener, 5 + MORE):
            watch.add(look())
            assert watch.seen(one).drops_new == MORE
            watch.begin()
            assert watch.seen(one).drops_new == 0
            assert watch.seen(one).highest == 6


# What is said


def test_a_full_queue_is_named_with_its_numbers_and_what_helps() -> None:
    watch = Watch()
    with listen("127.0.0.1", 5) as listener, knocked(listener, 6):
        watch.add(look())
        with knocked(listener, 1):
            watch.add(look())
            found = judged(listener, watch)
    assert found is not None
    assert (found.kind, found.is_now) == ("accept_queue_full", True)
    somaxconn = proc_net.settings()["somaxconn"]
    assert re.fullmatch(
        r"accept queue full \(6 of 6\); 1 SYN dropped since the listener opened, 1 of them in the "
        r"last [\d.]+ s, retransmissions included; the application accepts too slowly, or its "
        rf"backlog is too short: raise it above 5 \(somaxconn {somaxconn} allows it\)",
        found.sentence,
    )


def test_with_a_backlog_of_somaxconn_both_must_be_raised() -> None:
    one = Listening("tcp", host="127.0.0.1", port=1, depth=129, limit=128, inode=1, drops=0)
    watch = Watch()
    found = look()
    found.listeners = [one]
    watch.add(found)
    told = verdict(one, watch.seen(one), 0.0, {"somaxconn": 128, "tcp_syncookies": 1})
    assert told is not None
    assert "raise somaxconn above 128" in told.sentence


def looked(watch: Watch, listener: socket.socket, *, closely: bool = True) -> Verdict | None:
    """Look once more, and judge as if that had taken a second."""
    found = look()
    if closely:
        look_closely(found, lambda one: one.inode == inode_of(listener))
    watch.add(found)
    one = next(one for one in found.listeners if one.inode == inode_of(listener))
    return verdict(one, watch.seen(one), 1.0, found.settings)


def made(**values: Any) -> Listening:
    """Return a listener that nobody has; for what a machine does not show on demand."""
    fields = {"depth": 0, "limit": 8, "inode": 1, "drops": 0} | values
    handshakes, sharing = fields.pop("handshakes", None), fields.pop("sharing", 1)
    one = Listening("tcp", host="127.0.0.1", port=1, **fields)
    one.handshakes, one.sharing = handshakes, sharing
    return one


def judge(one: Listening, **settings: int) -> Verdict | None:
    """Return what is said of it after one look."""
    watch, found = Watch(), look()
    found.listeners = [one]
    watch.add(found)
    return verdict(one, watch.seen(one), 0.0, {"tcp_syncookies": 1, "somaxconn": 128} | settings)


def test_listeners_that_share_an_address_share_their_syn_queues() -> None:
    assert judge(made(handshakes=16, sharing=4)) is None
    found = judge(made(handshakes=36, sharing=4))
    assert found is not None
    assert found.sentence.startswith("SYN queue of 4 listeners together full (36 of 36): ")
    found = judge(made(handshakes=9))
    assert found is not None
    assert found.sentence.startswith("SYN queue full (9 of 9): ")


def test_after_somaxconn_was_lowered_it_is_not_advised_to_lower_the_backlog() -> None:
    found = judge(made(depth=101, limit=100), somaxconn=10)
    assert found is not None
    assert "raise somaxconn above 100 " in found.sentence


def test_a_listener_that_a_look_shows_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens while sockets come and go, not on demand."""
    once = sock_diag.tcp_listeners
    monkeypatch.setattr(sock_diag, "tcp_listeners", lambda: once() + once())
    with listen("127.0.0.1", 3) as listener:
        assert [one.inode for one in look().listeners].count(inode_of(listener)) == 1


def test_a_queue_that_was_full_and_of_which_the_limit_is_not_known_any_more() -> None:
    """The last look had to do without sock_diag."""
    watch, found = Watch(), look()
    found.listeners = [made(depth=9)]
    watch.add(found)
    found.listeners = [made(depth=3, limit=None, drops=None)]
    watch.add(found)
    (one,) = found.listeners
    told = verdict(one, watch.seen(one), 0.0, {"somaxconn": 128})
    assert told is not None
    assert "was full, and is not now" in told.sentence


@pytest.mark.parametrize("host", FAMILIES)
def test_who_accepts_nobody_is_told(host: str) -> None:
    with listen(host, 5) as listener, knocked(listener, 2):
        watch = Watch()
        looked(watch, listener)
        found = looked(watch, listener)
    assert found is not None
    assert (found.kind, found.sentence) == (
        "not_accepting",
        (
            "2 connections wait in the accept queue, and none was taken in the last second: "
            "the application does not accept"
        ),
    )


def test_an_interval_of_less_than_a_second_says_nothing_of_who_accepts() -> None:
    with listen("127.0.0.1", 5) as listener, knocked(listener, 2):
        watch = Watch()
        for _ in range(10):
            watch.add(look())
        assert judged(listener, watch) is None


def test_where_nobody_looked_closely_it_only_seems_so() -> None:
    with listen("127.0.0.1", 5) as listener, knocked(listener, 1):
        watch = Watch()
        looked(watch, listener, closely=False)
        found = looked(watch, listener, closely=False)
    assert found is not None
    assert found.sentence == (
        "1 connection waits in the accept queue, and their number never sank in the last second: "
        "the application seems not to accept"
    )


def test_who_accepts_as_fast_as_newcomers_come_accepts() -> None:
    """The queue keeps its depth, and those in it are others."""
    with listen("127.0.0.1", 5) as listener, knocked(listener, 2):
        watch = Watch()
        looked(watch, listener)
        listener.accept()[0].close()
        with knocked(listener, 1):
            assert looked(watch, listener) is None
            watch.begin()
            looked(watch, listener)
            told = looked(watch, listener)
    assert told is not None
    assert told.kind == "not_accepting"


def test_who_was_reset_in_the_queue_was_not_accepted() -> None:
    with listen("127.0.0.1", 5) as listener, knocked(listener, 1):
        watch = Watch()
        with socket.create_connection(listener.getsockname()) as gone:
            looked(watch, listener)
            reset(gone)
        wait_until(lambda: len(waiting(listener)) == 1)
        assert seen(listener).depth == 2
        found = looked(watch, listener)
        assert found is not None
        assert found.kind == "not_accepting"
        # The one that was reset is taken as any other is.
        watch.begin()
        looked(watch, listener)
        for _ in range(2):
            listener.accept()[0].close()
        with knocked(listener, 2):
            assert looked(watch, listener) is None


def waiting(listener: socket.socket) -> frozenset[bytes]:
    """Return who waits, as a close look sees it."""
    found = look()
    look_closely(found, lambda one: one.inode == inode_of(listener))
    (cookies,) = [one.waiting for one in found.listeners if one.inode == inode_of(listener)]
    return cookies or frozenset()


def test_a_full_queue_of_who_accepts_nobody_needs_no_longer_backlog() -> None:
    with listen("127.0.0.1", 1) as listener, knocked(listener, 2):
        watch = Watch()
        looked(watch, listener)
        found = looked(watch, listener)
        assert found is not None
        assert found.sentence == (
            "accept queue full (2 of 2); nothing was dropped yet; nobody was accepted in the last "
            "second: look what keeps the application from it"
        )
        listener.accept()[0].close()
        with knocked(listener, 1):
            found = looked(watch, listener)
    assert found is not None
    assert "the application accepts too slowly, or its backlog is too short" in found.sentence


def test_of_listeners_that_share_an_address_nobody_knows_whose_newcomers_wait() -> None:
    with contextlib.ExitStack() as stack:
        pair: list[socket.socket] = []
        for port in (0, None):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", port if port == 0 else pair[0].getsockname()[1]))
            sock.listen(5)
            pair.append(sock)
        stack.enter_context(knocked(pair[0], 4))
        found = look()
        look_closely(found, lambda _: True)
        shared = [one for one in found.listeners if one.inode in map(inode_of, pair)]
    assert len(shared) == 2
    assert [one.waiting for one in shared] == [None, None]


def test_with_many_ports_all_connections_are_looked_at_together() -> None:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listen("127.0.0.1", 5)) for _ in range(PORTS_APART + 2)]
        for count, listener in enumerate(listeners):
            stack.enter_context(knocked(listener, count + 1))
        found = look()
        look_closely(found, lambda _: True)
        by_inode = {one.inode: one.waiting for one in found.listeners}
        assert [len(by_inode[inode_of(one)] or ()) for one in listeners] == [1, 2, 3, 4, 5, 6]


# Places


@pytest.mark.parametrize(
    ("host", "found_by", "not_by"),
    [
        ("0.0.0.0", ["127.0.0.1:7", "0.0.0.0:7", "7", ":7", "*:7", "10.1.2.3:7"], ["[::1]:7"]),
        ("127.0.0.1", ["127.0.0.1:7", "[::ffff:127.0.0.1]:7", "localhost:7"], ["0.0.0.0:7"]),
        ("::", ["[::1]:7", "[::]:7", "[2001:db8::1]:7", "7"], ["127.0.0.1:7", "0.0.0.0:7"]),
        ("", ["127.0.0.1:7", "[::1]:7", "[::]:7", "0.0.0.0:7", "7"], ["127.0.0.1:8", "8"]),
        ("::1", ["[0:0::1]:7", "[::1]:7"], ["127.0.0.1:7", "[::]:7", "unix:7"]),
        ("fe80::1", ["[fe80::1]:7", "[fe80::1%lo]:7"], ["[fe80::2]:7"]),
    ],
)
def test_a_place_is_where_a_client_would_connect(
    host: str, found_by: list[str], not_by: list[str]
) -> None:
    one = Listening("tcp", host=host, port=7, depth=0, limit=1, inode=1)
    assert [Place(text)(one) for text in found_by] == [True] * len(found_by)
    assert [Place(text)(one) for text in not_by] == [False] * len(not_by)


def test_a_unix_listener_is_found_by_the_name_that_the_kernel_has() -> None:
    one = Listening("unix", path="\0name", depth=0, limit=1, inode=1)
    assert Place("unix:@name")(one)
    assert not Place("unix:name")(one)
    assert not Place("7")(one)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0", "must be 1 to 65535"),
        ("65536", "must be 1 to 65535"),
        ("007", "must be 1 to 65535, without zeros before it"),
        (":0", "must be 1 to 65535"),
        ("*:x", "must be 1 to 65535"),
        ("http", "must be a port, HOST:PORT or unix:PATH"),
        ("unix:", "has no path"),
        ("no-such-host.invalid:80", "does not resolve: "),
    ],
)
def test_what_is_no_place_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Place(text)
    assert f"PORT {text!r} " in str(raised.value)
    assert reason in str(raised.value)


def test_what_is_over_is_no_problem_of_now() -> None:
    with listen("127.0.0.1", 0) as listener:
        with knocked(listener, 1 + MORE):
            pass
        listener.accept()[0].close()
        wait_until(lambda: seen(listener).depth == 0)
        watch = Watch()
        watch.add(look())
        found = judged(listener, watch)
    assert found is not None
    assert (found.kind, found.is_now) == ("dropped_before", False)
    assert found.sentence == "3 SYNs dropped since the listener opened"
    with listen("127.0.0.1", 0) as listener:
        with knocked(listener, 1 + MORE):
            pass
        listener.accept()[0].close()
        wait_until(lambda: seen(listener).depth == 0)
        told = looked(watch, listener)
    assert told is not None
    assert told.sentence == "3 SYNs dropped since the listener opened, none of them now"


def test_last_acks_are_no_syns() -> None:
    one = Listening("tcp", host="127.0.0.1", port=1, depth=4, limit=3, inode=1, drops=9)
    one.handshakes = 2
    watch = Watch()
    found = look()
    found.listeners = [one]
    watch.add(found)
    told = verdict(one, watch.seen(one), 1.0, {"somaxconn": 128})
    assert told is not None
    assert "9 packets (SYNs, and last ACKs of handshakes) dropped since" in told.sentence


def test_a_queue_that_was_full_between_two_looks_is_given_away_by_its_drops() -> None:
    with listen("127.0.0.1", 0) as listener:
        watch = Watch()
        watch.add(look())
        with knocked(listener, 1 + MORE):
            listener.accept()[0].close()
        watch.add(look())
        found = judged(listener, watch)
    assert found is not None
    assert found.kind == "syns_dropped"
    assert found.sentence.startswith("3 SYNs dropped in the last ")
    assert "though the accept queue was not seen full (at most 0 of 1)" in found.sentence


def test_a_unix_listener_has_no_drops_to_tell_of(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        with knocked(listener, 2):
            watch = Watch()
            watch.add(look())
            found = judged(listener, watch)
    assert found is not None
    assert "accept queue full (1 of 1): connect() waits, or fails with EAGAIN;" in found.sentence


def test_a_listener_that_is_well_has_no_verdict() -> None:
    with listen("127.0.0.1", 5) as listener:
        watch = Watch()
        for _ in range(6):
            watch.add(look())
        assert judged(listener, watch) is None
