# What a worker is told: the messages of its mailbox, and what they do.
#
# Lives here: serving a newcomer that was placed here, verdicts of the accept callback, the end of
# accepting, drain, abort, changed limits, writes and wishes of other threads. Does not live here:
# the mailbox (_poll.pxd), what happens to one connection (_connection.pxd), who sends a message
# (_core.pyx, _accept.pxd).

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free

from fastecho._accept cimport accept_end, accept_look, accept_stop, connection_begin
from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._connection cimport (
    connection_answered, connection_end, connection_handle, connection_settle,
)
from fastecho._fault cimport fault_reply
from fastecho._faulty cimport connection_admit
from fastecho._messages cimport link_of
from fastecho._poll cimport Message, mailbox_take
from fastecho._proxy cimport proxy_drain, proxy_span
from fastecho._quiet cimport connection_drain, connection_limits
from fastecho._samples cimport Samples, samples_answer
from fastecho._stream cimport stream_count_out, stream_keep
from fastecho._udp cimport datagrams_look
from fastecho._worker cimport (
    MESSAGE_ABORT, MESSAGE_CONNECTION, MESSAGE_DRAIN, MESSAGE_LIMITS, MESSAGE_ROOM,
    MESSAGE_SAMPLE, MESSAGE_STOP_ACCEPTING, MESSAGE_VERDICT, MESSAGE_WISH, MESSAGE_WRITE, WISH_CLOSE, WISH_FULL,
    WISH_LOOK, WISH_PAUSE, WISH_RESET, WISH_RESUME, Worker, faulty, ready_add, worker_clock,
    worker_deadline, worker_take_limits,
)


# --- everything at once --------------------------------------------------------------------

cdef inline void end_all(Worker *w, bint in_order) noexcept nogil:
    """Ends every connection by RST, and accepting without a look at the queue.

    in_order spares those that have our FIN already: what is left is the kernel's to deliver.
    """
    cdef uint32_t slot
    cdef fe_connection *c
    w.aborting = True
    accept_end(w, 0)
    for slot in range(w.connections.used):
        c = fe_slab_at(&w.connections, slot)
        if in_order and c.state == FE_LINGER:
            connection_handle(w, c, FE_ON_OVERDUE)
        elif c.state != FE_FREE and c.state != FE_REAP:
            connection_end(w, c, FE_ON_ABORT, FE_BY_ABORT)


cdef inline void drain_all(Worker *w, uint64_t deadline_ms, uint64_t idle_ms) noexcept nogil:
    """From now on quiet connections end; at the deadline, all. Said again, only an earlier
    deadline counts."""
    cdef uint64_t at_ms = worker_deadline(w, deadline_ms)
    cdef uint64_t before_ms = proxy_span(w)
    cdef uint32_t slot
    if not w.draining or at_ms < w.drain_at_ms:
        w.drain_at_ms = at_ms
        fe_timers_set_spare(&w.timers, &w.drain_timer, at_ms)
    if w.draining and idle_ms >= w.drain_idle_ms:
        return
    w.draining = True
    w.tracks_activity = True
    w.drain_idle_ms = idle_ms
    for slot in range(w.connections.used):
        connection_drain(w, fe_slab_at(&w.connections, slot))
    proxy_drain(w, before_ms)


cdef inline void limits_all(Worker *w) noexcept nogil:
    """The limits have changed: takes them, and sees to the timers of all connections."""
    cdef uint32_t slot
    worker_take_limits(w)
    worker_clock(w)
    for slot in range(w.connections.used):
        connection_limits(w, fe_slab_at(&w.connections, slot))


# --- callbacks -----------------------------------------------------------------------------

cdef inline void messages_written(Worker *w, fe_connection *c, const unsigned char *data, size_t n,
                                  bint is_full) noexcept nogil:
    """Another thread has written; all that it writes in one go is offered to the kernel at once.
    What was written before an end in order began comes before our FIN, which waits for it."""
    cdef int rc
    if c.state > FE_ENDING or c.wishes & FE_SENT_FIN:
        connection_settle(w, c)
        return
    if is_full:
        c.wishes |= FE_OWES_DRAIN
    if faulty(w, c) != NULL:
        rc = fault_reply(&w.stream, c, faulty(w, c), data, n)
    else:
        stream_count_out(&w.stream, c, n)
        rc = stream_keep(&w.stream, c, data, n)
    if rc != 0:
        connection_answered(w, c, rc)
        return
    if c.interest & _sys.EPOLLOUT or c.pending == NULL:
        connection_settle(w, c)
    else:
        c.wishes |= FE_IS_TO_FLUSH
        ready_add(w, c)


cdef inline void messages_wish(Worker *w, fe_connection *c, int wish) noexcept nogil:
    """A Connection asks for something, in its turn among what was written."""
    if wish == WISH_RESET:
        connection_end(w, c, FE_ON_ABORT, FE_BY_RESET)
    elif wish == WISH_FULL:
        connection_end(w, c, FE_ON_ABORT, FE_BY_MAX_PENDING)
    elif wish == WISH_CLOSE:
        connection_end(w, c, FE_ON_END, FE_BY_CLOSE)
    else:
        if wish == WISH_PAUSE:
            c.wishes |= FE_HOLDS
        elif wish == WISH_RESUME:
            c.wishes &= <uint8_t>~FE_HOLDS
        elif not c.wishes & FE_SENT_FIN:
            c.wishes |= FE_WANTS_FIN
        connection_settle(w, c)


cdef inline void write_read(Worker *w, const Message *m) noexcept nogil:
    """What another thread wrote to a connection, if that is still there. The block is ours."""
    cdef fe_connection *c = fe_slab_find(&w.connections, m.slot, m.generation)
    cdef unsigned char *block = <unsigned char *>m.value
    if c != NULL and c.state != FE_REAP:
        fe_atomic_add(&link_of(w.messages, m.slot).posted, -m.value2)
        messages_written(w, c, block, <size_t>m.value2, m.number != 0)
    free(block)


cdef inline void wish_read(Worker *w, const Message *m) noexcept nogil:
    """What another thread wants of a connection, if that is still there."""
    cdef fe_connection *c = fe_slab_find(&w.connections, m.slot, m.generation)
    if c == NULL or c.state == FE_REAP:
        return
    if m.value == WISH_LOOK:
        connection_settle(w, c)
    elif m.value == WISH_RESET or c.state == FE_OPEN or c.state == FE_PEER_EOF:
        messages_wish(w, c, <int>m.value)


cdef inline void verdict_read(Worker *w, const Message *m) noexcept nogil:
    """The accept callback's answer about a newcomer, if that is still there. The block is ours."""
    cdef fe_connection *c = fe_slab_find(&w.connections, m.slot, m.generation)
    cdef fe_fault *fault = <fe_fault *>m.value2
    if c != NULL and c.state == FE_ADMIT:
        if m.value:
            connection_admit(w, c, fault)
        else:
            connection_end(w, c, FE_ON_ABORT, FE_BY_DENIAL)
    free(fault)


# --- the mailbox ---------------------------------------------------------------------------

cdef inline void mail_read(Worker *w) noexcept nogil:
    """Does what the mailbox says."""
    cdef Message *messages
    cdef Message *m
    cdef Message newcomer
    cdef uint32_t i, n = mailbox_take(&w.mailbox, &messages)
    for i in range(n):
        m = &messages[i]
        if m.kind == MESSAGE_CONNECTION:
            newcomer = m[0]
            m.fd = -1  # from here on it has an owner: a forked child finds it there, not here
            connection_begin(w, &newcomer)
        elif m.kind == MESSAGE_VERDICT:
            verdict_read(w, m)
        elif m.kind == MESSAGE_STOP_ACCEPTING:
            accept_stop(w, m.value)
        elif m.kind == MESSAGE_DRAIN:
            drain_all(w, m.value, m.value2)
        elif m.kind == MESSAGE_ABORT:
            end_all(w, False)
        elif m.kind == MESSAGE_LIMITS:
            limits_all(w)
            accept_look(w)
        elif m.kind == MESSAGE_ROOM:
            accept_look(w)
            if m.value:
                datagrams_look(w)
        elif m.kind == MESSAGE_WRITE:
            write_read(w, m)
        elif m.kind == MESSAGE_WISH:
            wish_read(w, m)
        elif m.kind == MESSAGE_SAMPLE:
            samples_answer(w, <Samples *>m.value)
