"""The fixtures without pytest: a client's tests for unittest.

python -m unittest examples/test_with_unittest.py
"""

from __future__ import annotations

import socket
import unittest

from fastecho import Connection, black_hole
from fastecho.refused import RefusedAddress
from fastecho.testing import EchoServer


def ask(host: str, port: int, question: bytes, timeout: float = 5) -> bytes:
    """Send a line and return the line that answers it: the client under test."""
    with socket.create_connection((host, port), timeout) as sock:
        sock.sendall(question + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            data = sock.recv(4096)
            if not data:
                raise EOFError(f"the answer ended after {answer!r}")
            answer += data
    return answer[:-1]


class AskTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(EchoServer(frame="line"))

    def test_the_answer_is_what_the_server_sends(self) -> None:
        self.assertEqual(ask(self.server.host, self.server.port, b"hello"), b"hello")
        self.assertEqual(self.server.received, b"hello\n")

    def test_an_answer_that_is_cut_off_is_no_answer(self) -> None:
        def cut_off(connection: Connection, question: bytes) -> None:
            connection.write(b"half an ans")
            connection.close()

        server = self.enterContext(EchoServer(frame="line", on_message=cut_off))
        with self.assertRaisesRegex(EOFError, "half an ans"):
            ask(server.host, server.port, b"hello")

    def test_connect_has_a_timeout(self) -> None:
        hole = self.enterContext(black_hole())
        with self.assertRaises(TimeoutError):
            ask(hole.host, hole.port, b"hello", timeout=0.05)

    def test_nobody_there_is_refused_at_once(self) -> None:
        refused = self.enterContext(RefusedAddress())
        with self.assertRaises(ConnectionRefusedError):
            ask(refused.host, refused.port, b"hello")


if __name__ == "__main__":
    unittest.main()
