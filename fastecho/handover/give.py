"""Giver: the running server's side, a thread that waits for a successor.

Lives here: whom listeners are shown to, and until when nothing has changed. Does not live here:
what the server does to its listeners (passing.py), what is said (wire.py).
"""

from __future__ import annotations

import logging
import os
import select
import threading
from contextlib import suppress

from fastecho._version import __version__
from fastecho.signals import block_signals

from .wire import PROTOCOL, Channel, GoneError, peer_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any

    from fastecho.datagram_socket import DatagramSocket
    from fastecho.listener import Listener
    from fastecho.server import Server

__all__ = ["Giver"]

log = logging.getLogger("fastecho")

TALK_SECONDS = 5.0
"""So long the other one may take to say hello, and to read."""
START_SECONDS = 30.0
"""So long it may take from having the descriptors until it serves."""


class Giver:
    """Wait at `listener` for a successor; hand `server` over to it, once.

    Args:
        listener: of the path of --handover; the Giver's from now on.
        server: it runs.
        metrics: what answers for it over HTTP, if anything does: it has `listeners` and give().
    Thread: one of its own, until close().
    """

    def __init__(self, listener: Listener, server: Server, metrics: Metrics | None) -> None:
        self._listener = listener
        self._server = server
        self._metrics = metrics
        self._over, self._end = os.pipe2(os.O_CLOEXEC)
        # At most one: a successor can be let in when connections have all other descriptors.
        self._spare: list[int] = []
        self._keep_spare()
        self._thread = threading.Thread(target=self._run, name="fastecho-handover", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait no more, and remove the path unless a successor has it."""
        os.write(self._end, b"\0")
        self._thread.join(TALK_SECONDS)
        if not self._thread.is_alive():
            for descriptor in (self._over, self._end, *self._spare):
                os.close(descriptor)
            self._spare.clear()
        else:  # it was broken off in the middle of a talk: a successor may be about to serve
            for one in (self._listener, *(self._metrics.listeners if self._metrics else ())):
                one.give()
        self._listener.close()

    def _run(self) -> None:
        block_signals()  # they are the main thread's
        waiting = select.poll()
        waiting.register(self._listener.socket, select.POLLIN)
        waiting.register(self._over, select.POLLIN)
        while True:
            came = waiting.poll()
            if self._over in (descriptor for descriptor, _ in came):
                return
            try:
                sock, _ = self._listener.socket.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                if self._spare:  # the workers have taken all others
                    os.close(self._spare.pop())
                    continue
                log.warning("handover: nobody can be let in: %s", error.strerror)
                if self._is_over(1.0):
                    return
                self._keep_spare()
                continue
            channel = Channel(sock)
            try:
                if self._answer(channel, sock):
                    return
            finally:
                channel.close()
                self._keep_spare()

    def _is_over(self, seconds: float) -> bool:
        """Wait so long for close()."""
        waiting = select.poll()
        waiting.register(self._over, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def _keep_spare(self) -> None:
        if not self._spare:
            with suppress(OSError):
                self._spare.append(os.dup(self._over))

    def _answer(self, channel: Channel, sock: socket.socket) -> bool:
        """Talk to one that came; tell whether the server is its now."""
        process, user = peer_of(sock)
        try:
            if user not in (0, os.geteuid()):
                log.warning("handover refused to process %d of user %d", process, user)
                channel.send(TALK_SECONDS, refused="it belongs to another user")
                return False
            hello = channel.receive(TALK_SECONDS)
            if hello.get("protocol") != PROTOCOL:
                why = f"it speaks protocol {PROTOCOL} of handovers, not {hello.get('protocol')!r}"
                channel.send(TALK_SECONDS, refused=why)
                return False
            if not self._server._lend():
                channel.send(TALK_SECONDS, refused="it is ending")
                return False
        except (GoneError, ValueError, OSError) as error:
            log.warning("handover to process %d: nothing came of it: %s", process, _why(error))
            return False
        try:
            taken = self._offer(channel)
        except BaseException as error:
            self._server._keep()
            if not isinstance(error, (GoneError, ValueError, OSError)):
                raise
            log.warning("handover to process %d failed, going on: %s", process, _why(error))
            return False
        self._leave(taken, process)
        try:
            channel.send(TALK_SECONDS, left=True)
        except (GoneError, OSError):
            pass  # it sees the end of the connection
        return True

    def _offer(self, channel: Channel) -> set[int]:
        """Show everything, and wait until the other one serves; return what it has taken."""
        offered = self._offered()
        channel.send(
            TALK_SECONDS,
            protocol=PROTOCOL, version=__version__, process=os.getpid(), listeners=len(offered),
        )  # fmt: skip
        for role, one in offered:
            channel.send(TALK_SECONDS, one.socket.fileno(), **_described(role, one))
        try:
            said = channel.receive(START_SECONDS)
        except TimeoutError:
            channel.send(TALK_SECONDS, refused=f"it was not ready within {START_SECONDS:g} s")
            raise
        taken = said.get("serving")
        if not isinstance(taken, list) or not all(
            type(one) is int and 0 <= one < len(offered) for one in taken
        ):
            raise ValueError(f"it says {said!r}")
        if channel.is_over():  # it was killed behind that
            raise GoneError
        return set(taken)

    def _offered(self) -> list[tuple[str, Listener | DatagramSocket]]:
        return [
            *(("echo", one) for one in self._server._opened()),
            *(("metrics", one) for one in (self._metrics.listeners if self._metrics else ())),
            ("handover", self._listener),
        ]

    def _leave(self, taken: set[int], process: int) -> None:
        """Have the server drain, without what was taken."""
        offered = self._offered()
        count = len(self._server._opened())
        addresses = dict.fromkeys(str(offered[one][1].address) for one in taken if one < count)
        log.info(
            "handed over to process %d: %s; draining", process, ", ".join(addresses) or "nothing"
        )
        last = len(offered) - 1
        if last in taken:
            self._listener.give()
        self._listener.close()
        if self._metrics is not None:
            self._metrics.give({one - count for one in taken if count <= one < last})
        self._server._give({one for one in taken if one < count})


if TYPE_CHECKING:
    from typing import Protocol

    class Metrics(Protocol):
        """What a Giver needs of a MetricsServer."""

        @property
        def listeners(self) -> Sequence[Listener]:
            """Where it listens."""

        def give(self, taken: set[int]) -> None:
            """End, and leave those listeners to another process."""


def _described(role: str, listener: Listener | DatagramSocket) -> dict[str, Any]:
    """Return what is said of a listener; see Offer."""
    file: Sequence[object] | None = listener.file
    path = listener.address.path
    if file is None and path is not None and not path.startswith("\0"):
        try:
            found = os.lstat(path)
            file = (os.path.abspath(path), found.st_dev, found.st_ino)
        except OSError:
            pass
    asked = listener.address if listener.asked is None else listener.asked
    return {
        "role": role,
        "address": str(listener.address),
        "asked": str(asked),
        "worker": listener.worker,
        "owned": listener.owned,
        "file": file,
    }


def _why(error: BaseException) -> str:
    if isinstance(error, GoneError):
        return "it has gone"
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return str(error).lower()
