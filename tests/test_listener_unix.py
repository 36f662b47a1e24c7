"""Unix listeners: their files are replaced only when stale, and removed only when ours."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import shutil
import socket
import stat
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from listeners import listening

from fastecho.config import Config
from fastecho.errors import StartError
from fastecho.listener import Listener
from fastecho.opening import open_listeners


def test_a_unix_listener_takes_connections_and_removes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    with listening(f"unix:{path}") as [listener]:
        assert str(listener.address) == f"unix:{path}"
        assert listener.family == socket.AF_UNIX
        assert stat.S_ISSOCK(path.stat().st_mode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert os.listdir(tmp_path) == []
    listener.close()


def test_a_relative_path_is_removed_from_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, elsewhere = tmp_path / "made", tmp_path / "elsewhere"
    made.mkdir()
    elsewhere.mkdir()
    (elsewhere / "s").touch()
    monkeypatch.chdir(made)
    with listening("unix:s"):
        assert (made / "s").exists()
        monkeypatch.chdir(elsewhere)
    assert not (made / "s").exists()
    assert (elsewhere / "s").exists()


def test_a_path_of_undecodable_bytes_is_bound_exactly(tmp_path: Path) -> None:
    name = b"\xff\xfe"
    with listening(f"unix:{tmp_path}/{os.fsdecode(name)}"):
        assert os.listdir(os.fsencode(tmp_path)) == [name]
    assert os.listdir(tmp_path) == []


def make_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
        gone.listen()


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    make_stale(path)
    before = path.stat().st_ino
    keep = tmp_path / "keep"  # another name, so that the inode number is not used again
    os.link(path, keep)
    with listening(f"unix:{path}"):
        assert path.stat().st_ino != before
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert os.listdir(tmp_path) == ["keep"]


def test_a_unix_socket_in_use_is_refused_and_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(f"unix:{path}"):
        with pytest.raises(StartError) as caught:
            open_listeners(Config(f"unix:{path}"), 1)
        assert caught.value.errno == errno.EADDRINUSE
        assert str(caught.value) == f"cannot listen on unix:{path}: the file exists and is in use"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_unix_socket_with_a_full_queue_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(f"unix:{path}", backlog=0), ExitStack() as stack:
        full = False
        while not full:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            full = client.connect_ex(str(path)) == errno.EAGAIN
        with pytest.raises(StartError, match="is in use"):
            open_listeners(Config(f"unix:{path}"), 1)


def test_a_datagram_socket_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(StartError, match="is in use"):
            open_listeners(Config(f"unix:{path}"), 1)
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_what_is_no_socket_is_never_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        make_stale(tmp_path / "stale")
        path.symlink_to("stale")
    before = path.lstat()
    with pytest.raises(StartError, match="the file exists and is not a socket"):
        open_listeners(Config(f"unix:{path}"), 1)
    assert path.lstat() == before


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "s"
    with pytest.raises(StartError) as caught:
        open_listeners(Config(f"unix:{path}"), 1)
    assert str(caught.value) == f"cannot listen on unix:{path}: no such file or directory"


def test_a_file_that_somebody_put_in_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(f"unix:{path}"):
        path.rename(tmp_path / "ours")  # keeps the inode number in use
        path.write_text("theirs")
    assert path.read_text() == "theirs"


def test_a_file_that_somebody_removed_with_its_folder_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with listening(f"unix:{folder / 's'}") as [listener]:
        shutil.rmtree(folder)
        listener.close()
        assert listener.socket.fileno() == -1


def test_a_failure_after_bind_removes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoListen(socket.socket):
        def listen(self, *_: int) -> None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", NoListen)
        with pytest.raises(StartError, match="no buffer space"):
            open_listeners(Config(f"unix:{tmp_path}/s"), 1)
    assert os.listdir(tmp_path) == []


def test_a_forked_child_does_not_remove_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(f"unix:{path}") as [listener]:
        child = os.fork()
        if child == 0:
            listener.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_of_many_that_start_at_once_on_a_stale_socket_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(20):
        make_stale(path)
        start = threading.Barrier(4)
        won: list[Listener] = []
        lost: list[StartError] = []

        def open_one(start: threading.Barrier, won: list[Listener], lost: list[StartError]) -> None:
            start.wait(5)
            try:
                won += open_listeners(Config(f"unix:{path}"), 1)
            except StartError as error:
                lost.append(error)

        threads = [threading.Thread(target=open_one, args=(start, won, lost)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        try:
            assert (len(won), len(lost)) == (1, 3)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
        finally:
            for listener in won:
                listener.close()


def test_a_lock_that_somebody_keeps_does_not_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastecho.listen_unix.DIRECTORY_LOCK_WAIT", 0.05)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with listening(f"unix:{tmp_path}/s"):
            assert (tmp_path / "s").exists()
    finally:
        os.close(held)


# --- Ctrl-C -----------------------------------------------------------------------------------


def interrupt_once(patch: pytest.MonkeyPatch, where: object, name: str) -> None:
    """Have the next call of a function raise KeyboardInterrupt, as Ctrl-C does behind it."""
    call = getattr(where, name)

    def interrupted(*arguments: object) -> None:
        patch.setattr(where, name, call)
        call(*arguments)
        raise KeyboardInterrupt

    patch.setattr(where, name, interrupted)


@pytest.mark.parametrize("name", ["lstat", "unlink"])
def test_close_that_is_interrupted_can_be_called_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(f"unix:{tmp_path}/s") as [listener]:
        interrupt_once(monkeypatch, os, name)
        with pytest.raises(KeyboardInterrupt):
            listener.close()
        listener.close()
        assert os.listdir(tmp_path) == []


def test_a_listener_that_nobody_has_any_more_leaves_no_file(tmp_path: Path) -> None:
    """As when a signal handler raises between open_listeners() and an assignment."""
    open_listeners(Config(f"unix:{tmp_path}/s"), 1)
    gc.collect()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("where", "name"), [(fcntl, "flock"), (os, "lstat"), (socket.socket, "listen")]
)
def test_a_start_that_is_interrupted_leaves_neither_file_nor_lock(
    where: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a descriptor (the look behind every test)."""
    with monkeypatch.context() as patch:
        interrupt_once(patch, where, name)
        with pytest.raises(KeyboardInterrupt):
            open_listeners(Config(f"unix:{tmp_path}/s"), 1)
    assert os.listdir(tmp_path) == []
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(held)
