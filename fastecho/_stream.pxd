# A connection's bytes: replies that wait, input that is no frame yet, high and low water.
#
# Lives here: sending a reply or keeping it, flushing what was kept, turning input into
# replies. Fed with (data, n): who called recv is not known here. Does not live here: epoll,
# states, timers; what to ask epoll for follows from what is left behind (pending, flags).
#
# Send first: a reply is offered to the kernel at once, EPOLLOUT is only asked for what it did
# not take. Never past pending bytes, or the order would break.
#
# Bounds. Pending: less than high water plus one round of replies when a round begins, and a
# round begins only below high water. Unparsed: one frame that is not complete, or one read
# whose frames are still to be answered.

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys


# What all connections of a worker share.
cdef struct StreamShare:
    fe_framing framing
    # Bytes pending from which reading stops, and down from which it goes on.
    size_t high_water
    size_t low_water
    # Where replies are put together; room for one round and the longest reply.
    unsigned char *out
    fe_counters *counters
    # With an access log: the entries of open connections, by slot.
    fe_log_table log


# Replies are gathered up to this size before they are sent: as large as a read, so that one
# recv of small frames is answered by one send.
cdef enum:
    STREAM_ROUND = 256 * 1024

# Results beside 0 (done) and -errno (of send: the connection is gone).
cdef enum:
    STREAM_FRAME_TOO_LONG = 1
    # Memory of ours was refused; some bytes are lost.
    STREAM_NO_MEMORY = 2


# --- counting: for the worker, and for the connection's own line in the log ----------------

cdef inline void stream_count_in(StreamShare *s, const fe_connection *c, size_t n) noexcept nogil:
    """n bytes were received."""
    fe_count(&s.counters.bytes_in, n)
    if s.log.entries != NULL:
        s.log.entries[c.slot].bytes_in += n


cdef inline void stream_count_out(StreamShare *s, const fe_connection *c, size_t n) noexcept nogil:
    """n bytes of reply are about to be offered to the kernel."""
    fe_count(&s.counters.bytes_out, n)
    if s.log.entries != NULL:
        s.log.entries[c.slot].bytes_out += n


cdef inline void stream_count_dropped(StreamShare *s, const fe_connection *c,
                                      size_t n) noexcept nogil:
    """Of those, n will never be taken."""
    fe_count(&s.counters.bytes_dropped, n)
    if s.log.entries != NULL:
        s.log.entries[c.slot].bytes_out -= n


# --- sending -------------------------------------------------------------------------------

cdef inline int stream_not_taken(StreamShare *s, fe_connection *c, int failed) noexcept nogil:
    """send failed with -errno: 0 when the bytes may wait, else that -errno.

    ENOBUFS and ENOMEM are forgiven once: the socket is still writable, so EPOLLOUT brings the
    second try at once, and a third would be a busy loop.
    """
    cdef int rule = fe_io_rule_for(-failed)
    if rule == FE_IO_WAIT:
        return 0
    if rule == FE_IO_REFUSED and not c.flags & FE_WAS_REFUSED:
        c.flags |= FE_WAS_REFUSED
        fe_count_errno(s.counters, failed)
        return 0
    return failed


cdef inline int stream_keep(StreamShare *s, fe_connection *c, const unsigned char *data,
                            size_t n) noexcept nogil:
    """Copies n reply bytes behind what is pending; 0 or STREAM_NO_MEMORY (they are dropped)."""
    if fe_buffer_append(&c.pending, data, n) < 0:
        stream_count_dropped(s, c, n)
        return STREAM_NO_MEMORY
    fe_count(&s.counters.bytes_pending, n)
    return 0


cdef inline int stream_send(StreamShare *s, fe_connection *c, const unsigned char *data,
                            size_t n) noexcept nogil:
    """Sends n reply bytes, or keeps what the kernel does not take now. Data is borrowed.

    0, STREAM_NO_MEMORY, or -errno. Counted before the send: who has the bytes finds them in the
    statistics.
    """
    cdef ssize_t sent
    cdef int rc
    stream_count_out(s, c, n)
    if c.pending != NULL:
        return stream_keep(s, c, data, n)
    sent = _sys.sys_send(c.fd, data, n)
    if sent == <ssize_t>n:
        return 0
    fe_count(&s.counters.short_writes, 1)
    if sent < 0:
        rc = stream_not_taken(s, c, <int>sent)
        if rc < 0:
            stream_count_dropped(s, c, n)
            return rc
        sent = 0
    return stream_keep(s, c, data + sent, n - sent)


cdef inline int stream_flush(StreamShare *s, fe_connection *c, bint *progress) noexcept nogil:
    """Offers pending bytes to the kernel once; 0 or -errno."""
    cdef size_t n = fe_buffer_size(c.pending)
    cdef ssize_t sent = _sys.sys_send(c.fd, fe_buffer_bytes(c.pending), n)
    progress[0] = sent > 0
    if sent != <ssize_t>n:
        fe_count(&s.counters.short_writes, 1)
    if sent < 0:
        return stream_not_taken(s, c, <int>sent)
    c.flags &= <uint8_t>~FE_WAS_REFUSED
    fe_uncount(&s.counters.bytes_pending, sent)
    fe_buffer_consume(&c.pending, sent)
    return 0


cdef inline int stream_round(StreamShare *s, fe_connection *c, const unsigned char *data, size_t n,
                             size_t *scanned, size_t *consumed) noexcept nogil:
    """Answers frames of data with at most one send; FE_HAS_FRAMES tells whether to go on.

    0, STREAM_FRAME_TOO_LONG (replies of earlier frames are sent), STREAM_NO_MEMORY, or -errno.
    """
    cdef size_t pending = fe_buffer_size(c.pending)
    cdef size_t room = STREAM_ROUND
    cdef fe_replies replies
    cdef int rc = 0
    consumed[0] = 0
    c.flags |= FE_HAS_FRAMES
    if pending >= s.high_water:
        return 0
    if room > s.high_water - pending:
        room = s.high_water - pending
    replies = fe_frame_replies(&s.framing, data, n, scanned, c.flags & FE_HAS_EOF, s.out, room)
    consumed[0] = replies.consumed
    if replies.status != FE_FRAMES_MORE:
        c.flags &= <uint8_t>~FE_HAS_FRAMES
    if replies.frames:
        fe_count(&s.counters.messages, replies.frames)
        rc = stream_send(s, c, s.out, replies.produced)
    if rc == 0 and replies.status == FE_FRAMES_TOO_LONG:
        return STREAM_FRAME_TOO_LONG
    return rc


cdef inline int stream_answer(StreamShare *s, fe_connection *c) noexcept nogil:
    """One round over what is kept in unparsed. Result as stream_round."""
    cdef size_t consumed
    cdef int rc
    if c.unparsed == NULL:
        c.flags &= <uint8_t>~FE_HAS_FRAMES
        return 0
    rc = stream_round(s, c, fe_buffer_bytes(c.unparsed), fe_buffer_size(c.unparsed),
                      &c.unparsed.scanned, &consumed)
    fe_buffer_consume(&c.unparsed, consumed)
    return rc


cdef inline int stream_feed(StreamShare *s, fe_connection *c, const unsigned char *data,
                            size_t n) noexcept nogil:
    """Takes n bytes of input and answers as many frames as one round holds. What is not answered
    is kept in unparsed. Result as stream_round."""
    cdef size_t scanned = 0
    cdef size_t consumed
    cdef int rc
    if c.unparsed != NULL:
        if fe_buffer_append(&c.unparsed, data, n) < 0:
            return STREAM_NO_MEMORY
        return stream_answer(s, c)
    rc = stream_round(s, c, data, n, &scanned, &consumed)
    if rc != 0 or consumed == n:
        return rc
    if fe_buffer_append(&c.unparsed, data + consumed, n - consumed) < 0:
        return STREAM_NO_MEMORY
    c.unparsed.scanned = scanned
    return 0


cdef inline size_t stream_room(const StreamShare *s, const fe_connection *c,
                               size_t read_size) noexcept nogil:
    """How much to read now, so that unparsed input stays within one frame or one read."""
    cdef size_t limit, held
    if c.unparsed == NULL:
        return read_size
    held = fe_buffer_size(c.unparsed)
    limit = fe_frame_max_input(&s.framing)
    if limit < read_size:
        limit = read_size
    # The frame is incomplete, so held < limit; the byte beyond shows a frame that is too long.
    limit = limit + 1 - held
    return limit if limit < read_size else read_size


cdef inline void stream_drop(StreamShare *s, fe_connection *c) noexcept nogil:
    """Forgets all bytes of a connection that has ended, and counts them."""
    cdef size_t pending = fe_buffer_size(c.pending)
    if pending:
        stream_count_dropped(s, c, pending)
        fe_uncount(&s.counters.bytes_pending, pending)
        fe_buffer_free(&c.pending)
    stream_drop_input(s, c)


cdef inline void stream_drop_input(StreamShare *s, fe_connection *c) noexcept nogil:
    """Forgets input that will not be answered."""
    c.flags &= <uint8_t>~FE_HAS_FRAMES
    if c.unparsed != NULL:
        fe_count(&s.counters.frames_incomplete, 1)
        fe_buffer_free(&c.unparsed)
