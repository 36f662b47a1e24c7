"""The system calls of `fastecho serve`: the list in the reference, no more and no less; under it.

And other narrow places: a root that cannot be written to, an empty environment.
"""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import COMMAND, DEADLINE, exchange, serving
from namespaces import can_unshare
from reachable import reachable
from system_calls import everything, seen_in, traced

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "system-calls.md"
CALL = re.compile(r"`([a-z_0-9]+)`(°?)")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def listed() -> dict[str, bool]:
    """Return the calls of the reference, and whether each must be seen."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    found = [CALL.findall(row.split("|")[1]) for row in rows]
    return {name: not mark for row in found for name, mark in row}


def can_trace() -> bool:
    """Tell whether this process may watch others."""
    if shutil.which("strace") is None:
        return False
    watched = ["strace", "-o", os.devnull, "true"]
    return subprocess.run(watched, capture_output=True, check=False, timeout=10).returncode == 0


TRACES = pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to use it")


@ROOT
@TRACES
def test_the_list_is_what_is_called(tmp_path: Path) -> None:
    with reachable(12345) as folder:
        everything(traced(tmp_path), folder, user="12345:1")
    seen = seen_in(tmp_path)
    called = set().union(*seen.values())
    for name in sorted(called - set(listed())):
        where = [scenario for scenario, calls in seen.items() if name in calls]
        pytest.fail(f"{name} is not in {PAGE.name}: {', '.join(where)}")
    assert sorted(name for name, must in listed().items() if must and name not in called) == []


# --- under a filter ------------------------------------------------------------------------

FILTERED = """
import ctypes, os, sys
library, names, *command = sys.argv[1:]
seccomp = ctypes.CDLL(library, use_errno=True)
seccomp.seccomp_init.restype = ctypes.c_void_p
EPERM, ALLOW = 0x00050001, 0x7FFF0000
made = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(EPERM)))
for name in names.split(","):
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:  # otherwise this machine has none of that name
        seccomp.seccomp_rule_add(made, ctypes.c_uint32(ALLOW), number, 0)
if seccomp.seccomp_load(made) != 0:
    sys.exit("the filter was refused")
os.execvp(command[0], command)
"""
LIBRARY = ctypes.util.find_library("seccomp")
FILTERS = pytest.mark.skipif(LIBRARY is None, reason="needs libseccomp")


def filtered(*without: str) -> Sequence[str]:
    """Return a program that may only make the calls of the list, less some."""
    assert LIBRARY is not None
    names = ",".join(name for name in listed() if name not in without)
    return [COMMAND[0], "-c", FILTERED, LIBRARY, names, *COMMAND]


@ROOT
@FILTERS
def test_serve_lives_with_these_calls_alone() -> None:
    with reachable(12345) as folder:
        everything(lambda _: filtered(), folder, user="12345:1")


@FILTERS
def test_a_call_that_is_forbidden_at_the_start_is_told() -> None:
    done = subprocess.run(
        [*filtered("listen"), "serve", "--bind=127.0.0.1:0"],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "cannot listen on 127.0.0.1:0" in done.stderr
    assert "operation not permitted" in done.stderr


@FILTERS
def test_a_call_that_is_forbidden_later_is_told_and_the_server_goes_on() -> None:
    with serving(program=filtered("accept4")) as server, server.connect():
        assert server.process.stderr is not None
        heard = iter(server.process.stderr.readline, b"")
        assert any(b"the system forbids it" in one for one in heard)
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    assert "EPERM" in said[-1]


# --- nothing to write to, nothing to read from ---------------------------------------------

READ_ONLY = """
while read -r _ _ _ _ place _; do
    case $place in /proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$place" || exit 9 ;; esac
done < /proc/self/mountinfo
! touch /tmp/x /var/tmp/x "$0" 2>/dev/null || exit 9
exec env -i "$@"
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not can_unshare("--mount"), reason="needs root, to mount anew"
)
def test_a_root_that_cannot_be_written_to_and_an_empty_environment() -> None:
    program = ["unshare", "--mount", "sh", "-c", READ_ONLY, str(Path(__file__)), *COMMAND]
    with serving("--access-log", "--user=12345:1", program=program) as server:
        with server.connect() as client:
            assert exchange(client, b"x", 1) == b"x"
        code, said = server.end(signal.SIGTERM)
    assert code == 0, said
    assert not [one for one in said if "warning" in one or "error" in one]


def test_an_empty_environment() -> None:
    with serving(program=["env", "-i", *COMMAND]) as server, server.connect() as client:
        assert exchange(client, b"x", 1) == b"x"
