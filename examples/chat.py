"""A chat room: the first line that a peer sends is its name, every further one goes to all others.

    python examples/chat.py 127.0.0.1:7000

and in other terminals `nc 127.0.0.1 7000`. There is one worker, and its callbacks run one at a
time: so nothing here needs a lock.
"""

from __future__ import annotations

import sys

from fastecho import Connection, Reason, Server

members: set[Connection] = set()


def tell(line: bytes, but: Connection | None = None) -> None:
    """Send a line to everybody. Who does not read holds up nobody, and is reset at max_pending."""
    for member in members:
        if member is not but:
            member.write(line)


def on_message(connection: Connection, line: bytes) -> bytes | None:
    text = line.strip()
    if connection.context is None:
        connection.context = text
        tell(b"* %s is here\n" % text)
        members.add(connection)
        return b"* welcome, %s: %d here\n" % (text, len(members))
    tell(b"%s: %s\n" % (connection.context, text), but=connection)
    return None


def on_close(connection: Connection, reason: Reason) -> None:
    if connection in members:
        members.remove(connection)
        tell(b"* %s has left (%s)\n" % (connection.context, str(reason).encode()))


if __name__ == "__main__":
    server = Server(
        sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7000",
        frame="line",
        max_frame=1000,
        max_pending=1_000_000,
        on_message=on_message,
        on_close=on_close,
    )
    server.start()
    print("listening on", server.address, flush=True)
    server.serve_forever()
