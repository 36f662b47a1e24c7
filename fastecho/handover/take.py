"""Taker: the new server's side, until the listeners are its own.

Lives here: finding the server before, taking what it offers, waiting until it has left. Does not
live here: which address takes what (offers.py), what is said (wire.py).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from contextlib import suppress

from fastecho._version import __version__
from fastecho.errors import StartError
from fastecho.inherited import make_own
from fastecho.signals import block_signals

from .offers import Offer, Offers
from .wire import PROTOCOL, Channel, GoneError, peer_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fastecho.address import Address
    from fastecho.config import Config
    from fastecho.server import Server

__all__ = ["Taker", "take"]

log = logging.getLogger("fastecho")

TURN_SECONDS = 40.0
"""So long the server before may take to answer: another successor may be before this one."""
OFFER_SECONDS = 5.0
"""So long each listener may take to come."""
LEAVE_SECONDS = 10.0
"""So long it may take from being told that this one serves until it has left."""
MOST = 65536
"""Listeners."""


def take(address: Address, users: Collection[int]) -> Taker | None:
    """Ask whoever listens at a path for its listeners; None: nobody does.

    Args:
        address: unix:PATH.
        users: who is believed to be a server of ours.
    Raises:
        StartError: it is somebody else's, refuses, or talks something else.
    """
    assert address.path is not None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(TURN_SECONDS)
        sock.connect(address.path)
        _, user = peer_of(sock)
        if user not in users:
            raise StartError(errno.EPERM, f"--handover {address}: it belongs to user {user}")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, StartError):
            raise _failed(address, error) from None
        raise
    return Taker(address, Channel(sock))


class Taker:
    """What a server before this one offers.

    Attributes:
        process: its process.
        echo, metrics: what it listens on, for peers and for who scrapes it.
        path: the listener of --handover itself.
    """

    def __init__(self, address: Address, channel: Channel) -> None:
        self._address = address
        self._channel = channel
        self._offers: list[Offer] = []
        self._thread: threading.Thread | None = None
        # The end of the talk is this one's doing.
        self._over = False
        try:
            self._receive()
        except BaseException as error:
            self.close()
            if isinstance(error, (GoneError, ValueError, OSError)) and not isinstance(
                error, StartError
            ):
                raise _failed(address, error) from None
            raise
        self.echo = Offers([one for one in self._offers if one.role == "echo"])
        self.metrics = Offers([one for one in self._offers if one.role == "metrics"])
        (self.path,) = [one for one in self._offers if one.role == "handover"]

    def _receive(self) -> None:
        self._channel.send(
            TURN_SECONDS, protocol=PROTOCOL, version=__version__, process=os.getpid()
        )
        said = self._channel.receive(TURN_SECONDS)
        if "refused" in said:
            raise StartError(0, f"--handover {self._address}: refused: {said['refused']}")
        self.process, count = said.get("process"), said.get("listeners")
        if said.get("protocol") != PROTOCOL or not isinstance(count, int) or not 0 < count < MOST:
            raise ValueError(f"it says {said!r}")
        for number in range(count):
            said = self._channel.receive(OFFER_SECONDS)
            sock = socket.socket(fileno=self._channel.take_descriptor())
            self._offers.append(Offer(number, said, sock))
        if [one.role for one in self._offers].count("handover") != 1:
            raise ValueError("it offers no path")

    @property
    def files(self) -> list[tuple[str, int, int]]:
        """The files of what was taken."""
        taken = [one for one in self._offers if one.taken is not None]
        return [one.file for one in taken if one.file is not None and one.owned]

    def serve(self, server: Server, config_of_metrics: Config | None) -> bool:
        """Say that `server` accepts, wait until the one before has left, and own what was taken.

        Returns:
            bool: False if it has not left yet: wait_left() is to be called.
        Raises:
            StartError: the one before refuses after all, and goes on; so `server` is to end.
        """
        taken = [one.number for one in self._offers if one.taken is not None]
        try:
            with suppress(GoneError):  # that is heard as well
                self._channel.send(LEAVE_SECONDS, serving=taken)
            self._hear_left(LEAVE_SECONDS)
        except StartError:
            raise
        except (ValueError, OSError) as error:
            log.warning(
                "the server before, process %s, does not leave: connections may go to either (%s)",
                self.process,
                error,
            )
            return False
        self._own(server, config_of_metrics)
        return True

    def wait_left(
        self, server: Server, config_of_metrics: Config | None, then: Callable[[], object]
    ) -> None:
        """Wait in a thread for one before that hangs, with the talk open: it reads what was said.

        If the talk ended here, it would take this one for dead, go on, and at its own end shut
        down what both have.
        """

        def wait() -> None:
            block_signals()  # they are the main thread's
            try:
                self._hear_left(None)
            except (ValueError, OSError):
                return  # it stays as it is
            if not self._over:
                self._own(server, config_of_metrics)
                log.info("the server before, process %s, has left", self.process)
                then()

        self._thread = threading.Thread(target=wait, name="fastecho-handover", daemon=True)
        self._thread.start()

    def _hear_left(self, timeout: float | None) -> None:
        """Return when the one before has left, or is no more."""
        try:
            said = self._channel.receive(timeout)
            if "refused" in said:
                raise StartError(0, f"--handover {self._address}: refused: {said['refused']}")
        except GoneError:
            if not self._over:
                log.warning(
                    "the server before, process %s, was ended before it had left", self.process
                )

    def _own(self, server: Server, config_of_metrics: Config | None) -> None:
        for one in self._offers:
            if one.taken is None or one.sock.fileno() < 0:  # this one has ended by now
                continue
            settings = config_of_metrics if one.role == "metrics" else server.config
            try:
                if one.role == "handover" or settings is None:
                    one.taken.own(one.file)
                else:
                    make_own(one, settings)
            except OSError as error:
                log.warning("%s keeps its socket options: %s", one.taken.address, error.strerror)
        server._own()

    def close(self) -> None:
        """End the talk, and close what was not taken."""
        self._over = True
        if self._thread is not None:
            self._channel.end()
            self._thread.join()
        self._channel.close()
        Offers(self._offers).close()


def _failed(address: Address, error: Exception) -> StartError:
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    if isinstance(error, GoneError):
        why = "whoever listens there has ended the talk"
    elif isinstance(error, TimeoutError):
        why = "whoever listens there does not answer"
    elif isinstance(error, OSError):
        why = (error.strerror or str(error)).lower()
    else:
        why = f"whoever listens there does not hand over: {error}"
    return StartError(number, f"--handover {address}: {why}")
