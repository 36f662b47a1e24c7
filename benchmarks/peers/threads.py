"""Echo with blocking sockets: a thread for each connection.

Example: python -m benchmarks.peers.threads --ready-fd 1
"""

from __future__ import annotations

import socket
import threading

from benchmarks.peers._listen import announce_listener, arguments, listen

READ_SIZE = 65536


def echo(connection: socket.socket) -> None:
    """Send back what is received until the peer ends."""
    with connection:
        try:
            while data := connection.recv(READ_SIZE):
                connection.sendall(data)
        except ConnectionError:
            pass


def main() -> None:
    options = arguments(__doc__).parse_args()
    listener = listen()
    announce_listener(listener, options.ready_fd)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
