"""`fastecho` around its sub-commands: finding them, help, output that fails, defects, imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run

import fastecho
from fastecho.cli import COMMANDS, serve
from fastecho.settings import SETTINGS


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"fastecho {fastecho.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "fastecho: no command: serve, connect, "),
        (["server"], "fastecho: there is no command 'server': did you mean serve?"),
        (["zzz"], "fastecho: there is no command 'zzz': see fastecho --help"),
        (["--verison"], "fastecho: there is no option '--verison': did you mean --version?"),
        (["\x1b[31m"], "fastecho: there is no command '\\x1b[31m'"),
    ],
)
def test_a_wrong_command_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str
) -> None:
    assert_refused(run(*arguments), 2, sentence)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_has_an_example(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "example" in done.stdout
    assert "usage: fastecho" in done.stdout


def test_help_names_every_option_its_default_and_what_sighup_reloads() -> None:
    text = " ".join(run("serve", "--help", COLUMNS="200").stdout.split())
    for setting in (*SETTINGS, serve.LOG_LEVEL):
        assert f" {setting.flag}" in text
        live = "; SIGHUP reloads it" if setting.live or setting.name == "log_level" else ""
        assert f"(default: {serve._default_text(setting)}{live})" in text


@pytest.mark.parametrize("arguments", [["--version"], ["serve", "--help"]])
def test_a_reader_that_has_left_is_silent(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=DEADLINE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("arguments", [["--version"], ["serve", "--print-config"]])
def test_a_disk_that_is_full_is_one_sentence(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    done.stdout = ""
    assert_refused(done, 1, "No space left on device")


def test_a_defect_is_one_line_and_a_traceback_on_request() -> None:
    code = (
        "import sys; from fastecho.cli import main, serve\n"
        "def run(args): raise ZeroDivisionError('two\\nlines')\n"
        "serve.run = run; sys.exit(main(['serve']))"
    )
    for wanted in ("", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env=environment(FASTECHO_TRACEBACK=wanted),
            check=False,
        )
        assert done.returncode == 1
        if wanted:
            assert "Traceback" in done.stderr
        else:
            assert done.stderr.startswith(
                "fastecho serve: internal error: ZeroDivisionError: two\\nlines ("
            )
            assert done.stderr.count("\n") == 1


HEAVY = {"asyncio", "dataclasses", "difflib", "inspect", "ipaddress", "tomllib", "typing"}


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--version"], HEAVY | {"argparse", "socket", "logging", "threading", "re"}),
        (["serve", "--print-config"], HEAVY | {"socket", "logging", "threading"}),
        (["ping", "127.0.0.1:1"], HEAVY | {"json", "logging", "random", "threading"}),
        (["bench", "--help"], HEAVY | {"socket", "logging", "threading", "json"}),
    ],
)
def test_a_start_imports_only_what_it_needs(arguments: list[str], unwanted: set[str]) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from fastecho.cli import main\n"
        f"main({arguments!r})\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    imported = set(done.stderr.split())
    assert "fastecho.cli" in imported
    assert imported & unwanted == set()


def test_a_second_ctrl_c_while_the_first_one_ends_the_command_is_no_traceback() -> None:
    """It comes in the call that leaves Ctrl-C to the system from there on."""
    code = """if True:
        import signal, sys
        from fastecho import cli

        def interrupted(*_):
            raise KeyboardInterrupt

        def once(*_):
            signal.signal = signal_
            raise KeyboardInterrupt

        signal_, signal.signal, cli._run = signal.signal, once, interrupted
        code = cli.main()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        sys.exit(code)
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
