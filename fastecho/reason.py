"""Reason: why a connection ended, as on_close is told.

Lives here: the names. Does not live here: what leads to each (src_c/connection.h, which has the
same names for the access log and the statistics).
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """Why a connection ended: the first cause counts. Each is a str as well.

    Attributes:
        PEER: the peer's FIN came first.
        ERROR: recv, send or epoll_ctl failed; most often the peer has reset the connection.
        IDLE_TIMEOUT, FIRST_BYTE_TIMEOUT, FRAME_TOO_LONG, MAX_PENDING: the limit of that name.
        FAULT: a fault's deny, close_after or reset_after.
        CLOSE, RESET: Connection.close(), Connection.abort().
        CALLBACK_ERROR: a callback raised, or returned what is not bytes-like.
        DRAIN: quiet while the server drained.
        ABORT: reset at a drain's deadline, or by Server.abort().
        NO_MEMORY: memory for its bytes or its registration was refused.
    """

    PEER = "peer"
    ERROR = "error"
    IDLE_TIMEOUT = "idle_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    FRAME_TOO_LONG = "frame_too_long"
    MAX_PENDING = "max_pending"
    FAULT = "fault"
    CLOSE = "close"
    RESET = "reset"
    CALLBACK_ERROR = "callback_error"
    DRAIN = "drain"
    ABORT = "abort"
    NO_MEMORY = "no_memory"
