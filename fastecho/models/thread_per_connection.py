"""`threaded`: a thread for each connection, which talks as if it were alone.

The idea: the main thread does nothing but accept(); each connection gets a thread of its own, in
which recv() and sendall() may wait as long as they like.

Its cost: a thread for each peer: a stack (8 MiB of addresses, some 40 KiB of real memory) and a
place in the scheduler. In Python only one thread at a time runs Python code (the GIL), so a
thousand busy peers mostly wait for each other: a message costs a quarter more CPU than in an event
loop with ten of them, twice as much with a thousand, and the slowest wait longest.

Where it breaks: thousands of peers. The limit is the machine's threads (ulimit -u, memory), or the
patience of those who wait for the GIL.
"""

from __future__ import annotations

import socket
import threading
import time

from .options import RECV_SIZE, RETRY_SECONDS, Conversation, Model, Options, out_of_descriptors

MODEL = Model(
    "threaded",
    idea="a thread for each connection, in which every call may wait",
    good_for="some dozens of peers, code that reads from top to bottom",
    breaks="thousands of peers: a stack each, and one thread at a time runs Python",
)


def serve(options: Options) -> None:
    """Accept for ever; each connection is served by a thread of its own."""
    # Whoever talks, by thread. Each operation on a dict is a single step for other threads.
    talking: dict[threading.Thread, socket.socket] = {}
    listener = options.listen()

    def talk(connection: socket.socket, conversation: Conversation) -> None:
        try:
            while data := connection.recv(RECV_SIZE):
                connection.sendall(conversation.reply(data))
        except OSError:
            pass  # reset, or the server stops
        finally:
            conversation.end()
            connection.close()
            talking.pop(threading.current_thread(), None)

    try:
        while True:
            try:
                connection, peer = listener.accept()
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if not out_of_descriptors(error):
                    raise
                time.sleep(RETRY_SECONDS)  # newcomers wait in the kernel's queue
                continue
            arguments = (connection, options.conversation(peer))
            # A daemon: a thread that hangs must not keep the program from ending.
            thread = threading.Thread(target=talk, args=arguments, daemon=True)
            talking[thread] = connection
            try:
                thread.start()
            except RuntimeError as error:
                talking.pop(thread).close()
                options.note(f"a peer is turned away: {error}")
    finally:
        listener.close()
        for thread, connection in list(talking.items()):
            try:
                connection.shutdown(socket.SHUT_RDWR)  # its recv() returns now
            except OSError:
                pass  # it has ended by itself
            if thread.is_alive():  # it may not have been started yet
                thread.join(1)
