"""What every I/O model is given: the listener, what a reply is, what is printed, what it cannot do.

Lives here: all that is not the lesson of a model, so that each model's file holds nothing else.
Does not live here: how peers are served (the files beside this one, one model each), flags and
signals (cli/_model.py). A model is a function `serve(options)`. It ends by KeyboardInterrupt, which
the command raises in the main thread at SIGINT and SIGTERM, once: what a model does in a `finally`
is not interrupted again. One with a loop that is not its own sets Options.stop instead.
"""

from __future__ import annotations

import codecs
import errno
import socket

from fastecho.logs import one_line

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable

    from fastecho.address import Address

__all__ = ["RECV_SIZE", "RETRY_SECONDS", "Conversation", "Model", "Options", "out_of_descriptors"]

RECV_SIZE = 65536
"""Bytes of one recv: as much as a peer's send usually brings at once on loopback."""

RETRY_SECONDS = 0.1
"""How soon accept() is tried again when no descriptor was left; newcomers wait in the kernel's
queue meanwhile."""

ENGLISH = ("peer (ip: {}, port: {}) sent: {}", "peer (ip: {}, port: {}) has disconnected")
CHINESE = ("客户端(ip: {}, port: {}) 发来消息: {}", "客户端(ip: {}, port: {}) 已经断开连接")


class Model:
    """What is known of an I/O model, as data: for the list, the tests and the documentation.

    Attributes:
        name: as on the command line.
        idea: how it serves its peers.
        good_for, breaks: what it is good for, and what it cannot do.
        peers: how many it serves at the same time; None: as many as there are descriptors.
        largest_descriptor: the largest that it can wait for; None: any.
        idle_cpu: share of a core that it takes while nothing happens, 0 or 1.
    """

    __slots__ = (
        "breaks", "good_for", "idea", "idle_cpu", "largest_descriptor", "name", "peers",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        idea: str,
        good_for: str,
        breaks: str,
        peers: int | None = None,
        largest_descriptor: int | None = None,
        idle_cpu: int = 0,
    ) -> None:
        self.name = name
        self.idea = idea
        self.good_for = good_for
        self.breaks = breaks
        self.peers = peers
        self.largest_descriptor = largest_descriptor
        self.idle_cpu = idle_cpu


class Options:
    """How a model is to serve.

    Args:
        address: where to listen: TCP.
        backlog: the argument of listen(2), in connections.
        prefix: bytes before each reply.
        show_messages: print what peers send and when they leave, in the tutorial's words.
        chinese: in its own language.
        on_listening: is told host and port once it listens.
        note: takes a sentence for the log.
        put: takes a line that show_messages asks for.
    """

    def __init__(
        self,
        address: Address,
        *,
        backlog: int = 128,
        prefix: bytes = b"",
        show_messages: bool = False,
        chinese: bool = False,
        on_listening: Callable[[str, int], object] = lambda _host, _port: None,
        note: Callable[[str], object] = print,
        put: Callable[[str], object] = print,
    ) -> None:
        self.address = address
        self.backlog = backlog
        self.prefix = prefix
        self.show_messages = show_messages
        self.words = CHINESE if chinese else ENGLISH
        self.on_listening = on_listening
        self.note = note
        self.put = put
        self.stop: Callable[[], object] | None = None
        """What a signal calls instead of raising KeyboardInterrupt; for the model to set."""

    def bound(self) -> tuple[socket.AddressFamily, tuple[str, int]]:
        """Return the family and socket address to bind; a name's first one counts."""
        host, port = self.address.host, self.address.port
        assert port is not None
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        if not host:  # every address of this machine: IPv6 where there is one, IPv4 through it
            found.sort(key=lambda one: one[0] != socket.AF_INET6)
        family, _, _, _, where = found[0]
        return family, (str(where[0]), int(where[1]))

    def listen(self) -> socket.socket:
        """Return a blocking listener."""
        family, where = self.bound()
        dual = not self.address.host and family == socket.AF_INET6
        listener = socket.create_server(
            where, family=family, backlog=self.backlog, dualstack_ipv6=dual
        )
        self.listening(listener)
        return listener

    def listening(self, listener: socket.socket) -> None:
        """Say where it listens."""
        host, port = listener.getsockname()[:2]
        self.on_listening(host, port)

    def conversation(self, peer: tuple[object, ...]) -> Conversation:
        """Return what is said to a peer whose address accept() gave."""
        return Conversation(self, peer)


class Conversation:
    """What is said on one connection: the reply to each recv, and the lines about it if asked for.

    A character that lies on both sides of a recv is shown with the second; what could steer a
    terminal is shown as an escape.
    """

    __slots__ = ("_decoder", "_options", "_peer", "reply")

    def __init__(self, options: Options, peer: tuple[object, ...]) -> None:
        self._options = options
        self._peer = peer
        self._decoder = None
        self.reply: Callable[[bytes], bytes] = self._plain
        if options.show_messages:
            self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
            self.reply = self._shown

    def _plain(self, data: bytes) -> bytes:
        return self._options.prefix + data

    def _shown(self, data: bytes) -> bytes:
        assert self._decoder is not None
        text = self._decoder.decode(data)
        if text:
            self._put(0, one_line(text.removesuffix("\n")))
        return self._options.prefix + data

    def end(self) -> None:
        """The peer has gone."""
        if self._decoder is not None:
            if rest := self._decoder.decode(b"", final=True):
                self._put(0, rest)
            self._put(1)

    def _put(self, which: int, *text: str) -> None:
        self._options.put(self._options.words[which].format(*self._peer[:2], *text))


def out_of_descriptors(error: OSError) -> bool:
    """Tell whether accept() failed for want of a descriptor or memory: later it may not."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
