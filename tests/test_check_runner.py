"""Running probes: order, gates, deadlines, errors of probes, waits that are ended."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from peers import DEADLINE, wait_until

import fastecho
from fastecho.address import parse_target
from fastecho.check import runner
from fastecho.check.catalog import Probe, choose, probes
from fastecho.check.path import NotConnected, Path, Stream
from fastecho.check.pattern import Pattern
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import Failed, Finding, NotTestable, failed, hopeless, passed


@pytest.fixture
def path(server: fastecho.Server) -> Iterator[Path]:
    path = Path(parse_target(server.address), timeout=1.0, quick=True)
    yield path
    path.close()


def probe(
    name: str, run: Callable[[Path], Finding], *, phase: str = "beside", group: str = "flow"
) -> Probe:
    """Return a probe that does this."""
    module = ModuleType(f"fastecho.check.probes.{name}")
    module.__dict__.update(
        TITLE=name, GROUP=group, QUICK=True, PHASE=phase, NEEDS=(), PASSED="Well.", FAILED="Ill.",
        run=run,
    )  # fmt: skip
    return Probe(module)


def found(path: Path, *chosen: Probe) -> list[Finding]:
    """Run these, and return what was told, which is all that was found, in order."""
    told: list[Finding] = []
    one = runner.Run(path, chosen, told.append)
    one.run()
    assert told == one.findings
    return told


def raising(error: Exception) -> Callable[[Path], Finding]:
    def run(path: Path) -> Finding:
        raise error

    return run


def test_what_a_probe_raises_is_a_verdict(path: Path) -> None:
    said = found(
        path,
        probe("untold", raising(NotTestable("there is no wind"))),
        probe("ill", raising(Failed("it rained"))),
        probe("broken", raising(OSError(errno.EPIPE, "Broken pipe"))),
        probe("well", lambda path: passed("the sun shone")),
    )
    assert [(one.name, one.verdict, one.evidence, one.meaning) for one in said] == [
        ("untold", "not testable", "there is no wind", ""),
        ("ill", "failed", "it rained", "Ill."),
        ("broken", "failed", "Broken pipe", "Ill."),
        ("well", "passed", "the sun shone", "Well."),
    ]
    assert said[2].values == {"errno": errno.EPIPE}


def test_a_defect_of_a_probe_is_raised_where_it_can_be_seen(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        found(path, probe("defect", raising(ZeroDivisionError("ours"))))


def test_findings_are_told_in_the_order_of_the_list(path: Path) -> None:
    gate = threading.Event()

    def slow(path: Path) -> Finding:
        assert gate.wait(DEADLINE)
        return passed("late")

    def quick(path: Path) -> Finding:
        gate.set()
        return passed("early")

    said = found(path, probe("slow", slow), probe("quick", quick))
    assert [one.evidence for one in said] == ["late", "early"]


def test_a_gate_without_hope_leaves_the_others_unrun(path: Path) -> None:
    ran = []

    def run(path: Path) -> Finding:
        ran.append(1)
        return passed("ran")

    said = found(
        path, probe("gate", lambda path: hopeless("nobody there"), phase="first"),
        probe("one", run), probe("two", run, phase="bulk"),
    )  # fmt: skip
    assert [one.verdict for one in said] == ["failed", "not testable", "not testable"]
    assert said[1].evidence == "the probe 'gate' failed: nobody there"
    assert ran == []


def test_phases_follow_each_other_and_only_what_waits_runs_beside(path: Path) -> None:
    running: set[str] = set()
    seen: dict[str, set[str]] = {}
    both = threading.Barrier(2)

    def runs(name: str) -> Callable[[Path], Finding]:
        def run(path: Path) -> Finding:
            running.add(name)
            if name.startswith("beside"):
                both.wait(DEADLINE)
            seen[name] = set(running)
            if name.startswith("beside"):
                both.wait(DEADLINE)
            running.discard(name)
            return passed(name)

        return run

    names = ("bulk", "beside_1", "beside_2", "alone_1", "alone_2", "first")
    found(path, *(probe(name, runs(name), phase=name.partition("_")[0]) for name in names))
    beside = {"beside_1", "beside_2"}
    assert {name: seen[name] for name in names} == {
        name: beside if name in beside else {name} for name in names
    }
    assert list(seen)[:3] == ["first", "alone_1", "alone_2"]
    assert list(seen)[-1] == "bulk"


def test_the_quick_profile_ends_in_time_whatever_a_probe_waits_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "QUICK_SECONDS", 0.3)

    def waits(path: Path) -> Finding:
        path.sleep(DEADLINE)
        return passed("never")

    began = time.monotonic()
    (said,) = found(path, probe("waits", waits))
    assert time.monotonic() - began < 2
    assert said.verdict == "not testable"
    assert said.evidence.endswith("s of the quick profile were over before it could tell")


def test_what_nobody_can_end_is_left_alone_when_the_time_is_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "QUICK_SECONDS", 0.2)
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.1)
    released = threading.Event()

    def hangs(path: Path) -> Finding:  # as a look-up of a name may
        released.wait(DEADLINE)
        return passed("late")

    began = time.monotonic()
    said = found(path, probe("gate", hangs, phase="first"), probe("one", hangs))
    assert time.monotonic() - began < 2
    assert [one.verdict for one in said] == ["failed", "not testable"]
    assert "did not end in time" in said[0].evidence
    assert "the probe 'gate' failed" in said[1].evidence
    released.set()


def test_what_leaves_a_connection_idle_has_that_time_besides(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PROBE_SECONDS", 0.1)
    path.quick, path.idle = False, (0.0, DEADLINE, 0.0)

    def rests(path: Path) -> Finding:
        path.sleep(0.2)
        return passed("rested")

    assert [one.evidence for one in found(path, probe("rests", rests))] == ["rested"]


def test_a_connection_that_is_not_accepted_is_a_matter_of_others(path: Path) -> None:
    refused = NotConnected(errno.ECONNREFUSED, "Connection refused")
    (said,) = found(path, probe("unopened", raising(refused)))
    assert (said.verdict, said.meaning) == ("failed", runner.UNOPENED)


def test_who_was_given_up_says_nothing_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "QUICK_SECONDS", 0.1)
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.1)
    released = threading.Event()

    def hangs(path: Path) -> Finding:
        released.wait(DEADLINE)
        return passed("late")

    told: list[Finding] = []
    one = runner.Run(path, [probe(f"hangs_{i}", hangs) for i in range(20)], told.append)
    before, began = threading.active_count(), time.monotonic()
    one.run()
    assert time.monotonic() - began < 1.5  # and not so long for each
    released.set()
    wait_until(lambda: threading.active_count() == before)
    assert {finding.verdict for finding in one.findings} == {"not testable"}
    assert told == one.findings


def test_where_many_connections_are_refused_a_failure_may_be_only_that(path: Path) -> None:
    said = found(
        path,
        probe("one", raising(Failed("it rained"))),
        probe("alone", raising(Failed("it rained")), phase="alone"),
        probe("connections", lambda path: failed("few", refused=3), phase="alone"),
    )
    by_name = {finding.name: finding.meaning for finding in said}
    assert by_name["one"] == f"Ill.{runner.LIMITED}"
    assert by_name["alone"] == by_name["connections"] == "Ill."


def test_a_limit_of_this_machine_is_no_fault_of_the_path(path: Path) -> None:
    (said,) = found(path, probe("full", raising(OSError(errno.EMFILE, "Too many open files"))))
    assert said.verdict == "not testable"
    assert said.evidence == "this machine is at a limit of its own: Too many open files"


def test_every_wait_of_a_probe_ends_when_the_check_is_cancelled(path: Path) -> None:
    waiting = threading.Event()

    def waits(path: Path) -> Finding:
        with path.open() as stream:
            waiting.set()
            converse(path, [Talk(stream, Pattern(1, 1, 0), want=Pattern(1, 1, 1))], 100.0)
        return passed("never")

    def cancel() -> None:
        assert waiting.wait(DEADLINE)
        path.cancel()

    threading.Thread(target=cancel).start()
    began = time.monotonic()
    one = runner.Run(path, [probe("waits", waits)], lambda finding: None)
    one.run()
    assert time.monotonic() - began < 5
    assert one.findings == []


def test_gates_run_whatever_is_chosen() -> None:
    names = [one.name for one in choose(probes(), quick=True, only=["order"])]
    assert names == ["reachable", "answer", "order", "path-mtu"]
    names = [one.name for one in choose(probes(), quick=True, only=["close"], skip=["in-flight"])]
    assert names == ["reachable", "answer", "half-close", "path-mtu"]


# Connections and talks


def test_connections_are_made_at_once_each_with_its_own_end(path: Path) -> None:
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        places = [path.place, (socket.AF_INET, refusing.getsockname()), path.place]
        first, second, third = path.connect_all(places, ports=[0, 0, 0])
    assert isinstance(first, Stream)
    assert isinstance(third, Stream)
    assert isinstance(second, OSError)
    assert second.errno == errno.ECONNREFUSED
    assert getattr(second, "port", 0) > 0
    assert first.port != third.port
    first.close()
    third.close()


def test_nothing_counts_as_lost_before_thirty_round_trips(path: Path) -> None:
    assert path.patience == 1.0
    path.rtt = 0.5
    assert path.patience == path.connect_patience == 15.0


def test_a_connection_with_itself_is_none(path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = free.getsockname()
    (one,) = path.connect_all([(socket.AF_INET, place)], ports=[place[1]])
    assert isinstance(one, OSError)
    assert one.errno == errno.ECONNREFUSED


def test_one_that_hangs_is_given_up_and_does_not_hold_the_others(
    path: Path, tmp_path: object
) -> None:
    with fastecho.black_hole() as hole:
        place = (socket.AF_INET, (hole.host, hole.port))
        began = time.monotonic()
        good, hung = path.connect_all([path.place, place], patience=0.3)
        assert 0.25 < time.monotonic() - began < 3
        assert isinstance(good, Stream)
        good.close()
        assert isinstance(hung, OSError)
        assert hung.errno == errno.ETIMEDOUT
        began = time.monotonic()
        good, hung = path.connect_all([path.place, place], patience=30.0, enough=1)
        assert time.monotonic() - began < 3
        assert isinstance(good, Stream)
        good.close()


def test_a_talk_tells_how_it_ended(path: Path) -> None:
    near, far = socket.socketpair()
    with far, Stream(near, 0.0) as stream:
        near.setblocking(False)
        talk = Talk(stream, Pattern(1, 1, 10))
        converse(path, [talk], 0.1)
        assert talk.ending == "silence"
        assert talk.story() == "nothing more came for 0.1 s when 0 of 10 bytes had come back"
        far.sendall(far.recv(10)[:5])
        far.shutdown(socket.SHUT_WR)
        talk.ending = ""
        converse(path, [talk])
        assert talk.story() == ("the connection was closed (FIN) when 5 of 10 bytes had come back")


def test_bytes_behind_the_last_one_are_too_many(path: Path) -> None:
    near, far = socket.socketpair()
    with far, Stream(near, 0.0) as stream:
        near.setblocking(False)
        far.sendall(Pattern(1, 1, 10).take(0, 10) + b"more")
        talk = Talk(stream, Pattern(1, 1, 10))
        converse(path, [talk], 0.5)
    assert talk.story() == "4 bytes too many came behind the last one: 'more'"


def test_nothing_of_a_path_stays_open(server: fastecho.Server) -> None:
    path = Path(parse_target(server.address), quick=True, direct=Path(parse_target(server.address)))
    found(path, *(one for one in probes() if one.phase == "first"))
    path.close()
    wait_until(lambda: server.stats().connections_open == 0)
