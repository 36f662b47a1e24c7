# What Python's Connection does: writing and asking, from its own thread or from another.
#
# Lives here: the two ways of each. Does not live here: the class (_core.pyx), what becomes of what
# was written or asked for (_callbacks.pxd on its own thread, _orders.pxd from another).
#
# On the thread that runs the callbacks of a connection its record can be touched, and what is
# written joins the replies of the phase. From anywhere else a message goes to the worker's mailbox:
# writes and wishes keep their order, and many of them wake the worker once.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastecho._cdefs cimport *
from fastecho._callbacks cimport put
from fastecho._messages cimport (
    ASKED_CLOSE, ASKED_RESET, JOB_ASKED, LINK_CLOSING, LINK_OPEN, LINK_WROTE_EOF, Link, job_add,
)
from fastecho._poll cimport Message, mailbox_post, pthread_self
from fastecho._worker cimport (
    MESSAGE_WISH, MESSAGE_WRITE, WISH_CLOSE, WISH_EOF, WISH_FULL, WISH_LOOK, WISH_PAUSE,
    WISH_RESET, WISH_RESUME, Worker,
)


cdef inline bint is_here(const Link *link) noexcept nogil:
    """Whether this is the thread that its callbacks run on: then one of them is running."""
    return link.thread == pthread_self()


cdef inline fe_connection *record_of(Worker *w, const Link *link,
                                     int last=FE_PEER_EOF) noexcept nogil:
    """Its record while it is served, or in a later state down to `last`; or NULL. Here only."""
    cdef fe_connection *c = fe_slab_find(&w.connections, link.slot, link.generation)
    return c if c != NULL and FE_OPEN <= c.state <= last else NULL


# --- wishes --------------------------------------------------------------------------------

cdef inline int post_wish(Worker *w, const Link *link, int wish) noexcept nogil:
    """Tells the worker, which finds room for that when there is no memory; 0 or -errno."""
    cdef Message message
    memset(&message, 0, sizeof(message))
    message.kind = MESSAGE_WISH
    message.fd = -1
    message.slot = link.slot
    message.generation = link.generation
    message.value = wish
    return mailbox_post(&w.mailbox, &message, True)


cdef inline int note(Worker *w, Link *link, const fe_connection *c) noexcept nogil:
    """What was asked for is to be done at the end of the phase: noted once. 0 or -ENOMEM."""
    if link.is_noted:
        return 0
    if job_add(w.messages, JOB_ASKED, c) < 0:
        return -ENOMEM
    link.is_noted = True
    return 0


cdef inline int wish_here(Worker *w, Link *link, int wish) noexcept nogil:
    """Notes it for the end of the phase; holding takes effect at once. 0 or -ENOMEM."""
    cdef fe_connection *c = record_of(w, link, FE_LINGER if wish == WISH_RESET else FE_PEER_EOF)
    if c == NULL:
        return 0
    if note(w, link, c) < 0:
        return -ENOMEM
    if wish == WISH_CLOSE:
        link.asked |= ASKED_CLOSE
    elif wish == WISH_EOF:
        c.wishes |= FE_WANTS_FIN
    elif wish == WISH_PAUSE:
        c.wishes |= FE_HOLDS
    elif wish == WISH_RESUME:
        c.wishes &= ~FE_HOLDS & 0xff
    else:
        link.asked |= ASKED_RESET
        link.asked_reason = FE_BY_RESET if wish == WISH_RESET else FE_BY_MAX_PENDING
    return 0


cdef inline int ask(Worker *w, Link *link, int wish) noexcept nogil:
    """A wish, from any thread; 0 or -errno."""
    return wish_here(w, link, wish) if is_here(link) else post_wish(w, link, wish)


# --- writing -------------------------------------------------------------------------------

cdef inline bint is_below(Worker *w, Link *link, int64_t waiting, bint here) noexcept nogil:
    """What a write answers: whether less than high water waits. Whoever is told no is owed an
    on_drain. Above max_pending the connection ends."""
    cdef fe_connection *c
    if waiting > w.messages.max_pending:
        fe_atomic_store(&link.state, LINK_CLOSING)
        if here:
            wish_here(w, link, WISH_FULL)
        else:
            post_wish(w, link, WISH_FULL)
        return False
    if waiting < <int64_t>w.stream.high_water:
        return True
    if here:
        c = record_of(w, link)
        if c != NULL and note(w, link, c) == 0:
            c.wishes |= FE_OWES_DRAIN
    return False


cdef inline bint write_here(Worker *w, Link *link, object data) except -1:
    """Joins the replies of this phase."""
    cdef fe_connection *c = record_of(w, link)
    put(w, link, data)
    if c == NULL or fe_atomic_load(&link.state) != LINK_OPEN:
        return False
    return is_below(w, link, <int64_t>fe_buffer_size(c.pending) + link.produced
                    + fe_atomic_load(&link.posted), True)


cdef inline unsigned char *block_of(const fe_framing *f, object data, size_t *size) except NULL:
    """A copy that the worker will free; with length frames, with its header."""
    cdef size_t header = FE_LENGTH_HEADER if f.kind == FE_FRAME_LENGTH else 0
    cdef unsigned char *block
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if header and view.len > <Py_ssize_t>0xffffffff:
            raise ValueError("a length frame holds less than 4 GiB")
        size[0] = header + view.len
        block = <unsigned char *>malloc(size[0] + 1)
        if block == NULL:
            raise MemoryError("no memory for what was written")
        if header:
            fe_store_be32(block, view.len)
        memcpy(block + header, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return block


cdef inline void take_back(Worker *w, Link *link, unsigned char *block,
                           size_t size) noexcept nogil:
    """It is not written after all; what waits for it goes on."""
    free(block)
    fe_atomic_add(&link.posted, -<int64_t>size)
    post_wish(w, link, WISH_LOOK)


cdef inline bint write_there(Worker *w, Link *link, object data) except -1:
    """Goes to the worker's mailbox."""
    cdef int64_t waiting
    cdef size_t size
    cdef unsigned char *block
    cdef Message message
    cdef int rc
    if fe_atomic_load(&link.state) == LINK_WROTE_EOF:
        raise RuntimeError("write after write_eof()")
    block = block_of(&w.stream.framing, data, &size)
    if fe_atomic_load(&link.state) == LINK_CLOSING:
        free(block)
        return False
    # From here on an end in order waits for it; one that has begun meanwhile may not have seen it.
    waiting = fe_atomic_add(&link.posted, <int64_t>size) + fe_atomic_load(&link.pending)
    if fe_atomic_load(&link.state) == LINK_CLOSING:
        take_back(w, link, block, size)
        return False
    memset(&message, 0, sizeof(message))
    message.kind = MESSAGE_WRITE
    message.fd = -1
    message.slot = link.slot
    message.generation = link.generation
    message.value = <int64_t>block
    message.value2 = <int64_t>size
    message.number = waiting >= <int64_t>w.stream.high_water
    rc = mailbox_post(&w.mailbox, &message)
    if rc < 0:
        take_back(w, link, block, size)
        if rc == -ENOMEM:
            raise MemoryError("no memory for what was written")
        return False
    return is_below(w, link, waiting, False)
