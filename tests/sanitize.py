"""Run the tests on extensions that a sanitizer watches, in a copy of the tree below build/.

Lives here: what is built, which environment the sanitizers need, which tests are no use under
them and why (NOT_UNDER), and after which a process is not searched for leaks (LEAKS_OF_PYTHON).
Does not live here: compiler flags (setup.py), obeying the tables (conftest.py), the proof that a
fault is found (test_sanitize.py).

    python tests/sanitize.py [--quick] address,undefined [ARGUMENTS OF PYTEST]

The ordinary build in the tree stays as it is: what is needed is copied to build/sanitize/NAMES,
compiled there and run there. The copy is kept, so that the next run compiles what has changed.

CPython itself is not compiled with a sanitizer; its allocator, locks and threads are seen all the
same, because the runtime is loaded first and stands before malloc and pthread. PYTHONMALLOC=malloc
gives every object an allocation of its own. Every process writes its reports to a file: a process
that a test kills, or whose exit code nobody looks at, reports as well. One report fails the run.

Leaks are looked for at the exit of every process, the one that runs the tests included, except
those that LEAKS_OF_PYTHON names. No report is suppressed. Compilers, which leak by design, are
started without the runtime.

GCC's libubsan, loaded beside libasan, writes to standard error whatever log_path says, because
libasan's function of the same name takes the path. So it ends the process instead
(-fno-sanitize-recover), by which the test that looks at the process fails.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("fastecho", "src_c", "tests", "benchmarks", "docs", "deploy", "examples", "manual")
COPIED_FILES = ("setup.py", "pyproject.toml", "Makefile", "README.md", "LICENSE", "MANIFEST.in")
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so", "undefined": "libubsan.so"}
"""What must be loaded first, strongest first: libasan holds all of libubsan."""
REPORT = 99
"""Exit code of a process that a sanitizer has something to say about."""
SLOWER = 5
"""Times as long as without a sanitizer, for the limit of one test."""

QUICK = (
    "test_sanitize", "test_echo", "test_frames", "test_half_close", "test_reset", "test_drain",
    "test_fork", "test_stats", "test_load", "test_errno", "test_proxy",
    "test_proxy_ends", "test_identify",
)  # fmt: skip
"""What a change must pass: each way through both extensions, threads, forks and teardown."""


class Skip(NamedTuple):
    """Tests that are no use under some sanitizers, or while lines are counted."""

    where: str
    """Start of the test's id, relative to tests/."""
    under: frozenset[str]
    reason: str


COVERAGE = "coverage"
"""Watches a process as well, while lines are counted (coverage/measure.py)."""
ANY = frozenset(RUNTIMES) | {COVERAGE}
ADDRESS, THREAD = frozenset({"address"}), frozenset({"thread"})
COUNTED = frozenset({COVERAGE})
NOT_OURS = "runs no compiled code of the package in this process"
PROMPT = "its reader is too slow there to see each byte alone"
KEEPS = "it may not grow: a sanitizer keeps what was freed"
QUICKLY = "it holds the deadlines of a quick program"
OTHERS = "the programs of others that it starts leak, and it holds the deadlines of quick ones"
SHELL = "dash, which starts the program, does not start with libtsan loaded"
DAEMON = "CPython ends a daemon thread without releasing what its frames hold"
FORKED = "a forked child has lost the stacks that held what the parent's threads used"
ISOLATED = "python -I ignores PYTHONMALLOC, and LSan does not search the arenas of pymalloc"
IMPORTS = "coverage.py imports modules of its own"
ITSELF = "what watches the process makes system calls of its own"
DROPPED = "the user that it becomes may not write what was counted"
UNTRACED = "the kernel lets nobody trace a process that has changed its user, and LSan is a tracer"
NOT_UNDER = (
    Skip("test_source_rules.py", ANY, NOT_OURS),
    Skip("test_makefile.py", ANY, NOT_OURS),
    Skip("test_models.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_models_trouble.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_models.py::test_a_signal_that_comes_with_the_first_line", COUNTED, QUICKLY),
    Skip("test_models_run.py", frozenset(RUNTIMES), QUICKLY),
    Skip("test_queues.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_queues_kernel.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_queues_said.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_syn_queue.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_cli_queues.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_check_boxes.py", frozenset(RUNTIMES), QUICKLY),
    Skip("test_check_cli.py", frozenset(RUNTIMES), QUICKLY),
    Skip("test_check_datagrams.py", frozenset(RUNTIMES), QUICKLY),
    Skip("test_check_line.py", frozenset(RUNTIMES), QUICKLY),
    Skip("test_how_to_queues.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_how_to_check.py", frozenset(RUNTIMES), OTHERS),
    Skip("test_how_to_udp.py", frozenset(RUNTIMES), OTHERS),
    Skip("test_how_to_throughput.py", frozenset(RUNTIMES), OTHERS),
    Skip("test_how_to_haproxy.py", frozenset(RUNTIMES), OTHERS),
    Skip("test_how_to_restart.py", frozenset(RUNTIMES), OTHERS),
    Skip("test_how_to_systemd.py", frozenset(RUNTIMES), OTHERS),
    Skip("test_passed.py::test_systemd_passes", frozenset(RUNTIMES), OTHERS),
    Skip("test_passed.py::test_processes_that_take_turns", THREAD, QUICKLY),
    Skip("test_units.py", ANY, NOT_OURS),
    Skip("test_check_pattern.py", frozenset(RUNTIMES), NOT_OURS),
    Skip("test_system_calls.py", ANY, ITSELF),
    Skip("test_rights.py", COUNTED, DROPPED),
    Skip("test_rights.py::test_who_is_not_root", frozenset(RUNTIMES), OTHERS),
    Skip("test_tcp_info.py::test_answers_that_nobody_waits_for", frozenset(RUNTIMES), KEEPS),
    Skip("test_cluster.py::test_ctrl_c_beside_a_worker", THREAD, QUICKLY),
    Skip("test_cluster.py::test_ctrl_c_in_a_terminal", THREAD, QUICKLY),
    Skip("test_tutorial.py", ANY, NOT_OURS),
    Skip("test_packaging.py", ANY, NOT_OURS),
    Skip("test_shell_files.py", ANY, NOT_OURS),
    Skip("test_docs_commands.py", ANY, NOT_OURS),
    Skip("test_docs_site.py", ANY, NOT_OURS),
    Skip("test_import_arrows.py", ANY, NOT_OURS),
    Skip("test_benchmarks.py", ANY, NOT_OURS),
    Skip("test_c_headers.py", ANY, "its programs are built with sanitizers of their own"),
    Skip("test_fuzz.py", ANY, "its programs are built with sanitizers of their own"),
    Skip("soak/test_soak.py", ANY, KEEPS),
    Skip("coverage/test_measure.py", ANY, NOT_OURS),
    Skip("test_load_runs.py::test_deep_pipelines_are", ANY, "it counts what is done in its time"),
    Skip("test_fault_times.py::test_slice_gives_a_prompt", frozenset(RUNTIMES), PROMPT),
    Skip("test_callback_waiting.py::test_what_is_asked_for", frozenset(RUNTIMES), KEEPS),
    Skip("test_clock.py", ANY, "libfaketime and the sanitizers take the same calls over"),
    Skip("test_pytest_plugin.py::test_start_and_end_take", ANY, "it holds the time of quick code"),
    Skip("wheel/test_contents.py", ANY, NOT_OURS),
    Skip("wheel/test_everywhere.py", ANY, NOT_OURS),
    Skip("test_black_hole.py::test_the_command_warns_of_other", THREAD, SHELL),
    Skip("test_black_hole.py::test_too_few_descriptors", THREAD, SHELL),
    Skip("test_cli_ping.py::test_json_needs_a_standard_output", THREAD, SHELL),
    Skip("test_deploy.py::test_pod", THREAD, SHELL),
    Skip("test_cli_connect_pipe.py::test_closed_standard_", THREAD, SHELL),
    Skip("test_cli_serve.py::test_a_signal_that_was_ignored_stays", THREAD, SHELL),
    Skip("test_cli_serve.py::test_too_few_descriptors_to_serve", THREAD, SHELL),
    Skip("test_cli_serve.py::test_more_connections_than_descriptors", THREAD, SHELL),
    Skip("test_access_log.py::test_serve_goes_on_and_ends_while_nobody", THREAD, SHELL),
    Skip("test_errno_accept.py::test_command_with_64_descriptors", THREAD, SHELL),
    Skip("test_surroundings.py::test_standard_streams_may_be_closed", THREAD, SHELL),
    Skip("test_cli_connect_pipe.py::test_pipe_needs_neither_readline_nor", COUNTED, IMPORTS),
    Skip(
        "endings/test_endings.py::test_signals_at_random",
        COUNTED,
        "coverage.py starts with the process, and may keep a Ctrl-C to itself",
    ),
    Skip(
        "test_surroundings.py::test_other_interpreters_are_told",
        COUNTED,
        "coverage.py cannot be imported into another interpreter of a process",
    ),
    Skip(
        "faults/test_faults.py::test_calls_of_python_itself_are_left_alone",
        COUNTED,
        "what writes the counts at exit is linked into the extensions, and gets no memory either",
    ),
)
LEAKS_OF_PYTHON = (
    Skip("test_access_log.py::test_serve_goes_on_and_ends_while_nobody", ADDRESS, DAEMON),
    Skip("test_cli_connect.py", ADDRESS, DAEMON),
    Skip("test_cluster.py", ADDRESS, DAEMON),
    Skip("test_cli_connect_pipe.py", ADDRESS, DAEMON),
    Skip("test_identify_client.py", ADDRESS, DAEMON),
    Skip("test_send_proxy.py::test_connect", ADDRESS, DAEMON),
    Skip("test_cli_serve.py", ADDRESS, DAEMON),
    Skip("test_reload.py", ADDRESS, DAEMON),
    Skip("test_handover_cli.py", ADDRESS, DAEMON),
    Skip("test_rights.py", ADDRESS, UNTRACED),
    Skip("test_serve_forever.py", ADDRESS, DAEMON),
    Skip("test_surroundings.py", ADDRESS, DAEMON),
    Skip("test_without_extension.py", ADDRESS, DAEMON),
    Skip("test_examples.py", ADDRESS, DAEMON),
    Skip("test_exit.py", ADDRESS, DAEMON),
    Skip("endings/test_endings.py", ADDRESS, DAEMON),
    Skip("test_fork.py::test_the_exit_of_a_child", ADDRESS, FORKED),
    Skip("test_fork.py::test_a_child_that_leaves_with", ADDRESS, FORKED),
    Skip("test_cli.py::test_a_start_imports_only", ADDRESS, ISOLATED),
    Skip("test_client_connecting.py::test_importing_the_client_is_cheap", ADDRESS, ISOLATED),
)
"""Tests whose programs are watched, but not searched for leaks when they exit."""


def reason_in(table: tuple[Skip, ...], test: str, names: list[str]) -> str | None:
    """Return why a table names a test (its id, from tests/ on) under these names, or None."""
    for skip in table:
        if test.startswith(skip.where) and skip.under.intersection(names):
            return skip.reason
    return None


def chosen() -> list[str]:
    """Return the sanitizers that watch this process; none in an ordinary run."""
    return [name for name in os.environ.get("FASTECHO_SANITIZE", "").split(",") if name]


def watching() -> list[str]:
    """Return the sanitizers that watch this process, and COVERAGE if its lines are counted."""
    return chosen() + [COVERAGE] * (os.environ.get("FASTECHO_COVERAGE") == "1")


def runtime(names: list[str]) -> Path:
    """Return the library that must be loaded first; end the program when there is none."""
    library = next(RUNTIMES[name] for name in RUNTIMES if name in names)
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    said = subprocess.run(
        [*compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True
    )
    path = Path(said.stdout.strip())
    if not path.is_absolute():
        raise SystemExit(f"{library} is missing: {compiler[0]} comes without this sanitizer")
    return path


def environment(names: list[str], folder: Path) -> dict[str, str]:
    """Return the environment in which programs are watched and report to files in `folder`."""
    common = f"exitcode={REPORT}:log_path={folder / 'report'}"
    return {
        **os.environ,
        "FASTECHO_SANITIZE": ",".join(names),
        "LD_PRELOAD": str(runtime(names)),
        "CC": f"env -u LD_PRELOAD {os.environ.get('CC', 'gcc')}",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(folder.parent),
        "ASAN_OPTIONS": f"{common}:detect_leaks=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": f"{common}:print_stacktrace=1",
        # A fork in a process with threads is what the tests of fork are about.
        "TSAN_OPTIONS": f"{common}:die_after_fork=0:history_size=4:second_deadlock_stack=1",
    }


def copy_tree(target: Path) -> None:
    """Make `target` hold the sources as they are now; what was compiled there is kept."""
    sources = [ROOT / name for name in COPIED_FILES]
    for name in COPIED:
        sources += [path for path in (ROOT / name).rglob("*") if path.is_file()]
    wanted = set()
    for source in sources:
        if source.suffix in {".so", ".pyc"}:
            continue
        copy = target / source.relative_to(ROOT)
        wanted.add(copy)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
    for name in COPIED:
        for path in [*(target / name).rglob("*")]:
            if path.is_file() and path not in wanted and path.suffix != ".so":
                path.unlink()


def take_reports(folder: Path) -> int:
    """Print what the sanitizers have written, and return how many processes had to report."""
    reports = sorted(folder.glob("report.*"))
    for path in reports:
        print(f"--- {path.name}\n{path.read_text(errors='replace')}", flush=True)
    return len(reports)


def run(names: list[str], quick: bool, arguments: list[str]) -> int:
    """Build, run the tests, and return the exit code: 0 when all passed without a report."""
    label = "-".join(names)
    tree = ROOT / "build" / "sanitize" / label
    copy_tree(tree)
    folder = tree / "reports"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    watched = environment(names, folder)
    print(f"sanitize: {label}", flush=True)
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=tree,
        env={**os.environ, "FASTECHO_SANITIZE": ",".join(names)},
        check=True,
    )
    if quick and not arguments:
        arguments = [f"tests/{name}.py" for name in QUICK]
    limit = 60 * SLOWER
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", f"--timeout={limit}", *arguments],
        cwd=tree,
        env=watched,
    )
    reports = take_reports(folder)
    print(f"sanitize: {label}: pytest {tests.returncode}, reports {reports}", flush=True)
    return 1 if tests.returncode or reports else 0


def main() -> int:
    """Run the tests under one set of sanitizers."""
    parser = argparse.ArgumentParser(description="Run the tests under sanitizers.")
    parser.add_argument("--quick", action="store_true", help="a representative part of the tests")
    parser.add_argument("names", help="address, undefined, thread; joined by commas")
    options, arguments = parser.parse_known_args()
    names = [name for name in RUNTIMES if name in options.names.split(",")]
    if ",".join(sorted(names)) != ",".join(sorted(options.names.split(","))):
        parser.error(f"name some of {', '.join(RUNTIMES)}, not {options.names!r}")
    return run(names, options.quick, arguments)


if __name__ == "__main__":
    sys.exit(main())
