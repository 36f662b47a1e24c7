"""Runs probes: in which order, which at a time, how long each may take, what becomes of errors.

Lives here: phases, threads, the gates, the end by Ctrl-C. Does not live here: what a probe does
(probes/), which are chosen (catalog.py), what is printed (report.py).

The gates run first, one by one; then what times something, alone; then what mostly waits, side by
side; then what moves much: in the quick profile side by side, else one by one, because on a slow
line they would take each other's time. So no probe distorts another one's figures.
"""

from __future__ import annotations

import errno
import threading
from time import monotonic, perf_counter

from fastecho.check.path import NotConnected
from fastecho.check.verdict import (
    FAILED,
    Cancelled,
    Failed,
    NotTestable,
    OutOfTime,
    failed,
    hopeless,
    not_testable,
)

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastecho.check.catalog import Probe
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

__all__ = ["QUICK_SECONDS", "Run"]

QUICK_SECONDS = 9.0
"""Of the quick profile; with starting and ending, it stays below 10."""
PROBE_SECONDS = 180.0
"""Of one probe in the full profile, besides what it is to leave idle."""
GRACE_SECONDS = 0.5
"""After which a probe whose time is over is left alone."""
OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
"""What fails here, not on the path: descriptors, memory, ports."""
LATE = "the {:.0f} s of the quick profile were over before it could tell"
TOO_LONG = "it was given up after {:.0f} s without having told"
UNOPENED = (
    "What this looks for could not be seen, because a connection was not accepted: see what the "
    "probes connect-time, connections and flows say."
)

LIMITED = (
    " Or it is only that connections are refused when there are many, as the probe connections "
    "found: several of this one's, and of others beside it, were open at a time."
)


class Run:
    """One check.

    Args:
        path: where to.
        chosen: the probes to run, in the order of the list.
        found: called with each finding as soon as it and all before it in the list are there, in
            the thread that runs; when it is interrupted, with what is there of the others.
    Attributes:
        findings: in the order of the list; of a run that was interrupted, those that are there.
        interrupted: whether it was.
        elapsed: seconds.
    """

    def __init__(
        self, path: Path, chosen: Sequence[Probe], found: Callable[[Finding], None]
    ) -> None:
        self._path = path
        self._chosen = list(chosen)
        self._tell = found
        self._found: dict[str, Finding] = {}
        self._told = 0
        self._ends_all = ""
        self._defect: Exception | None = None
        self.interrupted = False
        self.elapsed = 0.0

    @property
    def findings(self) -> list[Finding]:
        """What is there."""
        return [self._found[one.name] for one in self._chosen if one.name in self._found]

    def run(self) -> None:
        """Run all; Ctrl-C ends it, and leaves what was found."""
        began = monotonic()
        end = began + QUICK_SECONDS if self._path.quick else None
        try:
            for phase in ("first", "alone", "beside", "bulk"):
                probes = [one for one in self._chosen if one.phase == phase]
                probes.sort(key=lambda one: one.order)  # flows, say, before what a bad flow delays
                together = phase == "beside" or (phase == "bulk" and self._path.quick)
                if together:
                    self._together(probes, end)
                else:
                    self._one_by_one(probes, end)
            rest = [one for one in self._chosen if one.name not in self._found]
            self._one_by_one(rest, end)
        except KeyboardInterrupt:
            self.interrupted = True
            self._tell_the_rest()
        self.elapsed = monotonic() - began

    def _one_by_one(self, probes: Sequence[Probe], end: float | None) -> None:
        for probe in probes:
            self._together([probe], end)

    def _together(self, probes: Sequence[Probe], end: float | None) -> None:
        """Run them side by side: in threads, so that Ctrl-C finds the main one free."""
        done = threading.Semaphore(0)
        threads, running = [], []
        limit = monotonic() + PROBE_SECONDS + max(self._path.idle, default=0.0)
        limit = limit if end is None else end
        for probe in probes:
            if (finding := self._without(probe)) is not None:
                self._note(probe, finding)
                continue
            what = (probe, self._path.until(limit), done)
            threads.append(threading.Thread(target=self._run, args=what, daemon=True))
            running.append(probe)
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                if not done.acquire(timeout=max(limit - monotonic(), 0) + GRACE_SECONDS):
                    self._abandon(running)
                    return
                if self._defect is not None:
                    raise self._defect
                self._tell_those_in_order()
        except BaseException:
            self._path.cancel()
            raise
        finally:
            grace = min(monotonic(), limit) + GRACE_SECONDS  # for all of them together
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(grace - monotonic(), 0))
            self._tell_those_in_order()

    def _abandon(self, running: Sequence[Probe]) -> None:
        """Note those that did not end in time: they wait for something that nobody can end."""
        for probe in running:
            if probe.name not in self._found:
                words = "it did not end in time: looking a name up takes too long, say"
                gate = probe.phase == "first"
                self._note(probe, hopeless(words) if gate else not_testable(words))

    def _without(self, probe: Probe) -> Finding | None:
        """Return the finding of a probe that need not run."""
        if self._ends_all:
            return not_testable(self._ends_all)
        if "tcp" in probe.needs and not self._path.is_tcp:
            return not_testable("a Unix socket has no TCP")
        if "direct" in probe.needs and self._path.direct is None:
            return not_testable(
                "there is nothing to compare with: --direct HOST:PORT was not given"
            )
        return None

    def _run(self, probe: Probe, path: Path, done: threading.Semaphore) -> None:
        began = perf_counter()
        try:
            finding = self._verdict(probe, path)
            finding.elapsed = perf_counter() - began
            self._note(probe, finding)
        except Cancelled:
            pass
        except Exception as error:  # a defect of ours: told in the thread that runs
            self._defect = error
        finally:
            done.release()

    def _verdict(self, probe: Probe, path: Path) -> Finding:
        """Run a probe; what it raises is a verdict as well."""
        try:
            return probe.run(path)
        except NotTestable as reason:
            return not_testable(str(reason))
        except Failed as reason:
            return failed(str(reason), reason.meaning)
        except OutOfTime:
            seconds = QUICK_SECONDS if path.quick else PROBE_SECONDS
            return not_testable((LATE if path.quick else TOO_LONG).format(seconds))
        except OSError as error:
            words = error.strerror or str(error)
            if error.errno in OURS:
                return not_testable(f"this machine is at a limit of its own: {words}")
            meaning = UNOPENED if isinstance(error, NotConnected) else ""
            return failed(words, meaning, errno=error.errno or 0)

    def _note(self, probe: Probe, finding: Finding) -> None:
        if probe.name in self._found:
            return  # it was given up before, and may have been told
        finding.name, finding.title, finding.group = probe.name, probe.title, probe.group
        if not finding.meaning:
            meanings = {"passed": probe.passed, "failed": probe.failed}
            finding.meaning = meanings.get(finding.verdict, "")
        many = self._found.get("connections")
        if (
            finding.verdict == FAILED
            and probe.phase in ("beside", "bulk")
            and many is not None
            and many.values.get("refused")
        ):
            finding.meaning += LIMITED
        if finding.ends_all and probe.phase == "first":
            self._ends_all = f"the probe {probe.name!r} failed: {finding.evidence}"
        self._found[probe.name] = finding

    def _tell_those_in_order(self) -> None:
        """Tell of what was found, as far as nothing before it is missing."""
        while self._told < len(self._chosen):
            name = self._chosen[self._told].name
            if name not in self._found:
                return
            self._tell(self._found[name])
            self._told += 1

    def _tell_the_rest(self) -> None:
        """Tell of what was found behind a probe that will not end any more."""
        for probe in self._chosen[self._told :]:
            if probe.name in self._found:
                self._tell(self._found[probe.name])
        self._told = len(self._chosen)
