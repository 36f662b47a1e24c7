"""The report of a check as JUnit XML, for pipelines.

Lives here: a test case for each probe. What failed is a <failure>, what was not testable <skipped>.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from fastecho.check.report import count
from fastecho.check.verdict import FAILED, NOT_TESTABLE

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.runner import Run

__all__ = ["junit"]

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold."""


def junit(run: Run, path: Path, started_at: str) -> str:
    """Return the document."""
    findings, counts = run.findings, count(run.findings)
    numbers = {
        "tests": str(len(findings)),
        "failures": str(counts["failed"]),
        "errors": "0",
        "skipped": str(counts["not_testable"]),
        "time": f"{run.elapsed:.3f}",
    }
    root = Element("testsuites", {"name": "fastecho check", **numbers})
    name = _text(f"fastecho check {path.address}")
    suite = SubElement(root, "testsuite", {"name": name, "timestamp": started_at, **numbers})
    for one in findings:
        case = SubElement(
            suite,
            "testcase",
            classname=f"fastecho.check.{one.group}",
            name=one.name,
            time=f"{one.elapsed:.3f}",
        )
        if one.verdict == FAILED:
            failure = SubElement(case, "failure", message=_text(one.evidence), type="failed")
            failure.text = _text(one.meaning)
        elif one.verdict == NOT_TESTABLE:
            SubElement(case, "skipped", message=_text(one.evidence))
        else:
            SubElement(case, "system-out").text = _text(one.evidence)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _text(text: str) -> str:
    return FORBIDDEN.sub(lambda one: ascii(one[0])[1:-1], text)
