# What waits for Python on a worker with message callbacks, and what Python left to be sent.
#
# Lives here: the structs and their memory: the arena that input is received into, the jobs that
# say for whom a callback is due, the links that outlive a connection's record, and the chunks of
# replies. Does not live here: calling anything (_callbacks.pxd), sockets (_connection.pxd).
#
# One phase. Without the GIL a worker receives into the arena and notes a job for each connection
# that has something to tell. Then it takes the GIL once, calls what is due, and copies replies into
# `out`, as chunks in the order in which they were written. Then, without the GIL again, it sends
# them. So a callback never waits for a system call, and a system call never for Python.
#
# A link is what Python's handle (Connection) knows of its connection: the record itself is given
# to a stranger as soon as it is free. While there is a handle, the link is the handle's; before,
# and without one, the worker's.

from cpython.ref cimport PyObject
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from fastecho._cdefs cimport *


cdef enum:
    # Bytes that are received before the GIL is taken. When it is full, who is left shows again.
    ARENA_SIZE = 1024 * 1024
    # With less room than that nothing more is received in this phase.
    ARENA_MIN = 4096
    # Above so many bytes of replies the GIL is given back, and what is left waits its turn; a
    # buffer that grew larger for one reply does not stay.
    OUT_SIZE = 1024 * 1024
    # The same by frames (of a connection, and in all) and by time.
    FRAMES_EACH_MAX = 64
    FRAMES_MAX = 1024
    PHASE_NS = 2000000
    # After so many frames at the latest the clock is looked at.
    LOOK_FRAMES = 16


# What Link.state says; only ever raised. Atomic.
cdef enum:
    LINK_OPEN = 0
    LINK_WROTE_EOF
    LINK_CLOSING


# What a callback asked for in its own phase; done when the replies of the phase are sent.
cdef enum:
    ASKED_CLOSE = 1
    ASKED_RESET = 2
    # Not by a callback: a frame is longer than max_frame.
    ASKED_TOO_LONG = 4


cdef struct Link:
    # Python's Connection, owned by the worker until on_close; NULL: nothing was called yet.
    PyObject *handle
    # Number among all accepted of the server.
    uint64_t number
    # Where the record is, while there is one.
    uint32_t worker
    uint32_t slot
    uint32_t generation
    uint16_t listener
    # enum fe_reason, once it has ended.
    uint8_t reason
    # What was asked for in this phase, and the fe_reason of a reset.
    uint8_t asked
    uint8_t asked_reason
    # A JOB_ASKED is for it.
    bint is_noted
    # It was served: on_close is due.
    bint served
    # Time in the accept queue, negative where unknown.
    int64_t queue_wait_ms
    # The thread that its callbacks run on; 0 before it runs.
    unsigned long thread
    # Bytes that other threads have posted and the worker has not taken yet. Atomic.
    int64_t posted
    # Bytes that the kernel has not taken yet, as of the last time somebody looked. Atomic.
    int64_t pending
    # LINK_. Atomic.
    int64_t state
    # Bytes and chunks of this phase that are not sent yet.
    int64_t produced
    uint32_t chunks
    # The next one that has ended and waits for on_close.
    Link *next
    # The peer's socket address, address_size bytes of it; and, if that is what a PROXY header
    # claims, the proxy's own.
    uint32_t address_size
    uint8_t address[112]
    bint is_claimed
    uint32_t proxy_size
    uint8_t proxy[28]


# Makes Python's Connection of a link, which is its from then on.
ctypedef object (*Maker)(object core, Link *link)


cdef enum JobKind:
    # Input in the arena.
    JOB_INPUT = 1
    # Frames that are left in unparsed.
    JOB_FRAMES
    # The peer's FIN; before it, the rest that only the end makes a frame.
    JOB_EOF
    # Pending is down to low water again.
    JOB_DRAIN
    # Nothing is due, but what its callbacks asked for is to be done.
    JOB_ASKED


cdef struct Job:
    int32_t kind
    uint32_t slot
    uint32_t generation
    # Offset in the arena, and bytes.
    size_t offset
    size_t size


cdef struct Chunk:
    uint32_t slot
    uint32_t generation
    # Offset in out, and bytes.
    size_t offset
    size_t size


cdef struct Messages:
    # Input of this phase; lies in `block` if callbacks see views of it.
    unsigned char *arena
    size_t used
    PyObject *block
    # What is due, in order; the first `done` of them were seen to in this phase.
    Job *jobs
    uint32_t job_count
    uint32_t job_capacity
    uint32_t done
    # Replies of this phase.
    unsigned char *out
    size_t out_used
    size_t out_capacity
    Chunk *chunks
    uint32_t chunk_count
    uint32_t chunk_capacity
    # Links of open connections, by slot.
    Link **links
    uint32_t link_capacity
    # Ended, oldest first.
    Link *ended_first
    Link *ended_last
    # on_message is wanted: connections are served by it; and on_close is.
    bint delivers
    bint tells_end
    # Bytes that may wait for a peer.
    int64_t max_pending
    # A callback that takes longer is told of; 0: none is.
    uint64_t slow_ns
    # The thread that runs the worker; 0: none yet.
    unsigned long thread


# --- memory that grows ---------------------------------------------------------------------

cdef inline void *grown(void *items, uint32_t *capacity, size_t size) noexcept nogil:
    """A larger array with the same items, or NULL."""
    cdef uint32_t larger = 2 * capacity[0] if capacity[0] else 64
    items = realloc(items, larger * size)
    if items != NULL:
        capacity[0] = larger
    return items


cdef inline Messages *messages_new(bint delivers, bint tells_end,
                                   int64_t max_pending) noexcept nogil:
    """An empty one, or NULL. The caller gives it an arena: malloc's, or a bytes object's."""
    cdef Messages *m = <Messages *>calloc(1, sizeof(Messages))
    if m != NULL:
        m.delivers = delivers
        m.tells_end = tells_end
        m.max_pending = max_pending
    return m


cdef inline void link_free(Link *link) noexcept nogil:
    """Gives a link back, unless it is a handle's."""
    if link != NULL and link.handle == NULL:
        free(link)


cdef inline void messages_free(Messages *m) noexcept nogil:
    """All but the block. The worker has ended."""
    cdef uint32_t slot
    cdef Link *link
    if m == NULL:
        return
    for slot in range(m.link_capacity):
        link_free(m.links[slot])
    while m.ended_first != NULL:
        link = m.ended_first
        m.ended_first = link.next
        link_free(link)
    if m.block == NULL:
        free(m.arena)
    free(m.jobs)
    free(m.out)
    free(m.chunks)
    free(m.links)
    free(m)


# --- links ---------------------------------------------------------------------------------

cdef inline Link *link_of(const Messages *m, uint32_t slot) noexcept nogil:
    """The link of the connection that is in a slot now."""
    return m.links[slot]


cdef inline Link *link_new(Messages *m, uint32_t slot) noexcept nogil:
    """A link for a newcomer, in its slot; NULL: no memory. Zeroed otherwise."""
    cdef uint32_t capacity = m.link_capacity
    cdef Link **links
    cdef Link *link
    while m.link_capacity <= slot:
        links = <Link **>grown(m.links, &m.link_capacity, sizeof(Link *))
        if links == NULL:
            return NULL
        m.links = links
        memset(links + capacity, 0, (m.link_capacity - capacity) * sizeof(Link *))
        capacity = m.link_capacity
    link = <Link *>calloc(1, sizeof(Link))
    m.links[slot] = link
    return link


cdef inline Link *link_take(Messages *m, uint32_t slot, uint8_t reason) noexcept nogil:
    """The connection in a slot has ended: its record goes. The link, if on_close is due for it or
    Python knows it; NULL otherwise."""
    cdef Link *link = m.links[slot]
    m.links[slot] = NULL
    if link == NULL:
        return NULL
    link.reason = reason
    fe_atomic_store(&link.state, LINK_CLOSING)
    if link.handle == NULL and not (link.served and m.tells_end):
        free(link)
        return NULL
    return link


cdef inline void link_ended(Messages *m, Link *link) noexcept nogil:
    """on_close is due, in the next phase."""
    link.next = NULL
    if m.ended_first == NULL:
        m.ended_first = link
    else:
        m.ended_last.next = link
    m.ended_last = link


# --- jobs ----------------------------------------------------------------------------------

cdef inline bint messages_wait(const Messages *m) noexcept nogil:
    """Whether anything is due."""
    return m != NULL and (m.job_count != 0 or m.ended_first != NULL)


cdef inline int job_room(Messages *m) noexcept nogil:
    """Makes room for one more job; 0 or -ENOMEM."""
    cdef Job *jobs
    if m.job_count < m.job_capacity:
        return 0
    jobs = <Job *>grown(m.jobs, &m.job_capacity, sizeof(Job))
    if jobs == NULL:
        return -ENOMEM
    m.jobs = jobs
    return 0


cdef inline int job_add(Messages *m, int kind, const fe_connection *c, size_t offset=0,
                        size_t size=0) noexcept nogil:
    """Notes that something is due; 0 or -ENOMEM."""
    cdef Job *job
    if job_room(m) < 0:
        return -ENOMEM
    job = &m.jobs[m.job_count]
    job.kind = kind
    job.slot = c.slot
    job.generation = c.generation
    job.offset = offset
    job.size = size
    m.job_count += 1
    return 0


cdef inline bint is_arena_full(const Messages *m) noexcept nogil:
    """Nothing more is received in this phase."""
    return ARENA_SIZE - m.used < ARENA_MIN


cdef inline void jobs_forget(Messages *m) noexcept nogil:
    """Drops those that were seen to; the arena is free again."""
    cdef uint32_t i, left = m.job_count - m.done
    for i in range(left):
        m.jobs[i] = m.jobs[m.done + i]
    m.job_count = left
    m.done = 0
    m.used = 0


# --- replies -------------------------------------------------------------------------------

cdef inline unsigned char *out_room(Messages *m, Link *link, size_t n) noexcept nogil:
    """Room for n more bytes behind what was written to a connection; NULL: no memory."""
    cdef size_t capacity = m.out_capacity if m.out_capacity else OUT_SIZE
    cdef Chunk *chunk
    cdef unsigned char *where
    if m.out_used + n > m.out_capacity:
        while capacity < m.out_used + n:
            capacity *= 2
        where = <unsigned char *>realloc(m.out, capacity)
        if where == NULL:
            return NULL
        m.out = where
        m.out_capacity = capacity
    chunk = &m.chunks[m.chunk_count - 1] if m.chunk_count else NULL
    if chunk == NULL or chunk.slot != link.slot or chunk.generation != link.generation:
        if m.chunk_count == m.chunk_capacity:
            chunk = <Chunk *>grown(m.chunks, &m.chunk_capacity, sizeof(Chunk))
            if chunk == NULL:
                return NULL
            m.chunks = chunk
        chunk = &m.chunks[m.chunk_count]
        m.chunk_count += 1
        chunk.slot = link.slot
        chunk.generation = link.generation
        chunk.offset = m.out_used
        chunk.size = 0
        link.chunks += 1
    where = m.out + m.out_used
    chunk.size += n
    link.produced += <int64_t>n
    m.out_used += n
    return where


cdef inline int reply_put(Messages *m, Link *link, const fe_framing *f, const void *data,
                          size_t n) noexcept nogil:
    """Copies one reply behind the others; with length frames, its header as well. 0 or -ENOMEM."""
    cdef size_t header = FE_LENGTH_HEADER if f.kind == FE_FRAME_LENGTH else 0
    cdef unsigned char *where
    if header + n == 0:
        return 0
    where = out_room(m, link, header + n)
    if where == NULL:
        return -ENOMEM
    if header:
        fe_store_be32(where, <uint32_t>n)
    memcpy(where + header, data, n)
    return 0


cdef inline void out_forget(Messages *m) noexcept nogil:
    """All chunks are sent."""
    m.chunk_count = 0
    m.out_used = 0
    if m.out_capacity > 4 * OUT_SIZE:
        free(m.out)
        m.out = NULL
        m.out_capacity = 0
