# Why connections end: the counter of each reason.
#
# Lives here: the table. Does not live here: the reasons (src_c/connection.h), counting
# (_connection.pxd).

from libc.stdint cimport uint64_t

from fastecho._cdefs cimport *


cdef inline uint64_t *ended_by(fe_counters *n, int reason) noexcept nogil:
    """The counter of connections that ended for this fe_reason."""
    if reason == FE_BY_PEER:
        return &n.ended_by_peer
    if reason == FE_BY_IDLE_TIMEOUT:
        return &n.ended_by_idle_timeout
    if reason == FE_BY_FIRST_BYTE_TIMEOUT:
        return &n.ended_by_first_byte_timeout
    if reason == FE_BY_FRAME_TOO_LONG:
        return &n.ended_by_frame_too_long
    if reason == FE_BY_DENIAL:
        return &n.ended_by_denial
    if reason == FE_BY_DRAIN:
        return &n.ended_by_drain
    if reason == FE_BY_ABORT:
        return &n.ended_by_abort
    if reason == FE_BY_NO_MEMORY:
        return &n.ended_by_no_memory
    if reason == FE_BY_CLOSE:
        return &n.ended_by_close
    if reason == FE_BY_RESET:
        return &n.ended_by_reset
    if reason == FE_BY_CALLBACK_ERROR:
        return &n.ended_by_callback_error
    if reason == FE_BY_MAX_PENDING:
        return &n.ended_by_max_pending
    if reason == FE_BY_FAULT:
        return &n.ended_by_fault
    if reason == FE_BY_PROXY_HEADER:
        return &n.ended_by_proxy_header
    if reason == FE_BY_MAX_PER_IP:
        return &n.ended_by_max_per_ip
    return &n.ended_by_error
