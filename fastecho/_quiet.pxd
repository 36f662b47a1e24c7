# Connections and time: what happens when a connection has been quiet for too long.
#
# Lives here: its timer, idle and first-byte timeouts, drains, changed limits. Does not live here:
# reading, answering and ending (_connection.pxd), the heap of timers (src_c/timers.h).

from libc.stdint cimport uint32_t, uint64_t

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._connection cimport (
    connection_arm, connection_end, connection_handle, connection_readable, connection_writable,
    is_held, is_late_with_first, linger_look, linger_unsent, quiet_span,
)
from fastecho._messages cimport is_arena_full
from fastecho._service cimport is_service, service_event
from fastecho._worker cimport Worker, faulty


cdef enum:
    # How often a drain looks at a connection that still has replies to send, at the most.
    DRAIN_LOOK_MS = 10


cdef inline void connection_expired(Worker *w, fe_connection *c) noexcept nogil:
    """Its timer has expired: linger, idle, or quiet during a drain."""
    cdef uint32_t unsent
    if c.state == FE_LINGER:
        unsent = linger_unsent(c)
        linger_look(w, c, unsent < c.unsent)
        if c.state == FE_LINGER:
            c.unsent = unsent
            connection_arm(w, c, FE_LINGER_MS)
    elif c.state == FE_ENDING and (faulty_waits(w, c) or is_still_taking(c)):
        connection_arm(w, c, FE_LINGER_MS)
    elif c.state == FE_ENDING:
        fe_count(&w.counters.linger_timeouts, 1)
        connection_handle(w, c, FE_ON_OVERDUE)
    elif not w.draining and quiet_span(w, c) == 0:
        return  # the first byte came in time, and nothing else is timed
    elif w.draining and c.path == FE_PATH_CHARGEN:
        connection_end(w, c, FE_ON_END, FE_BY_DRAIN)  # it would never be quiet
    elif not is_quiet(w, c):
        if c.pending == NULL:
            c.unsent = 0
        connection_arm(w, c, quiet_span(w, c) - quiet_for(w, c))
    else:
        connection_quiet(w, c)


cdef inline bint faulty_waits(const Worker *w, const fe_connection *c) noexcept nogil:
    """Whether its fault holds something back: then it is neither idle nor late."""
    cdef fe_faulty *f = faulty(w, c)
    return f != NULL and c.pending != NULL and f.is_held


cdef inline uint32_t quiet_for(const Worker *w, const fe_connection *c) noexcept nogil:
    """Milliseconds since its last byte."""
    return <uint32_t>w.now_ms - c.active_ms


cdef inline bint is_quiet(const Worker *w, const fe_connection *c) noexcept nogil:
    return quiet_for(w, c) > quiet_span(w, c)


cdef inline bint is_still_taking(fe_connection *c) noexcept nogil:
    """Whether the kernel has got rid of bytes since the last look, or this is the first look.

    EPOLLOUT comes only when a third of the send buffer is free: a slow reader of a buffer of
    some MB goes without for many seconds, and all the time it is not idle.
    """
    cdef uint32_t before = c.unsent
    c.unsent = <uint32_t>_sys.sys_unsent(c.fd)
    return c.unsent < before or (before == 0 and c.unsent and c.pending == NULL)


cdef inline bint is_unheard(Worker *w, const fe_connection *c) noexcept nogil:
    """Whether callbacks have yet to hear of it: one is due, or input waits in the kernel that the
    arena had no room for."""
    if c.path != FE_PATH_CALLBACKS:
        return False
    if c.wishes & FE_AWAITS_CALLBACK:
        return True
    return (
        c.interest & _sys.EPOLLIN != 0
        and is_arena_full(w.messages)
        and _sys.sys_wait_readable(c.fd, 0) > 0
    )


cdef inline void connection_quiet(Worker *w, fe_connection *c) noexcept nogil:
    """No byte was seen for so long. One more look: this process may have been stopped (SIGSTOP,
    a suspended machine), and then its timers expire before its events are looked at. Chargen is only
    sent on where epoll says so: a buffer that is two thirds full takes more of what nobody reads."""
    if is_service(c):
        service_event(w, c, _sys.sys_ready(c.fd, c.interest))
    elif c.interest & _sys.EPOLLOUT:
        connection_writable(w, c)
    if not is_service(c) and c.state == FE_OPEN and c.interest & _sys.EPOLLIN and not c.flags & FE_HAS_FRAMES:
        connection_readable(w, c)
    if c.state != FE_OPEN and c.state != FE_PEER_EOF:
        return
    if (
        not is_quiet(w, c)
        or is_unheard(w, c)
        or (c.flags & FE_HAS_FRAMES and not is_held(c))
        or (not w.draining and faulty_waits(w, c))
        or (not w.draining and is_still_taking(c))
    ):
        if w.draining or quiet_span(w, c):
            connection_arm(w, c, quiet_span(w, c))
    elif not w.draining:
        connection_end(
            w, c, FE_ON_ABORT if c.pending != NULL or c.path == FE_PATH_CHARGEN else FE_ON_END,
            FE_BY_FIRST_BYTE_TIMEOUT if is_late_with_first(w, c) else FE_BY_IDLE_TIMEOUT)
    elif c.pending == NULL and (c.state == FE_OPEN or c.wishes & FE_KEEPS_OPEN):
        connection_end(w, c, FE_ON_END, FE_BY_DRAIN)
    else:
        connection_arm(w, c, max(quiet_span(w, c), <uint64_t>DRAIN_LOOK_MS))


cdef inline void connection_limits(Worker *w, fe_connection *c) noexcept nogil:
    """The limits have changed: its time without a byte counts from now, if it was not counted."""
    if w.draining or (c.state != FE_OPEN and c.state != FE_PEER_EOF):
        return
    if not fe_timer_is_set(&c.timer):
        c.active_ms = <uint32_t>w.now_ms
    if quiet_span(w, c) == 0:
        fe_timers_clear(&w.timers, &c.timer)
    elif is_quiet(w, c):
        connection_arm(w, c, 0)
    else:
        connection_arm(w, c, quiet_span(w, c) - quiet_for(w, c))


cdef inline void connection_drain(Worker *w, fe_connection *c) noexcept nogil:
    """A drain has begun: quiet from now on for drain_idle ends it."""
    if c.state == FE_OPEN or c.state == FE_PEER_EOF:
        c.active_ms = <uint32_t>w.now_ms
        connection_arm(w, c, w.drain_idle_ms)
