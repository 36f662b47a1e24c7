# Connections with a fault: their replies wait for its time, and leave as it says.
#
# Lives here: the state that hangs outside the connection's record, replies on their way through
# the fault into pending and from there to the kernel, the fine timers. Does not live here: what
# a fault decides (src_c/fault.h), which connection gets one and what ends it (_faulty.pxd).
#
# What is delayed lies in pending like anything else that waits for the peer. So high water counts
# it, FIN waits behind it, and who ends a connection drops it, without a word about faults there.
# is_held says that it waits for its time and not for the kernel: EPOLLOUT is not asked for.
#
# Deadlines are in ns, in a heap of their own. A timerfd in the worker's epoll tells of the earliest
# (epoll_wait's own milliseconds would be late by half of one); it exists while there is a
# connection that needs it.

from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._stream cimport (
    STREAM_FRAME_TOO_LONG, STREAM_NO_MEMORY, StreamShare, stream_count_out, stream_keep,
    stream_not_taken,
)


cdef enum:
    # Frames that are answered, and pieces that are sent, in one go.
    FAULT_FRAMES_MAX = 256
    FAULT_SENDS_MAX = 64
    # The timerfd fires so much before the earliest deadline: a core that sleeps takes as long to
    # wake up. What is left of it is spent looking at the clock. `benchmarks.faults`.
    FAULT_EARLY_NS = 100 * 1000


# Of one worker, once it has had a connection with a fault.
cdef struct Faults:
    # By slot; NULL: that connection has none.
    fe_faulty **of
    uint32_t capacity
    # Of these, that need a timer.
    uint32_t timed
    # In ns of the monotonic clock.
    fe_timers timers
    # What the timerfd is set to; 0: not set. -1: there is no timerfd.
    uint64_t armed_ns
    int timer_fd
    int epfd
    uint64_t tag
    # As configured: raw echo has other ones in the stream.
    size_t high_water
    size_t low_water


# --- state ---------------------------------------------------------------------------------

cdef inline Faults *faults_new(int epfd, uint64_t tag, size_t high_water,
                               size_t low_water) noexcept nogil:
    """Room for a worker's connections with a fault; NULL: no memory."""
    cdef Faults *a = <Faults *>calloc(1, sizeof(Faults))
    if a != NULL:
        a.timer_fd = -1
        a.epfd = epfd
        a.tag = tag
        a.high_water = high_water
        a.low_water = low_water
    return a


cdef inline void faults_close(Faults *a) noexcept nogil:
    """Closes the timerfd, if there is one; nothing else, so that a forked child can call it."""
    if a != NULL and a.timer_fd >= 0:
        _sys.sys_close(a.timer_fd)
        a.timer_fd = -1
        a.armed_ns = 0


cdef inline void faults_free(Faults *a) noexcept nogil:
    cdef uint32_t slot
    if a == NULL:
        return
    for slot in range(a.capacity):
        if a.of[slot] != NULL:
            fe_faulty_free(a.of[slot])
    fe_timers_free(&a.timers)
    free(a.of)
    free(a)


cdef inline fe_faulty *fault_of(const Faults *a, const fe_connection *c) noexcept nogil:
    """The state of a connection with a fault."""
    return a.of[c.slot]


cdef inline fe_faulty *fault_find(const Faults *a, const fe_connection *c) noexcept nogil:
    """The same of any connection; NULL: it has no fault."""
    return a.of[c.slot] if a != NULL and c.slot < a.capacity else NULL


cdef inline int faults_open_timer(Faults *a) noexcept nogil:
    """Makes the timerfd, if there is none; 0 or -errno."""
    cdef int rc
    if a.timer_fd >= 0:
        return 0
    a.timer_fd = _sys.sys_timerfd()
    if a.timer_fd < 0:
        rc = a.timer_fd
        a.timer_fd = -1
        return rc
    a.armed_ns = 0
    rc = _sys.sys_epoll_ctl(a.epfd, _sys.EPOLL_CTL_ADD, a.timer_fd, _sys.EPOLLIN, a.tag)
    if rc < 0:
        faults_close(a)
    return rc


cdef inline int fault_begin(Faults *a, fe_connection *c, const fe_fault *fault) noexcept nogil:
    """Gives a connection the fault; 0 or -errno with nothing changed."""
    cdef uint32_t size = a.capacity
    cdef fe_faulty **of
    cdef fe_faulty *f
    cdef int rc
    while size <= c.slot:
        size = 2 * size if size else 64
    if size > a.capacity:
        of = <fe_faulty **>realloc(a.of, size * sizeof(fe_faulty *))
        if of == NULL:
            return -ENOMEM
        memset(of + a.capacity, 0, (size - a.capacity) * sizeof(fe_faulty *))
        a.of = of
        a.capacity = size
    if fe_fault_is_timed(fault):
        rc = faults_open_timer(a)
        if rc < 0:
            return rc
    f = <fe_faulty *>calloc(1, sizeof(fe_faulty))
    if f == NULL:
        return -ENOMEM
    fe_faulty_init(f, fault, c.number)
    f.slot = c.slot
    a.of[c.slot] = f
    a.timed += fe_fault_is_timed(fault)
    if c.path != FE_PATH_CALLBACKS:
        c.path = FE_PATH_FAULT
    if fault.flags & FE_FAULT_NO_READ:
        c.flags |= FE_IS_PAUSED
    return 0


cdef inline void fault_forget(Faults *a, const fe_connection *c) noexcept nogil:
    """The connection has ended. With the last one that needed it the timerfd goes."""
    cdef fe_faulty *f = fault_of(a, c)
    a.of[c.slot] = NULL
    fe_timers_clear(&a.timers, &f.timer)
    a.timed -= fe_fault_is_timed(&f.fault)
    fe_faulty_free(f)
    if a.timed == 0 and a.timer_fd >= 0:
        _sys.sys_epoll_ctl(a.epfd, _sys.EPOLL_CTL_DEL, a.timer_fd, 0, 0)
        faults_close(a)


# --- time ----------------------------------------------------------------------------------

cdef inline int fault_set_timer(Faults *a, fe_faulty *f, uint64_t at_ns) noexcept nogil:
    """It is to be looked at again then, or not at all; 0 or -ENOMEM."""
    if at_ns == FE_FAULT_NEVER:
        fe_timers_clear(&a.timers, &f.timer)
        return 0
    return fe_timers_set(&a.timers, &f.timer, at_ns)


cdef inline void faults_arm(Faults *a) noexcept nogil:
    """Sets the timerfd to the earliest deadline; a timerfd that has fired is silenced by that."""
    cdef uint64_t at_ns = a.timers.heap[0].at_ms if a.timers.count else 0
    if a.timer_fd >= 0 and at_ns != a.armed_ns:
        a.armed_ns = at_ns
        _sys.sys_timerfd_set(a.timer_fd, at_ns - FAULT_EARLY_NS if at_ns else 0)


# --- replies -------------------------------------------------------------------------------

cdef inline bint is_pending_full(const Faults *a, const fe_connection *c,
                                 const fe_faulty *f) noexcept nogil:
    """Whether so much waits that no more is to be read, or nothing is."""
    if f.fault.flags & FE_FAULT_NO_READ:
        return True
    return fe_buffer_size(c.pending) >= a.high_water or fe_faulty_is_full(f)


cdef inline int fault_reply(StreamShare *s, fe_connection *c, fe_faulty *f,
                            const unsigned char *data, size_t n) noexcept nogil:
    """n bytes of reply: those that will ever be sent are kept. 0 or STREAM_NO_MEMORY."""
    cdef size_t kept = fe_faulty_room(f, n)
    cdef unsigned char *end
    if kept < n:
        fe_count(&s.counters.bytes_discarded, n - kept)
    if kept == 0:
        return 0
    stream_count_out(s, c, kept)
    if stream_keep(s, c, data, kept) != 0:
        return STREAM_NO_MEMORY
    if f.fault.corrupt:
        end = fe_buffer_bytes(c.pending) + fe_buffer_size(c.pending)
        fe_count(&s.counters.bytes_corrupted, fe_faulty_corrupt(f, end - kept, kept))
    return 0 if fe_faulty_take(f, kept, _sys.sys_now_ns()) == 0 else STREAM_NO_MEMORY


cdef inline int fault_frames(Faults *a, StreamShare *s, fe_connection *c, fe_faulty *f,
                             const unsigned char *data, size_t n, size_t *scanned,
                             size_t *consumed) noexcept nogil:
    """Answers frames of data, one by one; FE_HAS_FRAMES tells whether to go on. As stream_round."""
    cdef fe_replies replies
    cdef bint twice
    cdef int rc, _
    consumed[0] = 0
    c.flags |= FE_HAS_FRAMES
    for _ in range(FAULT_FRAMES_MAX):
        if is_pending_full(a, c, f):
            return 0
        replies = fe_frame_replies(&s.framing, data + consumed[0], n - consumed[0], scanned,
                                   c.flags & FE_HAS_EOF, s.out, 1)
        consumed[0] += replies.consumed
        if replies.frames:
            fe_count(&s.counters.messages, 1)
            twice = f.fault.duplicate and fe_faulty_is_twice(f)
            rc = fault_reply(s, c, f, s.out, replies.produced)
            if rc == 0 and twice:
                fe_count(&s.counters.frames_duplicated, 1)
                rc = fault_reply(s, c, f, s.out, replies.produced)
            if rc != 0:
                return rc
        if replies.status != FE_FRAMES_MORE:
            c.flags &= <uint8_t>~FE_HAS_FRAMES
            return STREAM_FRAME_TOO_LONG if replies.status == FE_FRAMES_TOO_LONG else 0
    return 0


cdef inline int fault_answer(Faults *a, StreamShare *s, fe_connection *c) noexcept nogil:
    """Answers what is kept in unparsed, and sends what may leave. Result as stream_answer."""
    cdef fe_faulty *f = fault_of(a, c)
    cdef size_t consumed
    cdef bint progress
    cdef int rc = 0, sent
    if c.unparsed == NULL:
        c.flags &= <uint8_t>~FE_HAS_FRAMES
    else:
        rc = fault_frames(a, s, c, f, fe_buffer_bytes(c.unparsed), fe_buffer_size(c.unparsed),
                          &c.unparsed.scanned, &consumed)
        fe_buffer_consume(&c.unparsed, consumed)
    sent = fault_flush(a, s, c, &progress)
    return rc if rc != 0 else sent


cdef inline int fault_feed(Faults *a, StreamShare *s, fe_connection *c, const unsigned char *data,
                           size_t n) noexcept nogil:
    """Takes n bytes of input, answers what they complete, and sends what may leave. Result as
    stream_feed."""
    cdef fe_faulty *f = fault_of(a, c)
    cdef size_t scanned = 0, consumed
    cdef bint progress
    cdef int rc, sent
    if s.framing.kind == FE_FRAME_RECV and s.framing.prefix_size + s.framing.suffix_size == 0:
        fe_count(&s.counters.messages, 1)
        rc = fault_reply(s, c, f, data, n)
    elif c.unparsed != NULL:
        if fe_buffer_append(&c.unparsed, data, n) < 0:
            return STREAM_NO_MEMORY
        return fault_answer(a, s, c)
    else:
        rc = fault_frames(a, s, c, f, data, n, &scanned, &consumed)
        if rc == 0 and consumed < n:
            if fe_buffer_append(&c.unparsed, data + consumed, n - consumed) < 0:
                return STREAM_NO_MEMORY
            c.unparsed.scanned = scanned
    sent = fault_flush(a, s, c, &progress)
    return rc if rc != 0 else sent


cdef inline int fault_send(StreamShare *s, fe_connection *c, fe_faulty *f, uint64_t n,
                           uint64_t now_ns) noexcept nogil:
    """Offers the first n bytes of pending to the kernel: 1: it took them, 0: it did not take all,
    or -errno."""
    cdef ssize_t sent
    if f.fault.slice:
        sent = _sys.sys_send_record(c.fd, fe_buffer_bytes(c.pending), n)
    else:
        sent = _sys.sys_send(c.fd, fe_buffer_bytes(c.pending), n)
    if sent != <ssize_t>n:
        fe_count(&s.counters.short_writes, 1)
    if sent < 0:
        return stream_not_taken(s, c, <int>sent)
    c.flags &= <uint8_t>~FE_WAS_REFUSED
    fe_uncount(&s.counters.bytes_pending, sent)
    fe_buffer_consume(&c.pending, sent)
    fe_faulty_sent(f, sent, now_ns)
    return <uint64_t>sent == n


cdef inline int fault_flush(Faults *a, StreamShare *s, fe_connection *c,
                            bint *progress) noexcept nogil:
    """Sends what may leave now, and sets the timer for what may not; 0, STREAM_NO_MEMORY or
    -errno."""
    cdef fe_faulty *f = fault_of(a, c)
    cdef size_t before = fe_buffer_size(c.pending)
    cdef uint64_t now_ns = _sys.sys_now_ns()
    cdef uint64_t at_ns = now_ns
    cdef fe_release ready
    cdef int rc, _
    if f.lead:
        f.is_held = False
        rc = <int>_sys.sys_send(c.fd, fe_buffer_bytes(c.pending), f.lead)
        if rc < 0:
            fe_count(&s.counters.short_writes, 1)
            progress[0] = False
            return stream_not_taken(s, c, rc)
        fe_uncount(&s.counters.bytes_pending, rc)
        fe_buffer_consume(&c.pending, rc)
        f.lead -= rc
        progress[0] = rc > 0
        if f.lead:
            return 0
        if f.fault.flags & FE_FAULT_HALF_CLOSE:
            _sys.sys_shutdown(c.fd, _sys.SHUT_WR)
    f.is_held = True
    for _ in range(FAULT_SENDS_MAX):
        ready = fe_faulty_release(f, now_ns)
        if ready.bytes == 0:
            at_ns = ready.at_ns
            break
        rc = fault_send(s, c, f, ready.bytes, now_ns)
        if rc < 0:
            return rc
        if rc == 0:
            f.is_held = False
            at_ns = FE_FAULT_NEVER
            break
    progress[0] = fe_buffer_size(c.pending) < before
    return 0 if fault_set_timer(a, f, at_ns) == 0 else STREAM_NO_MEMORY
