"""fastecho.aio.Client: the calls of fastecho.Client, as coroutines of an event loop."""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeServer
from driven import DrivenServer, address_of
from peers import DEADLINE, has_ipv6, pattern, reset, same

import fastecho
from fastecho import ConfigError
from fastecho.aio import Client

SHORT = 0.05  # seconds: for calls that must run into their timeout


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Client, socket.socket]]:
    """Give a client and the socket of its peer, which the test drives."""
    with DrivenServer() as server:
        async with Client(server.address, timeout=DEADLINE) as client:
            yield client, server.accept()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_it_has_the_names_of_the_blocking_client() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert names(Client) - {"connect"} == names(fastecho.Client) - {"fileno"}
    for name in ("send", "recv", "recv_exactly", "recv_line", "echo", "shutdown", "close"):
        assert inspect.iscoroutinefunction(getattr(Client, name))
        parameters = inspect.signature(getattr(fastecho.Client, name)).parameters
        assert list(inspect.signature(getattr(Client, name)).parameters) == list(parameters)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "unix"])
def test_it_echoes_any_size_over_every_kind_of_address(
    host: str, make_server: MakeServer, tmp_path: Path
) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = make_server(f"unix:{tmp_path}/s" if host == "unix" else f"{host}:0")
    data = pattern(5_000_000)

    async def test() -> None:
        async with Client(server.address, timeout=DEADLINE) as client:
            assert await client.echo(b"") == b""
            assert await client.echo(b"hello") == b"hello"
            assert same(await client.echo(data), data)
            assert client.peer_address == server.address
            await client.shutdown()
            assert await client.recv(1) == b""

    run(test)


def test_all_ways_to_receive_share_one_buffer() -> None:
    async def test() -> None:
        async with pair() as (client, peer):
            peer.sendall(b"one\ntwo three\nrest")
            assert await client.recv_line() == b"one\n"
            assert await client.recv_exactly(3) == b"two"
            assert await client.recv(1) == b" "
            assert await client.recv_line() == b"three\n"
            peer.shutdown(socket.SHUT_WR)
            assert await client.recv_line() == b"rest"
            assert await client.recv_line() == b""
            assert await client.recv_exactly(0) == b""
            with pytest.raises(EOFError, match="sent 0 of 1 bytes, then closed"):
                await client.recv_exactly(1)
            with pytest.raises(EOFError, match="sent 0 back, then closed"):
                await client.echo(b"x")

    run(test)


def test_send_takes_all_and_says_how_much_went_in_vain() -> None:
    async def test() -> None:
        async with pair() as (client, peer):
            assert await client.send(memoryview(b"abc")) == 3
            assert peer.recv(9) == b"abc"
            client.timeout = SHORT
            with pytest.raises(TimeoutError, match=r"timed out: .* took \d+ of 64000000 bytes"):
                await client.send(bytes(64_000_000))
            with pytest.raises(TimeoutError, match=r"took \d+ of 64000000 bytes and sent 0 back"):
                await client.echo(bytes(64_000_000))
            await client.close()  # though nobody takes the rest

    run(test)


def test_what_send_has_returned_for_is_the_kernels() -> None:
    async def test() -> None:
        async with pair() as (client, _):
            client.timeout = SHORT
            with pytest.raises(TimeoutError):
                while True:
                    await client.send(bytes(16384))
            assert client._streams is not None
            assert client._streams[1].transport.get_write_buffer_size() <= 16384

    run(test)


def test_after_an_echo_out_of_time_others_may_receive() -> None:
    async def test() -> None:
        async with pair() as (client, peer):
            data = bytes(32_000_000)
            receiving = asyncio.ensure_future(client.recv_exactly(len(data) + 1))
            await asyncio.to_thread(peer.sendall, data)
            while len(client._buffer) < len(data):
                await asyncio.sleep(0)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            client.timeout = 0.1
            with pytest.raises(TimeoutError, match="and sent 32000000 back"):
                await client.echo(data)  # everything is there, and nobody takes it
            client.timeout = DEADLINE
            peer.sendall(b"more")
            assert (await client.recv_exactly(len(data) + 4)).endswith(b"\0more")

    run(test)


def test_echo_ends_with_a_peer_that_answers_and_takes_no_more() -> None:
    async def test() -> None:
        async with pair() as (client, peer):
            data = bytes(32_000_000)

            def answer() -> None:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)

            answering = asyncio.ensure_future(asyncio.to_thread(answer))
            with pytest.raises(
                EOFError, match=r"took \d+ of 32000000 bytes and sent 32000000 back"
            ):
                await client.echo(data)
            await answering

    run(test)


def test_a_timeout_and_a_cancelled_call_lose_no_byte() -> None:
    async def test() -> None:
        async with pair() as (client, peer):
            peer.sendall(b"ab")
            client.timeout = SHORT
            with pytest.raises(TimeoutError, match="sent 2 of 4 bytes"):
                await client.recv_exactly(4)
            with pytest.raises(TimeoutError, match="sent 2 bytes without a newline"):
                await client.recv_line()
            client.timeout = None
            waiting = asyncio.ensure_future(client.recv_exactly(4))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            peer.sendall(b"cd")
            assert await client.recv_exactly(4) == b"abcd"

    run(test)


def test_a_newline_may_be_the_first_byte_of_what_comes_later() -> None:
    async def test() -> None:
        async with pair() as (client, peer):
            peer.sendall(b"line")
            receiving = asyncio.ensure_future(client.recv_line())
            while client._buffer != b"line":
                await asyncio.sleep(0)
            peer.sendall(b"\n")
            assert await receiving == b"line\n"

    run(test)


def test_a_line_is_at_most_a_mebibyte() -> None:
    async def test() -> None:
        async with pair() as (client, peer):
            sending = asyncio.ensure_future(asyncio.to_thread(peer.sendall, bytes(1_048_577)))
            with pytest.raises(OSError, match="1048576 bytes without a newline") as told:
                await client.recv_line()
            assert told.value.errno == errno.EMSGSIZE
            assert len(await client.recv_exactly(1_048_577)) == 1_048_577
            await sending

    run(test)


def test_one_task_sends_while_another_receives() -> None:
    data = pattern(3_000_000)

    async def test() -> None:
        with fastecho.Server() as server:
            async with Client(server.address, timeout=DEADLINE) as client:
                sent, got = await asyncio.gather(client.send(data), client.recv_exactly(len(data)))
                assert sent == len(data)
                assert same(got, data)

    run(test)


def test_a_reset_keeps_errno() -> None:
    async def test() -> None:
        async with pair() as (client, peer):
            reset(peer)
            with pytest.raises(ConnectionResetError):
                await client.recv(1)
            with pytest.raises(OSError) as told:  # noqa: PT011 - the number is asserted
                await client.echo(b"x")
            assert told.value.errno in (errno.ECONNRESET, errno.EPIPE, None)

    run(test)


def test_nobody_there_is_told_as_by_the_blocking_client() -> None:
    async def test() -> None:
        with fastecho.black_hole() as hole:
            with pytest.raises(TimeoutError, match=f"cannot connect to {hole.address}: "):
                await Client(hole.address, timeout=SHORT).connect()
            connecting = asyncio.ensure_future(Client(hole.address).connect())
            await asyncio.sleep(SHORT)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
        with pytest.raises(ConnectionRefusedError, match="Connection refused"):
            await Client(hole.address).connect()
        with pytest.raises(socket.gaierror, match=r"cannot resolve nobody\.invalid"):
            await Client("nobody.invalid:7").connect()

    run(test)


def test_an_address_that_never_answers_leaves_the_others_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        with fastecho.black_hole() as hole, DrivenServer() as server:
            places = [(hole.host, hole.port), ("127.0.0.1", int(server.address.split(":")[1]))]
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            began = time.monotonic()
            async with Client("anything:7", timeout=0.8) as client:
                assert client.peer_address == server.address
            assert time.monotonic() - began < 0.8  # it has had half of that

    run(test)


def test_a_socket_connected_with_itself_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class SelfConnecting(socket.socket):
        def connect(self, place: object) -> None:
            self.bind(place)  # type: ignore[arg-type]
            super().connect(place)  # type: ignore[arg-type]

    async def test() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = address_of(probe)
        monkeypatch.setattr(socket, "socket", SelfConnecting)
        with pytest.raises(ConnectionRefusedError, match="Connection refused"):
            await Client(free).connect()

    run(test)


def test_before_and_after_the_connection_calls_say_so() -> None:
    async def test() -> None:
        with fastecho.Server() as server:
            client = Client((str(server.host), server.port or 0))
            assert repr(client) == f"<aio.Client not connected, {server.address}>"
            with pytest.raises(OSError, match="not connected") as told:
                await client.send(b"x")
            assert told.value.errno == errno.ENOTCONN
            await client.connect()
            assert repr(client) == f"<aio.Client from {client.local_address} to {server.address}>"
            with pytest.raises(OSError, match="connects once"):
                await client.connect()
            await client.close()
            await client.close()
            assert "closed" in repr(client)
            with pytest.raises(OSError, match="Bad file descriptor"):
                await client.recv(1)

    run(test)


def test_wrong_values_are_refused_as_by_the_blocking_client() -> None:
    async def test() -> None:
        with pytest.raises(ConfigError, match="timeout 0 must be a finite number"):
            Client("127.0.0.1:7", timeout=0)
        with pytest.raises(ConfigError, match="has no port"):
            Client("127.0.0.1")
        async with pair() as (client, _):
            with pytest.raises(ValueError, match="at least 1 byte, not 0"):
                await client.recv(0)
            with pytest.raises(ValueError, match="0 bytes or more, not -1"):
                await client.recv_exactly(-1)

    run(test)
