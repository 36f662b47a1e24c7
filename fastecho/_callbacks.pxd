# One phase of callbacks: what is due is called under the GIL, then replies leave without it.
#
# Lives here: cutting input into frames for on_message, all calls of a worker into Python, sending
# what they left. Does not live here: the memory of a phase (_messages.pxd), receiving and states
# (_connection.pxd), the user's functions and what is logged about them (callbacks.py).
#
# Under the GIL no connection changes its state and none is freed: what a callback asks for is noted
# in its link, and done afterwards, behind the replies that it wrote before.

from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AsString, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._connection cimport (
    connection_answered, connection_end, connection_refused, connection_settle, connection_took,
    is_held,
)
from fastecho._fault cimport fault_flush, fault_reply
from fastecho._messages cimport (
    ARENA_SIZE, ASKED_CLOSE, ASKED_RESET, ASKED_TOO_LONG, FRAMES_EACH_MAX, FRAMES_MAX, JOB_ASKED,
    JOB_DRAIN, JOB_EOF, JOB_FRAMES, JOB_INPUT, LINK_CLOSING, LINK_WROTE_EOF, LOOK_FRAMES, OUT_SIZE,
    PHASE_NS, Chunk, Job, Link, Maker, Messages, jobs_forget, link_of, messages_new, out_forget, reply_put,
)
from fastecho._stream cimport (
    stream_count_out, stream_drop_input, stream_flush, stream_keep, stream_send,
)
from fastecho._worker cimport Worker, faulty


cdef extern from "Python.h" nogil:
    Py_ssize_t Py_REFCNT(PyObject *o) noexcept


# What a phase needs, in one place. `calls` is callbacks.Callbacks; borrowed for the phase.
cdef struct Phase:
    Worker *worker
    PyObject *core
    PyObject *calls
    PyObject *on_message
    # A memoryview over the arena's block; NULL: callbacks get bytes.
    PyObject *view
    Maker make
    # Frames that may still be delivered; none when the time is over.
    int frames_left
    uint64_t until_ns
    # The last look at the clock, how many frames were left then, and at how many the next is due.
    uint64_t looked_ns
    int looked_left
    int look_at


# --- calling -------------------------------------------------------------------------------

cdef inline object handle_of(Phase *p, Link *link):
    """Python's Connection of a link, made when it is first needed."""
    if link.handle == NULL:
        handle = p.make(<object>p.core, link)
        Py_INCREF(handle)
        link.handle = <PyObject *>handle
    return <object>link.handle


cdef inline void call_failed(Phase *p, Link *link, str name, object error) noexcept:
    """A callback raised: told once, and its connection is reset. Nobody else notices."""
    fe_count(&p.worker.counters.callback_errors, 1)
    link.asked |= ASKED_RESET
    link.asked_reason = FE_BY_CALLBACK_ERROR
    try:
        (<object>p.calls).failed(name, <object>link.handle if link.handle != NULL else None, error)
    except BaseException:
        pass  # a handler of the log raised; there is nobody left to tell


cdef inline void call_timed(Phase *p, Link *link, str name, uint64_t began_ns) noexcept:
    """Tells of a callback that took too long."""
    cdef uint64_t took_ns = _sys.sys_now_ns() - began_ns
    if took_ns < p.worker.messages.slow_ns:
        return
    try:
        (<object>p.calls).slow(name, <object>link.handle, took_ns / 1e9)
    except BaseException:
        pass


cdef inline int put(Worker *w, Link *link, object data) except -1:
    """Copies a reply, bytes-like, behind the others of its connection; one that is being closed
    takes none."""
    cdef Py_buffer view
    cdef int64_t state = fe_atomic_load(&link.state)
    cdef int rc
    if state == LINK_WROTE_EOF:
        raise RuntimeError("write after write_eof()")
    if state == LINK_CLOSING:
        return 0
    if PyBytes_CheckExact(data):
        rc = put_bytes(w, link, PyBytes_AsString(data), len(<bytes>data))
    else:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        rc = put_bytes(w, link, view.buf, view.len)
        PyBuffer_Release(&view)
    if rc == -ENOMEM:
        raise MemoryError("no memory for a reply")
    if rc < 0:
        raise ValueError("a length frame holds less than 4 GiB")
    return 0


cdef inline int put_bytes(Worker *w, Link *link, const void *data, size_t n) noexcept nogil:
    """0, -ENOMEM, or -1: its length cannot be written."""
    if w.stream.framing.kind == FE_FRAME_LENGTH and n >> 32 != 0:
        return -1
    return reply_put(w.messages, link, &w.stream.framing, data, n)


cdef inline void call_message(Phase *p, Link *link, object handle, object data) noexcept:
    """One frame."""
    cdef uint64_t began_ns = 0
    try:
        if p.worker.messages.slow_ns:
            began_ns = _sys.sys_now_ns()
        reply = (<object>p.on_message)(handle, data)
        if began_ns:
            call_timed(p, link, "on_message", began_ns)
            began_ns = 0
        if reply is not None:
            if not PyBytes_CheckExact(reply) and not PyObject_CheckBuffer(reply):
                raise TypeError(
                    "on_message must return bytes-like or None, not " + type(reply).__name__
                )
            put(p.worker, link, reply)
    except BaseException as error:
        if began_ns:
            call_timed(p, link, "on_message", began_ns)
        call_failed(p, link, "on_message", error)


cdef inline object call_other(Phase *p, Link *link, str name, tuple arguments):
    """Another callback, if there is one; what it returned, or None."""
    cdef uint64_t began_ns = _sys.sys_now_ns()
    result = None
    callback = getattr(<object>p.calls, name)
    if callback is None:
        return None
    try:
        result = callback(*arguments)
    except BaseException as error:
        call_failed(p, link, name, error)
    if p.worker.messages.slow_ns:
        call_timed(p, link, name, began_ns)
    return result


# --- frames --------------------------------------------------------------------------------

cdef inline void phase_begin(Phase *p) noexcept nogil:
    """Fills the budgets. The first frame's pace is not known: behind it comes a look."""
    p.looked_ns = _sys.sys_now_ns()
    p.until_ns = p.looked_ns + PHASE_NS
    p.frames_left = p.looked_left = FRAMES_MAX
    p.look_at = FRAMES_MAX - 1


cdef inline void phase_look(Phase *p) noexcept nogil:
    """Ends the phase when its time is over. The clock costs a tenth of a short callback: it is looked
    at when, at the pace since the last look, half of what was left is used; after 16 frames at the
    latest."""
    cdef uint64_t now_ns
    cdef int64_t frames
    if p.frames_left > p.look_at:
        return
    now_ns = _sys.sys_now_ns()
    if now_ns > p.until_ns:
        p.frames_left = 0
        return
    frames = p.looked_left - p.frames_left
    frames = frames * <int64_t>(p.until_ns - now_ns) // <int64_t>(2 * (now_ns - p.looked_ns) + 1)
    p.looked_ns = now_ns
    p.looked_left = p.frames_left
    p.look_at = p.frames_left - <int>max(1, min(frames, LOOK_FRAMES))


cdef inline bint is_over(const Link *link) noexcept nogil:
    """Whether nothing more is to be delivered: so it was asked here, or by another thread."""
    return link.asked != 0 or fe_atomic_load(&link.state) == LINK_CLOSING


cdef inline bint must_wait(Phase *p, const fe_connection *c, const Link *link,
                           int left) noexcept nogil:
    """Whether the next frame of a connection has to wait for another phase, or is not wanted."""
    phase_look(p)
    return (
        left == 0
        or p.frames_left == 0
        or is_held(c)
        or is_over(link)
        or fe_buffer_size(c.pending) + link.produced >= p.worker.stream.high_water
    )


cdef inline void call_frames(Phase *p, fe_connection *c, Link *link, object handle, size_t offset,
                             size_t n) noexcept:
    """Delivers the frames of what is kept and of n new bytes in the arena; keeps the rest."""
    cdef Worker *w = p.worker
    cdef bint eof = c.flags & FE_HAS_EOF != 0
    cdef bint is_kept = c.unparsed != NULL
    cdef const unsigned char *data = w.messages.arena + offset
    cdef size_t size = n, used = 0, scanned = 0, begin, length
    cdef size_t *searched = &scanned
    cdef int status, left = FRAMES_EACH_MAX
    cdef fe_frame frame
    if is_kept:
        if n and fe_buffer_append(&c.unparsed, data, n) < 0:
            link.asked |= ASKED_RESET
            link.asked_reason = FE_BY_NO_MEMORY
            return
        data = fe_buffer_bytes(c.unparsed)
        size = fe_buffer_size(c.unparsed)
        searched = &c.unparsed.scanned
    c.flags &= <uint8_t>~FE_HAS_FRAMES
    while True:
        status = fe_frame_next(&w.stream.framing, data + used, size - used, searched, eof, &frame)
        if status != FE_FRAMES_MORE:
            break
        if must_wait(p, c, link, left):
            c.flags |= FE_HAS_FRAMES
            break
        begin = used + frame.payload
        length = frame.size + frame.line_end
        used += frame.total
        left -= 1
        p.frames_left -= 1
        try:
            if p.view == NULL:
                message = PyBytes_FromStringAndSize(<const char *>data + begin, length)
            elif is_kept:
                message = memoryview(PyBytes_FromStringAndSize(<const char *>data + begin, length))
            else:
                message = (<object>p.view)[offset + begin:offset + begin + length]
        except MemoryError as error:
            call_failed(p, link, "on_message", error)
            break
        call_message(p, link, handle, message)
    fe_count(&w.counters.messages, FRAMES_EACH_MAX - left)
    if is_kept:
        fe_buffer_consume(&c.unparsed, used)
    elif used < size:
        if fe_buffer_append(&c.unparsed, data + used, size - used) < 0:
            link.asked |= ASKED_RESET
            link.asked_reason = FE_BY_NO_MEMORY
        else:
            c.unparsed.scanned = scanned
    if status == FE_FRAMES_TOO_LONG:
        link.asked |= ASKED_TOO_LONG


cdef inline void call_eof(Phase *p, fe_connection *c, Link *link, object handle) noexcept:
    """The peer's FIN, behind the last frame. A true result keeps our side open."""
    call_frames(p, c, link, handle, 0, 0)
    if is_over(link):
        return
    if c.flags & FE_HAS_FRAMES or c.wishes & FE_HOLDS:
        c.wishes |= FE_OWES_EOF
        return
    try:
        if call_other(p, link, "on_eof", (handle,)) and not c.wishes & FE_SENT_FIN:
            c.wishes |= FE_KEEPS_OPEN
    except BaseException as error:  # of its result's truth
        call_failed(p, link, "on_eof", error)


cdef inline void call_job(Phase *p, const Job *job) noexcept:
    """Whatever is due for one connection."""
    cdef Worker *w = p.worker
    cdef fe_connection *c = fe_slab_find(&w.connections, job.slot, job.generation)
    cdef Link *link
    if c == NULL or job.kind == JOB_ASKED:
        return
    c.wishes &= <uint8_t>~FE_AWAITS_CALLBACK
    if c.state != FE_OPEN and c.state != FE_PEER_EOF:
        return
    link = link_of(w.messages, c.slot)
    if fe_atomic_load(&link.state) == LINK_CLOSING:
        stream_drop_input(&w.stream, c)  # so what is in the arena
        return
    try:
        handle = handle_of(p, link)
    except BaseException as error:
        call_failed(p, link, "on_message", error)
        return
    if job.kind == JOB_DRAIN:
        call_other(p, link, "on_drain", (handle,))
    elif job.kind == JOB_EOF:
        call_eof(p, c, link, handle)
    else:
        call_frames(p, c, link, handle, job.offset, job.size)


cdef inline void call_ends(Phase *p) noexcept:
    """on_close, for those that have ended; their handles are let go."""
    cdef Messages *m = p.worker.messages
    cdef Link *link
    while m.ended_first != NULL:
        link = m.ended_first
        m.ended_first = link.next
        try:
            handle = handle_of(p, link)
        except BaseException as error:
            call_failed(p, link, "on_close", error)
            free(link)
            continue
        if link.served:
            call_other(p, link, "on_close", (handle, (<object>p.calls).reasons[link.reason]))
        link.handle = NULL
        Py_DECREF(handle)


cdef inline void callbacks_run(Phase *p) noexcept:
    """Calls what is due, in order; what the budgets leave comes in the next phase."""
    cdef Messages *m = p.worker.messages
    cdef Job job
    phase_begin(p)
    while m.done < m.job_count and p.frames_left > 0 and m.out_used < OUT_SIZE:
        job = m.jobs[m.done]  # a copy: the list may grow
        m.done += 1
        call_job(p, &job)
        if job.kind == JOB_DRAIN or job.kind == JOB_EOF:
            p.look_at = p.frames_left  # a callback without a frame
        phase_look(p)
    call_ends(p)
    fe_count(&p.worker.counters.callback_ns, _sys.sys_now_ns() - (p.until_ns - PHASE_NS))


# --- afterwards, without the GIL -----------------------------------------------------------

cdef inline void chunk_send(Worker *w, const Chunk *chunk) noexcept nogil:
    """Sends one chunk of replies; those of one connection leave by one send, the last one's."""
    cdef Messages *m = w.messages
    cdef fe_connection *c = fe_slab_find(&w.connections, chunk.slot, chunk.generation)
    cdef const unsigned char *data = m.out + chunk.offset
    cdef bint progress
    cdef Link *link
    cdef int rc
    if c == NULL or (c.state != FE_OPEN and c.state != FE_PEER_EOF):
        return
    link = link_of(m, c.slot)
    link.chunks -= 1
    link.produced -= chunk.size
    if link.asked & ASKED_RESET:
        return
    if faulty(w, c) != NULL:
        rc = fault_reply(&w.stream, c, faulty(w, c), data, chunk.size)
        if rc == 0 and link.chunks == 0:
            rc = fault_flush(w.faults, &w.stream, c, &progress)
    elif c.pending == NULL and link.chunks == 0:
        rc = stream_send(&w.stream, c, data, chunk.size)
    else:
        stream_count_out(&w.stream, c, chunk.size)
        rc = stream_keep(&w.stream, c, data, chunk.size)
        if rc == 0 and link.chunks == 0 and not c.interest & _sys.EPOLLOUT:
            rc = stream_flush(&w.stream, c, &progress)
    if rc != 0:
        connection_answered(w, c, rc)
    elif link.chunks == 0:
        if w.tracks_activity:
            c.active_ms = <uint32_t>w.now_ms  # who only listens is not idle
        if c.pending != NULL:
            connection_took(w, c)
        if not link.asked:
            connection_settle(w, c)


cdef inline void asked_do(Worker *w, const Job *job) noexcept nogil:
    """What the callbacks of a connection asked for, now that their replies are sent."""
    cdef fe_connection *c = fe_slab_find(&w.connections, job.slot, job.generation)
    cdef Link *link
    cdef uint8_t asked
    if c == NULL or c.state == FE_REAP:
        return
    link = link_of(w.messages, c.slot)
    if job.kind == JOB_ASKED:
        link.is_noted = False
    asked = link.asked
    link.asked = 0
    if asked & ASKED_RESET:
        connection_end(w, c, FE_ON_ABORT, link.asked_reason)
    elif asked & ASKED_CLOSE:
        connection_end(w, c, FE_ON_END, FE_BY_CLOSE)
    elif asked & ASKED_TOO_LONG:
        connection_end(w, c, FE_ON_END, FE_BY_FRAME_TOO_LONG)
    else:
        if (
            c.flags & FE_HAS_EOF and not c.flags & FE_HAS_FRAMES
            # The end of the stream may make a frame of it yet.
            and not c.wishes & (FE_AWAITS_CALLBACK | FE_OWES_EOF)
        ):
            stream_drop_input(&w.stream, c)
        connection_settle(w, c)


cdef inline void job_keep(Worker *w, Job *job) noexcept nogil:
    """The budget did not reach to it: its input leaves the arena for its connection's buffer, unless
    that is being ended."""
    cdef fe_connection *c = fe_slab_find(&w.connections, job.slot, job.generation)
    if job.kind != JOB_INPUT or c == NULL or (c.state != FE_OPEN and c.state != FE_PEER_EOF):
        return
    job.kind = JOB_FRAMES
    if fe_buffer_append(&c.unparsed, w.messages.arena + job.offset, job.size) < 0:
        connection_refused(w, c, -ENOMEM)
    else:
        c.flags |= FE_HAS_FRAMES
    job.size = 0


cdef inline void jobs_keep(Worker *w) noexcept nogil:
    """Takes what the budgets have left out of the arena; done twice, the second does nothing."""
    cdef uint32_t i
    for i in range(w.messages.done, w.messages.job_count):
        job_keep(w, &w.messages.jobs[i])


cdef inline void callbacks_done(Worker *w) noexcept nogil:
    """After a phase: replies leave, then what was asked for is done."""
    cdef Messages *m = w.messages
    cdef uint32_t i
    for i in range(m.chunk_count):
        chunk_send(w, &m.chunks[i])
    for i in range(m.done):
        asked_do(w, &m.jobs[i])
    jobs_keep(w)
    out_forget(m)
    jobs_forget(m)


# --- a worker's own ------------------------------------------------------------------------

cdef inline object new_block():
    """A bytes object for the arena to lie in; None: no memory."""
    try:
        return PyBytes_FromStringAndSize(NULL, ARENA_SIZE)
    except MemoryError:
        return None


cdef inline int block_set(Messages *m, object block) noexcept:
    """The arena lies in this object from now on, of which callbacks get views, and no longer in
    another one; None: in none. 0 or -ENOMEM."""
    if m.block != NULL:
        Py_DECREF(<object>m.block)
    m.arena = NULL
    m.block = NULL
    if block is None:
        return -ENOMEM
    Py_INCREF(block)
    m.block = <PyObject *>block
    m.arena = <unsigned char *>PyBytes_AsString(block)
    return 0


cdef inline int callbacks_open(Worker *w, object calls) noexcept:
    """What callbacks need of a worker; 0 or -ENOMEM. Freed with the worker."""
    cdef Messages *m = messages_new(calls.on_message is not None, calls.on_close is not None,
                                    calls.max_pending)
    w.messages = m
    if m == NULL:
        return -ENOMEM
    m.slow_ns = calls.slow_ns
    if not m.delivers:
        return 0
    if calls.memoryviews:
        return block_set(m, new_block())
    m.arena = <unsigned char *>malloc(ARENA_SIZE)
    return 0 if m.arena != NULL else -ENOMEM


cdef inline bint callbacks_call(Worker *w, object core, Maker make, object calls) noexcept:
    """One phase under the GIL; False: there is no memory to receive into any more."""
    cdef Messages *m = w.messages
    cdef Py_ssize_t refs
    cdef Phase p
    memset(&p, 0, sizeof(p))
    on_message = calls.on_message
    p.worker = w
    p.core = <PyObject *>core
    p.calls = <PyObject *>calls
    p.on_message = <PyObject *>on_message
    p.make = make
    if m.block == NULL:
        callbacks_run(&p)
        return True
    refs = Py_REFCNT(m.block)
    try:
        view = memoryview(<object>m.block)
    except MemoryError:
        return False
    p.view = <PyObject *>view
    callbacks_run(&p)
    view = None
    if Py_REFCNT(m.block) > refs:
        # A callback has kept a view of what it was given: that memory is no longer ours. What the
        # budgets have left in it is taken out before.
        jobs_keep(w)
        return block_set(m, new_block()) == 0
    return True
