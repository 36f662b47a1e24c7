# What the kernel knows of open connections (TCP_INFO), for whoever asks.
#
# Lives here: the question, which travels through a worker's mailbox, and the answer. Does not live
# here: the mailbox (_poll.pxd), what the numbers are for (fastecho/server.py).
#
# Only its worker may touch a connection's descriptor: another thread could ask for one that has just
# been closed and given to somebody else. So the worker fills in a block of the asker's, who waits for
# it. A worker that is kept by a callback may come too late: then the block is its to free.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._poll cimport (
    Message, mailbox_post, pthread_cond_broadcast, pthread_cond_timedwait, pthread_cond_wait,
    pthread_mutex_lock, pthread_mutex_unlock,
)
from fastecho._worker cimport MESSAGE_SAMPLE, Shared, Worker


cdef enum SamplesState:
    SAMPLES_ASKED
    SAMPLES_TAKEN
    SAMPLES_DONE
    # The asker is gone.
    SAMPLES_LEFT


cdef struct Sample:
    # Number among all accepted.
    uint64_t number
    # Smoothed round-trip time and its variation, in us; segments sent again.
    uint32_t rtt_us
    uint32_t rttvar_us
    uint32_t retransmissions
    # The peer's socket address.
    uint32_t address_size
    unsigned char address[FE_ADDRESS_MAX]


cdef struct Samples:
    # Under shared.sample_lock.
    SamplesState state
    # Room in entries, and how many there are.
    uint32_t most
    uint32_t count
    Sample *entries


cdef inline void samples_free(Samples *s) noexcept nogil:
    if s != NULL:
        free(s.entries)
        free(s)


# --- the worker ----------------------------------------------------------------------------

cdef inline bint sample_fill(Sample *sample, const fe_connection *c) noexcept nogil:
    """Asks the kernel about one connection; False: it is no TCP connection, or has no peer now."""
    cdef _sys.socklen_t size = sizeof(sample.address)
    cdef _sys.tcp_info info
    if (
        _sys.sys_tcp_info(c.fd, &info) < 0
        or _sys.sys_peer_name(c.fd, sample.address, &size) < 0
    ):
        return False
    sample.number = c.number
    sample.rtt_us = info.tcpi_rtt
    sample.rttvar_us = info.tcpi_rttvar
    sample.retransmissions = info.tcpi_total_retrans
    sample.address_size = min(size, <_sys.socklen_t>sizeof(sample.address))
    return True


cdef inline void samples_fill(Worker *w, Samples *s) noexcept nogil:
    """Asks about as many connections as there is room for, evenly spread over those that are open."""
    cdef uint32_t slot, step, seen = 0
    cdef fe_connection *c
    if s.most == 0:  # the question was whether there is an answer
        return
    step = max((w.connections.live + s.most - 1) // s.most, <uint32_t>1)
    for slot in range(w.connections.used):
        c = fe_slab_at(&w.connections, slot)
        if c.state == FE_OPEN or c.state == FE_PEER_EOF:
            if seen % step == 0 and s.count < s.most and sample_fill(&s.entries[s.count], c):
                s.count += 1
            seen += 1


cdef inline void samples_answer(Worker *w, Samples *s) noexcept nogil:
    """The worker has read the question."""
    cdef Shared *shared = w.shared
    cdef bint is_left
    pthread_mutex_lock(&shared.sample_lock)
    is_left = s.state == SAMPLES_LEFT
    if not is_left:
        s.state = SAMPLES_TAKEN
    pthread_mutex_unlock(&shared.sample_lock)
    if is_left:
        samples_free(s)
        return
    samples_fill(w, s)
    pthread_mutex_lock(&shared.sample_lock)
    s.state = SAMPLES_DONE
    pthread_cond_broadcast(&shared.sampled)
    pthread_mutex_unlock(&shared.sample_lock)


# --- the asker -----------------------------------------------------------------------------

cdef inline Samples *samples_ask(Shared *shared, int worker, uint32_t most) noexcept nogil:
    """Posts the question; NULL: no memory, or the worker has ended."""
    cdef Message message
    cdef Samples *s = <Samples *>calloc(1, sizeof(Samples))
    if s == NULL:
        return NULL
    s.most = most
    s.entries = <Sample *>calloc(max(most, <uint32_t>1), sizeof(Sample))
    memset(&message, 0, sizeof(message))
    message.kind = MESSAGE_SAMPLE
    message.fd = -1
    message.value = <int64_t>s
    if s.entries == NULL or mailbox_post(&shared.workers[worker].mailbox, &message) < 0:
        samples_free(s)
        return NULL
    return s


cdef inline bint samples_wait(Shared *shared, Samples *s, const _sys.timespec *until) noexcept nogil:
    """True: the answer is there. False: it did not come in time, and the block is not ours any more."""
    cdef int rc = 0
    pthread_mutex_lock(&shared.sample_lock)
    while s.state == SAMPLES_ASKED and rc == 0:
        rc = pthread_cond_timedwait(&shared.sampled, &shared.sample_lock, until)
    while s.state == SAMPLES_TAKEN:
        pthread_cond_wait(&shared.sampled, &shared.sample_lock)
    if s.state == SAMPLES_ASKED:
        s.state = SAMPLES_LEFT
        s = NULL
    pthread_mutex_unlock(&shared.sample_lock)
    return s != NULL


cdef inline int samples_take(list found, const Samples *s) except -1:
    """Turns an answer into tuples."""
    cdef const Sample *one
    cdef uint32_t i
    for i in range(s.count):
        one = &s.entries[i]
        address = PyBytes_FromStringAndSize(<const char *>one.address, one.address_size)
        found.append((one.number, address, one.rtt_us, one.rttvar_us, one.retransmissions))
    return 0


cdef inline tuple samples_of(Shared *shared, uint32_t most, uint64_t timeout_ms):
    """Asks every worker, and waits for all of them together: samples, and who has answered (None:
    could not be asked)."""
    cdef _sys.timespec until = _sys.sys_time_in(timeout_ms)
    cdef uint32_t each = (most + shared.worker_count - 1) // shared.worker_count
    cdef Samples *asked[1024]
    cdef int i
    found, answered = [], []
    for i in range(shared.worker_count):
        asked[i] = samples_ask(shared, i, each)
        answered.append(None if asked[i] == NULL else True)
    with nogil:
        for i in range(shared.worker_count):
            if asked[i] != NULL and not samples_wait(shared, asked[i], &until):
                asked[i] = NULL
    try:
        for i in range(shared.worker_count):
            if asked[i] != NULL:
                samples_take(found, asked[i])
            elif answered[i]:
                answered[i] = False
    finally:
        for i in range(shared.worker_count):
            samples_free(asked[i])
    return found, answered
