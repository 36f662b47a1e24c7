"""`callbacks`: epoll, an event queue, and a function that was registered for each event.

The idea: the loop knows nothing of echoing. Whoever waits for something registers a callback for
(socket, event): `accept` for the listener, `receive` for a peer that may send, `flush` for one
whose reply waits for room. epoll tells what has happened, that goes into a queue, and the loop
takes one event after the other and calls what was registered. This is what asyncio, libuv and nginx
are made of, and what the tutorial means by an accept callback and a recv callback.

Its cost: that of `epoll`, a look into a table and an entry in a queue for each event.

Where it breaks: where `epoll` does, and in the reader's head: what happens to one connection is
spread over functions that only the loop calls. Coroutines (`asyncio`) give that back.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from functools import partial

from .options import RECV_SIZE, RETRY_SECONDS, Conversation, Model, Options, out_of_descriptors

MODEL = Model(
    "callbacks",
    idea="epoll, an event queue, and a callback registered for each event",
    good_for="understanding what asyncio and libuv do inside",
    breaks="like epoll; and one conversation is spread over many functions",
)
READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class EventLoop:
    """Sockets, the callback of each, and the events that have happened and wait for theirs."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.callbacks: dict[int, Callable[[], None]] = {}
        self.queue: deque[int] = deque()
        self.later: list[Callable[[], None]] = []  # to be called a moment later

    def on(self, sock: socket.socket, event: int, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever `event` happens to the socket; it replaces another."""
        change = self.epoll.modify if sock.fileno() in self.callbacks else self.epoll.register
        change(sock, event)
        self.callbacks[sock.fileno()] = callback

    def off(self, sock: socket.socket) -> None:
        """Forget the socket."""
        if self.callbacks.pop(sock.fileno(), None) is not None:
            self.epoll.unregister(sock)

    def run(self) -> None:
        """Wait for events, put them into the queue, call what is registered for each."""
        while True:
            self.queue.extend(
                fd for fd, _ in self.epoll.poll(RETRY_SECONDS if self.later else None)
            )
            while self.later:
                self.later.pop()()
            while self.queue:
                # One that was forgotten meanwhile has none.
                callback = self.callbacks.get(self.queue.popleft())
                if callback is not None:
                    callback()


class EchoServer:
    """The callbacks."""

    def __init__(self, loop: EventLoop, listener: socket.socket, options: Options) -> None:
        listener.setblocking(False)
        self.loop = loop
        self.listener = listener
        self.options = options
        self.open: dict[socket.socket, Conversation] = {}
        loop.on(listener, READ, self.accept)

    def accept(self) -> None:
        """The accept callback: a peer has come; from now on what it sends is an event, too."""
        try:
            sock, peer = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if not out_of_descriptors(error):
                raise
            self.loop.off(self.listener)  # for a moment: it would be ready all the time
            self.loop.later.append(partial(self.loop.on, self.listener, READ, self.accept))
            return
        sock.setblocking(False)
        self.open[sock] = self.options.conversation(peer)
        self.loop.on(sock, READ, partial(self.receive, sock))

    def receive(self, sock: socket.socket) -> None:
        """The recv callback: a peer has sent something, its last byte, or is gone."""
        try:
            data = sock.recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.flush(sock, self.open[sock].reply(data), waited=False)
        else:
            self.close(sock)

    def flush(self, sock: socket.socket, data: bytes, *, waited: bool) -> None:
        """Send what the kernel takes; as the send callback, when there is room for the rest."""
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close(sock)
            return
        if data:
            self.loop.on(sock, WRITE, partial(self.flush, sock, data, waited=True))
        elif waited:
            self.loop.on(sock, READ, partial(self.receive, sock))

    def close(self, sock: socket.socket) -> None:
        """Let a peer go."""
        self.open.pop(sock).end()
        self.loop.off(sock)
        sock.close()


def serve(options: Options) -> None:
    """Run the loop for ever."""
    loop = EventLoop()
    with options.listen() as listener:
        server = EchoServer(loop, listener, options)
        try:
            loop.run()
        finally:
            for sock in list(server.open):
                server.close(sock)
            loop.epoll.close()
