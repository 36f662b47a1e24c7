"""`epoll`: the kernel keeps the list, and tells only who is ready.

The idea: sockets are registered with the kernel once (epoll_ctl). From then on each socket puts
itself into the kernel's ready list when something happens to it; epoll_wait takes from that list.
Nobody looks at sockets to which nothing has happened.

Its cost: a call costs as much as there are ready peers, not as there are peers. 10,000 silent
connections cost nothing but their memory. Changing what is asked for is a system call of its own,
so it is done only when a reply does not fit into the kernel's buffer.

Where it breaks: on one core: all of this is one thread of Python. And it is Linux's own; other
systems have kqueue or event ports for it.
"""

from __future__ import annotations

import select
import socket

from .options import RECV_SIZE, RETRY_SECONDS, Conversation, Model, Options, out_of_descriptors

MODEL = Model(
    "epoll",
    idea="the kernel keeps the list of sockets, and tells only which are ready",
    good_for="many thousand peers on one core",
    breaks="one core of Python; Linux only",
)


class Connection:
    """A peer: its socket, and what of its replies the kernel has not taken yet."""

    def __init__(self, sock: socket.socket, conversation: Conversation) -> None:
        self.socket = sock
        self.conversation = conversation
        self.pending = b""


class EpollLoop:
    """The peers by descriptor, which is all that epoll knows of them."""

    def __init__(self, listener: socket.socket, options: Options) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.options = options
        self.connections: dict[int, Connection] = {}
        self.epoll = select.epoll()
        self.epoll.register(listener, select.EPOLLIN)
        self.accepts = True  # the listener is registered

    def turn(self) -> None:
        """Wait, and serve whoever is ready."""
        ready = self.epoll.poll(None if self.accepts else RETRY_SECONDS)
        if not self.accepts:  # there may be a descriptor by now
            self.epoll.register(self.listener, select.EPOLLIN)
            self.accepts = True
        for fd, _ in ready:
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
            self.epoll.unregister(self.listener)  # for a moment: it would be ready all the time
            self.accepts = False
            return
        sock.setblocking(False)
        self.epoll.register(sock, select.EPOLLIN)
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
            wanted = select.EPOLLOUT if pending else select.EPOLLIN
            self.epoll.modify(connection.socket, wanted)

    def close(self, connection: Connection) -> None:
        """Let a peer go: out of our table, out of the kernel's, closed."""
        del self.connections[connection.socket.fileno()]
        # close() alone does not do it if a child process has a copy of the descriptor.
        self.epoll.unregister(connection.socket)
        connection.conversation.end()
        connection.socket.close()


def serve(options: Options) -> None:
    """Take turns for ever."""
    with options.listen() as listener:
        loop = EpollLoop(listener, options)
        try:
            while True:
                loop.turn()
        finally:
            for connection in list(loop.connections.values()):
                loop.close(connection)
            loop.epoll.close()
