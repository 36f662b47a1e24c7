"""Shells complete `fastecho` and `man` shows it, by files that are made from its own parsers.

Every option of every command is in each file. bash and zsh are typed at, in a pseudo-terminal: what
the shell makes of a line and a Tab are the arguments that the command gets. fish is asked.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("shtab", reason="needs shtab, which makes the completions")

from fastecho.cli import COMMANDS
from fastecho.cli.serve import EXTRA
from fastecho.measure.plan import OPTIONS
from fastecho.models import NAMES
from fastecho.settings import SETTINGS
from manual.commands import options, parsers, short
from manual.shell_files import MAN, SHELLS, main

DEADLINE = 20.0
END = b"\x1edone"
# Files for options that take files.
(CONFIG, RESULT) = ("settings.toml", "results.json")
LINES = [
    ("fastecho ser\t", ["serve"]),
    ("fastecho serve --fram\t", ["serve", "--frame"]),
    ("fastecho serve --frame rec\t", ["serve", "--frame", "recv"]),
    ("fastecho serve --frame li\t", ["serve", "--frame", "line"]),
    ("fastecho serve --frame le\t", ["serve", "--frame", "length"]),
    ("fastecho serve --identify --model th\t", ["serve", "--identify", "--model", "threaded"]),
    ("fastecho serve --config sett\t", ["serve", "--config", CONFIG]),
    ("fastecho bench :7777 --schedule p\t", ["bench", ":7777", "--schedule", "poisson"]),
    ("fastecho bench -c 8 --close r\t", ["bench", "-c", "8", "--close", "reset"]),
    ("fastecho ping localhost --send-proxy v1 --json res\t",
     ["ping", "localhost", "--send-proxy", "v1", "--json", RESULT]),
    ("fastecho check --only half\t", ["check", "--only", "half-close"]),
    ("fastecho models ep\t", ["models", "epoll"]),
    ("fastecho report --baseline res\t res\t", ["report", "--baseline", RESULT, RESULT]),
]  # fmt: skip


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing."""
    lacks = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(lacks), reason=f"needs {', '.join(programs)}")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the files where an installation puts them."""
    folder = tmp_path_factory.mktemp("prefix")
    main(str(folder))
    return folder


class Shell:
    """A shell at a terminal, in which `fastecho` only tells what it is given."""

    def __init__(self, command: list[str], setup: str, folder: Path) -> None:
        for name in (CONFIG, RESULT):
            (folder / name).touch()
        self._told = folder / "told"
        self._fd, inner = pty.openpty()
        self._process = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=folder,
            env={"HOME": str(folder), "PATH": os.environ["PATH"], "TERM": "dumb", "LC_ALL": "C"},
            start_new_session=True,
        )
        os.close(inner)
        tell = f"""fastecho() {{ printf '%s\\n' "$@" > {self._told}; printf '\\036done'; }}"""
        self._type(f"{setup}\n{tell}\nfastecho ready\n")
        self._wait()

    def given(self, line: str) -> list[str]:
        """Type a line and Enter; return the arguments that the command gets."""
        self._type(f"{line}\n")
        self._wait()
        return self._told.read_text().splitlines()

    def end(self) -> None:
        """Leave nothing behind."""
        self._process.kill()
        self._process.wait(DEADLINE)
        os.close(self._fd)

    def _type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def _wait(self) -> None:
        seen, limit = b"", time.monotonic() + DEADLINE
        while END not in seen:
            left = max(limit - time.monotonic(), 0)
            assert select.select([self._fd], [], [], left)[0], seen
            seen += os.read(self._fd, 65536)


@pytest.fixture
def bash(prefix: Path, tmp_path: Path) -> Iterator[Shell]:
    """Return a bash."""
    shell = Shell(["bash", "--norc", "-i"], f". {prefix / SHELLS['bash']}", tmp_path)
    yield shell
    shell.end()


@pytest.fixture
def zsh(prefix: Path, tmp_path: Path) -> Iterator[Shell]:
    """Return a zsh that finds the file by its fpath."""
    where = (prefix / SHELLS["zsh"]).parent
    setup = f"fpath=({where} $fpath); autoload -U compinit; compinit -u -D"
    shell = Shell(["zsh", "-f", "-i"], setup, tmp_path)
    yield shell
    shell.end()


@needs("bash")
@pytest.mark.parametrize(("typed", "given"), LINES, ids=[line for line, _ in LINES])
def test_bash_completes(bash: Shell, typed: str, given: list[str]) -> None:
    assert bash.given(typed) == given


@needs("zsh")
@pytest.mark.parametrize(("typed", "given"), LINES, ids=[line for line, _ in LINES])
def test_zsh_completes(zsh: Shell, typed: str, given: list[str]) -> None:
    assert zsh.given(typed) == given


def ask_fish(prefix: Path, folder: Path, *lines: str) -> list[set[str]]:
    """Return what fish offers for each line; it finds the file by itself."""
    # fish looks for completions of commands that there are.
    command = folder / "bin" / "fastecho"
    command.parent.mkdir()
    command.touch(mode=0o755)
    code = "; ".join(f"complete -C '{line}'; echo END" for line in lines)
    done = subprocess.run(
        ["fish", "--command", code],
        cwd=folder,
        env={
            "HOME": str(folder),
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "XDG_DATA_DIRS": f"{prefix / 'share'}:/usr/share",
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.split("END\n")[:-1]
    assert len(answers) == len(lines)
    return [{line.partition("\t")[0] for line in answer.splitlines()} for answer in answers]


@needs("fish")
def test_fish_completes(prefix: Path, tmp_path: Path) -> None:
    for name in (CONFIG, RESULT):
        (tmp_path / name).touch()
    lines = [(line.rstrip("\t"), given[-1]) for line, given in LINES if line.count("\t") == 1]
    answers = ask_fish(prefix, tmp_path, *(line for line, _ in lines))
    assert answers == [{last} for _, last in lines]


@needs("bash")
def test_bash_offers_every_option_of_every_command(prefix: Path, tmp_path: Path) -> None:
    for name, parser in parsers().items():
        code = (
            f". {prefix / SHELLS['bash']}; COMP_WORDS=(fastecho {name} -); COMP_CWORD=2; "
            "_shtab_fastecho fastecho - fastecho; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        said = subprocess.check_output(["bash", "--norc", "-c", code], text=True, timeout=DEADLINE)
        assert set(said.split()) == set(options(parser)), name


@needs("fish")
def test_fish_offers_every_option_of_every_command(prefix: Path, tmp_path: Path) -> None:
    every = parsers()
    # Behind one - fish offers the short ones only, if there are any.
    lines = [f"fastecho {name} {dashes}" for name in every for dashes in ("-", "--")]
    answers = ask_fish(prefix, tmp_path, *lines)
    for number, (name, parser) in enumerate(every.items()):
        offered = answers[2 * number] | answers[2 * number + 1]
        assert set(options(parser)) <= offered, name


def test_zsh_and_the_man_page_name_every_option_of_every_command(prefix: Path) -> None:
    zsh = (prefix / SHELLS["zsh"]).read_text()
    page = (prefix / MAN).read_text().replace("\\-", "-")
    for name, parser in parsers().items():
        found = re.search(rf"^_shtab_fastecho_{name}_options=\(\n(.*?)^\)", zsh, re.M | re.S)
        assert found, name
        spelled = set(re.findall(r"(?<![\w-])--?[\w-]+(?=[\[,}\"])", found[1]))
        assert set(options(parser)) <= spelled, name
        section = page.partition(f".SH FASTECHO {name.upper()}\n")[2].partition("\n.SH ")[0]
        heads = re.findall(r"\\fB(-[\w-]+)\\fR", section)
        assert sorted(heads) == sorted(options(parser)), name


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_knows_every_command_and_every_choice(prefix: Path, shell: str) -> None:
    text = (prefix / SHELLS[shell]).read_text()
    words = set(re.findall(r"[\w-]+", text))
    checks = [one.check for one in OPTIONS]
    choices = {word for one in (*SETTINGS, *EXTRA) for word in one.choices}
    choices |= {word for check in checks for word in getattr(check, "choices", ())}
    assert {"recv", "poisson", "optional", "info"} <= choices
    assert {*COMMANDS, *NAMES, *choices} - words == set()


@needs("man", "groff")
def test_man_shows_the_page_without_a_warning(prefix: Path) -> None:
    folder = prefix / "share" / "man"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "100"}
    command = ["man", "--warnings=w", "-P", "cat", "-M", str(folder), "fastecho"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(".\b", "", done.stdout)
    assert "\n       fastecho - exact echo server" in shown
    assert "\n       --frame FORM\n" in shown
    assert "fastecho serve --frame line --prefix 'you said: '\n" in shown


@needs("mandoc")
def test_mandoc_has_nothing_to_remark(prefix: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wall", str(prefix / MAN)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("end after so many probes (default: go on)", "end after so many probes"),
        ("on SIGTERM, seconds to go on; 0: none", "on SIGTERM, seconds to go on"),
        ("all but these: of any group", "all but these"),
        ("print the version", "print the version"),
    ],
)
def test_help_in_a_menu_is_short(text: str, kept: str) -> None:
    assert short(text) == kept
