"""`socketserver`: the standard library's class for "a thread for each connection".

The idea: socketserver.ThreadingTCPServer accepts and starts the threads; a handler class says what
happens on a connection: setup(), handle(), finish(), with self.request for the socket and
self.client_address for the peer. The conversation is that of `threaded`; the rest is given.

Its cost: that of `threaded`, and an object for each connection.

Where it breaks: where `threaded` does, and in its own traps, each answered below by a line:
- a backlog of 5 (request_queue_size): the seventh of a burst waits a second for its next SYN;
- no SO_REUSEADDR: after a restart "Address already in use", for a minute;
- threads that are no daemons: the program ends when the last peer likes to;
- shutdown() waits for serve_forever() to return: called from the same thread, it waits for ever;
- an exception in accept() is swallowed: without a descriptor left, serve_forever() spins.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
from typing import Any

from .options import RECV_SIZE, RETRY_SECONDS, Model, Options, out_of_descriptors

MODEL = Model(
    "socketserver",
    idea="socketserver.ThreadingTCPServer: a class says what happens on a connection",
    good_for="a small server from the standard library alone",
    breaks="like threaded, and by its defaults: backlog 5, no address reuse",
)


class Handler(socketserver.BaseRequestHandler):
    """One connection: the base class calls setup(), handle() and finish(), in its thread."""

    server: Server
    request: socket.socket

    def setup(self) -> None:
        """Before the conversation."""
        self.server.open.add(self.request)
        self.conversation = self.server.options.conversation(self.client_address)

    def handle(self) -> None:
        """The conversation."""
        try:
            while data := self.request.recv(RECV_SIZE):
                self.request.sendall(self.conversation.reply(data))
        except OSError:
            pass  # reset, or the server stops

    def finish(self) -> None:
        """After it, whatever happened."""
        self.conversation.end()
        self.server.open.discard(self.request)


class Server(socketserver.ThreadingTCPServer):
    """The server: what the class leaves to us are its traps."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.open: set[socket.socket] = set()
        self.request_queue_size = options.backlog
        self.address_family, where = options.bound()
        super().__init__(where, Handler)  # binds and listens

    def server_bind(self) -> None:
        """Bind; an IPv6 address stands for itself, unless every address was meant."""
        if self.address_family == socket.AF_INET6:
            only = bool(self.options.address.host)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the caller takes an OSError for a reason to try again at once."""
        try:
            return super().get_request()
        except OSError as error:
            if out_of_descriptors(error):
                time.sleep(RETRY_SECONDS)
            raise

    def handle_error(self, *_: object) -> None:
        """No thread could be started, say; the base class would print a traceback."""
        self.options.note(f"a peer is turned away: {sys.exception()}")


def serve(options: Options) -> None:
    """Serve in a thread of its own, so that shutdown() can be called from this one."""
    with Server(options) as server:
        # It looks whether to stop every so many seconds; the default is half a second.
        thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
        try:
            thread.start()
            options.listening(server.socket)
            while thread.is_alive():
                thread.join(0.1)  # not for ever: a signal that came just before waits for us
        finally:
            if thread.is_alive():  # otherwise shutdown() would wait for what never ran
                server.shutdown()
            for connection in list(server.open):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended by itself
