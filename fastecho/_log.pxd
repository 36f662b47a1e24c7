# What a worker notes for the log, and how the thread that writes it is woken.
#
# Lives here: filling an entry of the access log, handing it over, telling of trouble. Does not
# live here: the entry and the ring (src_c/access_log.h), its bytes (_stream.pxd counts them as
# they come and go), lines of text (logs.py, reporter.py).
#
# A worker never waits for the log: an entry that finds its ring full, or that comes above the
# rate, is counted and forgotten. The thread that writes is woken once an iteration at the most.

from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._poll cimport (
    Message, pthread_cond_broadcast, pthread_cond_timedwait, pthread_cond_wait, pthread_mutex_lock,
    pthread_mutex_unlock,
)
from fastecho._worker cimport Shared, Worker


cdef enum:
    # A worker tells of trouble so often at the most: what comes in between is in the counters.
    TROUBLE_NS = 1000000000


cdef inline void log_wake(Shared *shared) noexcept nogil:
    """There is news. Whoever put something before this call finds it read."""
    pthread_mutex_lock(&shared.news_lock)
    if not shared.has_news:
        shared.has_news = True
        pthread_cond_broadcast(&shared.news)
    pthread_mutex_unlock(&shared.news_lock)


cdef inline void log_wait(Shared *shared, int timeout_ms) noexcept nogil:
    """Waits until there is news, or the timeout is over; negative: without one."""
    cdef _sys.timespec until = _sys.sys_time_in(max(timeout_ms, 0))
    cdef int rc = 0
    pthread_mutex_lock(&shared.news_lock)
    while not shared.has_news and rc == 0:
        if timeout_ms < 0:
            pthread_cond_wait(&shared.news, &shared.news_lock)
        else:
            rc = pthread_cond_timedwait(&shared.news, &shared.news_lock, &until)
    shared.has_news = False
    pthread_mutex_unlock(&shared.news_lock)


cdef inline void log_trouble(Worker *w) noexcept nogil:
    """Something that an operator should know was counted."""
    cdef uint64_t now_ns = _sys.sys_now_ns()
    if w.trouble_ns == 0 or now_ns - w.trouble_ns >= TROUBLE_NS:
        w.trouble_ns = now_ns
        w.has_news = True


cdef inline void log_put(Worker *w, fe_log_entry *entry, uint64_t place) noexcept nogil:
    """Hands an entry over, if the one at its place is to have a line."""
    if place % w.shared.log_sample != 0:
        return
    entry.ended_ns = _sys.sys_now_ns()
    if fe_rate_take(&w.shared.log_rate, entry.ended_ns) and fe_log_put(&w.log, entry):
        w.has_news = True
    else:
        fe_count(&w.counters.access_log_dropped, 1)
        log_trouble(w)


cdef inline void log_fill(fe_log_entry *entry, const Message *newcomer) noexcept nogil:
    """Who came, when and where."""
    entry.number = newcomer.number
    entry.began_ns = newcomer.began_ns
    entry.queue_wait_ms = <int32_t>newcomer.value
    entry.listener = <uint16_t>newcomer.listener
    entry.address_size = newcomer.address_size
    memcpy(entry.address, newcomer.address, newcomer.address_size)


cdef inline int log_begin(Worker *w, uint32_t slot, const Message *newcomer) noexcept nogil:
    """Opens the entry of the connection in a slot, if there is a log; 0 or -ENOMEM."""
    cdef fe_log_entry *entry
    if w.shared.log_sample == 0:
        return 0
    entry = fe_log_begin(&w.stream.log, slot)
    if entry == NULL:
        return -ENOMEM
    log_fill(entry, newcomer)
    return 0


cdef inline void log_rename(Worker *w, uint32_t slot, const Message *newcomer) noexcept nogil:
    """A PROXY header has told who it is."""
    cdef fe_log_entry *entry
    if w.stream.log.entries == NULL:
        return
    entry = &w.stream.log.entries[slot]
    entry.address_size = newcomer.address_size
    memcpy(entry.address, newcomer.address, newcomer.address_size)


cdef inline void log_error(Worker *w, const fe_connection *c, int rc) noexcept nogil:
    """A call of the connection failed with rc (-errno)."""
    if w.stream.log.entries != NULL:
        w.stream.log.entries[c.slot].error = -rc


cdef inline void log_connection(Worker *w, const fe_connection *c) noexcept nogil:
    """The connection has ended, and its bytes are counted."""
    cdef fe_log_entry *entry
    if w.stream.log.entries == NULL:
        return
    entry = &w.stream.log.entries[c.slot]
    entry.reason = c.reason
    log_put(w, entry, entry.number - 1)


cdef inline void log_refused(Worker *w, const Message *newcomer, int reason) noexcept nogil:
    """A newcomer was accepted and reset at once."""
    cdef fe_log_entry entry
    if w.shared.log_sample == 0:
        return
    memset(&entry, 0, sizeof(entry))
    log_fill(&entry, newcomer)
    entry.reason = <uint8_t>reason
    log_put(w, &entry, <uint64_t>fe_atomic_add(&w.shared.refused, 1) - 1)
