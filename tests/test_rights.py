"""--user and --group: what `fastecho serve` is once it listens, and what it can never be again.

Most of it takes root. Read back from /proc, of every thread.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import COMMAND, DEADLINE, Serving, assert_refused, exchange, run, serving
from reachable import reachable

from fastecho.errors import ConfigError
from fastecho.rights import look_up, what_is_left

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def has_user(name: str) -> bool:
    """Tell whether this machine knows a user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


NOBODY = pytest.mark.skipif(not has_user("nobody"), reason="this machine has no user nobody")


def statuses(server: Serving) -> list[dict[str, str]]:
    """Return the lines of /proc/PID/task/*/status."""
    texts = [one.read_text() for one in Path(f"/proc/{server.process.pid}/task").glob("*/status")]
    return [dict(line.split(":\t", 1) for line in text.splitlines()) for text in texts]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that belongs to nobody."""
    with reachable(pwd.getpwnam("nobody").pw_uid) as made:
        yield made


@pytest.fixture
def of_root() -> Iterator[Path]:
    """Return a folder in which only root may write."""
    with reachable() as made:
        yield made


@ROOT
@NOBODY
def test_every_thread_is_the_user_without_any_capability(folder: Path) -> None:
    metrics = f"--metrics=unix:{folder}/metrics"
    binds = ["--bind=127.0.0.1:0", f"--bind=unix:{folder}/echo", f"--handover=unix:{folder}/path"]
    with serving(*binds, metrics, "--user=nobody", "--threads=3", "--access-log") as server:
        entry = pwd.getpwnam("nobody")
        for path in folder.iterdir():
            assert (path.stat().st_uid, path.stat().st_gid) == (entry.pw_uid, entry.pw_gid)
        for index in range(2):
            with server.connect(index) as client:
                assert exchange(client, b"x", 1) == b"x"
        threads = statuses(server)
        assert len(threads) >= 3 + 3  # workers, and those of the log, the metrics, the handover
        for one in threads:
            assert one["Uid"].split() == [str(entry.pw_uid)] * 4
            assert one["Gid"].split() == [str(entry.pw_gid)] * 4
            assert set(one["Groups"].split()) == set(
                map(str, os.getgrouplist("nobody", entry.pw_gid))
            )
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(one[name], 16) == 0
            assert one["NoNewPrivs"] == "1"
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    assert f"fastecho: user {entry.pw_uid}, group {entry.pw_gid}, no capabilities" in said
    assert list(folder.iterdir()) == []  # the folder is the user's


@ROOT
def test_numbers_will_do_and_a_port_below_1024_is_kept(tmp_path: Path) -> None:
    port = next(one for one in range(1023, 512, -1) if is_free(one))
    with serving(f"--bind=127.0.0.1:{port}", "--user=12345:23456") as server:
        assert {one["Uid"].split()[0] for one in statuses(server)} == {"12345"}
        assert {one["Groups"].strip() for one in statuses(server)} == {"23456"}
        with server.connect() as client:
            assert exchange(client, b"x", 1) == b"x"
        assert server.end(signal.SIGTERM)[0] == 0


def is_free(port: int) -> bool:
    """Tell whether a port can be listened on."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


@ROOT
@NOBODY
def test_a_file_that_will_stay_is_named_at_the_start(of_root: Path) -> None:
    path = of_root / "echo"
    with serving(f"--bind=unix:{path}", "--user=nobody") as server:
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    sentence = (
        f"fastecho: warning: unix:{path} will stay at the end: its directory is not the user's"
    )
    assert sentence in said
    assert path.is_socket()


@ROOT
@NOBODY
def test_the_successor_starts_as_root_and_drops_as_well(folder: Path) -> None:
    options = ["--bind=127.0.0.1:0", f"--handover=unix:{folder}/path", "--user=nobody"]
    with serving(*options) as first, serving(*options) as second, serving(*options) as third:
        assert first.addresses == second.addresses == third.addresses
        for before in (first, second):
            before.process.communicate(timeout=DEADLINE)
            assert before.process.returncode == 0
        user = str(pwd.getpwnam("nobody").pw_uid)
        assert {one["Uid"].split()[1] for one in statuses(third)} == {user}
        with third.connect() as client:
            assert exchange(client, b"x", 1) == b"x"
        assert third.end(signal.SIGTERM)[0] == 0
    assert list(folder.iterdir()) == []


@ROOT
@NOBODY
def test_files_that_are_taken_over_become_the_users_as_well(of_root: Path) -> None:
    options = [f"--bind=unix:{of_root}/echo", f"--handover=unix:{of_root}/path"]
    with serving(*options) as first, serving(*options, "--user=nobody") as second:
        assert first.process.wait(DEADLINE) == 0
        user = pwd.getpwnam("nobody").pw_uid
        assert {one.stat().st_uid for one in of_root.iterdir()} == {user}
        code, said = second.end(signal.SIGTERM)
    assert code == 0
    for name in ("echo", "path"):
        sentence = f"unix:{of_root}/{name} will stay at the end: its directory is not the user's"
        assert f"fastecho: warning: {sentence}" in said


@ROOT
def test_a_file_that_leads_elsewhere_is_not_given_away(of_root: Path) -> None:
    """Whoever may write to the folder could have put a link to root's own file there."""
    of_another, of_server = of_root / "another", of_root / "socket"
    of_another.touch()
    of_server.touch()
    found = of_server.stat()
    of_server.unlink()
    os.link(of_another, of_server)
    script = (
        "import sys, encodings.ascii; from fastecho.rights import drop, look_up\n"
        "drop(look_up('12345:1', None, '', ''), '', [(sys.argv[1], *map(int, sys.argv[2:]))])\n"
    )
    inode = [str(found.st_dev), str(found.st_ino)]
    subprocess.run([COMMAND[0], "-c", script, str(of_server), *inode], check=True)
    assert of_another.stat().st_uid == 0


@ROOT
def test_groups_that_the_user_is_not_in_are_left_or_told() -> None:
    """Who is the user already may still have groups of whoever started it."""
    script = (
        "import os; from fastecho.rights import Identity, drop\n"
        "os.setgroups([4, 5]); os.setresgid(1, 1, 1); os.setresuid(12345, 12345, 12345)\n"
        "drop(Identity('me', 12345, 1, [1, 4]), '--user', [])\n"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", script], capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    reason = "--user me: only root may become another user, or leave a group"
    assert reason in done.stderr
    script = (
        "import os; from fastecho.rights import Identity, what_is_left\n"
        "os.setgroups([4, 5]); print(what_is_left(Identity('me', 0, 0, [4])))\n"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", script], capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert "Groups" in done.stdout


@ROOT
@NOBODY
@pytest.mark.parametrize("model", ["blocking", "socketserver", "epoll", "asyncio", "callbacks"])
def test_models_drop_as_well(model: str) -> None:
    with serving(f"--model={model}", "--user=nobody") as server:
        user = str(pwd.getpwnam("nobody").pw_uid)
        assert {one["Uid"].split()[0] for one in statuses(server)} == {user}
        assert {one["CapEff"] for one in statuses(server)} == {"0" * 16}
        with server.connect() as client:
            assert exchange(client, b"x", 1) == b"x"


@ROOT
@NOBODY
def test_a_black_hole_drops_as_well() -> None:
    with serving("--black-hole", "--user=nobody") as server:
        user = str(pwd.getpwnam("nobody").pw_uid)
        assert {one["Uid"].split()[0] for one in statuses(server)} == {user}
        assert server.end(signal.SIGTERM)[0] == 0


SCRIPT = """
import sys
from fastecho.cli import _rights, main

known = set()
drop = _rights.Rights.drop

def dropped(self, files):
    drop(self, files)
    known.update(sys.modules)

_rights.Rights.drop = dropped
code = main(sys.argv[1:])
print("late:", *sorted(set(sys.modules) - known), file=sys.stderr)
sys.exit(code)
"""


@ROOT
def test_nothing_is_imported_that_the_user_may_not_be_able_to_read(of_root: Path) -> None:
    file = of_root / "fastecho.toml"
    file.write_text("")
    program = [COMMAND[0], "-c", SCRIPT]
    more = [f"--config={file}", f"--handover=unix:{of_root}/path", "--user=12345:1"]
    bind = ["--bind=127.0.0.1:0", "--access-log", "--log-format=json"]
    with serving(*bind, *more, program=program) as first:
        assert first.process.stderr is not None
        heard = iter(first.process.stderr.readline, b"")
        for text in ('fault = "delay=1ms"', "max_conections = 5", "max_connections ="):
            file.write_text(f"{text}\n")
            first.process.send_signal(signal.SIGHUP)
            assert any(b"reloaded" in one for one in heard)
        with first.connect() as client:
            assert exchange(client, b"x", 1) == b"x"
        file.write_text("")
        with serving(*bind, *more, program=program) as second:
            _, said = first.process.communicate(timeout=DEADLINE)
            assert said.endswith(b"late:\n")
            code, lines = second.end(signal.SIGTERM)
            assert (code, lines[-1]) == (0, "late:")


def test_no_program_gains_rights_without_user_either() -> None:
    with serving() as server:
        assert {one["NoNewPrivs"] for one in statuses(server)} == {"1"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--user=no-such-user"], "--user 'no-such-user' is no user of this machine"),
        (["--user=1:no-such-group"], "--user '1:no-such-group' is no group of this machine"),
        (["--user=1:1", "--group=1"], "--user '1:1' names a group, and so does --group"),
        (["--group=1"], "--group '1' has no effect without --user"),
        (["--user=0"], "--user '0' is root: name a user without its rights"),
        (
            ["--user=4000000000"],
            "--user '4000000000' is a number without an entry: write USER:GROUP",
        ),
        (["--user=9999999999:1"], "--user '9999999999:1' is out of range"),
    ],
)
def test_a_wrong_user_is_exit_code_2(arguments: list[str], sentence: str) -> None:
    assert_refused(run("serve", "--bind=127.0.0.1:0", *arguments), 2, sentence)


@ROOT
@pytest.mark.parametrize("more", [[], ["--model=epoll"], ["--black-hole"]])
def test_who_is_not_root_gets_exit_code_4(more: list[str]) -> None:
    command = [*COMMAND, "serve", "--bind=127.0.0.1:0", "--user=12346:1", *more]
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    # As root without any right: a process of another user could not read this Python.
    done = subprocess.run(
        [*drop, *command], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("fastecho serve: --user 12346:1: ")
    assert done.stderr.count("\n") == 1


@ROOT
def test_what_is_left_is_told() -> None:
    me = look_up(f"{12345}:{1}", None, "--user", "--group")
    left = what_is_left(me)
    assert left[0] == "user or group"
    assert {"Uid", "CapEff"} <= set(left)


def test_a_user_without_a_group_entry_is_told() -> None:
    with pytest.raises(ConfigError, match="is a number without an entry"):
        look_up("4000000000", None, "--user", "--group")
