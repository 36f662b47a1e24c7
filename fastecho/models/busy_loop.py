"""`nonblocking`: no call waits, so one thread can serve many peers, by asking all of them again.

The idea: setblocking(False). accept(), recv() and send() return at once, with a BlockingIOError if
there was nothing to do. So the loop goes round: is there a new peer? has this one sent something?
can that one take more? A send takes what fits into the kernel's buffer; the rest is kept, and while
there is a rest no more is read from that peer.

Its cost: a whole core, always. The loop never waits, so it asks a hundred thousand times a second
even if nobody has said a word. That is honest work for nothing: 1,000 peers are 1,000 system calls
a round, most of which find nothing.

Where it breaks: every peer makes every round longer, for all of them. What is missing is somebody
who says who is ready: select, poll and epoll do.
"""

from __future__ import annotations

import socket

from .options import RECV_SIZE, Conversation, Model, Options, out_of_descriptors

MODEL = Model(
    "nonblocking",
    idea="no call waits: one thread asks every peer, again and again",
    good_for="seeing why somebody has to say who is ready",
    breaks="a whole core while nothing happens; every peer slows down all others",
    idle_cpu=1,
)


class Connection:
    """A peer: its socket, and what of its replies the kernel has not taken yet."""

    def __init__(self, sock: socket.socket, conversation: Conversation) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.conversation = conversation
        self.pending = b""

    def go_on(self) -> bool:
        """Do what can be done now. False: this connection is over."""
        try:
            if not self.pending:
                data = self.socket.recv(RECV_SIZE)
                if not data:
                    return False  # the peer's last byte was answered
                self.pending = self.conversation.reply(data)
            self.pending = self.pending[self.socket.send(self.pending) :]
        except BlockingIOError:
            pass  # nothing has come, or nothing can leave
        except OSError:
            return False  # reset
        return True

    def close(self) -> None:
        """Let go."""
        self.conversation.end()
        self.socket.close()


def accepted(listener: socket.socket, options: Options) -> Connection | None:
    """Return the next peer, if there is one."""
    try:
        sock, peer = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    except OSError as error:
        if not out_of_descriptors(error):
            raise
        return None  # it stays in the kernel's queue
    return Connection(sock, options.conversation(peer))


def serve(options: Options) -> None:
    """Go round for ever."""
    listener = options.listen()
    listener.setblocking(False)
    connections: list[Connection] = []
    try:
        while True:
            connection = accepted(listener, options)
            if connection is not None:
                connections.append(connection)
            for connection in connections.copy():
                if not connection.go_on():
                    connections.remove(connection)
                    connection.close()
    finally:
        listener.close()
        for connection in connections:
            connection.close()
