"""Taker: the new server's side, until the listeners are its own.

Lives here: finding the server before, taking what it offers, waiting until it has left. Does not
live here: which address takes what (offers.py), what is said (wire.py).
"""

from __future__ import annotations

import errno
import logging
import os
import socket

from fastecho._version import __version__
from fastecho.errors import StartError
from fastecho.inherited import make_own

from .offers import Offer, Offers
from .wire import PROTOCOL, Channel, GoneError, peer_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Collection

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

    def serve(self, server: Server, config_of_metrics: Config | None) -> None:
        """Say that `server` accepts, wait until the one before has left, and own what was taken.

        Raises:
            StartError: the one before refuses after all, and goes on; so `server` is to end.
        """
        taken = [one for one in self._offers if one.taken is not None]
        try:
            self._channel.send(LEAVE_SECONDS, serving=[one.number for one in taken])
            said = self._channel.receive(LEAVE_SECONDS)
            if "refused" in said:
                raise StartError(0, f"--handover {self._address}: refused: {said['refused']}")
        except GoneError:
            log.warning("the server before, process %s, was ended before it had left", self.process)
        except StartError:
            raise
        except (ValueError, OSError) as error:
            log.warning(
                "the server before, process %s, does not leave: connections may go to either (%s)",
                self.process,
                error,
            )
            return
        self._own(taken, server.config, config_of_metrics)
        server._own()

    def _own(self, taken: list[Offer], config: Config, config_of_metrics: Config | None) -> None:
        for one in taken:
            settings = config_of_metrics if one.role == "metrics" else config
            try:
                if one.role == "handover" or settings is None:
                    assert one.taken is not None
                    one.taken.own(one.file)
                else:
                    make_own(one, settings)
            except OSError as error:
                where = one.taken.address if one.taken is not None else one.asked
                log.warning("%s keeps its socket options: %s", where, error.strerror)

    def close(self) -> None:
        """End the talk, and close what was not taken."""
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
        why = f"whoever listens there is no server of ours: {error}"
    return StartError(number, f"--handover {address}: {why}")
