"""Message callbacks: what one does to other connections than the one that it is called for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from conftest import Join, MakeServer
from diary import Diary, Gate
from peers import DEADLINE, exchange, is_reset, iterations_at_rest, recv_exactly

from fastecho import Connection, Reason


@pytest.mark.parametrize("by", ["close", "abort", "write_eof", "resume_reading"])
def test_a_callback_may_end_or_resume_another_connection(
    make_server: MakeServer, join: Join, by: str
) -> None:
    handles: list[Connection] = []

    def answer(connection: Connection, data: bytes) -> bytes:
        if data == b"do it":
            getattr(handles[0], by)()
        else:
            handles.append(connection)
            connection.pause_reading()
            if len(handles) > 1:
                connection.resume_reading()
        return data

    server = make_server(on_message=answer)
    other, peer = join(server), join(server)
    assert exchange(other, b"1") == b"1"
    assert exchange(peer, b"2") == b"2"
    if by == "resume_reading":
        other.sendall(b"held")
    assert exchange(peer, b"do it") == b"do it"  # it has resumed itself
    if by == "resume_reading":
        assert recv_exactly(other, 4) == b"held"
    else:
        assert is_reset(other) == (by == "abort")


@pytest.mark.parametrize("rest", [b"", b"rest"], ids=["nothing", "a rest"])
def test_pause_in_the_round_of_the_fin_holds_on_eof_and_the_rest_before_it(
    make_server: MakeServer, join: Join, tmp_path: Path, rest: bytes
) -> None:
    gate = Gate()

    def answer(connection: Connection, data: bytes) -> None:
        if data == b"hold\n":
            gate.hold()
        elif data == b"pause the other\n":
            handle.pause_reading()

    diary = Diary(answer)
    server = make_server(f"unix:{tmp_path / 'socket'}", frame="line", **diary.all())
    holder, pauser, peer = join(server), join(server), join(server)
    pauser.sendall(b"hello\n")
    peer.sendall(b"hello\n" + rest)
    handles = [diary.notes.get(timeout=DEADLINE)[1] for _ in range(2)]
    handle = next(one for one in handles if one.id == 3)
    holder.sendall(b"hold\n")
    gate.wait()
    pauser.sendall(b"pause the other\n")
    peer.shutdown(socket.SHUT_WR)
    gate.open()
    assert diary.next() == ("message", b"hold\n")
    assert diary.next() == ("message", b"pause the other\n")
    assert iterations_at_rest(server) == 0
    assert diary.notes.empty()
    handle.resume_reading()
    if rest:
        assert diary.next() == ("message", rest)
    assert diary.next() == ("eof",)
    assert diary.next() == ("close", Reason.PEER)
