# What happens to a connection: reading, answering, flushing, ending.
#
# Lives here: the actions that src_c/connection.h's table names, and the rule that derives from
# a connection's bytes and state what to ask epoll for. Does not live here: the bytes
# themselves (_stream.pxd), the loop (_loop.pxd), accepting (_accept.pxd), time (_quiet.pxd).
#
# Every entry point below ends in connection_settle() or in a transition; none frees a record.
# After any of them the connection may be in state REAP: callers look again before they go on.

from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memset

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._fault cimport (
    fault_answer, fault_feed, fault_flush, fault_forget, fault_set_timer, is_pending_full,
)
from fastecho._log cimport log_connection, log_error
from fastecho._messages cimport (
    ARENA_SIZE, JOB_DRAIN, JOB_EOF, JOB_FRAMES, JOB_INPUT, LINK_CLOSING, Link, Messages,
    is_arena_full, job_add, job_room, link_ended, link_of, link_take,
)
from fastecho._poll cimport Message, mailbox_post
from fastecho._proxied cimport proxied_end
from fastecho._reasons cimport ended_by
from fastecho._stream cimport (
    STREAM_FRAME_TOO_LONG, STREAM_NO_MEMORY, stream_answer, stream_count_dropped, stream_count_in,
    stream_count_out, stream_drop, stream_drop_input, stream_feed, stream_flush, stream_keep,
    stream_room, stream_send,
)
from fastecho._worker cimport (
    MESSAGE_ENDED, READ_SIZE, Worker, faulty, list_remove, peer_leave, peer_of, place_give, ready_add,
    ready_remove, reap_add, tag_of, worker_clock, worker_deadline,
)


# Bulk. Fewer, larger sends pay: a recv of at least BULK_MIN marks bulk, and is followed by others
# until the buffer is full or nothing is left.
cdef enum:
    BULK_MIN = 32 * 1024


# How often it is looked whether all has arrived, before a fault's RST: at first after 50
# microseconds, then half as often each time, down to this.
cdef enum:
    FAULT_LOOK_NS = 20 * 1000 * 1000


# --- ending --------------------------------------------------------------------------------

cdef inline void connection_leave(Worker *w, const fe_connection *c) noexcept nogil:
    """Counts a connection that is about to be closed, by its reason, and gives its place back.

    Before the FIN or RST, for the same reason as bytes: a peer that has seen the end may connect
    again, or ask for the statistics.
    """
    cdef fe_counters *n = &w.counters
    fe_count(ended_by(n, c.reason), 1)
    fe_count(&n.connections_closed, 1)
    peer_leave(w.shared, peer_of(w, c.slot))
    fe_atomic_add(&w.placed, -1)
    place_give(w.shared)


cdef inline void link_end(Worker *w, const fe_connection *c) noexcept nogil:
    """on_close is due: in the next phase of callbacks, or, without on_message, on the thread that
    runs the accept callback."""
    cdef Link *link = link_take(w.messages, c.slot, c.reason)
    cdef Message message
    if link == NULL:
        return
    if w.messages.delivers:
        link_ended(w.messages, link)
        return
    memset(&message, 0, sizeof(message))
    message.kind = MESSAGE_ENDED
    message.fd = -1
    message.value = <int64_t>link
    if mailbox_post(&w.shared.admissions, &message, True) < 0:
        free(link)


cdef inline void connection_close(Worker *w, fe_connection *c) noexcept nogil:
    """Out of epoll, closed, on the reap list. DEL first: a forked child may hold a duplicate.

    The record forgets the descriptor before it is closed: a fork in between must not make the
    child close a number that another thread was given.
    """
    cdef int fd = c.fd
    ready_remove(w, c)
    if c.path == FE_PATH_PROXY:
        list_remove(w, &w.waiting, c)
    fe_timers_clear(&w.timers, &c.timer)
    stream_drop(&w.stream, c)
    if faulty(w, c) != NULL:
        fault_forget(w.faults, c)
    log_connection(w, c)
    proxied_end(&w.proxied, c.slot)
    if w.messages != NULL:
        link_end(w, c)
    if c.flags & FE_IS_REGISTERED:
        _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_DEL, fd, 0, 0)
        c.flags &= <uint8_t>~FE_IS_REGISTERED
    c.fd = -1
    _sys.sys_close(fd)
    reap_add(w, c)


cdef inline void connection_handle(Worker *w, fe_connection *c, int event) noexcept nogil:
    """Takes the transition that the table names and carries out its actions, in their order."""
    cdef fe_transition t = fe_transition_for(c.state, event)
    c.state = t.next
    if t.actions & FE_DO_CLOSE:
        connection_leave(w, c)
    if t.actions & FE_DO_SERVE:
        connection_serve(w, c)
    if t.actions & FE_DO_LAST_FRAMES:
        if c.path == FE_PATH_CALLBACKS:
            c.wishes |= FE_OWES_EOF
        else:
            connection_answer(w, c)
    if t.actions & FE_DO_LINGER_TIMER:
        c.unsent = <uint32_t>_sys.sys_unsent(c.fd)
        connection_arm(w, c, FE_LINGER_MS)
    if t.actions & FE_DO_FIN:
        # Not left to close(): while a forked child holds a duplicate, close() sends nothing.
        _sys.sys_shutdown(c.fd, _sys.SHUT_WR)
        c.discarded = 0
        c.unsent = linger_unsent(c)
    if t.actions & FE_DO_RESET:
        _sys.sys_reset(c.fd)
    if t.actions & FE_DO_CLOSE:
        connection_close(w, c)


cdef inline void connection_end(Worker *w, fe_connection *c, int event, int reason) noexcept nogil:
    """Ends it by event (END, ABORT). The first reason stands, but for a peer that ended
    in order and was not told everything."""
    if c.reason == FE_BY_NOBODY or c.reason == FE_BY_PEER:
        c.reason = <uint8_t>reason
    if c.state == FE_ADMIT:
        fe_buffer_free(&c.unparsed)  # a part of a header is no frame
    if event == FE_ON_END:
        stream_drop_input(&w.stream, c)
        c.wishes &= <uint8_t>~(FE_KEEPS_OPEN | FE_OWES_EOF | FE_AWAITS_CALLBACK)
        if w.messages != NULL and link_of(w.messages, c.slot) != NULL:
            fe_atomic_swap(&link_of(w.messages, c.slot).state, LINK_CLOSING)
    connection_handle(w, c, event)
    connection_settle(w, c)


cdef inline void connection_failed(Worker *w, fe_connection *c, int rc) noexcept nogil:
    """A call on its socket failed with rc (-errno): the kernel has given it up."""
    fe_count_errno(&w.counters, rc)
    log_error(w, c, rc)
    connection_end(w, c, FE_ON_ABORT, FE_BY_ERROR)


cdef inline void connection_refused(Worker *w, fe_connection *c, int rc) noexcept nogil:
    """Memory or a registration for it was refused with rc (-errno). RST: something is lost."""
    fe_count_errno(&w.counters, rc)
    log_error(w, c, rc)
    connection_end(w, c, FE_ON_ABORT, FE_BY_NO_MEMORY)


cdef inline void connection_arm(Worker *w, fe_connection *c, uint64_t ms) noexcept nogil:
    """Sets its timer. Without memory for it the connection ends: a promise would be broken."""
    if fe_timers_set(&w.timers, &c.timer, worker_deadline(w, ms)) < 0:
        connection_refused(w, c, -ENOMEM)


# --- what to ask epoll for -----------------------------------------------------------------

cdef inline bint is_held(const fe_connection *c) noexcept nogil:
    """Whether nothing is read and no frame answered: for what is pending, or as callbacks wish."""
    return c.flags & FE_IS_PAUSED or c.wishes & FE_HOLDS


cdef inline uint32_t wanted_interest(const Worker *w, const fe_connection *c) noexcept nogil:
    """EPOLLIN while it may read, EPOLLOUT while something is pending for the kernel."""
    cdef uint32_t interest = _sys.EPOLLOUT if c.pending != NULL else 0
    cdef fe_faulty *f = faulty(w, c)
    if f != NULL and f.is_held:
        interest = 0
    if c.state == FE_OPEN:
        return interest if is_held(c) else interest | _sys.EPOLLIN
    if c.state == FE_LINGER or (c.state == FE_ENDING and not c.flags & FE_HAS_EOF):
        return interest | _sys.EPOLLIN
    return interest


cdef inline void connection_ask(Worker *w, fe_connection *c, uint32_t interest) noexcept nogil:
    """Tells epoll, when it changed. One that hung up while nothing was asked for left the set:
    it comes back when something is asked for again."""
    cdef int rc
    if c.flags & FE_IS_REGISTERED:
        if interest == c.interest:
            return
        rc = _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_MOD, c.fd, interest, tag_of(c))
    elif interest == 0 and c.flags & FE_HAS_HUNG_UP:
        return
    else:
        rc = _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_ADD, c.fd, interest, tag_of(c))
        if rc == 0:
            c.flags = (c.flags | FE_IS_REGISTERED) & <uint8_t>~FE_HAS_HUNG_UP
    c.interest = <uint8_t>interest
    if rc < 0:
        # Not retried: ENOSPC and ENOMEM leave a connection that nobody would ever hear of.
        connection_refused(w, c, rc)


cdef inline void connection_settle(Worker *w, fe_connection *c) noexcept nogil:
    """Draws the consequences of what is pending now: pause or resume, ready list, the end of a
    flush, epoll's interest."""
    cdef size_t pending
    if c.state == FE_REAP or c.state == FE_ADMIT:
        return
    pending = fe_buffer_size(c.pending)
    if faulty(w, c) != NULL:
        if not faulty_settle(w, c, faulty(w, c), pending):
            return
    elif c.flags & FE_IS_PAUSED:
        if pending <= w.stream.low_water:
            c.flags &= <uint8_t>~FE_IS_PAUSED
    elif pending >= w.stream.high_water:
        c.flags |= FE_IS_PAUSED
    if c.path == FE_PATH_CALLBACKS:
        if not messages_settle(w, c, pending):
            return
        pending += <size_t>fe_atomic_load(&link_of(w.messages, c.slot).posted)
    if c.flags & FE_HAS_FRAMES:
        if not is_held(c) and not c.wishes & FE_AWAITS_CALLBACK:
            ready_add(w, c)
    elif (
        pending == 0
        and (c.state == FE_PEER_EOF or c.state == FE_ENDING)
        and not c.wishes & (FE_AWAITS_CALLBACK | FE_OWES_EOF | FE_KEEPS_OPEN)
    ):
        connection_handle(w, c, FE_ON_FLUSHED)
        if c.state == FE_LINGER and c.flags & FE_HAS_EOF:
            connection_handle(w, c, FE_ON_EOF)
        if c.state == FE_REAP:
            return
    connection_ask(w, c, wanted_interest(w, c))


# --- faults --------------------------------------------------------------------------------

cdef inline bint faulty_settle(Worker *w, fe_connection *c, fe_faulty *f,
                               size_t pending) noexcept nogil:
    """What follows from pending bytes where there is a fault: pause, resume, the end that it asks
    for. False: that was begun here."""
    cdef int end = fe_faulty_end(f)
    if is_pending_full(w.faults, c, f):
        c.flags |= FE_IS_PAUSED
    elif pending <= w.faults.low_water:
        c.flags &= <uint8_t>~FE_IS_PAUSED
    if end == FE_FAULT_GOES_ON or c.state == FE_LINGER:
        return True
    if end == FE_FAULT_CLOSES and c.state == FE_ENDING:
        return True
    if end == FE_FAULT_RESETS and _sys.sys_unsent(c.fd) > 0:
        return faulty_wait(w, c, f)
    f.has_ended = True
    connection_end(w, c, FE_ON_ABORT if end == FE_FAULT_RESETS else FE_ON_END, FE_BY_FAULT)
    return False


cdef inline bint faulty_wait(Worker *w, fe_connection *c, fe_faulty *f) noexcept nogil:
    """An RST now would take what has not arrived from the peer: it is looked again soon, and no
    FIN comes before. False: the peer is gone, and it was ended here."""
    cdef int rc = _sys.sys_socket_error(c.fd)
    if rc < 0:
        connection_failed(w, c, rc)
        return False
    c.wishes = (c.wishes | FE_KEEPS_OPEN) & <uint8_t>~FE_WANTS_FIN
    f.look_ns = min(2 * f.look_ns, <uint64_t>FAULT_LOOK_NS) if f.look_ns else 50000
    if fault_set_timer(w.faults, f, _sys.sys_now_ns() + f.look_ns) < 0:
        connection_refused(w, c, -ENOMEM)
        return False
    return True


cdef inline void faulty_hung_up(Worker *w, fe_connection *c, const fe_faulty *f) noexcept nogil:
    """The peer has reset it while replies wait for their time, or nothing is ever read: no read
    or send would tell. Where nothing is read, that both sides sent FIN tells as well."""
    cdef int rc = _sys.sys_socket_error(c.fd)
    if rc < 0 or f.fault.flags & FE_FAULT_NO_READ:
        connection_read_failed(w, c, rc)


# --- callbacks -----------------------------------------------------------------------------

cdef inline void messages_due(Worker *w, fe_connection *c, int kind, size_t offset=0,
                              size_t size=0) noexcept nogil:
    """A callback is due; until it has returned, nothing more is read from this peer."""
    if job_add(w.messages, kind, c, offset, size) < 0:
        connection_refused(w, c, -ENOMEM)
    else:
        c.wishes |= FE_AWAITS_CALLBACK


cdef inline bint messages_settle(Worker *w, fe_connection *c, size_t pending) noexcept nogil:
    """What follows from pending bytes where there are callbacks: FIN, on_drain, on_eof, too much.
    False: it was ended here."""
    cdef Link *link = link_of(w.messages, c.slot)
    fe_atomic_store(&link.pending, <int64_t>pending)
    if <int64_t>pending > w.messages.max_pending and c.state != FE_ENDING:
        connection_end(w, c, FE_ON_ABORT, FE_BY_MAX_PENDING)
        return False
    if c.wishes & FE_AWAITS_CALLBACK or (c.state != FE_OPEN and c.state != FE_PEER_EOF):
        return True
    if c.wishes & FE_OWES_DRAIN and pending <= w.stream.low_water:
        c.wishes &= <uint8_t>~FE_OWES_DRAIN
        messages_due(w, c, JOB_DRAIN)
    elif c.wishes & FE_OWES_EOF and not c.wishes & FE_HOLDS and not c.flags & FE_HAS_FRAMES:
        c.wishes &= <uint8_t>~FE_OWES_EOF
        messages_due(w, c, JOB_EOF)
    if c.state == FE_REAP:
        return False
    if c.wishes & FE_WANTS_FIN and pending == 0 and fe_atomic_load(&link.posted) == 0:
        # Of a peer that has sent its FIN, ours is the end.
        c.wishes = (c.wishes | FE_SENT_FIN) & <uint8_t>~(FE_WANTS_FIN | FE_KEEPS_OPEN)
        if c.state == FE_OPEN:
            _sys.sys_shutdown(c.fd, _sys.SHUT_WR)
    return True


cdef inline void messages_read(Worker *w, fe_connection *c) noexcept nogil:
    """EPOLLIN: receives once, into the arena; who finds it full, or waits for a callback, shows
    again."""
    cdef Messages *m = w.messages
    cdef size_t room = ARENA_SIZE - m.used
    cdef ssize_t n
    if c.wishes & FE_AWAITS_CALLBACK or is_arena_full(m):
        return
    if job_room(m) < 0:
        connection_refused(w, c, -ENOMEM)
        return
    n = _sys.sys_recv(c.fd, m.arena + m.used, min(room, stream_room(&w.stream, c, READ_SIZE)))
    if n <= 0:
        connection_read_failed(w, c, n)
        return
    if w.tracks_activity:
        c.active_ms = <uint32_t>w.now_ms
    c.flags &= <uint8_t>~(FE_WAS_REFUSED | FE_AWAITS_FIRST)
    stream_count_in(&w.stream, c, n)
    messages_due(w, c, JOB_INPUT, m.used, n)
    m.used += n


cdef inline void messages_go_on(Worker *w, fe_connection *c) noexcept nogil:
    """Its turn on the ready list: offers what other threads wrote, then frames are due."""
    if c.wishes & FE_IS_TO_FLUSH:
        c.wishes &= <uint8_t>~FE_IS_TO_FLUSH
        connection_writable(w, c)
        if c.state == FE_REAP:
            return
    if c.flags & FE_HAS_FRAMES and not is_held(c) and not c.wishes & FE_AWAITS_CALLBACK:
        ready_remove(w, c)
        messages_due(w, c, JOB_FRAMES)


# --- events --------------------------------------------------------------------------------

cdef inline void connection_serve(Worker *w, fe_connection *c) noexcept nogil:
    """The action SERVE: into epoll, idle timer."""
    if w.messages != NULL:
        link_of(w.messages, c.slot).served = True
    if w.tracks_activity:
        c.active_ms = <uint32_t>worker_clock(w)
    if w.limits.first_byte_timeout_ms:
        c.flags |= FE_AWAITS_FIRST
    if w.draining or quiet_span(w, c):
        connection_arm(w, c, quiet_span(w, c))
    if c.state == FE_OPEN:
        connection_ask(w, c, wanted_interest(w, c))


cdef inline void connection_eof(Worker *w, fe_connection *c) noexcept nogil:
    """The peer's FIN was read: answer what is left, flush, then our FIN."""
    if c.reason == FE_BY_NOBODY:
        c.reason = FE_BY_PEER
    c.flags |= FE_HAS_EOF
    connection_handle(w, c, FE_ON_EOF)
    connection_settle(w, c)


cdef inline void connection_answered(Worker *w, fe_connection *c, int rc) noexcept nogil:
    """Deals with the result of stream_send, stream_feed or stream_answer."""
    if rc == STREAM_FRAME_TOO_LONG:
        fe_buffer_free(&c.unparsed)
        connection_end(w, c, FE_ON_END, FE_BY_FRAME_TOO_LONG)
    elif rc == STREAM_NO_MEMORY:
        connection_refused(w, c, -ENOMEM)
    elif rc < 0:
        connection_failed(w, c, rc)
    elif c.flags & FE_HAS_EOF and not c.flags & FE_HAS_FRAMES:
        # What is left now is no frame and never will be.
        stream_drop_input(&w.stream, c)


cdef inline void connection_answer(Worker *w, fe_connection *c) noexcept nogil:
    """Answers one round of what is kept in unparsed."""
    cdef int rc
    if c.path == FE_PATH_FAULT:
        rc = fault_answer(w.faults, &w.stream, c)
    else:
        rc = stream_answer(&w.stream, c)
    connection_answered(w, c, rc)


cdef inline ssize_t read_bulk(Worker *w, fe_connection *c, ssize_t n) noexcept nogil:
    """Fills the buffer behind its first n bytes; bytes in all, or -errno when it is lost.

    A FIN shows again at the next event; an error is told only once, so it counts now. What came
    before an error has no reader any more: its echo is dropped.
    """
    cdef ssize_t more
    cdef int rule
    while n < READ_SIZE:
        more = _sys.sys_recv(c.fd, w.buffer + n, READ_SIZE - n)
        if more == 0:
            return n
        if more < 0:
            rule = fe_io_rule_for(<int>-more)
            if rule == FE_IO_REFUSED:
                fe_count_errno(&w.counters, <int>more)
            if rule != FE_IO_LOST:
                return n
            stream_count_in(&w.stream, c, n)
            stream_count_out(&w.stream, c, n)
            stream_count_dropped(&w.stream, c, n)
            return more
        n += more
    return n


cdef inline void connection_read_failed(Worker *w, fe_connection *c, ssize_t rc) noexcept nogil:
    """recv gave rc <= 0."""
    cdef int rule
    if rc == 0:
        connection_eof(w, c)
        return
    rule = fe_io_rule_for(<int>-rc)
    if rule == FE_IO_WAIT:
        return
    if rule == FE_IO_REFUSED and not c.flags & FE_WAS_REFUSED:
        c.flags |= FE_WAS_REFUSED
        fe_count_errno(&w.counters, <int>rc)
        return
    connection_failed(w, c, <int>rc)


cdef inline void connection_discard(Worker *w, fe_connection *c) noexcept nogil:
    """Reads and forgets, in ENDING and LINGER."""
    cdef ssize_t n = _sys.sys_recv(c.fd, w.buffer, READ_SIZE)
    if n <= 0:
        connection_read_failed(w, c, n)
        return
    fe_count(&w.counters.bytes_discarded, n)
    if c.state == FE_LINGER:
        c.discarded += <uint32_t>n
        if c.discarded > FE_LINGER_BYTES:
            linger_look(w, c, _sys.sys_unsent(c.fd) > 0)


cdef inline uint32_t linger_unsent(const fe_connection *c) noexcept nogil:
    """Bytes that the peer has not taken yet. TCP counts our FIN as one, and its acknowledgement
    is no progress: it says nothing about a peer that keeps its end open."""
    cdef int n = _sys.sys_unsent(c.fd)
    return <uint32_t>(n - 1) if n > 0 else 0


cdef inline void linger_look(Worker *w, fe_connection *c, bint go_on) noexcept nogil:
    """The bytes or the time of LINGER are used up: goes on while the peer still takes replies."""
    if go_on:
        c.discarded = 0
        return
    fe_count(&w.counters.linger_timeouts, 1)
    connection_handle(w, c, FE_ON_OVERDUE)


cdef inline void connection_readable(Worker *w, fe_connection *c) noexcept nogil:
    """EPOLLIN: read once (bulk: until the buffer is full) and answer at once."""
    cdef ssize_t n
    if c.state != FE_OPEN:
        connection_discard(w, c)
        return
    if c.path == FE_PATH_RAW:
        n = _sys.sys_recv(c.fd, w.buffer, READ_SIZE)
        if n >= BULK_MIN:
            n = read_bulk(w, c, n)
    elif c.path == FE_PATH_CALLBACKS:
        messages_read(w, c)
        return
    else:
        n = _sys.sys_recv(c.fd, w.buffer, stream_room(&w.stream, c, READ_SIZE))
    if n <= 0:
        connection_read_failed(w, c, n)
    else:
        connection_input(w, c, w.buffer, n)


cdef inline void connection_input(Worker *w, fe_connection *c, const unsigned char *data,
                                  size_t n) noexcept nogil:
    """n bytes of input have come, n > 0, and there are no callbacks: answers them at once."""
    cdef int rc
    if w.tracks_activity:
        c.active_ms = <uint32_t>w.now_ms
    c.flags &= <uint8_t>~(FE_WAS_REFUSED | FE_AWAITS_FIRST)
    stream_count_in(&w.stream, c, n)
    if c.path == FE_PATH_RAW:
        fe_count(&w.counters.messages, 1)
        rc = stream_send(&w.stream, c, data, n)
        if rc == 0 and c.pending == NULL:
            return
    elif c.path == FE_PATH_FAULT:
        rc = fault_feed(w.faults, &w.stream, c, data, n)
    else:
        rc = stream_feed(&w.stream, c, data, n)
    connection_answered(w, c, rc)
    if c.pending != NULL:
        connection_took(w, c)
    connection_settle(w, c)


cdef inline void connection_took(Worker *w, fe_connection *c) noexcept nogil:
    """The kernel took some of its replies and not all: from here its send queue shrinks."""
    if w.tracks_activity and c.state != FE_LINGER:
        c.active_ms = <uint32_t>w.now_ms
        c.unsent = <uint32_t>_sys.sys_unsent(c.fd)


cdef inline void connection_writable(Worker *w, fe_connection *c) noexcept nogil:
    """EPOLLOUT: flush once."""
    cdef bint progress
    cdef int rc
    if c.pending == NULL:
        return
    if faulty(w, c) != NULL:
        rc = fault_flush(w.faults, &w.stream, c, &progress)
    else:
        rc = stream_flush(&w.stream, c, &progress)
    if rc != 0:
        connection_answered(w, c, rc)
        return
    if progress:
        connection_took(w, c)
        if c.state == FE_ENDING:
            connection_arm(w, c, FE_LINGER_MS)
    connection_settle(w, c)


cdef inline void connection_event(Worker *w, fe_connection *c, uint32_t events) noexcept nogil:
    """Dispatches what epoll_wait said. HUP and ERR count as readable, or as writable where only
    that is asked for: the call that follows tells the errno."""
    if events & (_sys.EPOLLHUP | _sys.EPOLLERR):
        if c.interest == 0:
            # Nothing may be read or written now, and it would be reported for ever.
            _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_DEL, c.fd, 0, 0)
            c.flags = (c.flags & <uint8_t>~FE_IS_REGISTERED) | FE_HAS_HUNG_UP
            if faulty(w, c) != NULL:
                faulty_hung_up(w, c, faulty(w, c))
            return
        events |= c.interest
    if events & _sys.EPOLLOUT and c.interest & _sys.EPOLLOUT:
        connection_writable(w, c)
    if events & _sys.EPOLLIN and c.interest & _sys.EPOLLIN and c.state != FE_REAP:
        if not c.flags & FE_HAS_FRAMES:
            connection_readable(w, c)


cdef inline void connection_go_on(Worker *w, fe_connection *c) noexcept nogil:
    """Its turn on the ready list: one more round of frames that were read already."""
    if c.path == FE_PATH_CALLBACKS:
        messages_go_on(w, c)
        return
    connection_answer(w, c)
    connection_settle(w, c)


cdef inline uint64_t quiet_span(const Worker *w, const fe_connection *c) noexcept nogil:
    """Milliseconds without a byte after which a connection is ended; 0 outside a drain: never."""
    if w.draining:
        return w.drain_idle_ms
    if is_late_with_first(w, c):
        return w.limits.first_byte_timeout_ms
    return w.limits.idle_timeout_ms


cdef inline bint is_late_with_first(const Worker *w, const fe_connection *c) noexcept nogil:
    """Whether it is first_byte_timeout that ends it, if it stays quiet, and not idle_timeout."""
    cdef uint64_t idle_ms = w.limits.idle_timeout_ms
    cdef uint64_t first_ms = w.limits.first_byte_timeout_ms
    return c.flags & FE_AWAITS_FIRST != 0 and first_ms and (idle_ms == 0 or first_ms <= idle_ms)
