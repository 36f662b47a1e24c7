r"""A key-value store, line by line: SET KEY VALUE, GET KEY, DEL KEY, each answered by a line.

    python examples/key_value_store.py 127.0.0.1:7001
    printf 'SET colour green\nGET colour\n' | nc -N 127.0.0.1 7001

A peer may send many lines without waiting (pipelining): the replies keep their order.
"""

from __future__ import annotations

import sys

from fastecho import Connection, Server

store: dict[bytes, bytes] = {}


def on_message(connection: Connection, line: bytes) -> bytes:
    match line.rstrip(b"\r\n").split(b" ", 2):
        case [b"SET", key, value]:
            store[key] = value
            return b"OK\n"
        case [b"GET", key]:
            return b"VALUE %s\n" % store[key] if key in store else b"NONE\n"
        case [b"DEL", key]:
            return b"OK\n" if store.pop(key, None) is not None else b"NONE\n"
    return b"ERROR SET KEY VALUE, GET KEY or DEL KEY\n"


if __name__ == "__main__":
    bind = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7001"
    server = Server(bind, frame="line", idle_timeout=300, on_message=on_message)
    server.start()
    print("listening on", server.address, flush=True)
    server.serve_forever()
