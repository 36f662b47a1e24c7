"""`blocking`: one peer at a time, and every call waits.

The idea: accept() waits for a peer, recv() for its bytes, sendall() for room in the kernel's
buffer. One thread does one after the other, so the program reads like the conversation itself.

Its cost: next to nothing, while there is one peer.

Where it breaks: the second peer. The kernel completes its handshake and keeps what it sends, so
that its connect() succeeds, but nobody answers before the first peer has left. A peer that is
silent, or does not read its replies, keeps all others waiting for as long as it likes.
"""

from __future__ import annotations

import socket
import time

from .options import RECV_SIZE, RETRY_SECONDS, Conversation, Model, Options, out_of_descriptors

MODEL = Model(
    "blocking",
    idea="accept, recv and send one after the other, each waits",
    good_for="one peer: a test by hand, a first lesson",
    breaks="the second peer waits until the first has left",
    peers=1,
)


def serve(options: Options) -> None:
    """Serve one peer after the other."""
    with options.listen() as listener:
        while True:
            try:
                connection, peer = listener.accept()
            except ConnectionAbortedError:
                continue  # it has left while it waited
            except OSError as error:
                if not out_of_descriptors(error):
                    raise
                time.sleep(RETRY_SECONDS)  # other programs may give some back
                continue
            with connection:
                talk(connection, options.conversation(peer))


def talk(connection: socket.socket, conversation: Conversation) -> None:
    """Echo until the peer has sent its last byte, or is gone."""
    try:
        # b"" is the end: the peer has closed its sending side, and all replies are on their way.
        while data := connection.recv(RECV_SIZE):
            # Not send(): that may take a part only. This one goes on until the kernel has it all.
            connection.sendall(conversation.reply(data))
    except OSError:
        pass  # reset, or gone without a word: that is its right
    finally:
        conversation.end()
