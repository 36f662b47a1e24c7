# What every loop stands on: the epoll set with its wait, and the mailbox.
#
# Lives here: registering descriptors, waiting (with an optional spin), handing messages from
# any thread to the one that owns the loop. Does not live here: connections, bytes, policy.
#
# Some facts about epoll that the loops rely on:
#
# - Level-triggered throughout: what is not drained now comes again, so a budget can end a
#   read early and no event is ever lost.
# - EPOLLHUP and EPOLLERR come whether asked for or not. A descriptor that is registered for
#   nothing and hangs up would make epoll_wait return at once for ever: it has to leave the set.
# - A registration belongs to the open file description, not to the descriptor. close() removes
#   it only when no duplicate is left; a forked child holds duplicates. So DEL before close, always.
# - With EPOLLEXCLUSIVE, MOD is EINVAL: a listener is paused by DEL and resumed by ADD.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.errno cimport EBUSY, ENOMEM

cimport fastecho._sys as _sys


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    unsigned long pthread_self()
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t *attributes)
    int pthread_condattr_setclock(pthread_condattr_t *attributes, int clock)
    int pthread_condattr_destroy(pthread_condattr_t *attributes)
    int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_cond_broadcast(pthread_cond_t *condition)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                               const _sys.timespec *until)


cdef extern from *:
    """
    /* Stores before it stay before it, as this thread's own fork sees them. */
    static inline void fe_order(void)
    {
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    }

    /* A pause between two polls of a spin: tells the core that it waits. */
    static inline void fe_cpu_relax(void)
    {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ volatile("yield");
    #endif
    }
    """
    void fe_cpu_relax() noexcept nogil
    void fe_order() noexcept nogil


# --- waiting ------------------------------------------------------------------------------

cdef struct Spin:
    # How long to look before blocking, in ns; 0: never.
    uint64_t span_ns
    # Spins that are worth trying; grows when one found work.
    int32_t credit
    # Waits without a spin since the last one.
    int32_t skipped


# Credit: a spin that found work earns, one that did not costs more, so that a loop whose
# events come further apart than the span soon blocks at once. After SPIN_RETRY waits without
# one, a single spin looks whether the load has changed. Chosen by `benchmarks.echo --only spin`.
cdef enum:
    SPIN_CREDIT_MAX = 16
    SPIN_EARNS = 1
    SPIN_COSTS = 4
    SPIN_RETRY = 256


cdef inline int poll_spin(Spin *spin, int epfd, _sys.epoll_event *events, int n) noexcept nogil:
    """Polls without blocking for the span; events found, or 0."""
    cdef uint64_t until
    cdef int found
    if spin.credit <= 0:
        spin.skipped += 1
        if spin.skipped < SPIN_RETRY:
            return 0
        spin.credit = SPIN_EARNS
    spin.skipped = 0
    until = _sys.sys_now_ns() + spin.span_ns
    while True:
        found = _sys.sys_epoll_wait(epfd, events, n, 0)
        if found != 0:
            if spin.credit < SPIN_CREDIT_MAX:
                spin.credit += SPIN_EARNS
            return found
        if _sys.sys_now_ns() >= until:
            spin.credit -= SPIN_COSTS
            return 0
        fe_cpu_relax()


cdef inline int poll_wait(Spin *spin, int epfd, _sys.epoll_event *events, int n,
                          int timeout_ms) noexcept nogil:
    """Events delivered within timeout_ms (-1: for ever); 0 after it or after a signal; -errno."""
    cdef int found
    if spin.span_ns != 0 and timeout_ms != 0:
        found = poll_spin(spin, epfd, events, n)
        if found != 0:
            return found
    return _sys.sys_epoll_wait(epfd, events, n, timeout_ms)


# --- mailbox ------------------------------------------------------------------------------

cdef struct Message:
    # What it says; the receiver's own enum.
    int32_t kind
    # A descriptor that changes hands with the message; -1: none.
    int32_t fd
    # Whom it is about.
    uint32_t worker
    uint32_t slot
    uint32_t generation
    uint32_t listener
    uint64_t number
    # When it came, on the monotonic clock; 0 where nobody wants to know.
    uint64_t began_ns
    # Whatever the kind needs.
    int64_t value
    int64_t value2
    # The peer's socket address, address_size bytes of it.
    uint32_t address_size
    uint8_t address[112]
    # Whether a PROXY header from there is awaited, and believed.
    bint is_trusted
    # Whether that is what a PROXY header claims; then the proxy's own, proxy_size bytes of it, as
    # a sockaddr_in or sockaddr_in6.
    bint is_claimed
    uint32_t proxy_size
    uint8_t proxy[28]


# The list that a mailbox starts with, and how much of it control messages find free when there
# is no memory for a larger one: a server must always be able to end.
cdef enum:
    MAILBOX_START = 64
    MAILBOX_SPARE = 32


cdef struct Mailbox:
    # A leaf: nobody waits for anything else while holding it.
    pthread_mutex_t lock
    # Readable while there is something to read.
    int wake_fd
    # The eventfd has been raised since the list was last taken.
    bint notified
    # Nobody will read any more: post() refuses.
    bint closed
    # Two lists: the one that is filled, and the one that the reader works on.
    Message *filling
    uint32_t filled
    uint32_t filling_capacity
    Message *reading
    uint32_t read_count
    uint32_t reading_capacity


cdef inline int mailbox_open(Mailbox *box) noexcept nogil:
    """Makes an empty mailbox of zeroed memory; 0 or -errno. mailbox_free() may follow anyway."""
    pthread_mutex_init(&box.lock, NULL)
    box.wake_fd = _sys.sys_eventfd()
    if box.wake_fd < 0:
        return box.wake_fd
    box.filling = <Message *>malloc(MAILBOX_START * sizeof(Message))
    box.reading = <Message *>malloc(MAILBOX_START * sizeof(Message))
    if box.filling == NULL or box.reading == NULL:
        return -ENOMEM
    box.filling_capacity = box.reading_capacity = MAILBOX_START
    return 0


cdef inline int mailbox_grow(Mailbox *box, uint32_t spare) noexcept nogil:
    """Makes room for one more message and `spare` others; 0 or -ENOMEM. Under the lock."""
    cdef Message *grown
    if box.filled + spare < box.filling_capacity:
        return 0
    grown = <Message *>realloc(box.filling, 2 * box.filling_capacity * sizeof(Message))
    if grown == NULL:
        return -ENOMEM
    box.filling = grown
    box.filling_capacity *= 2
    return 0


cdef inline int mailbox_post(Mailbox *box, const Message *message,
                             bint is_control=False) noexcept nogil:
    """Copies the message in and wakes the reader. Any thread.

    0; -ENOMEM or -EBUSY (closed): nothing was posted, a descriptor stays with the caller.
    Control messages find room when there is no memory. The eventfd is raised under the lock (it
    never blocks): once the mailbox is closed, nobody writes to a descriptor that may be gone.
    """
    cdef int rc
    pthread_mutex_lock(&box.lock)
    if box.closed:
        rc = -EBUSY
    else:
        rc = mailbox_grow(box, 0 if is_control else MAILBOX_SPARE)
    if rc == 0:
        box.filling[box.filled] = message[0]
        box.filled += 1
        if not box.notified:
            box.notified = True
            _sys.sys_eventfd_raise(box.wake_fd)
    pthread_mutex_unlock(&box.lock)
    return rc


cdef inline uint32_t mailbox_take(Mailbox *box, Message **messages) noexcept nogil:
    """Everything posted so far, oldest first. The list is the reader's until its next take."""
    cdef Message *list_
    cdef uint32_t capacity, n
    _sys.sys_eventfd_clear(box.wake_fd)
    pthread_mutex_lock(&box.lock)
    box.notified = False
    list_ = box.filling
    capacity = box.filling_capacity
    n = box.filled
    # A fork may freeze this anywhere, and the child closes what the lists hold: a list is
    # counted only while it is whole.
    box.filled = 0
    box.read_count = 0
    fe_order()
    box.filling = box.reading
    box.filling_capacity = box.reading_capacity
    box.reading = list_
    box.reading_capacity = capacity
    fe_order()
    box.read_count = n
    pthread_mutex_unlock(&box.lock)
    messages[0] = list_
    return n


cdef inline bint mailbox_close_if_empty(Mailbox *box) noexcept nogil:
    """True: nothing is left in it, and from now on post() refuses."""
    pthread_mutex_lock(&box.lock)
    if box.filled == 0:
        box.closed = True
    pthread_mutex_unlock(&box.lock)
    return box.closed


cdef inline void mailbox_close(Mailbox *box) noexcept nogil:
    """From now on post() refuses; what is in it will not be read."""
    pthread_mutex_lock(&box.lock)
    box.closed = True
    pthread_mutex_unlock(&box.lock)


cdef inline void mailbox_close_descriptors(const Message *messages, uint32_t n) noexcept nogil:
    """Closes what is under way in a list of messages: for a forked child."""
    cdef uint32_t i
    for i in range(n):
        if messages[i].fd >= 0:
            _sys.sys_close(messages[i].fd)


cdef inline void mailbox_free(Mailbox *box) noexcept nogil:
    """Gives back the lists. The wake descriptor is closed, and nobody posts any more."""
    pthread_mutex_destroy(&box.lock)
    free(box.filling)
    free(box.reading)
    box.filling = NULL
    box.reading = NULL
