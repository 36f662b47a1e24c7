"""The report of a check: lines for people, and the JSON.

Lives here: signs and words, the keys of the JSON. Does not live here: what was found (probes/),
JUnit (junit.py), where it is written (cli/check.py).
"""

from __future__ import annotations

from fastecho._version import __version__
from fastecho.check.verdict import FAILED, NOT_TESTABLE, PASSED

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from fastecho.check.catalog import Probe
    from fastecho.check.path import Path
    from fastecho.check.runner import Run
    from fastecho.check.verdict import Finding

    Paint = Callable[[str, str], str]

__all__ = ["Lines", "document", "listing", "printable"]

SIGNS = {
    PASSED: ("\N{CHECK MARK}", "ok", "green"),
    FAILED: ("\N{BALLOT X}", "FAIL", "red"),
    NOT_TESTABLE: ("\N{EN DASH}", "-", "dim"),
}
"""Of each verdict: where the encoding has it, where not, and its colour."""
WIDTH = 18
"""Of the longest name of a probe."""


def printable(text: str) -> str:
    """Return text with everything escaped that could act on a terminal."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


class Lines:
    """The text for people.

    Args:
        is_unicode: whether the stream can show the signs.
        paint: gives text a colour, or not.
    """

    def __init__(self, *, is_unicode: bool, paint: Paint) -> None:
        self._column = 0 if is_unicode else 1
        self._paint = paint
        self._group = ""

    def head(self, path: Path) -> str:
        """Return the first line."""
        direct = "" if path.direct is None else f", beside {path.direct.address}"
        profile = "quick" if path.quick else "full"
        return f"checking {path.address}{direct} ({profile} profile, seed {path.seed})"

    def finding(self, one: Finding) -> Iterator[str]:
        """Yield the lines of a finding; of one that failed, also what it means."""
        if one.group != self._group:
            from fastecho.check.catalog import GROUPS

            self._group = one.group
            yield ""
            yield self._paint(GROUPS.get(one.group, one.group), "bold")
        sign, color = SIGNS[one.verdict][self._column], SIGNS[one.verdict][2]
        width = 1 if self._column == 0 else 4
        shown = self._paint(f"{sign:{width}}", color)
        evidence = printable(one.evidence)
        if one.verdict == NOT_TESTABLE:
            evidence = self._paint(f"not testable: {evidence}", "dim")
        yield f"  {shown} {one.name:{WIDTH}} {evidence}"
        if one.verdict == FAILED and one.meaning:
            yield f"{' ' * (4 + width + WIDTH)}{printable(one.meaning)}"

    def summary(self, run: Run, chosen: int) -> Iterator[str]:
        """Yield the last lines."""
        counts = count(run.findings)
        yield ""
        if run.interrupted:
            yield f"interrupted: {len(run.findings)} of {chosen} probes had ended"
        color = "red" if counts["failed"] else "green"
        words = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in counts.items())
        yield self._paint(f"{words}, in {run.elapsed:.1f} s", color)
        names = [one.name for one in run.findings if one.verdict == FAILED]
        if names:
            yield f"failed: {', '.join(names)}"


def count(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many have each verdict."""
    verdicts = [one.verdict for one in findings]
    return {name.replace(" ", "_"): verdicts.count(name) for name in SIGNS}


def document(run: Run, path: Path, started_at: str) -> dict[str, Any]:
    """Return the JSON of a check (docs/reference/check.md)."""
    return {
        "format": "fastecho-check",
        "version": 1,
        "fastecho": __version__,
        "target": str(path.address),
        "direct": None if path.direct is None else str(path.direct.address),
        "profile": "quick" if path.quick else "full",
        "seed": path.seed,
        "started_at": started_at,
        "elapsed_s": round(run.elapsed, 3),
        "interrupted": run.interrupted,
        "summary": count(run.findings),
        "probes": [one.to_json() for one in run.findings],
    }


def listing(probes: Sequence[Probe]) -> Iterator[str]:
    """Yield a line for each probe that there is."""
    from fastecho.check.catalog import GROUPS

    group = ""
    for probe in probes:
        if probe.group != group:
            group = probe.group
            yield f"{group}: {GROUPS.get(group, group)}"
        marks = [] if probe.quick else ["full profile only"]
        needs = {"direct": "needs --direct", "probes": "needs a server with --probes", "tcp": ""}
        marks += [needs.get(one, f"needs {one}") for one in probe.needs if needs.get(one, one)]
        more = f" ({', '.join(marks)})" if marks else ""
        yield f"  {probe.name:{WIDTH}} {probe.title}{more}"
