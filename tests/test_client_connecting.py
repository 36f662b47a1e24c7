"""fastecho.Client while it connects: forms of addresses, names, refusals, time.

What the exchange does is in test_client.py. No extension is needed.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from driven import DrivenServer, address_of, black_hole, refusing_address
from peers import DEADLINE, has_ipv6

from fastecho import Client, ConfigError
from fastecho.address import Address

ROOT = Path(__file__).resolve().parent.parent
SHORT = 0.05  # seconds: for attempts that must run into their timeout

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")


@pytest.fixture
def driven() -> Iterator[DrivenServer]:
    with DrivenServer() as server:
        yield server


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Make every name stand for these IPv4 addresses."""
    places = [(host, int(port)) for host, port in (a.split(":") for a in addresses)]

    def getaddrinfo(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_addresses_are_those_that_the_peer_sees(driven: DrivenServer) -> None:
    with Client(driven.address) as client:
        host, port = driven.accept().getpeername()
        assert client.local_address == f"{host}:{port}"
        assert client.peer_address == driven.address
        assert repr(client) == f"<Client from {host}:{port} to {driven.address}>"


def test_every_form_of_an_address_connects(driven: DrivenServer) -> None:
    host, _, port = driven.address.rpartition(":")
    address = Address("tcp", host=host, port=int(port))
    for form in (driven.address, (host, int(port)), address):
        with Client(form) as client:
            assert client.peer_address == driven.address


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")
def test_ipv6_address_connects() -> None:
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener,
        Client(address_of(listener)) as client,
    ):
        assert client.peer_address == address_of(listener)
        assert client.local_address.startswith("[::1]:")


def test_unix_socket_connects_and_exchanges(tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with Client(f"unix:{path}", timeout=DEADLINE) as client:
            peer, _ = listener.accept()
            with peer:
                client.send(b"hello")
                peer.sendall(peer.recv(100).upper())
                assert client.recv(100) == b"HELLO"
                assert client.peer_address == f"unix:{path}"
                assert client.local_address == "unix:"


def test_refusal_is_told_with_the_address() -> None:
    with ExitStack() as stack:
        address = refusing_address(stack)
        with pytest.raises(ConnectionRefusedError) as caught:
            Client(address)
    assert caught.value.strerror == f"cannot connect to {address}: Connection refused"
    assert caught.value.errno == errno.ECONNREFUSED


def test_missing_unix_socket_is_told_with_the_address(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot connect to unix:.*none.sock: No such"):
        Client(f"unix:{tmp_path}/none.sock")


def test_all_addresses_of_a_name_are_tried_in_order(
    driven: DrivenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        resolve_to(monkeypatch, refusing_address(stack), driven.address)
        with Client("some.name:7") as client:
            assert client.peer_address == driven.address


def test_failure_names_all_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        first, second = refusing_address(stack), refusing_address(stack)
        resolve_to(monkeypatch, first, second, first)
        with pytest.raises(ConnectionRefusedError) as caught:
            Client("some.name:7")
    expected = f"cannot connect to some.name:7: Connection refused (tried {first}, {second})"
    assert caught.value.strerror == expected


@linux_only
def test_failures_that_differ_are_each_told_and_the_last_gives_errno(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        hole = address_of(black_hole(stack, socket.AF_INET, ("127.0.0.1", 0)))
        refusing = refusing_address(stack)
        resolve_to(monkeypatch, hole, refusing)
        with pytest.raises(ConnectionRefusedError) as caught:
            Client("some.name:7", timeout=SHORT)
    assert caught.value.strerror == (
        f"cannot connect to some.name:7: {hole}: Connection timed out, "
        f"{refusing}: Connection refused"
    )


@linux_only
def test_address_that_never_answers_leaves_time_for_the_next(
    driven: DrivenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        hole = address_of(black_hole(stack, socket.AF_INET, ("127.0.0.1", 0)))
        resolve_to(monkeypatch, hole, driven.address)
        started = time.monotonic()
        with Client("some.name:7", timeout=1.0) as client:
            assert client.peer_address == driven.address
        assert 0.5 <= time.monotonic() - started < 1.0


@linux_only
def test_connecting_in_vain_times_out() -> None:
    with ExitStack() as stack:
        hole = address_of(black_hole(stack, socket.AF_INET, ("127.0.0.1", 0)))
        with pytest.raises(TimeoutError, match="Connection timed out") as caught:
            Client(hole, timeout=SHORT)
    assert caught.value.errno == errno.ETIMEDOUT


@linux_only
def test_connecting_in_vain_to_a_unix_socket_times_out(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with ExitStack() as stack:
        black_hole(stack, socket.AF_UNIX, path)
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="Connection timed out") as caught:
            Client(f"unix:{path}", timeout=SHORT)
    assert caught.value.errno == errno.ETIMEDOUT
    assert time.monotonic() - started >= SHORT


def test_name_that_does_not_resolve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(socket.gaierror) as caught:
        Client("no.such.name:7")
    assert caught.value.errno == socket.EAI_NONAME
    assert caught.value.strerror == "cannot resolve no.such.name: Name or service not known"


def test_socket_connected_with_itself_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class SelfConnecting(socket.socket):
        def connect(self, place: object) -> None:
            self.bind(place)  # type: ignore[arg-type]
            super().connect(place)  # type: ignore[arg-type]

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = address_of(probe)
    monkeypatch.setattr(socket, "socket", SelfConnecting)
    with pytest.raises(ConnectionRefusedError, match="Connection refused"):
        Client(free)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts /proc/self/fd")
def test_failed_connect_leaves_no_descriptor() -> None:
    with ExitStack() as stack:
        address = refusing_address(stack)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(ConnectionRefusedError):
                Client(address, timeout=DEADLINE)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("timeout", "reason"),
    [
        (0, "above 0"),
        (-1.5, "above 0"),
        (float("inf"), "finite"),
        (float("nan"), "finite"),
        ("5", "number of seconds"),
        (True, "number of seconds"),
    ],
)
def test_timeout_that_is_no_time_is_refused(
    driven: DrivenServer, timeout: float, reason: str
) -> None:
    with pytest.raises(ConfigError, match=rf"timeout .*{reason}"):
        Client(driven.address, timeout=timeout)
    with Client(driven.address, timeout=DEADLINE) as client:
        with pytest.raises(ConfigError, match=rf"timeout .*{reason}"):
            client.timeout = timeout
        assert client.timeout == DEADLINE


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:0", "unix:", "fd://3", "a:b:c"])
def test_address_without_a_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^address "):
        Client(address)


def test_importing_the_client_is_cheap() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from fastecho import Client; "
        "print(*({'asyncio', 'dataclasses', 'inspect', 'typing', 'struct', 'threading'}"
        " & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (result.stdout.strip(), result.stderr) == ("", "")
