# A worker: one thread, one loop, and everything that only this thread touches.
#
# Lives here: the structs of server and worker, their set-up and tear-down, the worker's clock
# and its lists. Does not live here: what happens to a connection (_connection.pxd), accepting
# (_accept.pxd), the loop itself (_core.pyx).
#
# Ownership. From hand-over to free, a connection, its timer, its list links and its epoll
# registration belong to one worker's thread. Others reach it through the worker's mailbox,
# and name it by (slot, generation), never by a pointer. Shared holds what all workers read;
# what changes in it is atomic.

from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from fastecho._cdefs cimport *
from fastecho._datagram_cdefs cimport fe_guarding
from fastecho._datagrams cimport DatagramSocket, Datagrams, datagrams_free, datagrams_open
cimport fastecho._sys as _sys
from fastecho._fault cimport Faults, fault_find, faults_close, faults_free
from fastecho._messages cimport Messages, messages_free
from fastecho._poll cimport (
    Mailbox, Message, Spin, mailbox_open, mailbox_post, pthread_cond_destroy, pthread_cond_init,
    pthread_cond_t, pthread_condattr_destroy, pthread_condattr_init, pthread_condattr_setclock,
    pthread_condattr_t, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_t, pthread_mutex_unlock,
)
from fastecho._proxied cimport ProxiedTable, proxied_free
from fastecho._stream cimport STREAM_ROUND, StreamShare


# Bytes of one read, and of the buffer that a worker's connections share. For 1 MiB messages 64
# KiB lose a tenth to a third; 512 KiB gain with some senders what they lose with others
# (`benchmarks.echo --only bulk-1`, `bulk-8`, `-sendfile`).
cdef enum:
    READ_SIZE = 256 * 1024

# epoll tags: slot and generation of a connection, or one of these in the slot's place.
cdef enum:
    TAG_DATAGRAMS = 0xFFFD0000      # + index of the socket
    TAG_LISTENER = 0xFFFE0000       # + index of the listener
    TAG_FAULTS = 0xFFFFFFFE         # the timerfd of faults
    TAG_MAILBOX = 0xFFFFFFFF

# What a mailbox message says.
cdef enum MessageKind:
    MESSAGE_CONNECTION = 1          # fd, listener, number, address: serve it
    MESSAGE_VERDICT                 # slot, generation, value: 1 accept, 0 abort; value2: a block
                                    # that malloc gave with the fe_fault for it, or 0
    MESSAGE_STOP_ACCEPTING          # value: grace in ms
    MESSAGE_DRAIN                   # value: deadline in ms from now, value2: quiet time in ms
    MESSAGE_ABORT                   # end everything now
    MESSAGE_LIMITS                  # shared.limits has changed
    MESSAGE_ROOM                    # a place is free again, or accept_delay is another one; value:
                                    # look at the sockets for datagrams as well
    MESSAGE_LOOK                    # something shared has changed
    MESSAGE_WRITE                   # slot, generation, value: a block that malloc gave, value2:
                                    # its bytes, number: 1 if the writer was told that it is full
    MESSAGE_ENDED                   # value: the Link of a connection that has ended
    MESSAGE_SAMPLE                  # value: Samples to be filled in
    MESSAGE_WISH                    # slot, generation, value: enum Wish


# What a Connection can ask for from any thread.
cdef enum Wish:
    WISH_EOF = 1                    # FIN behind what is pending
    WISH_CLOSE
    WISH_RESET
    WISH_PAUSE
    WISH_RESUME
    WISH_FULL                       # more than max_pending waits
    WISH_LOOK                       # what was posted was taken back


cdef struct Listener:
    int fd
    # The worker that accepts from it; -1: every worker does.
    int worker
    # Opened by us: nobody else accepts from it, so it may be shut down.
    bint owned
    bint is_unix
    # Another process accepts from it: what is queued is left to that one.
    bint given
    # Deepest accept queue that a worker found when it came to accept; TCP only. Atomic.
    int64_t highest


# What may change while the server runs. 0 is no limit, but for max_connections: -1.
cdef struct Limits:
    int64_t max_connections
    # Connections of one address, and the bits of an IPv6 address that count.
    uint32_t max_per_ip
    uint32_t ipv6_prefix
    uint64_t idle_timeout_ms
    uint64_t first_byte_timeout_ms
    # Of one source address one datagram in so many ns is answered.
    uint64_t datagram_interval_ns


cdef struct Shared:
    int worker_count
    Worker *workers
    int listener_count
    Listener *listeners
    # Sockets for datagrams, and which of these are answered; NULL: there are none.
    int datagram_count
    DatagramSocket *datagrams
    fe_guarding *guarding
    # Connections accepted so far: the next one's number less one. Atomic.
    int64_t last_number
    # Places taken of max_connections. Atomic.
    int64_t places
    # Above max_connections newcomers stay in the kernel's queue; and how many workers have left
    # their listeners for want of a place, under accept_lock.
    bint queues
    int held
    # What each worker takes a copy of; under its lock (a leaf: nothing is called while it is held).
    Limits limits
    pthread_mutex_t limits_lock
    # Workers that still accept. Atomic; brought to 0 under the lock, and told.
    int64_t accepting
    pthread_mutex_t accept_lock
    pthread_cond_t accept_ended
    # Whoever opened the listeners may close them from now on; under accept_lock.
    bint listeners_left
    # Workers whose loop has not ended. Atomic.
    int64_t running
    # An accept callback decides: newcomers go through admissions first.
    bint admits
    # The fault in force, for newcomers; under limits_lock. Whether there is one, and how long
    # accepting rests before newcomers are accepted, in ms: atomic.
    fe_fault fault
    int64_t has_fault
    int64_t accept_delay_ms
    # What connections get: FE_PATH_DISCARD, FE_PATH_CHARGEN, 0: their echo.
    uint8_t service
    # enum ProxyMode; who is believed when a PROXY header says who the peer is, and how long it may
    # take to come.
    int proxy_mode
    fe_network *trusted
    uint32_t trusted_count
    uint64_t proxy_timeout_ms
    # Why the last PROXY header was refused: enum fe_proxy_error. Atomic.
    int64_t proxy_error
    # What the line begins with that says who answers, a JSON object without its end; NULL: none is
    # sent. And when the server began, on the monotonic clock.
    unsigned char *identity
    uint32_t identity_size
    uint64_t began_ns
    # As configured.
    size_t high_water
    size_t low_water
    # Newcomers a second.
    fe_rate accept_rate
    # How many connections each address has, since there was a limit; under its lock (a leaf too).
    fe_peers peers
    pthread_mutex_t peers_lock
    # Read by the thread that runs the accept callback.
    Mailbox admissions
    # The access log: of so many connections one has a line (0: there is none), so many lines a
    # second; and those that were refused so far, whose lines are sampled by that. Atomic.
    uint64_t log_sample
    fe_rate log_rate
    int64_t refused
    # There is news for the thread that writes the log; under its lock (a leaf).
    bint has_news
    pthread_mutex_t news_lock
    pthread_cond_t news
    # Questions for samples of connections; under its lock (a leaf).
    pthread_mutex_t sample_lock
    pthread_cond_t sampled


# Connections linked by next and previous: slots, FE_NO_SLOT where there is none.
cdef struct SlotList:
    uint32_t first
    uint32_t last


cdef struct Worker:
    Shared *shared
    int index
    # 1: a thread runs it, or it was given up. Atomic.
    int64_t claimed
    # The thread that runs it, 0: none does; when that began, on the monotonic clock, and once it has
    # ended how long that was and how long it had a CPU, all in ns. Atomic.
    int64_t tid
    int64_t began_ns
    int64_t ran_ns
    int64_t cpu_ns
    int epfd
    # Spent to shed one newcomer when no descriptor is left; -1: spent.
    int reserve_fd
    # READ_SIZE bytes, for every read of every connection.
    unsigned char *buffer
    Limits limits
    # Monotonic ms; as old as the iteration, and only kept up when something needs it.
    uint64_t now_ms
    # Somebody needs to know when a connection was last active.
    bint tracks_activity
    StreamShare stream
    Spin spin
    # Of epoll_wait, in a row.
    int wait_failures
    # Who has a turn at the end of the iteration, and whose PROXY header is awaited, in the order in
    # which they came; first of the reap list, FE_NO_SLOT: empty.
    SlotList ready
    SlotList waiting
    uint32_t reap_first
    # Accepting: the worker's part of the listeners is in its epoll, or is paused.
    bint accepting
    bint accept_paused
    # It is paused by a fault's accept_delay of so many ms; 0: it is not.
    int64_t accept_rest_ms
    # The same for want of a place under max_connections.
    bint accept_held
    # The listener that is put into epoll first, the next time: epoll tells of them in that order.
    int accept_first
    # The next expiry of accept_timer ends accepting.
    bint accept_ending
    # Newcomers that one event may accept: 1, doubled while there were more.
    int accept_budget
    bint draining
    bint aborting
    # Deadline of the drain, in now_ms' clock.
    uint64_t drain_at_ms
    uint64_t drain_idle_ms
    # Resume accepting, or end it; drain_at_ms; the first of those that wait for a PROXY header, or
    # earlier. The heap has room for them at any time.
    fe_timer accept_timer
    fe_timer drain_timer
    fe_timer waiting_timer
    fe_timers timers
    fe_slab connections
    # With message callbacks: what waits for Python; NULL otherwise.
    Messages *messages
    # Room for datagrams; NULL: there is no socket for them.
    Datagrams *datagrams
    # Connections with a fault; NULL until there is one.
    Faults *faults
    Mailbox mailbox
    fe_counters counters
    # Lines for the access log, and whether the thread that writes them is to be told after this
    # iteration; when it was last told of trouble.
    fe_log_ring log
    bint has_news
    uint64_t trouble_ns
    # Where each slot's peer stands in the book of max_per_ip, FE_NO_PEER for nowhere. Nothing
    # beyond peer_of_size does.
    uint32_t *peer_of
    uint32_t peer_of_size
    # What is known of those that came through a proxy.
    ProxiedTable proxied
    # Connections placed here and not yet closed. Raised by who accepts, lowered by the owner.
    int64_t placed


cdef inline uint64_t worker_clock(Worker *w) noexcept nogil:
    """Brings now_ms up to date."""
    w.now_ms = _sys.sys_now_ns() // 1000000
    return w.now_ms


cdef inline uint64_t worker_deadline(Worker *w, uint64_t span_ms) noexcept nogil:
    """The time that is span_ms away: rounded up, so that a timer is never early."""
    return worker_clock(w) + span_ms + 1


cdef inline uint64_t tag_of(const fe_connection *c) noexcept nogil:
    return c.slot | <uint64_t>c.generation << 32


cdef inline fe_faulty *faulty(const Worker *w, const fe_connection *c) noexcept nogil:
    """The fault of a connection; NULL: it has none. Raw echo without one does not look."""
    return NULL if c.path == FE_PATH_RAW else fault_find(w.faults, c)


# --- places under max_connections ----------------------------------------------------------

cdef inline void place_give(Shared *shared) noexcept nogil:
    """Gives a place back, and tells those who wait for one."""
    cdef int held = 0
    fe_atomic_add(&shared.places, -1)
    if shared.queues:
        pthread_mutex_lock(&shared.accept_lock)
        held = shared.held
        shared.held = 0
        pthread_mutex_unlock(&shared.accept_lock)
    if held:
        wake_workers(shared, MESSAGE_ROOM)


# --- the book of max_per_ip ----------------------------------------------------------------

cdef inline int peer_enter(Worker *w, const fe_peer_key *key, uint32_t *node) noexcept nogil:
    """Takes one of the places of a peer's address: 0; -EAGAIN: all are taken; -ENOMEM."""
    cdef int rc
    pthread_mutex_lock(&w.shared.peers_lock)
    rc = fe_peers_take(&w.shared.peers, key, w.limits.max_per_ip, node)
    pthread_mutex_unlock(&w.shared.peers_lock)
    return rc


cdef inline void peer_leave(Shared *shared, uint32_t node) noexcept nogil:
    """Gives the place back; FE_NO_PEER has none."""
    if node == FE_NO_PEER:
        return
    pthread_mutex_lock(&shared.peers_lock)
    fe_peers_give(&shared.peers, node)
    pthread_mutex_unlock(&shared.peers_lock)


cdef inline int peer_keep(Worker *w, uint32_t slot, uint32_t node) noexcept nogil:
    """Notes whose place the connection in a slot has; 0 or -ENOMEM. As long as nobody has one,
    there is nothing to note it in."""
    cdef uint32_t size = w.peer_of_size
    cdef uint32_t *grown
    if slot < size:
        w.peer_of[slot] = node
        return 0
    if node == FE_NO_PEER:
        return 0
    while size <= slot:
        size = 2 * size if size else 64
    grown = <uint32_t *>realloc(w.peer_of, size * sizeof(uint32_t))
    if grown == NULL:
        return -ENOMEM
    memset(grown + w.peer_of_size, 0xff, (size - w.peer_of_size) * sizeof(uint32_t))  # FE_NO_PEER
    w.peer_of = grown
    w.peer_of_size = size
    w.peer_of[slot] = node
    return 0


cdef inline uint32_t peer_of(const Worker *w, uint32_t slot) noexcept nogil:
    """Where the book has the peer of the connection in a slot."""
    return w.peer_of[slot] if slot < w.peer_of_size else FE_NO_PEER


# --- lists: doubly linked by slot; what is on one is never freed ---------------------------

cdef inline void list_add(Worker *w, SlotList *of, fe_connection *c) noexcept nogil:
    """Puts it at the end of the list. It is on none."""
    c.next = FE_NO_SLOT
    c.previous = of.last
    if of.last == FE_NO_SLOT:
        of.first = c.slot
    else:
        fe_slab_at(&w.connections, of.last).next = c.slot
    of.last = c.slot


cdef inline void list_remove(Worker *w, SlotList *of, const fe_connection *c) noexcept nogil:
    """Takes it out of the list that it is on."""
    if c.previous == FE_NO_SLOT:
        of.first = c.next
    else:
        fe_slab_at(&w.connections, c.previous).next = c.next
    if c.next == FE_NO_SLOT:
        of.last = c.previous
    else:
        fe_slab_at(&w.connections, c.next).previous = c.previous


cdef inline void ready_add(Worker *w, fe_connection *c) noexcept nogil:
    """Puts it at the end of the ready list; nothing happens when it is there already."""
    if not c.flags & FE_IS_READY:
        c.flags |= FE_IS_READY
        list_add(w, &w.ready, c)


cdef inline void ready_remove(Worker *w, fe_connection *c) noexcept nogil:
    """Takes it out of the ready list; nothing happens when it is not there."""
    if c.flags & FE_IS_READY:
        c.flags &= <uint8_t>~FE_IS_READY
        list_remove(w, &w.ready, c)


cdef inline void reap_add(Worker *w, fe_connection *c) noexcept nogil:
    """To be given back at the end of the iteration. It is on no other list."""
    c.next = w.reap_first
    w.reap_first = c.slot


cdef inline void reap_all(Worker *w) noexcept nogil:
    """Gives back the records of connections that were closed in this iteration."""
    cdef fe_connection *c
    while w.reap_first != FE_NO_SLOT:
        c = fe_slab_at(&w.connections, w.reap_first)
        w.reap_first = c.next
        fe_slab_give(&w.connections, c)


# --- the thread that runs it --------------------------------------------------------------

cdef inline void worker_began(Worker *w) noexcept nogil:
    """This thread runs it from now on: its CPU time is the worker's."""
    fe_atomic_store(&w.began_ns, <int64_t>_sys.sys_now_ns())
    fe_atomic_store(&w.tid, _sys.sys_tid())


cdef inline void worker_ended(Worker *w) noexcept nogil:
    """This thread is about to leave it: its times stay."""
    fe_atomic_store(&w.ran_ns, <int64_t>_sys.sys_now_ns() - fe_atomic_load(&w.began_ns))
    fe_atomic_store(&w.cpu_ns, <int64_t>_sys.sys_thread_cpu_ns())
    fe_atomic_store(&w.tid, 0)


# --- set-up and tear-down ------------------------------------------------------------------

cdef inline int worker_open(Worker *w, Shared *shared, int index) noexcept nogil:
    """Prepares a worker in zeroed memory: epoll, mailbox, buffers. 0 or -errno.

    w.stream.framing, high_water and low_water, and w.spin are set by the caller before.
    Whatever the result, worker_free() may follow.
    """
    cdef int rc
    w.shared = shared
    w.index = index
    w.epfd = w.reserve_fd = w.mailbox.wake_fd = -1
    w.ready.first = w.ready.last = w.waiting.first = w.waiting.last = FE_NO_SLOT
    w.reap_first = FE_NO_SLOT
    w.accept_budget = 1
    fe_slab_init(&w.connections)
    w.stream.counters = &w.counters
    worker_take_limits(w)
    w.buffer = <unsigned char *>malloc(READ_SIZE)
    w.stream.out = <unsigned char *>malloc(
        STREAM_ROUND + fe_reply_max(&w.stream.framing, longest_frame(&w.stream)))
    if w.buffer == NULL or w.stream.out == NULL:
        return -ENOMEM
    if shared.service == FE_PATH_CHARGEN:  # then no reply is ever put together there
        fe_chargen_fill(w.stream.out, FE_CHARGEN_BUFFER, FE_CHARGEN_RFC)
    if shared.datagram_count:
        w.datagrams = datagrams_open(shared.peers.seed + <uint64_t>index)
        if w.datagrams == NULL:
            return -ENOMEM
    rc = fe_timers_init(&w.timers, 4)
    if rc == 0 and shared.log_sample:
        rc = fe_log_ring_init(&w.log)
    if rc < 0:
        return rc
    rc = mailbox_open(&w.mailbox)
    if rc < 0:
        return rc
    w.epfd = _sys.sys_epoll_create()
    if w.epfd < 0:
        return w.epfd
    w.reserve_fd = _sys.sys_open_null()
    if w.reserve_fd < 0:
        return w.reserve_fd
    return _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_ADD, w.mailbox.wake_fd, _sys.EPOLLIN,
                              TAG_MAILBOX)


cdef inline void worker_take_limits(Worker *w) noexcept nogil:
    """Takes a copy of the limits in force."""
    pthread_mutex_lock(&w.shared.limits_lock)
    w.limits = w.shared.limits
    pthread_mutex_unlock(&w.shared.limits_lock)
    if w.limits.idle_timeout_ms or w.limits.first_byte_timeout_ms:
        w.tracks_activity = True


cdef inline void shared_open_locks(Shared *shared) noexcept nogil:
    """The locks, and the condition for the end of accepting, on the monotonic clock."""
    cdef pthread_condattr_t attributes
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, _sys.CLOCK_MONOTONIC)
    pthread_cond_init(&shared.accept_ended, &attributes)
    pthread_cond_init(&shared.news, &attributes)
    pthread_cond_init(&shared.sampled, &attributes)
    pthread_condattr_destroy(&attributes)
    pthread_mutex_init(&shared.accept_lock, NULL)
    pthread_mutex_init(&shared.limits_lock, NULL)
    pthread_mutex_init(&shared.peers_lock, NULL)
    pthread_mutex_init(&shared.news_lock, NULL)
    pthread_mutex_init(&shared.sample_lock, NULL)


cdef inline void shared_close_locks(Shared *shared) noexcept nogil:
    """Nobody holds or waits for any of them."""
    pthread_cond_destroy(&shared.accept_ended)
    pthread_cond_destroy(&shared.news)
    pthread_cond_destroy(&shared.sampled)
    pthread_mutex_destroy(&shared.accept_lock)
    pthread_mutex_destroy(&shared.limits_lock)
    pthread_mutex_destroy(&shared.peers_lock)
    pthread_mutex_destroy(&shared.news_lock)
    pthread_mutex_destroy(&shared.sample_lock)


cdef inline void shared_free(Shared *shared) noexcept nogil:
    """Gives back the server's own memory; nobody uses it any more."""
    free(shared.workers)
    free(shared.listeners)
    free(shared.datagrams)
    free(shared.guarding)
    free(shared.trusted)
    free(shared.identity)
    free(shared)


cdef inline size_t longest_frame(const StreamShare *stream) noexcept nogil:
    """Bytes of input that one frame can hold."""
    if stream.framing.kind == FE_FRAME_RECV:
        return READ_SIZE
    return fe_frame_max_input(&stream.framing)


cdef inline void worker_close_descriptors(Worker *w) noexcept nogil:
    """Closes every descriptor that the worker still owns: nothing else, so that a forked child
    can call it. The worker's thread is gone."""
    cdef uint32_t slot
    cdef fe_connection *c
    for slot in range(w.connections.used):
        c = fe_slab_at(&w.connections, slot)
        if c.state != FE_FREE and c.fd >= 0:
            _sys.sys_close(c.fd)
            c.fd = -1
    if w.reserve_fd >= 0:
        _sys.sys_close(w.reserve_fd)
        w.reserve_fd = -1
    faults_close(w.faults)
    if w.epfd >= 0:
        _sys.sys_close(w.epfd)
        w.epfd = -1


cdef inline void worker_free(Worker *w) noexcept nogil:
    """Gives back all that worker_open took but the mailbox, where somebody may still post (it
    refuses), and the log's ring, which may still be read. The thread is gone."""
    cdef uint32_t slot
    worker_close_descriptors(w)
    for slot in range(w.connections.used):
        fe_buffer_free(&fe_slab_at(&w.connections, slot).pending)
        fe_buffer_free(&fe_slab_at(&w.connections, slot).unparsed)
    fe_slab_free(&w.connections)
    fe_timers_free(&w.timers)
    free(w.buffer)
    free(w.stream.out)
    free(w.peer_of)
    messages_free(w.messages)
    w.messages = NULL
    datagrams_free(w.datagrams)
    w.datagrams = NULL
    faults_free(w.faults)
    w.faults = NULL
    fe_log_table_free(&w.stream.log)
    proxied_free(&w.proxied)
    w.peer_of = NULL
    w.buffer = NULL
    w.stream.out = NULL


cdef inline void wake_workers(Shared *shared, int kind) noexcept nogil:
    """Posts a message without content to every worker that still reads its mailbox."""
    cdef Message message
    cdef int i
    memset(&message, 0, sizeof(message))
    message.kind = kind
    message.fd = -1
    for i in range(shared.worker_count):
        mailbox_post(&shared.workers[i].mailbox, &message, True)
