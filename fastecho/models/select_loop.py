"""`select`: the kernel says who is ready, out of a list that it is given each time.

The idea: select() waits until at least one of many sockets can be read from or written to, and
returns those. One thread serves them: accept when the listener is ready, recv when a peer has sent
something, send when there is room for what was left over.

Its cost: the whole list goes to the kernel with each call and is looked through there, then the
answer here: a call for 1,000 peers, of which one has sent a byte, costs as much as for 1,000 that
have.

Where it breaks: at descriptor 1,024. The list is a set of 1,024 bits (FD_SETSIZE), fixed when the C
library was built; ulimit -n does not help. A peer whose socket gets a larger number is turned away
here; C programs that forget the check write past the end of the set.
"""

from __future__ import annotations

import select
import socket
import struct

from .options import RECV_SIZE, RETRY_SECONDS, Conversation, Model, Options, out_of_descriptors

LARGEST = 1023
MODEL = Model(
    "select",
    idea="select() is given all sockets each time and returns those that are ready",
    good_for="some hundred peers, on every system that has sockets",
    breaks="at descriptor 1,024, and each call costs as much as there are peers",
    largest_descriptor=LARGEST,
)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: close() sends RST


class SelectLoop:
    """The peers, and the two lists that select() is given."""

    def __init__(self, listener: socket.socket, options: Options) -> None:
        listener.setblocking(False)
        self.listener = listener
        self.options = options
        self.conversations: dict[socket.socket, Conversation] = {}
        # What of the replies the kernel has not taken; no more is read from these peers.
        self.pending: dict[socket.socket, bytes] = {}
        self.accepts = True  # the listener is asked about
        self.told = False  # that a peer was turned away

    def turn(self) -> None:
        """Wait, and serve whoever is ready."""
        reading = [one for one in self.conversations if one not in self.pending]
        if self.accepts:
            reading.append(self.listener)
        wait = None if self.accepts else RETRY_SECONDS
        readable, writable, _ = select.select(reading, list(self.pending), [], wait)
        self.accepts = True  # there may be a descriptor by now
        for sock in readable + writable:
            if sock is self.listener:
                self.accept()
            else:
                self.go_on(sock)

    def accept(self) -> None:
        """Take one peer; the next one is there at the next turn."""
        try:
            sock, peer = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if not out_of_descriptors(error):
                raise
            self.accepts = False  # for a moment: the listener would be ready all the time
            return
        if sock.fileno() > LARGEST:
            self.turn_away(sock)
            return
        sock.setblocking(False)
        self.conversations[sock] = self.options.conversation(peer)

    def turn_away(self, sock: socket.socket) -> None:
        """Reset a peer that select() cannot be asked about, and say so once."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
        if not self.told:
            self.options.note(f"peers are turned away: select ends at descriptor {LARGEST:,}")
        self.told = True

    def go_on(self, sock: socket.socket) -> None:
        """Send what waits, or answer what has come; no more is read while something waits."""
        pending = self.pending.pop(sock, b"")
        try:
            if not pending:
                data = sock.recv(RECV_SIZE)
                if not data:
                    self.close(sock)  # its last byte was answered
                    return
                pending = self.conversations[sock].reply(data)
            pending = pending[sock.send(pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close(sock)  # reset
            return
        if pending:
            self.pending[sock] = pending

    def close(self, sock: socket.socket) -> None:
        """Let a peer go."""
        self.conversations.pop(sock).end()
        sock.close()


def serve(options: Options) -> None:
    """Take turns for ever."""
    with options.listen() as listener:
        loop = SelectLoop(listener, options)
        try:
            while True:
                loop.turn()
        finally:
            for sock in list(loop.conversations):
                loop.close(sock)
