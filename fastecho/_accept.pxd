# Newcomers: accepting, placing, admitting, shedding.
#
# Lives here: everything between a listener's event and a connection that is served, and the
# end of accepting. Does not live here: opening listeners (listener.py), the served connection
# (_connection.pxd), what is asked before it is (_proxy.pxd, _admission.pxd).
#
# Listeners stand in every worker's epoll with EPOLLEXCLUSIVE. Whoever accepts gives the
# newcomer to the worker with the fewest connections, as a descriptor in a message: the record
# is made by its owner. A place under max_connections is taken atomically right after accept4 (or
# before it, where newcomers without one stay in the kernel's queue), and given back before our
# FIN or RST: a peer that has seen the end of one connection finds the place free for the next, and
# two workers never take the last one both.

from libc.errno cimport EAGAIN, ENOMEM
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._admission cimport link_begin, newcomer_admit, path_of
from fastecho._connection cimport connection_end
from fastecho._log cimport log_begin, log_refused, log_trouble
from fastecho._poll cimport (
    Message, mailbox_post, pthread_cond_broadcast, pthread_mutex_lock, pthread_mutex_unlock,
)
from fastecho._proxied cimport PROXY_REQUIRED
from fastecho._proxy cimport proxy_is_trusted, proxy_wait
from fastecho._udp cimport datagrams_end
from fastecho._worker cimport (
    MESSAGE_CONNECTION, MESSAGE_LOOK, MESSAGE_ROOM, TAG_LISTENER, Listener, Shared, Worker,
    peer_enter, peer_keep, peer_leave, place_give, wake_workers, worker_deadline,
)


cdef enum:
    # Newcomers an event at the most: a connect storm must not starve who is connected.
    ACCEPT_BUDGET_MAX = 64
    # How long accepting rests when the kernel is out of memory or descriptors, in ms.
    ACCEPT_PAUSE_MS = 100
    # A queue is emptied in one go at the end of accepting, but not for ever.
    ACCEPT_LAST_MAX = 65536


cdef inline bint is_mine(const Worker *w, const Listener *l) noexcept nogil:
    return l.worker < 0 or l.worker == w.index


# --- one newcomer --------------------------------------------------------------------------

cdef inline int choose_worker(Worker *w, const Listener *l) noexcept nogil:
    """Index of the worker with the fewest connections; its count is raised already.

    Where counts are equal, the one that asks: no hand-over.
    """
    cdef Shared *shared = w.shared
    cdef int64_t least, n
    cdef int best, i
    if shared.worker_count == 1 or l.worker >= 0:
        fe_atomic_add(&w.placed, 1)
        return w.index
    while True:
        best = w.index
        least = fe_atomic_load(&w.placed)
        for i in range(shared.worker_count):
            n = fe_atomic_load(&shared.workers[i].placed)
            if n < least:
                least = n
                best = i
        if fe_atomic_raise_from(&shared.workers[best].placed, least):
            return best


cdef inline void connection_begin(Worker *w, Message *newcomer) noexcept nogil:
    """Makes the record of a newcomer that was placed here, and serves it or asks for a verdict."""
    cdef fe_connection *c = fe_slab_take(&w.connections)
    if c != NULL and (
        peer_keep(w, c.slot, <uint32_t>newcomer.value2) < 0
        or log_begin(w, c.slot, newcomer) < 0
        or link_begin(w, c, newcomer) < 0
    ):
        fe_slab_give(&w.connections, c)
        c = NULL
    if c == NULL:
        peer_leave(w.shared, <uint32_t>newcomer.value2)
        fe_count(&w.counters.ended_by_no_memory, 1)
        log_refused(w, newcomer, FE_BY_NO_MEMORY)
        fe_count(&w.counters.connections_closed, 1)
        fe_atomic_add(&w.placed, -1)
        place_give(w.shared)
        abort_descriptor(newcomer.fd)
        return
    c.fd = newcomer.fd
    c.number = newcomer.number
    c.listener = <uint16_t>newcomer.listener
    c.path = path_of(w)
    if w.aborting:
        connection_end(w, c, FE_ON_ABORT, FE_BY_ABORT)
    elif newcomer.is_trusted:
        proxy_wait(w, c, newcomer)
    else:
        newcomer_admit(w, c, newcomer)


cdef inline void abort_descriptor(int fd) noexcept nogil:
    """RST, for a newcomer that never got a record."""
    _sys.sys_reset(fd)
    _sys.sys_close(fd)


cdef inline void newcomer_place(Worker *w, const Listener *l, Message *newcomer) noexcept nogil:
    """Hands an accepted descriptor to its worker."""
    cdef int target
    fe_count(&w.counters.connections_accepted, 1)
    newcomer.kind = MESSAGE_CONNECTION
    newcomer.number = <uint64_t>fe_atomic_add(&w.shared.last_number, 1)
    target = choose_worker(w, l)
    if target != w.index:
        if mailbox_post(&w.shared.workers[target].mailbox, newcomer) == 0:
            return
        # No memory for the message: it stays here.
        fe_atomic_add(&w.shared.workers[target].placed, -1)
        fe_atomic_add(&w.placed, 1)
    connection_begin(w, newcomer)


cdef inline bint has_room(Worker *w, const Listener *l, Message *newcomer) noexcept nogil:
    """Takes what the limits leave for a newcomer, or counts which of them is reached.

    With a queue at the limit its place is taken already, and given back if another limit is.
    """
    cdef Shared *shared = w.shared
    cdef fe_peer_key key
    cdef uint32_t node
    cdef int rc
    if (
        fe_rate_is_limited(&shared.accept_rate)
        and not fe_rate_take(&shared.accept_rate, _sys.sys_now_ns())
    ):
        fe_count(&w.counters.shed_accept_rate, 1)
        log_refused(w, newcomer, FE_BY_ACCEPT_RATE)
        if shared.queues:
            place_give(shared)
        return False
    if shared.proxy_mode == PROXY_REQUIRED and not newcomer.is_trusted:
        fe_count(&w.counters.shed_untrusted, 1)
        log_trouble(w)
        log_refused(w, newcomer, FE_BY_UNTRUSTED)
        if shared.queues:
            place_give(shared)
        return False
    if not shared.queues and not fe_place_reserve(&shared.places, w.limits.max_connections):
        fe_count(&w.counters.shed_max_connections, 1)
        log_refused(w, newcomer, FE_BY_MAX_CONNECTIONS)
        return False
    if w.limits.max_per_ip == 0 or l.is_unix:
        return True
    if newcomer.is_trusted:
        return True  # it is counted by the address that its header tells
    # sockaddr_in has its address at byte 4, sockaddr_in6 at byte 8 (netinet/in.h).
    if newcomer.address_size > 16:
        key = fe_peer_key_6(newcomer.address + 8, w.limits.ipv6_prefix)
    else:
        key = fe_peer_key_4(newcomer.address + 4)
    rc = peer_enter(w, &key, &node)
    if rc == 0:
        newcomer.value2 = node
        return True
    if rc == -ENOMEM:
        fe_count_errno(&w.counters, rc)
    fe_count(&w.counters.shed_max_per_ip, 1)
    place_give(shared)
    log_refused(w, newcomer, FE_BY_MAX_PER_IP)
    return False


cdef inline int accept_take(Worker *w, uint32_t index, Message *newcomer) noexcept nogil:
    """accept4: a descriptor or -errno. Who it is stands in newcomer, if anybody wants to know."""
    cdef const Listener *l = &w.shared.listeners[index]
    cdef _sys.socklen_t size = sizeof(newcomer.address)
    memset(newcomer, 0, sizeof(newcomer[0]))
    newcomer.value2 = FE_NO_PEER
    newcomer.listener = index
    if w.shared.log_sample:
        newcomer.began_ns = _sys.sys_now_ns()
    elif not (w.shared.admits or w.limits.max_per_ip or w.messages or w.shared.proxy_mode):
        size = 0
    if size == 0:
        newcomer.fd = _sys.sys_accept(l.fd, NULL, NULL)
    else:
        newcomer.fd = _sys.sys_accept(l.fd, newcomer.address, &size)
        newcomer.address_size = min(size, <_sys.socklen_t>sizeof(newcomer.address))
    newcomer.value = -1
    if newcomer.fd >= 0 and not l.is_unix:
        newcomer.value = _sys.sys_accept_queue_wait_ms(newcomer.fd)
        fe_count_queue_wait(&w.counters, newcomer.value)
    return newcomer.fd


cdef inline int accept_one(Worker *w, const Listener *l, uint32_t index) noexcept nogil:
    """Takes one newcomer: 0, also when a limit had it shed; or -errno."""
    cdef Message newcomer
    cdef int fd
    if w.shared.queues and not fe_place_reserve(&w.shared.places, w.limits.max_connections):
        accept_hold(w)
        return -EAGAIN
    fd = accept_take(w, index, &newcomer)
    if fd < 0:
        if w.shared.queues:
            place_give(w.shared)
        return fd
    newcomer.is_trusted = w.shared.proxy_mode and proxy_is_trusted(w.shared, &newcomer)
    if not has_room(w, l, &newcomer):
        abort_descriptor(fd)
        return 0
    newcomer_place(w, l, &newcomer)
    return 0


# --- trouble -------------------------------------------------------------------------------

cdef inline void accept_unwatch(Worker *w) noexcept nogil:
    """Takes the listeners out of this worker's epoll."""
    cdef int i
    for i in range(w.shared.listener_count):
        if is_mine(w, &w.shared.listeners[i]):
            _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_DEL, w.shared.listeners[i].fd, 0, 0)


cdef inline int accept_watch(Worker *w) noexcept nogil:
    """Puts the listeners into this worker's epoll; 0 or -errno. Each time another one is first:
    if there is one place only, it is not always the same listener's newcomer that gets it."""
    cdef int turn, i, rc
    cdef int n = w.shared.listener_count
    w.accept_first = (w.accept_first + 1) % n if n else 0
    for turn in range(n):
        i = (w.accept_first + turn) % n
        if is_mine(w, &w.shared.listeners[i]):
            rc = _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_ADD, w.shared.listeners[i].fd,
                                    _sys.EPOLLIN | <uint32_t>_sys.EPOLLEXCLUSIVE,
                                    TAG_LISTENER + <uint32_t>i)
            if rc < 0:
                return rc
    return 0


cdef inline void accept_pause(Worker *w) noexcept nogil:
    """Stops listening for ACCEPT_PAUSE_MS: newcomers wait in the kernel's queue."""
    if w.accept_paused or w.accept_ending:
        return
    accept_unwatch(w)
    w.accept_paused = True
    fe_count(&w.counters.accept_pauses, 1)
    log_trouble(w)
    fe_timers_set_spare(&w.timers, &w.accept_timer, worker_deadline(w, ACCEPT_PAUSE_MS))


cdef inline void accept_resume(Worker *w) noexcept nogil:
    """The pause is over: get the reserve back and listen again, or pause again."""
    cdef int rc = 0
    w.accept_paused = False
    if w.reserve_fd < 0:
        rc = w.reserve_fd = _sys.sys_open_null()
    if rc >= 0:
        rc = accept_watch(w)
    if rc < 0:
        fe_count_errno(&w.counters, rc)
        accept_pause(w)


cdef inline void accept_hold(Worker *w) noexcept nogil:
    """No place is left: leaves the listeners until there is one, unless there is one by now."""
    cdef bint full
    if w.accept_held:
        return
    pthread_mutex_lock(&w.shared.accept_lock)
    full = fe_atomic_load(&w.shared.places) >= w.limits.max_connections
    w.shared.held += full
    pthread_mutex_unlock(&w.shared.accept_lock)
    if full:
        w.accept_held = True
        accept_unwatch(w)


cdef inline void accept_look(Worker *w) noexcept nogil:
    """There may be a place again; a listener that was shut down, and left, listens again; or
    accept_delay is another one: who waits shows again at once, and waits anew if there is one."""
    cdef bint held = w.accept_held
    w.accept_held = False
    if (
        w.accept_rest_ms and not w.accept_ending
        and w.accept_rest_ms != fe_atomic_load(&w.shared.accept_delay_ms)
    ):
        fe_timers_clear(&w.timers, &w.accept_timer)
        w.accept_rest_ms = 0
        w.accept_paused = False
    if w.accepting and not w.accept_paused:
        if not held:
            accept_unwatch(w)
        accept_resume(w)


cdef inline int accept_shed(Worker *w, uint32_t index) noexcept nogil:
    """No descriptor is left: spends the reserve to abort one newcomer. 0, or -EAGAIN: enough.

    The reserve can be lost to another thread between close and open, and the system can be out
    of descriptors whatever this process gives back: then accepting pauses.
    """
    cdef Message newcomer
    cdef int fd
    if w.reserve_fd < 0:
        accept_pause(w)
        return -EAGAIN
    _sys.sys_close(w.reserve_fd)
    fd = accept_take(w, index, &newcomer)
    if fd >= 0:
        abort_descriptor(fd)
        fe_count(&w.counters.shed_no_descriptors, 1)
        log_refused(w, &newcomer, FE_BY_NO_DESCRIPTORS)
        log_trouble(w)
    w.reserve_fd = _sys.sys_open_null()
    if w.reserve_fd < 0 or (fd < 0 and fd != -EAGAIN):
        accept_pause(w)
        return -EAGAIN
    return 0 if fd >= 0 else -EAGAIN


cdef inline int accept_failed(Worker *w, uint32_t index, int rc) noexcept nogil:
    """Applies the rule for -errno of accept4. 0: one was shed, 1: one failed, go on with the
    next; -EAGAIN: enough."""
    cdef int rule = fe_accept_rule_for(-rc)
    if rule == FE_ACCEPT_DONE:
        return -EAGAIN
    if rule == FE_ACCEPT_OVER:
        _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_DEL, w.shared.listeners[index].fd, 0, 0)
        return -EAGAIN
    fe_count(&w.counters.accept_errors, 1)
    fe_count_errno(&w.counters, rc)
    if rule == FE_ACCEPT_NEXT:
        return 1
    if rule == FE_ACCEPT_SHED:
        return accept_shed(w, index)
    accept_pause(w)
    return -EAGAIN


# --- events --------------------------------------------------------------------------------

cdef inline bint accept_some(Worker *w, uint32_t index, int budget) noexcept nogil:
    """Accepts up to budget newcomers; True: there may be more.

    An error of one newcomer that comes ACCEPT_BUDGET_MAX times in a row is not theirs (a filter of
    system calls says EPERM for ever, and takes nobody out of the queue): then accepting pauses.
    """
    cdef Listener *l = &w.shared.listeners[index]
    cdef int _, rc, failed = 0
    for _ in range(budget):
        rc = accept_one(w, l, index)
        if rc < 0:
            rc = accept_failed(w, index, rc)
            if rc < 0:
                return False
            failed += rc
            if failed == ACCEPT_BUDGET_MAX:
                accept_pause(w)
                return False
        else:
            failed = 0
    return True


cdef inline void accept_rest(Worker *w, const Listener *l, int64_t ms) noexcept nogil:
    """A fault: newcomers wait in the kernel's queue, and are accepted together after so long.

    Where all workers share a listener, the first one does that alone: the rest of another would
    end at another time, and take who has hardly waited.
    """
    cdef Message message
    if w.index and l.worker < 0:
        _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_DEL, l.fd, 0, 0)
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_ROOM
        message.fd = -1
        mailbox_post(&w.shared.workers[0].mailbox, &message, True)
        return
    accept_unwatch(w)
    w.accept_paused = True
    w.accept_rest_ms = ms
    fe_timers_set_spare(&w.timers, &w.accept_timer, worker_deadline(w, ms))


cdef inline void accept_rested(Worker *w) noexcept nogil:
    """The rest is over: accepts all who have come meanwhile."""
    cdef int i
    w.accept_rest_ms = 0
    accept_resume(w)
    for i in range(w.shared.listener_count):
        if is_mine(w, &w.shared.listeners[i]) and not w.accept_paused:
            accept_some(w, i, ACCEPT_LAST_MAX)


cdef inline void accept_event(Worker *w, uint32_t index) noexcept nogil:
    """A listener has newcomers. One is accepted without asking whether there is a second; a
    worker that finds the listener ready again takes twice as many, up to the budget."""
    cdef int64_t delay_ms = fe_atomic_load(&w.shared.accept_delay_ms)
    cdef Listener *l = &w.shared.listeners[index]
    if not l.is_unix:
        fe_atomic_max(&l.highest, _sys.sys_listen_depth(l.fd))
    if delay_ms and not w.accept_ending:
        accept_rest(w, l, delay_ms)
    elif accept_some(w, index, w.accept_budget):
        if w.accept_budget < ACCEPT_BUDGET_MAX:
            w.accept_budget *= 2
    else:
        w.accept_budget = 1


# --- the end of accepting ------------------------------------------------------------------

cdef inline void accept_filter(Shared *shared) noexcept nogil:
    """Lets no new connection begin, where the listener is ours alone. Under accept_lock."""
    cdef Listener *l
    cdef int i
    for i in range(shared.listener_count):
        l = &shared.listeners[i]
        if l.owned and not l.is_unix and not l.given:
            # Where the kernel refuses the filter, the race stays open.
            _sys.sys_drop_new_connections(l.fd)


cdef inline void accept_end(Worker *w, int most) noexcept nogil:
    """Accepts what is queued, at most `most` a listener, and leaves the listeners for good.
    TCP listeners carry the filter already that lets nothing new begin. What is queued at one that
    was given to another process is left to that one.

    The last worker to leave wakes the others: now nobody can be handed a connection any more.
    """
    cdef Listener *l
    cdef int64_t left
    cdef uint32_t i
    if not w.accepting:
        return
    fe_timers_clear(&w.timers, &w.accept_timer)
    for i in range(<uint32_t>w.shared.listener_count):
        l = &w.shared.listeners[i]
        if is_mine(w, l) and most and not l.given:
            if l.is_unix and l.owned:
                # No connect() succeeds from here on; what is queued can still be accepted.
                _sys.sys_shutdown(l.fd, _sys.SHUT_RD)
            accept_some(w, i, most)
    datagrams_end(w, most > 0)
    if not w.accept_paused:
        accept_unwatch(w)
    fe_timers_clear(&w.timers, &w.accept_timer)
    w.accepting = False
    pthread_mutex_lock(&w.shared.accept_lock)
    left = fe_atomic_add(&w.shared.accepting, -1)
    pthread_cond_broadcast(&w.shared.accept_ended)
    pthread_mutex_unlock(&w.shared.accept_lock)
    if left == 0:
        wake_workers(w.shared, MESSAGE_LOOK)


cdef inline void accept_stop(Worker *w, uint64_t grace_ms) noexcept nogil:
    """Stops accepting, after grace_ms: a handshake under way ends and is accepted as well.
    Said again, the first grace stands."""
    if not w.accepting or w.accept_ending:
        return
    if grace_ms:
        w.accept_ending = True
        fe_timers_set_spare(&w.timers, &w.accept_timer, worker_deadline(w, grace_ms))
        return
    accept_end(w, ACCEPT_LAST_MAX)


cdef inline void accept_timer_expired(Worker *w) noexcept nogil:
    if w.accept_ending:
        accept_end(w, ACCEPT_LAST_MAX)
    elif w.accept_rest_ms:
        accept_rested(w)
    elif w.accept_paused:
        accept_resume(w)
