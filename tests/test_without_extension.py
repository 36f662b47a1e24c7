"""Without the compiled core, everything but the server works, and the server says why not.

The package's Python files are copied to a folder of their own, and Python runs without
site-packages (-S): an editable installation would find the extension of this checkout.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import exchange, serving

PACKAGE = Path(__file__).resolve().parent.parent / "fastecho"

ABSENT = (
    "fastecho.Server needs the compiled core, which is not installed: reinstall fastecho with a"
    " C compiler and Python's headers present and FASTECHO_NO_EXTENSION unset"
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no core")


class Tree:
    """A folder with the pure Python part of fastecho, and Python runs that import from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        absent = shutil.ignore_patterns("*.so", "*.pyx", "*.pxd", "__pycache__")
        shutil.copytree(PACKAGE, folder / "fastecho", ignore=absent)

        self.command = [sys.executable, "-S", "-W", "error"]
        self.environment = {"PYTHONPATH": str(self.folder), "LC_ALL": "C.UTF-8"}

    def python(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run Python with this fastecho and no other; `text` is its input."""
        return subprocess.run(
            [*self.command, *words],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def prints(self, code: str) -> str:
        """Run code that must succeed, and return what it printed."""
        result = self.python("-c", code)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def echo_port() -> Iterator[int]:
    """Serve one connection with a plain blocking echo; give its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    thread.join(10)
    listener.close()
    assert not thread.is_alive()


def test_import_works(tree: Tree) -> None:
    said = tree.prints("import fastecho; print(fastecho.__version__, fastecho.__file__)")
    assert str(tree.folder) in said


def test_client_echoes(tree: Tree, echo_port: int) -> None:
    code = (
        "import fastecho\n"
        f"with fastecho.Client(('127.0.0.1', {echo_port}), timeout=10) as client:\n"
        "    print(client.echo(b'hello'))\n"
    )
    assert tree.prints(code) == "b'hello'\n"


@linux_only
@pytest.mark.parametrize(
    "code", ["import fastecho; fastecho.Server", "from fastecho import Server"]
)
def test_server_says_in_one_sentence_what_is_missing(tree: Tree, code: str) -> None:
    result = tree.python("-c", code)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"fastecho.errors.ExtensionMissingError: {ABSENT}"


@linux_only
def test_a_source_tree_that_is_not_compiled_says_what_it_is(tree: Tree) -> None:
    """It stands in the way of an installed fastecho when Python is started in its folder."""
    shutil.copy(PACKAGE / "_core.pyx", tree.folder / "fastecho")
    result = tree.python("-c", "import fastecho; fastecho.Server")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "fastecho.errors.ExtensionMissingError: fastecho.Server needs the compiled core, which is"
        f" not compiled in {tree.folder}/fastecho: make serve compiles it there; or leave"
        " that folder, if fastecho is installed elsewhere"
    )


def test_error_is_an_import_error_and_one_of_ours(tree: Tree) -> None:
    code = (
        "import fastecho\n"
        "try:\n    fastecho.Server\n"
        "except fastecho.ExtensionMissingError as error:\n"
        "    print(isinstance(error, (ImportError)), isinstance(error, fastecho.FastechoError))\n"
        "    print(error.__cause__, error.__suppress_context__, '\\n' in str(error))\n"
    )
    assert tree.prints(code) == "True True\nNone True False\n"


def test_other_systems_are_told_that_the_core_runs_on_linux(tree: Tree) -> None:
    code = (
        "import fastecho, sys; sys.platform = 'darwin'\n"
        "try:\n    fastecho.Server\n"
        "except fastecho.ExtensionMissingError as error:\n    print(error)\n"
    )
    assert tree.prints(code) == (
        "fastecho.Server needs the compiled core, which exists for CPython on Linux only;"
        " fastecho.Client works here\n"
    )


@linux_only
def test_broken_extension_is_reported_with_its_reason(tree: Tree) -> None:
    (tree.folder / "fastecho" / "_core.abi3.so").write_bytes(b"not an ELF file")
    result = tree.python("-c", "import fastecho; fastecho.Server")
    last = result.stderr.splitlines()[-1]
    assert "which does not load: reinstall fastecho (" in last
    assert "_core.abi3.so" in last


def test_help_and_dir_leave_the_server_out(tree: Tree) -> None:
    listed = tree.prints("import fastecho; print(*dir(fastecho))").split()
    assert "Client" in listed
    assert "Server" not in listed
    assert "class Client" in tree.prints("import fastecho, pydoc; pydoc.help(fastecho)")


def test_command_shows_its_version_and_help(tree: Tree) -> None:
    for words in (
        ["--version"],
        ["--help"],
        ["serve", "--help"],
        ["connect", "--help"],
        ["ping", "--help"],
        ["report", "--help"],
        ["bench", "--help"],
    ):
        result = tree.python("-m", "fastecho", *words)
        assert (result.returncode, result.stderr) == (0, ""), words


def test_connect_works(tree: Tree, echo_port: int) -> None:
    result = tree.python("-m", "fastecho", "connect", f"127.0.0.1:{echo_port}", text="hello\n")
    assert (result.returncode, result.stdout) == (0, "hello\n")


def test_ping_works(tree: Tree, echo_port: int) -> None:
    result = tree.python("-m", "fastecho", "ping", f"127.0.0.1:{echo_port}", "-i0", "-c5")
    assert (result.returncode, result.stderr) == (0, "")
    assert "5 probes, 5 transmitted, 5 received, 0% lost" in result.stdout


@linux_only
def test_check_works(tree: Tree) -> None:
    """Of a server that is not there: it is found out, and the JSON is written."""
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{refusing.getsockname()[1]}"
        done = tree.python("-m", "fastecho", "check", address, "--quick", "--json=-")
    assert done.returncode == 3
    assert "not connect" in done.stderr
    assert '"failed": 1' in done.stdout
    assert "  half-close " in tree.python("-m", "fastecho", "check", "--list").stdout


@pytest.mark.parametrize(
    "words", [["--model=native"], ["--max-connections=5"], ["--bind=unix:echo"]], ids=str
)
def test_serve_ends_with_one_sentence_where_python_cannot_do_it(
    tree: Tree, words: list[str]
) -> None:
    result = tree.python("-m", "fastecho", "serve", "--bind=127.0.0.1:0", *words)
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.count("\n") == 1
    assert ABSENT in result.stderr


@linux_only
def test_serve_falls_back_to_epoll_in_python_and_says_so(tree: Tree) -> None:
    program = [*tree.command, "-P", "-m", "fastecho"]
    with serving(program=program, env=tree.environment) as server:
        with server.connect() as client:
            assert exchange(client, b"hello", 5) == b"hello"
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    assert said[0].startswith("fastecho: warning: serving by --model epoll, a single thread of Py")
    assert ABSENT in said[0]
    assert said[-1] == "fastecho: stopped"


@linux_only
def test_report_ends_with_one_sentence(tree: Tree) -> None:
    result = tree.python("-m", "fastecho", "report", "run.json")
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.count("\n") == 1
    assert "measure.read needs the compiled core, which is not installed" in result.stderr


@linux_only
@pytest.mark.parametrize(
    "words", [["127.0.0.1:7"], ["--server"], ["--server", "--cluster=local:1"]], ids=str
)
def test_bench_ends_with_one_sentence(tree: Tree, words: list[str]) -> None:
    result = tree.python("-m", "fastecho", "bench", *words)
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.count("\n") == 1
    assert "measure.run needs the compiled core, which is not installed" in result.stderr
