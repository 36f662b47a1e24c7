"""`fastecho serve --handover unix:PATH`: one command takes the place of another one.

What is said, the exit codes, files and metrics; either one killed, stopped or refused. (The talk of
the two, step by step: test_handover.py.)
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from commands import COMMAND, DEADLINE, Serving, assert_refused, environment, exchange, run, serving
from peers import wait_until
from reachable import reachable

from benchmarks._storm import Storm
from fastecho.handover.wire import PROTOCOL, Channel, GoneError


def pair(path: Path, *more: str) -> list[str]:
    """Return the options of both servers."""
    return ["--bind=127.0.0.1:0", f"--handover=unix:{path}", *more]


def ended(server: Serving) -> tuple[int, list[str]]:
    """Wait until a server has ended by itself; return its exit code and what it said."""
    _, said = server.process.communicate(timeout=DEADLINE)
    return server.process.returncode, said.decode().splitlines()


def goes_on(server: Serving) -> None:
    """Assert that it serves."""
    assert server.process.poll() is None
    with server.connect() as client:
        assert exchange(client, b"x", 1) == b"x"


def test_both_say_what_happened_and_the_old_one_ends_with_0(tmp_path: Path) -> None:
    path, echo = tmp_path / "path", tmp_path / "echo"
    options = pair(path, f"--bind=unix:{echo}")
    with serving(*options) as before:
        assert path.stat().st_mode & 0o777 == 0o600
        with serving(*options) as after:
            assert after.addresses == before.addresses
            code, said = ended(before)
            assert code == 0
            where = f"{after.addresses[0]}, unix:{echo}"
            assert said[-2] == (
                f"fastecho: handed over to process {after.process.pid}: {where}; draining"
            )
            assert said[-1].startswith("fastecho: drained: connections 0")
            goes_on(after)
            assert path.is_socket()
            code, said = after.end(signal.SIGTERM)
            assert code == 0
            assert f"fastecho: taken over from process {before.process.pid}: {where}" in said
    assert list(tmp_path.iterdir()) == []


def test_a_storm_of_commands(tmp_path: Path) -> None:
    """The first server, two that take over, and between them one that cannot start."""
    options = pair(tmp_path / "path", "--threads=2", "--reuse-port")
    with (
        serving(*options) as first,
        Storm(first.addresses[0]) as storm,
        serving(*options, "--threads=1") as second,
    ):
        assert ended(first)[0] == 0
        with socket.create_server(("127.0.0.1", 0)) as busy:
            done = run("serve", *options, f"--bind=127.0.0.1:{busy.getsockname()[1]}")
        assert done.returncode == 4
        assert "the address is in use" in done.stderr
        with serving(*options, "--threads=3") as third:
            assert ended(second)[0] == 0
            begun = storm.begun
            wait_until(lambda: storm.begun > begun + 100, what="the storm")
            storm.end()
            assert storm.harmed == 0, storm.seen
            assert third.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("said", ["protocol", "serving"])
def test_killed_between_the_steps(said: str, tmp_path: Path) -> None:
    """SIGKILL for the successor, when it is about to ask, and when it is about to say it serves."""
    options = pair(tmp_path / "path")
    script = (
        "import os, signal, sys\n"
        "from fastecho.handover import wire\n"
        "send = wire.Channel.send\n"
        "def die(self, timeout, descriptor=None, /, **said):\n"
        f"    if {said!r} in said:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    send(self, timeout, descriptor, **said)\n"
        "wire.Channel.send = die\n"
        "from fastecho.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with serving(*options) as before, Storm(before.addresses[0]) as storm:
        for _ in range(2):
            done = subprocess.run(
                [*python(script), "serve", *options],
                capture_output=True, env=environment(), timeout=DEADLINE, check=False,
            )  # fmt: skip
            assert done.returncode == -signal.SIGKILL, done.stderr
        goes_on(before)
        begun = storm.begun
        wait_until(lambda: storm.begun > begun + 50, what="the storm")
        storm.end()
        assert storm.harmed == 0, storm.seen
        assert before.end(signal.SIGTERM)[0] == 0


def test_the_old_one_killed_while_it_drains(tmp_path: Path) -> None:
    options = pair(tmp_path / "path", "--drain-idle=60")
    with serving(*options) as before, before.connect() as inside:
        assert exchange(inside, b"x", 1) == b"x"
        with serving(*options) as after, Storm(after.addresses[0]) as storm:
            assert before.process.poll() is None  # somebody is connected
            before.process.kill()
            wait_until(lambda: storm.begun > 100, what="the storm")
            storm.end()
            assert storm.harmed == 0
            assert after.end(signal.SIGTERM)[0] == 0


def python(script: str) -> Sequence[str]:
    """Return the command of a script."""
    return [COMMAND[0], "-c", script]


def test_sigterm_to_the_old_one_while_it_drains_changes_nothing_for_the_new_one(
    tmp_path: Path,
) -> None:
    options = pair(tmp_path / "path", "--drain-idle=60")
    with serving(*options) as before, before.connect() as inside:
        assert exchange(inside, b"x", 1) == b"x"
        with serving(*options) as after:
            before.end(signal.SIGTERM, signal.SIGINT)
            goes_on(after)
            assert after.end(signal.SIGTERM)[0] == 0


def test_the_metrics_go_along(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    options = pair(tmp_path / "path", f"--metrics={metrics}", "--drain-idle=60")

    def accepted() -> float:
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=DEADLINE) as answer:
            text = answer.read().decode()
        name = "fastecho_connections_accepted_total "
        (line,) = [one for one in text.splitlines() if one.startswith(name)]
        return float(line.removeprefix(name))

    with serving(*options) as before, before.connect() as inside:
        assert exchange(inside, b"x", 1) == b"x"
        assert accepted() == 1
        with serving(*options) as after:
            assert before.process.poll() is None  # it drains, and does not answer any more
            assert [accepted() for _ in range(10)] == [0] * 10
            with urllib.request.urlopen(f"http://{metrics}/readyz", timeout=DEADLINE) as answer:
                assert answer.read() == b"ready\n"
            inside.close()
            assert ended(before)[0] == 0
            assert after.end(signal.SIGTERM)[0] == 0


def test_reload_and_identify_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "fastecho.toml"
    file.write_text(f'bind = "127.0.0.1:0"\nhandover = "unix:{tmp_path}/path"\nidentify = true\n')
    with (
        serving(f"--config={file}", "--instance=a") as before,
        serving(f"--config={file}", "--instance=b") as after,
    ):
        assert ended(before)[0] == 0
        file.write_text(file.read_text() + "max_connections = 7\n")
        with after.connect() as client:
            assert b'"instance":"b"' in client.recv(4096).replace(b" ", b"")
        after.process.send_signal(signal.SIGHUP)
        assert after.process.stderr is not None
        lines = iter(after.process.stderr.readline, b"")
        assert b"fastecho: reloaded: max_connections 7\n" in lines
        assert after.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--handover=127.0.0.1:0"], "--handover '127.0.0.1:0' must be unix:PATH"),
        (
            ["--handover=unix:/tmp/x", "--model=epoll"],
            "--handover 'unix:/tmp/x' cannot be used with --model: only the compiled core hands",
        ),
        (
            ["--handover=unix:/tmp/x", "--black-hole"],
            "--handover 'unix:/tmp/x' cannot be used with --black-hole: only the compiled core",
        ),
        (
            ["--handover=unix:/tmp/x", "--bind=unix:/tmp/x"],
            "--handover 'unix:/tmp/x' is listened on for something else",
        ),
    ],
)
def test_a_wrong_path_is_exit_code_2(arguments: list[str], sentence: str) -> None:
    assert_refused(run("serve", *arguments), 2, sentence)


def test_a_path_that_is_something_else_is_exit_code_4(tmp_path: Path) -> None:
    path = tmp_path / "path"
    path.write_text("")
    done = run("serve", "--bind=127.0.0.1:0", f"--handover=unix:{path}")
    assert_refused(done, 4, f"cannot listen on unix:{path}: the file exists and is not a socket")


def test_a_server_that_was_killed_is_replaced_without_a_word(tmp_path: Path) -> None:
    options = pair(tmp_path / "path")
    with serving(*options) as before:
        before.process.kill()
        before.process.wait(DEADLINE)
        with serving(*options) as after:
            goes_on(after)
            _, said = after.end(signal.SIGTERM)
    assert not [one for one in said if "taken over" in one]


def test_a_signal_to_the_successor_before_it_serves_leaves_the_old_one(tmp_path: Path) -> None:
    """The test plays the old one, which is asked, and never told that the other one serves."""
    path = tmp_path / "path"
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as at:
        at.bind(str(path))
        at.listen()
        with subprocess.Popen(
            [*COMMAND, "serve", *pair(path)], stderr=subprocess.PIPE, env=environment()
        ) as process:
            channel = Channel(at.accept()[0])
            assert channel.receive(DEADLINE)["protocol"] == PROTOCOL
            process.send_signal(signal.SIGTERM)
            channel.send(DEADLINE, protocol=PROTOCOL, process=1, listeners=2)
            said = {"asked": "127.0.0.1:0", "worker": None, "owned": True, "file": None}
            channel.send(DEADLINE, listening.fileno(), role="echo", **said)
            channel.send(DEADLINE, at.fileno(), role="handover", **said)
            with pytest.raises(GoneError):
                channel.receive(DEADLINE)
            channel.close()
            assert process.wait(DEADLINE) == 0
        with socket.create_connection(listening.getsockname(), DEADLINE):
            listening.settimeout(DEADLINE)
            listening.accept()[0].close()  # it was not shut down
    assert path.is_socket()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_gets_nothing() -> None:
    with reachable() as folder, serving(*pair(folder / "path")) as before:
        path = folder / "path"
        path.chmod(0o666)
        script = (
            "import os, socket, sys\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "with socket.socket(socket.AF_UNIX) as peer:\n"
            "    peer.connect(sys.argv[1])\n"
            "    print(peer.recv(100).decode())\n"
        )
        done = subprocess.run(
            [*python(script), str(path)], capture_output=True, timeout=DEADLINE, check=True
        )
        assert done.stdout.strip() == b'{"refused": "it belongs to another user"}'
        goes_on(before)
        _, said = before.end(signal.SIGTERM)
    assert [one for one in said if "handover refused to process" in one]


def test_a_server_without_a_free_descriptor_can_be_replaced(tmp_path: Path) -> None:
    """A restart is how its limit is raised."""
    options = pair(tmp_path / "path", "--threads=1")
    with serving(*options) as before, ExitStack() as stack:
        pid = before.process.pid
        most = len(os.listdir(f"/proc/{pid}/fd")) + 5
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        clients = []
        for _ in range(7):
            with suppress(ConnectionError):  # one for which there was no descriptor
                clients.append(stack.enter_context(before.connect()))
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) == most, what="all descriptors taken")
        with serving(*options) as after:
            assert after.addresses == before.addresses
            for client in clients:
                client.close()
            assert ended(before)[0] == 0
            goes_on(after)


def test_a_successor_with_too_few_descriptors_says_so(tmp_path: Path) -> None:
    options = [*pair(tmp_path / "path"), *(f"--bind=127.0.0.{i}:0" for i in range(2, 40))]
    with serving(*options) as before:
        done = subprocess.run(
            ["prlimit", "--nofile=30:30", *COMMAND, "serve", *options],
            capture_output=True, text=True, env=environment(), timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 4
        reason = f"fastecho serve: --handover unix:{tmp_path}/path: too many open files\n"
        assert done.stderr == reason
        goes_on(before)
