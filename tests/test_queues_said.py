"""What is made of looks: peaks and drops, words, JSON, lines, the table of --watch.

The looks are made here, so that each has the numbers that it is about. Does not live here: looking
(test_queues.py, test_queues_kernel.py), the command as a process (test_cli_queues.py).
"""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_queues import inode_of, knocked, listen

from fastecho.cli import _queues_live, queues
from fastecho.cli._queues_text import changes, explained, lines
from fastecho.cli._summary import Paint
from fastecho.diagnose.limits import PAGE, limits
from fastecho.diagnose.listening import Listening
from fastecho.diagnose.proc_net import read_text
from fastecho.diagnose.queues import Look, Seen, Watch, look, name_processes
from fastecho.diagnose.report import Report
from fastecho.diagnose.verdicts import Verdict, verdict

SETTINGS = {
    "somaxconn": 4096,
    "tcp_max_syn_backlog": 2048,
    "tcp_syncookies": 1,
    "tcp_abort_on_overflow": 0,
}
PLAIN = Paint(color=False)


def listening(depth: int = 0, drops: int = 0, handshakes: int = 0) -> Listening:
    """Return a listener that holds 4."""
    one = Listening("tcp", host="127.0.0.1", port=7, depth=depth, limit=3, inode=1, drops=drops)
    one.handshakes = handshakes
    return one


def look_at(watch: Watch, *found: Listening, drops: int = 0, **settings: int) -> None:
    """Add looks a tenth of a second apart; `drops`: the namespace's, at the last."""
    for one in found:
        at = 0.0 if watch.last is None else watch.last.at + 0.1
        watch.add(Look(at, [one], {"listen_drops": drops}, {**SETTINGS, **settings}, []))


def watched(*found: Listening, **settings: int) -> Watch:
    """Return a watch of one interval with these looks."""
    watch = Watch()
    look_at(watch, *found, **settings)
    return watch


def seen_of(watch: Watch) -> Seen:
    assert watch.last is not None
    return watch.seen(watch.last.listeners[0])


def judged(watch: Watch) -> Verdict | None:
    assert watch.last is not None
    (one,) = watch.last.listeners
    return verdict(one, watch.seen(one), watch.seconds, watch.last.settings)


def reported(watch: Watch) -> Report:
    return Report(watch, lambda _: True)


# What several looks have seen


def test_a_queue_that_was_full_in_between_was_full() -> None:
    watch = watched(*map(listening, (0, 4, 1)))
    assert seen_of(watch).was_full
    found = judged(watch)
    assert found is not None
    assert found.sentence.startswith("accept queue was full, and is not now (4 of 4);")
    watch.begin()
    look_at(watch, listening(1))
    assert not seen_of(watch).was_full


def test_the_deepest_of_an_interval_is_that_of_any_look() -> None:
    watch = watched(*map(listening, (0, 3, 1)))
    assert seen_of(watch).deepest == 3
    watch.begin()
    look_at(watch, *map(listening, (1, 2, 0)))
    assert (seen_of(watch).deepest, seen_of(watch).highest) == (2, 3)


def test_who_was_dropped_in_a_burst_is_told_with_the_deepest_queue_ever_seen() -> None:
    watch = watched(*map(listening, (0, 3, 0)))
    watch.begin()
    look_at(watch, listening(0, drops=2))
    found = judged(watch)
    assert found is not None
    assert found.kind == "syns_dropped"
    assert "though the accept queue was not seen full (at most 3 of 4)" in found.sentence


def test_handshakes_where_every_syn_gets_a_cookie_fill_no_queue() -> None:
    """They are from before the setting was changed."""
    assert judged(watched(listening(handshakes=2), tcp_syncookies=2)) is None


# The report


def test_what_is_new_is_new_in_this_interval() -> None:
    watch = Watch()
    look_at(watch, listening(drops=5), drops=7)
    look_at(watch, listening(drops=6), drops=8)
    watch.begin()
    look_at(watch, listening(drops=9), drops=12)
    found = reported(watch).to_json()
    (one,) = found["listeners"]
    assert one["drops"] == {"since_open": 9, "new": 3}
    assert found["namespace"] == {"counters": {"listen_drops": 12}, "new": {"listen_drops": 4}}


@pytest.mark.parametrize(
    ("settings", "holds", "beyond"),
    [
        ({"tcp_syncookies": 2}, 0, "cookie"),
        ({"tcp_syncookies": 0, "tcp_max_syn_backlog": 2}, 3, "drop"),
    ],
)
def test_the_syn_queue_s_room_is_its_own(settings: dict[str, int], holds: int, beyond: str) -> None:
    (one,) = reported(watched(listening(), **settings)).to_json()["listeners"]
    assert (one["syn_queue"]["holds"], one["syn_queue"]["beyond"]) == (holds, beyond)
    assert one["accept_queue"]["holds"] == 4


def test_what_is_over_is_told_and_is_no_problem() -> None:
    report = reported(watched(listening(drops=3)))
    (one,) = report.judged
    assert one.verdict is not None
    assert (one.verdict.kind, report.problems) == ("dropped_before", [])


# Text


def test_a_peak_that_is_over_has_a_line() -> None:
    assert list(changes(reported(watched(*map(listening, (0, 3, 0)))))) == [
        "127.0.0.1:7: 0 of 4, at most 3"
    ]


@pytest.mark.parametrize(("most", "tutorials"), [(32, "64"), (2048, "2048")])
def test_the_tutorials_number_is_the_larger_one(most: int, tutorials: str) -> None:
    report = reported(watched(listening(), tcp_max_syn_backlog=most))
    row = list(explained(report, "6.18.0"))[-2]
    assert row.split() == ["3", "3", "4", tutorials, str(report.judged[0].syn_queue.holds),
                           "127.0.0.1:7"]  # fmt: skip


@pytest.fixture
def renamed() -> Iterator[str]:
    """This process, under a name that steers a terminal and has a second line."""
    comm = Path("/proc/self/comm")
    before = comm.read_text().removesuffix("\n")
    comm.write_text("a\x1b[2J\n12:00:00")
    yield "a\\x1b[2J\\n12:00:00"
    comm.write_text(before)


def test_names_of_processes_and_sockets_cannot_forge_a_line(renamed: str) -> None:
    with listen("127.0.0.1", 0) as listener, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0fastecho-test\n12:00:00 nothing is wrong\x1b[2J")
        unix.listen(0)
        with knocked(listener, 1), knocked(unix, 1):
            mine = {inode_of(listener), inode_of(unix)}
            watch = Watch()
            watch.add(look())
            assert watch.last is not None
            name_processes(watch.last, lambda one: one.inode in mine)
            report = Report(watch, lambda one: one.inode in mine)
            shown = [*lines(report, PLAIN), *changes(report), *explained(report, "6.18.0")]
    assert len(report.problems) == 2
    assert all(line.isprintable() for line in shown)
    assert sum(renamed in line for line in shown) == 6
    name = r"unix:@fastecho-test\n12:00:00 nothing is wrong\x1b[2J"
    assert sum(name in line for line in shown) == 3


def test_the_name_of_an_interface_cannot_either() -> None:
    host = "fe80::1%\x1b[2J"
    one = Listening("tcp", host=host, port=7, depth=4, limit=3, inode=1)
    report = reported(watched(one))
    shown = [*lines(report, PLAIN), *changes(report), *explained(report, "6.18.0")]
    assert all(line.isprintable() for line in shown)
    assert sum(r"[fe80::1%\x1b[2J]:7" in line for line in shown) == 4


# --limits


def test_memory_of_tcp_is_told_by_its_second_and_third_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = [count * 2**20 // PAGE for count in (100, 200, 300)]

    def text_of(path: str) -> str | None:
        return " ".join(map(str, pages)) if path.endswith("/tcp_mem") else read_text(path)

    monkeypatch.setattr("fastecho.diagnose.limits.read_text", text_of)
    (one,) = [one for one in limits() if one.name == "net.ipv4.tcp_mem"]
    assert one.value == pages
    assert one.shown.startswith("pressure at 200 MiB, at most 300 MiB")


# --watch


class Clock:
    """Time that goes on when somebody sleeps, and a little with each look at it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        self.now += 0.003
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_an_interval_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(queues, "time", clock)
    watch = Watch()
    queues.observe(watch, 1.0, queues.Wanted(["7"], every_unix=False))
    assert clock.now == pytest.approx(101.0, abs=0.02)
    assert watch.last is not None


@pytest.fixture
def sigterm() -> Iterator[None]:
    """What --watch makes of SIGTERM is put back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def intervals(*reports: Report) -> Iterator[Report]:
    """Give these reports, then Ctrl-C."""
    yield from reports
    raise KeyboardInterrupt


def test_watch_knows_of_a_problem_that_is_over_and_writes_a_line_for_each_interval(
    sigterm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, well = reported(watched(listening(4))), reported(watched(listening()))
    file = tmp_path / "queues.jsonl"
    assert _queues_live.run_live(intervals(full, well, well).__next__, str(file))
    depths = [
        json.loads(line)["listeners"][0]["accept_queue"]["depth"]
        for line in file.read_text().splitlines()
    ]
    assert depths == [4, 0, 0]
    assert not _queues_live.run_live(intervals(well).__next__, str(file))
    assert capsys.readouterr().out.count("\n") == 4


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 40 columns and 20 lines."""
    pytest.importorskip("rich")
    wanted = {"COLUMNS": "40", "LINES": "20", "FORCE_COLOR": "1", "TERM": "xterm"}
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)


def test_a_sparkline_goes_down_when_nobody_waits_any_more(
    screen: None, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = watched(listening(4))
    table = _queues_live._Table()
    table.report(reported(watch))
    watch.begin()
    look_at(watch, listening(0))
    table.report(reported(watch))
    capsys.readouterr()
    table.close()
    assert re.search("0 of 4 +█▁ +4 ", capsys.readouterr().out)


def test_rows_are_cut_at_the_right_and_do_not_go_on_below(
    screen: None, capsys: pytest.CaptureFixture[str]
) -> None:
    table = _queues_live._Table()
    table.report(reported(watched(listening(3), listening(3))))
    drawn = capsys.readouterr().out
    table.close()
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", drawn.replace("\r", ""))
    head, row, empty, said = [line.rstrip() for line in text.splitlines()][:4]
    assert head.startswith("ACCEPT QUEUE  DEPTH")
    assert head.endswith("…")
    assert re.match(" +3 of 4 +", row)
    assert (row[-1], empty) == ("…", "")
    assert said == "nothing is wrong"
