"""The fuzz targets hold on every input that is kept, and would notice a header that is wrong.

Lives here: the corpus of tests/fuzz, run with an ordinary compiler through a plain main. Does not
live here: looking for new inputs (`make fuzz`). An input that once failed goes into the corpus of
its target, and so into every run of the tests.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from test_c_headers import COMPILER, SANITIZERS, can_sanitize, run_program

ROOT = Path(__file__).resolve().parent.parent
FUZZ = ROOT / "tests" / "fuzz"
TARGETS = sorted(path.stem for path in FUZZ.glob("*.c") if path.stem != "replay")


THROUGH = {"chargen": "load_oneway"}
"""Headers that the target of another one feeds."""


def corpus(target: str) -> list[Path]:
    """Return the inputs that are kept for a target."""
    return sorted((FUZZ / "corpus" / target).iterdir())


def replay(target: str, headers: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build a target against these headers, and run it on its corpus."""
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", f"-I{headers}"]
    if can_sanitize(folder):
        flags += SANITIZERS
    sources = [str(FUZZ / f"{target}.c"), str(FUZZ / "replay.c")]
    program = folder / target
    command = [*COMPILER, *flags, *sources, "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (built.returncode, built.stderr) == (0, "")
    return run_program(program, *map(str, corpus(target)))


def test_targets_are_those_of_make_fuzz() -> None:
    (line,) = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("FUZZED")
    ]
    assert sorted(line.split(":= ")[1].split()) == TARGETS
    assert sorted(path.name for path in (FUZZ / "corpus").iterdir()) == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_target_holds_on_its_corpus(target: str, tmp_path: Path) -> None:
    assert 10 <= len(corpus(target)) <= 100, "enough to mean something, few enough to keep"
    result = replay(target, ROOT / "src_c", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("target", "right", "wrong"),
    [
        ("frame", "if (n > f->max_frame) /*", "if (n >= f->max_frame) /*"),
        ("frame", "if (size > f->max_frame)", "if (size > f->max_frame + 1)"),
        ("frame", "*scanned = n;", "*scanned = n + 1;"),
        ("frame", "newline[-1] == '\\r' ? 2 : 1", "newline[-1] == '\\n' ? 2 : 1"),
        ("frame", "if (eof && n > 0)", "if (eof && n > 1)"),
        ("buffer", "b->start >= held", "b->start + 1 >= held"),
        ("buffer", "b->scanned > n ? b->scanned - n : 0", "b->scanned"),
        ("buffer", "while (capacity < wanted)", "while (capacity + 1 < wanted)"),
        ("timers", "t->capacity - t->count <= t->spare", "t->capacity - t->count < t->spare"),
        ("timers", "for (child = first + 1; child", "for (child = first + 2; child"),
        (
            "timers",
            "    fe_timers_up(t, i);\n    fe_timers_down(t, last",
            "    fe_timers_down(t, last",
        ),
        ("histogram_v2", "if (left == 0 ||", "if ("),
        ("histogram_v2", "-(number + 1) >= left", "-(number + 1) > left"),
        ("histogram_v2", "(uint64_t)number > INT64_MAX - h->count", "number < 0"),
        ("histogram_v2", "if (lowest <= FE_HISTOGRAM_HIGHEST)", "if (lowest < UINT64_MAX)"),
        ("histogram_v2", "lowest > highest / 2", "lowest > highest"),
        ("histogram_v2", "!= n - FE_HISTOGRAM_V2_HEADER", "> n"),
        ("proxy", "&& n >= FE_PROXY_LINE_MAX)", "&& n > FE_PROXY_LINE_MAX)"),
        ("proxy", "length > FE_PROXY_MAX - FE_PROXY_FIXED", "length > FE_PROXY_MAX"),
        ("proxy", "if (byte == end && n > 0)", "if (byte == end)"),
        ("proxy", "if (seen & bit)", "if (seen & bit & 3)"),
        ("proxy", "            if (size > FE_PROXY_UNIQUE_ID_MAX)", "            if (size > 255)"),
        ("proxy", "zeros[4] = {0}", "zeros[4] = {1}"),
        ("proxy", "if (p->is_local || p->is_datagram ||", "if (p->is_local ||"),
        ("identify", "bytes[i] < 0x20 || bytes[i] > 0x7e", "bytes[i] < 0x20 || bytes[i] > 0x7f"),
        ("identify", "2 * 6 * FE_PROXY_PATH_MAX", "2 * 4 * FE_PROXY_PATH_MAX"),
        ("identify", "FE_IDENTIFY_AUTHORITY_MAX = 255", "FE_IDENTIFY_AUTHORITY_MAX = 256"),
        ("identify", "is_ipv6 ? address + sizeof(mapped) : address", "address"),
        ("identify", "address) : FE_PROXY_PATH_MAX", "address) : FE_PROXY_PATH_MAX - 1"),
        (
            "load_greeting",
            "n < FE_GREETING_LINE_MAX ? 0 : -1",
            "n <= FE_GREETING_LINE_MAX ? 0 : -1",
        ),
        (
            "load_greeting",
            "   if (!fe_json_value(j, depth - 1))",
            "   if (!fe_json_value(j, depth))",
        ),
        ("load_greeting", "return depth > 0 && fe", "return depth > 1 && fe"),
        ("load_greeting", "        into->size = 0;\n", ""),
        ("load_greeting", "all->each[i].size == name->size &&", "all->each[i].size &&"),
        ("address_text", "n == 0 || n > 5", "n > 5"),
        ("address_text", "if (at > 12 || ", "if (at > 14 || "),
        ("address_text", "if (gap == none || at == 16)", "if (gap == none)"),
        ("networks", "bits >= 96 && ", "bits >= 95 && "),
        ("networks", "rest == 0 || (a[bytes]", "rest < 2 || (a[bytes]"),
        ("networks", "bits <= (is_ipv6 ? 128u : 32u)", "bits <= 128u"),
        ("datagram", "port < FE_SERVICE_PORTS", "port <= FE_SERVICE_PORTS"),
        ("datagram", "a[0] < 224 &&", "a[0] < 225 &&"),
        ("datagram", "n * interval_ns > FE_BUCKET_NS", "n * interval_ns >= FE_BUCKET_NS"),
        ("datagram", "loop->rounds <= FE_LOOP_ROUNDS", "loop->rounds < FE_LOOP_ROUNDS"),
        ("datagram", "h || now_ns - loop->last_ns > FE_", "h || now_ns - loop->last_ns > 2 * FE_"),
        ("datagram", "d->data + d->size - n, n", "d->data, n"),
        ("datagram", "h = fe_mix(h, d->size);", "(void)0;"),
        ("load_udp", "number < flow->next_expected)", "number <= flow->next_expected)"),
        ("load_udp", "int is_older = kept == FE_UDP_REMEMBERED;", "int is_older = 0;"),
        ("load_udp", "now_ns <= place->given_ns", "now_ns < place->given_ns"),
        ("load_udp", "if (now_ns > place->given_ns", "if (now_ns >= place->given_ns"),
        (
            "load_udp",
            "        flow->newest = place->before;",
            "        flow->newest = flow->oldest;",
        ),
        ("load_udp", "return f->count != n;", "return 0;"),
        ("load_udp", "return is_first;", "return is_first >= 0;"),
        ("load_udp", "if (flow->oldest != flow->newest) {", "if (1) {"),
        ("load_oneway", "is_xinetd || at == FE_CHARGEN_NOWHERE ? 0 : at", "is_xinetd ? 0 : at"),
        ("load_oneway", "    c->done_at += right;\n", "    c->done_at += n;\n"),
        ("load_oneway", "f->expected = period[c->sent_at]", "f->expected = period[0]"),
        (
            "chargen",
            "memcmp(period + at, bytes + done, run)",
            "memcmp(period + at, bytes + done, run - 1)",
        ),
        (
            "chargen",
            "FE_CHARGEN_XINETD_RING ((uint32_t)93)",
            "FE_CHARGEN_XINETD_RING ((uint32_t)94)",
        ),
    ],
)
def test_wrong_header_is_noticed(target: str, right: str, wrong: str, tmp_path: Path) -> None:
    text = (ROOT / "src_c" / f"{target}.h").read_text()
    assert text.count(right) == 1
    headers = tmp_path / "headers"
    shutil.copytree(ROOT / "src_c", headers)
    (headers / f"{target}.h").write_text(text.replace(right, wrong))
    assert replay(THROUGH.get(target, target), headers, tmp_path).returncode != 0
