"""`poll`: like select, without its limit, and the list is kept between calls.

The idea: sockets are registered once, each with the events that matter; poll() waits and returns
(descriptor, events) of those that are ready. What is asked for changes only when it has to: POLLOUT
instead of POLLIN while a reply waits for room.

Its cost: Python keeps the list, but the kernel is still given all of it with each call, and looks
at every socket. With 1,000 peers of which one is active, that is nearly all that it does.

Where it breaks: it does not, it gets slow: the time of a call grows with the number of peers,
whether they say something or not.
"""

from __future__ import annotations

import select
import socket

from .options import RECV_SIZE, RETRY_SECONDS, Conversation, Model, Options, out_of_descriptors

MODEL = Model(
    "poll",
    idea="sockets are registered once; poll() returns (descriptor, events) of those ready",
    good_for="some thousand peers where there is no epoll",
    breaks="gets slow: the kernel looks at every socket in each call",
)


class Connection:
    """A peer: its socket, and what of its replies the kernel has not taken yet."""

    def __init__(self, sock: socket.socket, conversation: Conversation) -> None:
        self.socket = sock
        self.conversation = conversation
        self.pending = b""


class PollLoop:
    """The peers by descriptor, which is all that poll() knows of them."""

    def __init__(self, listener: socket.socket, options: Options) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.options = options
        self.connections: dict[int, Connection] = {}
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)
        self.accepts = True  # the listener is registered

    def turn(self) -> None:
        """Wait, and serve whoever is ready."""
        ready = self.poll.poll(None if self.accepts else RETRY_SECONDS * 1000)
        if not self.accepts:  # there may be a descriptor by now
            self.poll.register(self.listener, select.POLLIN)
            self.accepts = True
        for fd, _ in ready:
            # An error or a hang-up is told as well: then the calls below say which.
            if connection := self.connections.get(fd):
                self.go_on(connection)
            elif fd == self.listener.fileno():
                self.accept()

    def accept(self) -> None:
        """Take one peer; the next one is there at the next turn."""
        try:
            sock, peer = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if not out_of_descriptors(error):
                raise
            self.poll.unregister(self.listener)  # for a moment: it would be ready all the time
            self.accepts = False
            return
        sock.setblocking(False)
        self.poll.register(sock, select.POLLIN)
        self.connections[sock.fileno()] = Connection(sock, self.options.conversation(peer))

    def go_on(self, connection: Connection) -> None:
        """Send what waits, or answer what has come; no more is read while something waits."""
        waited = pending = connection.pending
        try:
            if not pending:
                data = connection.socket.recv(RECV_SIZE)
                if not data:
                    self.close(connection)  # its last byte was answered
                    return
                pending = connection.conversation.reply(data)
            pending = pending[connection.socket.send(pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close(connection)  # reset
            return
        if pending or waited:
            connection.pending = pending
            wanted = select.POLLOUT if pending else select.POLLIN
            self.poll.modify(connection.socket, wanted)

    def close(self, connection: Connection) -> None:
        """Let a peer go."""
        del self.connections[connection.socket.fileno()]
        self.poll.unregister(connection.socket)
        connection.conversation.end()
        connection.socket.close()


def serve(options: Options) -> None:
    """Take turns for ever."""
    with options.listen() as listener:
        loop = PollLoop(listener, options)
        try:
            while True:
                loop.turn()
        finally:
            for connection in list(loop.connections.values()):
                loop.close(connection)
