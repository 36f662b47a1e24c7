"""Listeners: what is really bound, what the kernel puts in force, and what is left behind."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from listeners import listening

from fastecho.address import parse_bind
from fastecho.config import Config
from fastecho.errors import StartError
from fastecho.listener import Listener, read_somaxconn
from fastecho.opening import open_listeners


def option(listener: Listener, level: int, name: int) -> int:
    return listener.socket.getsockopt(level, name)


def connects(family: int, host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        return client.connect_ex((host, port)) == 0


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


# --- TCP --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "family"),
    [("127.0.0.1", socket.AF_INET), pytest.param("[::1]", socket.AF_INET6, marks=needs_ipv6)],
)
def test_port_0_gets_a_real_port_and_the_options_of_a_listener(host: str, family: int) -> None:
    with listening(f"{host}:0") as [listener]:
        assert listener.address.port is not None
        assert listener.address.port == listener.socket.getsockname()[1] != 0
        assert parse_bind(str(listener.address)) == listener.address
        assert listener.family == listener.socket.family == family
        assert (listener.owned, listener.worker) == (True, None)
        assert not listener.socket.getblocking()
        assert not listener.socket.get_inheritable()
        assert option(listener, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert option(listener, socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert option(listener, socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        assert option(listener, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert connects(family, host.strip("[]"), listener.address.port)


def test_its_representation_tells_the_address_and_the_descriptor() -> None:
    with listening("127.0.0.1:0") as [listener]:
        assert repr(listener) == f"<Listener {listener.address} fd={listener.socket.fileno()}>"


def test_an_accepted_socket_inherits_nodelay() -> None:
    with (
        listening("127.0.0.1:0") as [listener],
        socket.create_connection(listener.socket.getsockname(), 5),
    ):
        listener.socket.settimeout(5)
        accepted, _ = listener.socket.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@needs_ipv6
def test_the_ipv6_wildcard_takes_ipv6_only() -> None:
    with listening("[::]:0") as [listener]:
        port = listener.address.port
        assert port is not None
        assert str(listener.address) == f"[::]:{port}"
        assert connects(socket.AF_INET6, "::1", port)
        assert not connects(socket.AF_INET, "127.0.0.1", port)


@needs_ipv6
def test_no_host_is_one_socket_for_both_families() -> None:
    with listening(":0") as [listener]:
        port = listener.address.port
        assert port is not None
        assert str(listener.address) == f":{port}"
        assert listener.family == socket.AF_INET6
        assert connects(socket.AF_INET6, "::1", port)
        assert connects(socket.AF_INET, "127.0.0.1", port)


def test_no_host_is_ipv4_where_ipv6_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastecho.listen_tcp.has_ipv6", lambda host: False)
    with listening(":0") as [listener]:
        assert str(listener.address) == f"0.0.0.0:{listener.address.port}"
        assert listener.family == socket.AF_INET


def resolve_to(*hosts: str) -> object:
    """Return a getaddrinfo that finds these addresses for every name."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        assert host == "example.test"
        families = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in hosts]
        rest = {socket.AF_INET6: (0, 0), socket.AF_INET: ()}
        return [
            (family, socket.SOCK_STREAM, 6, "", (one, port, *rest[family]))
            for family, one in zip(families, hosts, strict=True)
        ]

    return getaddrinfo


@needs_ipv6
def test_a_name_binds_each_of_its_addresses_once_on_one_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = resolve_to("::1", "127.0.0.1", "127.0.0.2", "127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", found)
    with listening("example.test:0") as listeners:
        assert [one.address.host for one in listeners] == ["::1", "127.0.0.1", "127.0.0.2"]
        assert len({one.address.port for one in listeners}) == 1
        assert len({one.socket.fileno() for one in listeners}) == 3


def test_a_name_tries_another_port_when_one_of_its_addresses_has_none_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The port that the kernel picks for the first address may be taken on the second."""
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1", "127.0.0.2"))
    blockers: list[socket.socket] = []

    class Blocking(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:  # type: ignore[override]
            super().bind(address)
            if address == ("127.0.0.1", 0) and len(blockers) < 3:
                port = self.getsockname()[1]
                if port in {blocker.getsockname()[1] for blocker in blockers}:
                    return  # the kernel picked it again, and it is taken already
                monkeypatch.undo()
                try:  # a stranger may have it already: that is an error of bind(2) as well
                    blockers.append(socket.create_server(("127.0.0.2", port)))
                finally:
                    patch()

    def patch() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1", "127.0.0.2"))
        monkeypatch.setattr(socket, "socket", Blocking)

    patch()
    try:
        with listening("example.test:0") as listeners:
            assert len(blockers) == 3
            taken = {blocker.getsockname()[1] for blocker in blockers}
            assert listeners[0].address.port == listeners[1].address.port
            assert listeners[0].address.port not in taken
    finally:
        for blocker in blockers:
            blocker.close()


def test_a_name_with_ipv6_is_bound_where_ipv6_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("::1", "127.0.0.1"))
    monkeypatch.setattr("fastecho.listen_tcp.has_ipv6", lambda host: False)
    with listening("example.test:0") as [listener]:
        assert listener.address.host == "127.0.0.1"


@pytest.mark.parametrize("bind", ["127.0.0.1:0", pytest.param(":0", marks=needs_ipv6)])
def test_reuse_port_gives_each_worker_a_listener_on_the_same_port(bind: str) -> None:
    with listening(bind, workers=4, reuse_port=True) as listeners:
        assert [one.worker for one in listeners] == [0, 1, 2, 3]
        assert len({str(one.address) for one in listeners}) == 1
        assert {option(one, socket.SOL_SOCKET, socket.SO_REUSEPORT) for one in listeners} == {1}


def test_reuse_port_leaves_unix_sockets_to_all_workers(tmp_path: Path) -> None:
    with listening(f"unix:{tmp_path}/s", workers=4, reuse_port=True) as [listener]:
        assert listener.worker is None


def test_one_listener_serves_all_workers_without_reuse_port() -> None:
    with listening("127.0.0.1:0", workers=4) as [listener]:
        assert listener.worker is None


# --- backlog ----------------------------------------------------------------------------------


def limit(listener: Listener) -> int:
    """Return the accept queue's limit as the kernel tells it."""
    info = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=I", info, 28)[0])


@pytest.mark.parametrize("asked", [0, 1, 5, 2**31 - 1])
def test_the_backlog_in_force_is_what_was_asked_up_to_somaxconn(asked: int) -> None:
    with listening("127.0.0.1:0", backlog=asked) as [listener]:
        assert listener.somaxconn == read_somaxconn()
        assert listener.backlog_asked == asked
        assert listener.backlog_effective == min(asked, read_somaxconn()) == limit(listener)


def test_no_backlog_asks_for_somaxconn(tmp_path: Path) -> None:
    with listening("127.0.0.1:0", f"unix:{tmp_path}/s") as listeners:
        for listener in listeners:
            assert listener.backlog_asked == listener.backlog_effective == read_somaxconn()


# --- what the machine refuses -----------------------------------------------------------------


def test_a_port_in_use_is_refused_and_what_was_open_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartError) as caught:
            open_listeners(Config(["127.0.0.1:0", f"unix:{path}", address]), 1)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(caught.value) == f"cannot listen on {address}: the address is in use"
    assert not path.exists()
    assert isinstance(caught.value, OSError)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match="not an address of this machine") as caught:
        open_listeners(Config("192.0.2.1:0"), 1)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_an_address_behind_a_name_is_named_when_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1", "192.0.2.1"))
    with pytest.raises(StartError) as caught:
        open_listeners(Config("example.test:0"), 1)
    assert str(caught.value).startswith("cannot listen on example.test:0 (192.0.2.1:")


def test_a_name_that_does_not_resolve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(StartError) as caught:
        open_listeners(Config("example.test:7"), 1)
    assert caught.value.errno == socket.EAI_NONAME
    assert str(caught.value) == (
        "cannot listen on example.test:7: 'example.test' does not resolve "
        "(Name or service not known)"
    )


def test_one_address_by_two_names_is_refused_with_reuse_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel would let the sockets of one user share the port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more)
    )
    with pytest.raises(StartError, match="the address is in use"):
        open_listeners(Config([f"one.test:{port}", f"two.test:{port}"], reuse_port=True), 2)


def test_a_port_that_is_taken_between_bind_and_listen_is_refused_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With SO_REUSEADDR on both, two sockets may bind a port that nobody listens on yet."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{other.getsockname()[1]}"

        class Slow(socket.socket):
            def listen(self, backlog: int) -> None:  # type: ignore[override]
                other.listen()
                super().listen(backlog)

        monkeypatch.setattr(socket, "socket", Slow)
        with pytest.raises(StartError) as caught:
            open_listeners(Config(address), 1)
    assert str(caught.value) == f"cannot listen on {address}: the address is in use"


# --- inherited descriptors --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "address", "text"),
    [
        (socket.AF_INET, ("127.0.0.1", 0), "127.0.0.1:{port}"),
        pytest.param(socket.AF_INET6, ("::1", 0), "[::1]:{port}", marks=needs_ipv6),
        pytest.param(socket.AF_INET6, ("::", 0), ":{port}", marks=needs_ipv6),
    ],
)
def test_an_inherited_listener_is_used_as_it_is(
    family: int, address: tuple[str, int], text: str
) -> None:
    dual = text.startswith(":")
    with socket.create_server(address, family=family, backlog=7, dualstack_ipv6=dual) as parent:
        with listening(f"fd://{parent.fileno()}") as [listener]:
            assert str(listener.address) == text.format(port=parent.getsockname()[1])
            assert listener.socket.fileno() != parent.fileno()
            assert listener.family == family
            assert not listener.owned
            assert listener.worker is None
            assert not listener.socket.get_inheritable()
            assert not listener.socket.getblocking()
            assert (listener.backlog_asked, listener.backlog_effective) == (None, 7)
        # Closing ours neither closed nor shut down theirs.
        assert parent.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        assert connects(family, host, parent.getsockname()[1])


def test_an_inherited_listener_gets_a_backlog_that_was_asked_for() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=7) as parent,
        listening(f"fd://{parent.fileno()}", backlog=9) as [listener],
    ):
        assert (listener.backlog_asked, listener.backlog_effective) == (9, 9)
        assert limit(listener) == 9


def test_the_file_of_an_inherited_unix_listener_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as parent:
        parent.bind(str(path))
        parent.listen()
        with listening(f"fd://{parent.fileno()}") as [listener]:
            assert str(listener.address) == f"unix:{path}"
            assert (listener.backlog_asked, listener.backlog_effective) == (None, None)
        assert path.exists()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_an_inherited_abstract_listener_has_a_readable_address() -> None:
    with socket.socket(socket.AF_UNIX) as parent:
        parent.bind(f"\0fastecho-{os.getpid()}")
        parent.listen()
        with listening(f"fd://{parent.fileno()}") as [listener]:
            assert str(listener.address) == f"unix:@fastecho-{os.getpid()}"


@contextmanager
def unfit(kind: str) -> Iterator[int]:
    """Give a descriptor that nobody can listen on."""
    with ExitStack() as stack:
        if kind == "pipe":
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)
            yield reader
        elif kind == "unused":
            reader, writer = os.pipe()
            os.close(writer)
            os.close(reader)
            yield reader
        elif kind == "datagram":
            yield stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).fileno()
        elif kind == "sequenced":
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            yield one.fileno()
        elif kind == "connected":
            one, other = socket.socketpair()
            stack.enter_context(other)
            yield stack.enter_context(one).fileno()
        elif kind == "netlink":
            one = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
            yield one.fileno()
        else:
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            yield one.fileno()


@pytest.mark.parametrize(
    ("kind", "number", "why"),
    [
        ("pipe", errno.ENOTSOCK, "is not a socket"),
        ("unused", errno.EBADF, "is not open"),
        ("datagram", errno.EINVAL, "is not bound"),
        ("sequenced", errno.EINVAL, "is not a stream socket"),
        ("connected", errno.EINVAL, "does not listen"),
        ("bound", errno.EINVAL, "does not listen"),
        ("netlink", errno.EAFNOSUPPORT, "neither TCP, UDP nor Unix"),
    ],
)
def test_a_descriptor_that_cannot_be_listened_on_is_refused(
    kind: str, number: int, why: str
) -> None:
    with unfit(kind) as descriptor:
        with pytest.raises(StartError, match=why) as caught:
            open_listeners(Config(f"fd://{descriptor}"), 1)
        assert caught.value.errno == number
        assert str(caught.value).startswith(f"cannot listen on fd://{descriptor}: the ")
        if kind != "unused":
            os.fstat(descriptor)


def test_a_listener_is_closed_in_a_program_that_is_started() -> None:
    with listening("127.0.0.1:0") as [listener]:
        code = f"import os\ntry: os.fstat({listener.socket.fileno()})\nexcept OSError: exit(7)"
        program = subprocess.run([sys.executable, "-c", code], close_fds=False, check=False)
        assert program.returncode == 7
