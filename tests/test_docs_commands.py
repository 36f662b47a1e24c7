"""Every command and program that the documentation shows is run, here or by a test named here.

Commands stand in fenced blocks: `console` has prompts and what is printed, `sh` has none, `python`
is a program. Here a page is one session of bash. A server in the foreground stays until the next
one or the next heading, as in a second terminal; where none was started, one is there. Of what a
block shows, the words at the start of each line must be printed: figures differ.

What is not run stands in EXCEPTIONS with its reason, and is read by the parser of its command.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import serving
from terminal import Terminal
from tutorial_session import HOST, Command, Program, Session

from fastecho.cli import COMMANDS
from fastecho.cli._parser import Parser

pytest.importorskip("shtab", reason="needs shtab, by which the parsers are read")

from manual.commands import options, parsers

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([
    *(ROOT / name for name in (
        "README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"
    )),
    *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("docs/**/*.md"),
    *(path for path in ROOT.glob("deploy/**/*") if path.is_file()),
])  # fmt: skip
OTHERS = {
    "docs/tutorial/": "test_tutorial.py",
    "docs/how-to/behind-haproxy.md": "test_how_to_haproxy.py",
    "docs/how-to/check-a-path.md": "test_how_to_check.py",
    "docs/how-to/connections-time-out.md": "test_how_to_queues.py",
    "docs/how-to/restart.md": "test_how_to_restart.py",
    "docs/how-to/systemd.md": "test_how_to_systemd.py",
    "docs/how-to/udp.md": "test_how_to_udp.py",
    "docs/how-to/test-your-client.md": "test_examples.py",
    "docs/how-to/throughput.md": "test_how_to_throughput.py",
    "docs/how-to/embed-a-server.md": "test_examples.py",
}
"""Pages whose `console` and `python` blocks another test runs, test_examples.py `python` alone; the
others are looked at here."""
SHOWN = {"console", "sh", "python"}
"""Kinds of blocks that are run."""
OF_OTHER_PROGRAMS = {"haproxy", "nginx"}
"""Kinds that hold no command."""
MACHINES = "needs other machines"
MINUTES = "measures for minutes; its options are parsed"
EXCEPTIONS = {
    ("README.md", "$ fastecho connect"): "a conversation: has a test of its own below",
    ("README.zh-CN.md", "$ fastecho connect"): "a conversation: has a test of its own below",
    ("README.md", "$ fastecho queues 8000"): "from connections-time-out.md, which is run",
    ("README.zh-CN.md", "$ fastecho queues 8000"): "from connections-time-out.md, which is run",
    ("CONTRIBUTING.md", "FASTECHO_SANITIZE=address .venv/bin/python setup.py build_ext --inplace"):
        "replaces the build in the tree; `make sanitize` does the same beside it",
    ("CONTRIBUTING.md", ".venv/bin/cibuildwheel --platform linux --archs x86_64,aarch64 \\"):
        "writes .ci/wheel-builds; `make lint` runs it and compares",
    ("benchmarks/README.md", "python -m benchmarks.echo"): MINUTES,
    ("docs/how-to/behind-haproxy.md", "fastecho serve --bind 10.0.0.11:7777"): MACHINES,
    ("docs/how-to/beyond-one-machine.md", "python -m benchmarks.echo"): MINUTES,
    ("docs/how-to/beyond-one-machine.md", "fastecho serve --bind :7777"): MACHINES,
    ("docs/how-to/many-machines.md", "at=$(date -u -d '+10 seconds'"): MACHINES,
    ("docs/how-to/many-machines.md", "pip install '.[distributed]'"): "needs a package index",
    ("docs/how-to/many-machines.md", "dask scheduler"): MACHINES,
    ("docs/how-to/many-machines.md", "fastecho bench 192.0.2.7:7777 -c 64 -d 30 "): MACHINES,
    ("docs/how-to/many-machines.md", "at=$(date -u -d '+60 seconds'"): "needs a Kubernetes cluster",
    ("docs/how-to/systemd.md", "systemctl daemon-reload"): "tests/network/over_systemd.py does",
    ("docs/how-to/systemd.md", "python -m benchmarks.restart --by socket-unit"): MINUTES,
    ("docs/reference/metrics.md", "$ pip install '.[metrics]'"): "needs a package index",
    ("docs/reference/models.md", "$ fastecho models --run"): MINUTES,
    ("docs/reference/proxy.md", "$ fastecho ping balancer:7 --send-proxy v2"): MACHINES,
    ("deploy/Containerfile", "podman build"): "needs a registry of images",
    ("deploy/haproxy.cfg", "fastecho serve --bind 10.0.0.11:7777"): MACHINES,
}  # fmt: skip
"""Blocks that no test runs, by page and how their first line begins, with the reason."""
ELSEWHERE = {
    ("docs/reference/check.md", "$ fastecho check"): "behind a proxy that carries no half-close",
    ("docs/reference/queues.md", "$ fastecho queues"): "of another server",
}
"""Blocks that are run, and show what is printed in another place than this one."""
TOOLS = "fastecho|podman|docker|kubectl|systemctl|python|pip|make"
"""What a command begins by that stands in a comment."""
NEEDS_A_SERVER = re.compile(r"127\.0\.0\.1:7777|balancer:7777|127\.0\.0\.1 7777|queues 7777")
SERVER = "fastecho serve --bind 127.0.0.1:7777 --log-level error"
BEFORE = {
    "docs/reference/report.md": [
        f"fastecho bench --server -c 2 -d 400ms --interval 50ms --json {name}.json 2> {name}.txt"
        for name in ("run", "before", "after", "node-1", "node-2")
    ]
}
"""What must be there before a page begins, by commands."""
PIECES = {
    ("README.md", "def test_my_client(echo_server):"): """
        import socket

        class my_client:
            def send(host, port, data):
                with socket.create_connection((host, port)) as client:
                    client.sendall(data)
                    client.recv(len(data))
        """,
    ("docs/how-to/asyncio.md", "class HandOver:"): """
        import asyncio, threading, fastecho, fastecho.aio

        async def answer(connection, data):
            connection.write(data.upper())
        """,
    ("docs/reference/metrics.md", "for one in server.tcp_info(10):"): """
        import fastecho

        server = fastecho.Server()
        server.start()
        client = fastecho.Client(server.address)
        client.echo(b"hello")
        """,
    ("docs/how-to/asyncio.md", "async with fastecho.Server(on_message=on_message) as server:"): """
        import asyncio, fastecho, fastecho.aio

        def on_message(connection, data):
            return data

        async def client_that_is_tested(host, port):
            async with fastecho.aio.Client((host, port)) as client:
                assert await client.echo(b"hello") == b"hello"

        async def main():
        """,
}
"""What stands before a program that a page shows a piece of; after a `:` the piece is its block."""
ENDS = {
    "class HandOver:": """
        async def main():
            over = HandOver(asyncio.get_running_loop())
            async with fastecho.Server(on_message=over.on_message) as server:
                async with fastecho.aio.Client(server.address) as client:
                    assert await client.echo(b"hello") == b"HELLO"

        asyncio.run(main())
        """,
    "for one in server.tcp_info(10):": "client.close()\nserver.abort()\n",
    "async with fastecho.Server(on_message=on_message) as server:": "asyncio.run(main())\n",
}
"""What stands behind it."""
PARSERS = parsers()


class Block(NamedTuple):
    """A fenced block; `page` is a path in the tree, `section` the number of its heading."""

    page: str
    section: int
    kind: str
    text: str

    @property
    def first(self) -> str:
        """The first line."""
        return self.text.partition("\n")[0]

    def is_in(self, table: dict[tuple[str, str], str]) -> bool:
        """Tell whether a table has an entry for it."""
        return any(page == self.page and self.first.startswith(one) for page, one in table)

    def commands(self) -> list[Command]:
        """Return what is typed, and what is shown behind it."""
        if self.kind == "sh":
            lines = self.text.replace("\\\n", " ").splitlines()
            return [Command(line, []) for line in lines if line.strip()]
        parts = re.split(r"^\$ ", self.text, flags=re.M)[1:]
        return [Command(first, shown) for first, *shown in map(str.splitlines, parts)]


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a page; of another file the commands in its comments."""
    text, page = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    if path.suffix != ".md":
        found = re.findall(rf"(?:^# {{2,}}(?:{TOOLS}) .*\n(?:^# {{5,}}.*\n)*)", text, re.M)
        return [Block(page, 0, "sh", re.sub(r"^# +", "", one, flags=re.M)) for one in found]
    return [
        Block(page, len(re.findall(r"^##+ ", text[: one.start()], re.M)), one[1], one[2])
        for one in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    ]


def is_elsewhere(block: Block) -> bool:
    """Tell whether another test runs a block."""
    test = next((test for page, test in OTHERS.items() if block.page.startswith(page)), None)
    return (
        block.kind == "python" if test == "test_examples.py" else block.kind != "sh" and bool(test)
    )


BLOCKS = [block for path in PAGES for block in blocks(path) if block.kind in SHOWN]
HERE = [one for one in BLOCKS if not is_elsewhere(one) and not one.is_in(EXCEPTIONS)]


def outline(lines: list[str]) -> list[str]:
    """Return how lines begin, up to the first figure; what only has figures is left out."""
    words = (re.match(r"[^\d]*", line.replace(HOST, ""))[0] for line in lines)  # type: ignore[index]
    return [" ".join(one.split()) for one in words if one.strip()]


class Page:
    """One page as a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._serves = False
        self._programs = 0
        self._section = 0

    def run(self, block: Block) -> None:
        """Run a block."""
        if block.section != self._section:
            self.end()
        self._section = block.section
        if block.kind == "python":
            self._program(block)
            return
        for command in block.commands():
            printed = self._type(command)
            if not block.is_in(ELSEWHERE):
                lacks = [one for one in outline(command.prints) if one not in outline(printed)]
                assert not [one for one in lacks if one != "..."], (command, lacks, printed)

    def end(self) -> None:
        """End the server, if there is one."""
        if self._serves:
            self._session.run(Command("kill %%; wait", []))
        self._serves = False

    def _type(self, command: Command) -> list[str]:
        """Run a command to its end, or as the server if it is one; return what it prints."""
        text = command.text.replace("balancer:7777", f"{HOST}:7777")
        if re.match(r"(fastecho|make) serve\b", text):
            return self._serve(text if "--bind" in text else f"{text} --bind {HOST}:7777", command)
        if NEEDS_A_SERVER.search(text):
            self._need_a_server()
        typed = Command(f"{{ {text}\n}}; printf '\\nexit %d\\n' $?", [])
        *printed, code = self._session.run(typed).splitlines()
        # A rule may hold or not.
        assert code in ("exit 0", "exit 3" if "--fail-if" in text else "exit 0"), (text, printed)
        return printed

    def _need_a_server(self) -> None:
        if not self._serves:
            self._serve(SERVER, Command(SERVER, []))

    def _serve(self, text: str, command: Command) -> list[str]:
        """Start the server of the page; return what it prints."""
        self.end()
        self._serves = True
        said = [line for line in command.prints if line.startswith("fastecho: ")]
        said = [re.sub(r"\d.*", "...", line) for line in said] + ["..."]
        printed = self._session.run(Command(f"{text} &", said)).splitlines()
        if any("sent: hello" in line for line in command.prints):
            told = "printf hello | nc -N 127.0.0.1 7777 > /dev/null; sleep 0.2"
            printed += self._session.run(Command(told, [])).splitlines()
        return printed

    def _program(self, block: Block) -> None:
        """Write a program, and run it: as a test, as a server, or to its end."""
        self._programs += 1
        name = f"program{self._programs}.py"
        key = next((one for one in PIECES if block.is_in({one: ""})), ("", ""))
        before, after = textwrap.dedent(PIECES.get(key, "")), textwrap.dedent(ENDS.get(key[1], ""))
        inside = "    " if before.rstrip().endswith(":") else ""
        text = block.text.replace("duration=5", "duration=0.05")
        text = f"{before.rstrip()}\n\n{textwrap.indent(text, inside)}\n\n{after}"
        self._session.write(Program(name, text))
        if "serve_forever" in text:
            command = f"python {name}"
            self._serve(command, Command(command, []))
            return
        if "Server(" not in text and NEEDS_A_SERVER.search(text):
            self._need_a_server()
        how = "-m pytest -q -p no:cacheprovider " if "def test_" in text else ""
        self._type(Command(f"python {how}{name} > printed.txt", []))


@pytest.mark.timeout(180)
@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "nc"))), reason="needs bash and netcat-openbsd"
)
@pytest.mark.parametrize("name", sorted({block.page for block in HERE}))
def test_the_commands_of_a_page_do_what_it_shows(name: str, tmp_path: Path) -> None:
    with Session(tmp_path, "zh_CN.UTF-8" if "zh" in name else "C.UTF-8") as session:
        # `make serve` without the make: a test below says what it runs.
        tool = tmp_path / ".bin" / "make"
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m fastecho "$@"\n')
        tool.chmod(0o755)
        for command in BEFORE.get(name, []):
            session.run(Command(command, []))
        page = Page(session)
        for block in HERE:
            if block.page == name:
                page.run(block)
        page.end()
        assert session.left() == []


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_serve_runs_the_command() -> None:
    command = ["make", "-n", "--no-print-directory", "-o", ".venv/.compiled", "serve"]
    outer = ("MAKE", "ARGS")
    clean = {name: text for name, text in os.environ.items() if not name.startswith(outer)}
    said = subprocess.check_output(command, cwd=ROOT, env=clean, text=True, timeout=30)
    assert said.splitlines()[-1].split() == ["exec", ".venv/bin/fastecho", "serve"]


@pytest.mark.parametrize(("name", "locale"), [("README.md", "C"), ("README.zh-CN.md", "zh_CN")])
def test_the_conversation_of_a_readme(name: str, locale: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    [shown] = [one.text for one in blocks(ROOT / name) if one.first == "$ fastecho connect"]
    prefix = re.search(r"fastecho serve --prefix '(.*?)'", text)
    assert prefix
    lines = shown.splitlines()[1:]
    variables = {"LC_ALL": f"{locale}.UTF-8"}
    with serving("--prefix", prefix[1]) as served:
        with Terminal(["connect", served.addresses[0]], variables=variables) as terminal:
            for number, line in enumerate(lines[:-1]):
                if number % 2 == 0:
                    prompt, typed = re.fullmatch(r"(.*: )(.*)", line).groups()  # type: ignore[union-attr]
                    terminal.wait_for_rows(*lines[:number], prompt)
                    terminal.type(f"{typed}\r")
            terminal.wait_for_rows(*lines)
            assert terminal.wait_for_exit() == 0
        served.end(15)


def test_what_another_test_runs_is_named_there() -> None:
    for page, test in OTHERS.items():
        text = (ROOT / "tests" / test).read_text(encoding="utf-8")
        assert f'"{page.rstrip("/").rpartition("/")[2]}"' in text, page


@pytest.mark.parametrize("table", [EXCEPTIONS, ELSEWHERE], ids=["EXCEPTIONS", "ELSEWHERE"])
def test_every_entry_of_a_table_is_of_one_block(table: dict[tuple[str, str], str]) -> None:
    for page, first in table:
        found = [one for one in BLOCKS if one.page == page and one.first.startswith(first)]
        assert len(found) == 1, (page, first)


def test_commands_stand_in_fenced_blocks() -> None:
    """A block that is only indented, or is of no language, would be overlooked."""
    command = re.compile(r" *(\$ |(?:fastecho [a-z]+|python -m|pip|make|kubectl|podman) [^:]*$)")
    for path in PAGES:
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            plain = re.sub(r"^```\w+\n.*?^```$", "", text, flags=re.M | re.S)
            indented = re.findall(r"(?<=\n\n)(?: {4}.*\n)+", plain)
            assert [one for one in indented if command.match(one)] == [], path
            assert "```" not in plain, path
            assert not re.search(r"^ *(~~~|<pre)", text, re.M), path
            assert "`$ " not in plain, path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_block_is_overlooked(path: Path) -> None:
    """Of a kind that nobody knows, or with commands behind another prompt, it would be."""
    for block in blocks(path):
        assert block.kind in SHOWN | OF_OTHER_PROGRAMS, block
        assert block.kind != "console" or block.first.startswith("$ "), block


@pytest.mark.parametrize(
    "block",
    [one for one in BLOCKS if one.is_in(EXCEPTIONS)],
    ids=lambda one: f"{one.page}: {one.first}",
)
def test_what_is_not_run_can_be_parsed(block: Block) -> None:
    for command in block.commands():
        words = shlex.split(command.text.partition(" | ")[0], comments=True)
        if words[:2] == ["python", "-m"]:
            program = [sys.executable, *words[1:], "--help"]
            assert subprocess.run(program, cwd=ROOT, capture_output=True).returncode == 0
        for place, word in enumerate(words[:-1]):
            if word == "fastecho" and words[place + 1] in COMMANDS:
                given = words[place + 2 :]
                end = next((at for at, one in enumerate(given) if one in (">", "&")), None)
                parser = Parser(prog="fastecho")
                import_module(COMMANDS[words[place + 1]][0]).add_arguments(parser)
                parser.parse(given[:end])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_options_that_a_page_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name, rest in re.findall(r"`fastecho ([a-z]+)( [^`]*)?`", text):
        assert name in COMMANDS, name
        for option in re.findall(r"(?<=\s)(--[\w-]+)", rest):
            assert option in {*options(PARSERS[name])}, f"fastecho {name} {option}"
