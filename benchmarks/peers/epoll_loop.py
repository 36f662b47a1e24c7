"""Echo with select.epoll and non-blocking sockets: one thread of pure Python.

Example: python -m benchmarks.peers.epoll_loop --ready-fd 1
"""

from __future__ import annotations

import select
import socket

from benchmarks.peers._listen import announce_listener, arguments, listen

READ_SIZE = 65536
EVENTS = 1024


class Loop:
    """One level-triggered epoll with its connections, found by their descriptors."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.epoll = select.epoll()
        self.epoll.register(listener.fileno(), select.EPOLLIN)
        self.connections: dict[int, socket.socket] = {}
        # bytes that send did not take; only while there are some
        self.pending: dict[int, memoryview] = {}

    def accept(self) -> None:
        """Accept all that wait in the queue."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            connection.setblocking(False)
            self.connections[connection.fileno()] = connection
            self.epoll.register(connection.fileno(), select.EPOLLIN)

    def release(self, fd: int) -> None:
        """Close the connection; the kernel takes it out of the epoll."""
        self.pending.pop(fd, None)
        self.connections.pop(fd).close()

    def echo(self, fd: int) -> None:
        """Receive once and send it back; what is left over waits for EPOLLOUT."""
        connection = self.connections[fd]
        try:
            data = connection.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.release(fd)
            return
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.release(fd)
            return
        if sent < len(data):
            self.pending[fd] = memoryview(data)[sent:]
            self.epoll.modify(fd, select.EPOLLOUT)

    def flush(self, fd: int) -> None:
        """Send more of what is pending, then read again."""
        rest = self.pending[fd]
        try:
            rest = rest[self.connections[fd].send(rest) :]
        except BlockingIOError:
            return
        except OSError:
            self.release(fd)
            return
        if rest:
            self.pending[fd] = rest
        else:
            del self.pending[fd]
            self.epoll.modify(fd, select.EPOLLIN)

    def run(self) -> None:
        """Serve until the process is ended."""
        listener_fd = self.listener.fileno()
        while True:
            for fd, _ in self.epoll.poll(-1, EVENTS):
                if fd == listener_fd:
                    self.accept()
                elif fd in self.pending:
                    self.flush(fd)
                else:
                    self.echo(fd)


def main() -> None:
    options = arguments(__doc__).parse_args()
    listener = listen()
    announce_listener(listener, options.ready_fd)
    Loop(listener).run()


if __name__ == "__main__":
    main()
