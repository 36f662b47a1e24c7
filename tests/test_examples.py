"""The examples: each is run as its reader would run it, and does what it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Join
from peers import DEADLINE, pattern, recv_exactly, reset, wait_until

from fastecho import Client

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def environment() -> dict[str, str]:
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these words to its end, in the folder of the examples."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=EXAMPLES,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
    )


def is_caught(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal: serve_forever() sets it."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = re.findall(r"^SigCgt:\s*(\w+)", status, re.M)
    return bool(int(mask, 16) >> (number - 1) & 1)


@contextmanager
def running(*words: str) -> Iterator[str]:
    """Run an example that serves; give its address, and end it by Ctrl-C, without a word."""
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=EXAMPLES,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("listening on ").strip()
            wait_until(lambda: is_caught(process.pid, signal.SIGTERM), what="serve_forever()")
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert (process.returncode, *said) == (0, "", "")


def test_every_example_is_run_here_and_listed() -> None:
    text = Path(__file__).read_text()
    readme = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text, path.name
        assert path.name in readme, path.name


def test_chat(join: Join) -> None:
    with running("chat.py", "127.0.0.1:0") as address:
        ann, bob = Client(address, timeout=DEADLINE), Client(address, timeout=DEADLINE)
        with ann, bob:
            ann.send(b"Ann\n")
            assert ann.recv_line() == b"* welcome, Ann: 1 here\n"
            bob.send(b"Bob\r\nhello\r\n")
            assert bob.recv_line() == b"* welcome, Bob: 2 here\n"
            assert ann.recv_line() == b"* Bob is here\n"
            assert ann.recv_line() == b"Bob: hello\n"
            bob.close()
            assert ann.recv_line() == b"* Bob has left (peer)\n"
            ann.send(b"anybody?\n")


def test_key_value_store() -> None:
    with (
        running("key_value_store.py", "127.0.0.1:0") as address,
        Client(address, timeout=DEADLINE) as client,
    ):
        client.send(b"GET a\nSET a some words\nGET a\nDEL a\r\nDEL a\nSET a\n")
        client.shutdown()
        replies = [client.recv_line() for _ in range(7)]
    assert replies[:5] == [b"NONE\n", b"OK\n", b"VALUE some words\n", b"OK\n", b"NONE\n"]
    assert replies[5].startswith(b"ERROR")
    assert replies[6] == b""


def test_file_store(tmp_path: Path, join: Join) -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        from file_store import download, upload
    finally:
        sys.path.remove(str(EXAMPLES))
    data = pattern(1_000_000)
    (tmp_path / "data").write_bytes(data)
    store = tmp_path / "store"
    store.mkdir()
    with running("file_store.py", "127.0.0.1:0", str(store)) as address:
        with Client(address, timeout=DEADLINE) as client:
            with open(tmp_path / "data", "rb") as file:
                upload(client, "some file", file)
            assert download(client, "some file") == data
            for name in ("missing", "../data", ".hidden"):
                with pytest.raises(OSError, match=re.escape(name)):
                    download(client, name)
        peer = join(address)
        peer.sendall(b"\0\0\0\5Ppart\0\0\0\5Dsome\0\0\0\4D...")  # and the rest never comes
        wait_until(lambda: len(list(store.iterdir())) == 2)
        missing = pytest.raises(OSError, match="No such file")
        with missing, Client(address, timeout=DEADLINE) as client:
            download(client, "part")
        reset(peer)
        wait_until(lambda: [path.name for path in store.iterdir()] == ["some file"])
        peer = join(address)
        peer.sendall(b"\0\0\0\5Ppart\0\0\0\5Dsome\0\0\0\5Ewhat")
        assert recv_exactly(peer, 19) == b"\0\0\0\x0fNwrong checksum"
        peer.shutdown(socket.SHUT_WR)
    assert [path.name for path in store.iterdir()] == ["some file"]


def test_asyncio_application() -> None:
    done = run("asyncio_application.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "desserts reward\nevil live\n"


def test_unittest_without_pytest() -> None:
    done = run("-m", "unittest", "test_with_unittest.py")
    assert done.returncode == 0, done.stderr
    assert "Ran 4 tests" in done.stderr


def blocks(path: Path) -> list[str]:
    """Return the Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.S | re.M)


def test_the_tests_in_how_to_test_your_client(tmp_path: Path) -> None:
    names = "import threading\nfrom test_retries import ask, pytest, socket"
    names += "\nfrom test_urllib3 import BUSY, OK, chain, http, repeat, urllib3\n"
    page = ROOT / "docs" / "how-to" / "test-your-client.md"
    (tmp_path / "test_page.py").write_text("\n".join([names, *blocks(page)]))
    settings = ["-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    done = run("-m", "pytest", "-q", *settings, str(tmp_path / "test_page.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 passed" in done.stdout


def test_the_server_in_how_to_embed_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = blocks(ROOT / "docs" / "how-to" / "embed-a-server.md")
    exec(code, {})
    assert capsys.readouterr().out.startswith("listening on 127.0.0.1:")


def test_tests_of_clients() -> None:
    files = ["test_retries.py", "test_urllib3.py", "test_redis.py"]
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *files)
    assert done.returncode == 0, done.stdout + done.stderr
