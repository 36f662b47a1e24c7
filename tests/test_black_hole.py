"""The connect black hole: connect hangs for as long as it is there, and for no moment longer."""

from __future__ import annotations

import errno
import os
import re
import resource
import select
import signal
import socket
import subprocess
import time

import pytest
from commands import COMMAND, DEADLINE, assert_refused, environment, run, serving
from conftest import MakeServer, open_descriptors
from peers import connect, exchange, has_ipv6, wait_until

import fastecho
from fastecho import ConfigError, StartError, black_hole

HANGS = 0.05
"""Seconds: a connect over loopback that is answered takes a thousandth of that."""
SYN_AGAIN = 1.0
"""Seconds after which the kernel sends a SYN that nobody has answered again (RFC 6298)."""

hosts = pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param(
            "[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
        ),
    ],
)


def hangs(target: str | tuple[str, int]) -> bool:
    """Tell whether nothing at all answers a connect."""
    try:
        connect(target, timeout=HANGS).close()
    except TimeoutError:
        return True
    except ConnectionRefusedError:
        pass
    return False


def is_refused(target: str) -> bool:
    try:
        connect(target).close()
    except ConnectionRefusedError:
        return True
    return False


@hosts
def test_connect_hangs_until_it_ends_and_then_the_port_refuses(host: str) -> None:
    with black_hole(f"{host}:0") as hole:
        assert hole.address == f"{host}:{hole.port}"
        assert hole.host == host.strip("[]")
        assert hole.addresses == [hole.address]
        assert [hangs(hole.address) for _ in range(3)] == [True] * 3
        assert repr(hole) == f"<fastecho.black_hole {hole.address}>"
    assert is_refused(hole.address)
    assert repr(hole) == f"<fastecho.black_hole {hole.address} closed>"
    hole.close()


def test_a_hundred_connects_at_once_all_hang() -> None:
    with black_hole() as hole:
        sockets = [socket.socket() for _ in range(100)]
        try:
            for sock in sockets:
                sock.setblocking(False)
                assert sock.connect_ex((hole.host, hole.port)) != 0
            wait_until(lambda: hangs(hole.address))
            states = [
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for sock in sockets
            ]
            assert states == [2] * 100  # TCP_SYN_SENT
        finally:
            for sock in sockets:
                sock.close()


@hosts
def test_a_server_on_the_same_port_answers_what_still_hangs(
    host: str, make_server: MakeServer
) -> None:
    with black_hole(f"{host}:0") as hole:
        began = time.monotonic()
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setblocking(False)
        sock.connect_ex((hole.host, hole.port))
    with sock:
        server = make_server(hole.address)
        with connect(server) as peer:
            assert exchange(peer, b"new") == b"new"
        connected = select.poll()
        connected.register(sock, select.POLLOUT)
        assert connected.poll(DEADLINE * 1000)
        assert time.monotonic() - began >= SYN_AGAIN * 0.9
        assert exchange(sock, b"hung") == b"hung"


def test_a_client_calls_it_a_timeout() -> None:
    with black_hole() as hole, pytest.raises(TimeoutError, match="timed out"):
        fastecho.Client(hole.address, timeout=HANGS)


def test_one_that_has_ended_is_not_entered_again() -> None:
    with black_hole() as hole:
        pass
    with pytest.raises(RuntimeError, match=r"closed> has ended: make another one"), hole:
        pass


def test_a_list_and_a_name_are_all_black_holes() -> None:
    with black_hole([("127.0.0.1", 0), "127.0.0.2:0"]) as hole:
        assert [hangs(address) for address in hole.addresses] == [True, True]
        assert hole.addresses[1].startswith("127.0.0.2:")


def test_every_address_of_the_machine_is_one() -> None:
    with black_hole(":0") as hole:
        assert hole.address == f":{hole.port}"
        assert hangs(("127.0.0.1", hole.port))
        if has_ipv6():
            assert hangs(("::1", hole.port))


def test_what_is_no_tcp_address_is_refused(tmp_path: str) -> None:
    with pytest.raises(ConfigError, match=r"^bind 'unix:.*' must be HOST:PORT"):
        black_hole(f"unix:{tmp_path}/s")
    in_use = pytest.raises(StartError, match="the address is in use")
    with socket.create_server(("127.0.0.1", 0)) as other, in_use:
        black_hole(("127.0.0.1", other.getsockname()[1]))


def test_without_descriptors_it_names_the_address_and_leaves_nothing_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    errors: list[StartError] = []  # with them is kept what their frames hold
    for most in range(3, soft):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        try:
            black_hole(["127.0.0.1:0", "127.0.0.2:0"]).close()
            break
        except StartError as error:
            errors.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert open_descriptors() == before
    sentences = {re.sub(r":\d+:", ":", str(error)) for error in errors}
    assert sentences == {
        f"cannot {what}: too many open files"
        for what in ("listen on 127.0.0.1", "listen on 127.0.0.2", "fill the queue of 127.0.0.2")
    }
    assert {error.errno for error in errors} == {errno.EMFILE}


def test_a_forked_child_leaves_it_alone_and_does_not_keep_it() -> None:
    with black_hole() as hole:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            hole.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert hangs(hole.address)
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)  # until the parent closes its end
            os._exit(0)
        os.close(reader)
    assert is_refused(hole.address)
    os.close(writer)
    assert os.waitpid(pid, 0)[1] == 0


# --- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_holds_it_until_a_signal(number: int) -> None:
    with serving("--black-hole") as served:
        [address] = served.addresses
        assert hangs(address)
        code, said = served.end(number)
        assert is_refused(address)
    assert code == 0
    assert said == [f"fastecho: black hole on {address}: every connect hangs", "fastecho: stopped"]


def test_the_command_warns_of_other_machines_and_leaves_ignored_signals() -> None:
    program = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND]
    with serving("--black-hole", "--bind=0.0.0.0:0", program=program) as served:
        [address] = served.addresses
        served.process.send_signal(signal.SIGHUP)
        assert hangs(address.replace("0.0.0.0", "127.0.0.1"))
        code, said = served.end(signal.SIGTERM)
    assert code == 0
    assert said[1] == f"fastecho: warning: {address} can be reached from other machines"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--threads=2"], "--threads '2' cannot be used with --black-hole: it serves nobody"),
        (["--access-log"], "--access-log cannot be used with --black-hole: it serves nobody"),
        (["--fault=deny"], "--fault 'deny' cannot be used with --black-hole: it serves nobody"),
        (["--model=epoll"], "--model 'epoll' cannot be used with --black-hole: it serves nobody"),
        (["--bind=unix:/tmp/s"], "--bind 'unix:/tmp/s' must be HOST:PORT with --black-hole"),
    ],
)
def test_what_means_nothing_to_a_black_hole_is_exit_code_2(
    arguments: list[str], sentence: str
) -> None:
    assert_refused(run("serve", "--black-hole", *arguments), 2, sentence)


def test_its_configuration_is_what_it_honours() -> None:
    done = run("serve", "--black-hole", "--print-config")
    lines = [line.removeprefix("# ") for line in done.stdout.splitlines()]
    names = [line.partition(" ")[0] for line in lines]
    assert names == ["bind", "log_format", "log_level", "black_hole", "user", "group"]


def test_a_port_in_use_is_exit_code_4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"--bind=127.0.0.1:{other.getsockname()[1]}"
        assert_refused(run("serve", "--black-hole", bind), 4, "the address is in use")


def test_too_few_descriptors_are_exit_code_4() -> None:
    binds = [f"--bind=127.0.0.{number}:0" for number in range(1, 5)]
    program = ["sh", "-c", 'ulimit -n 9; exec "$@"', "sh", *COMMAND, "serve", "--black-hole"]
    done = subprocess.run(
        [*program, *binds], capture_output=True, text=True, timeout=DEADLINE, env=environment()
    )
    assert_refused(done, 4, "fastecho serve: cannot fill the queue of 127.0.0.")
    assert done.stderr.endswith(": too many open files\n")


def test_it_needs_no_compiled_core() -> None:
    code = "import sys, fastecho; fastecho.black_hole().close()"
    code += "; print('fastecho._core' in sys.modules)"
    done = subprocess.run(
        [COMMAND[0], "-c", code], capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
