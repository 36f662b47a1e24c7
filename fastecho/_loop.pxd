# The loop of a worker.
#
# Lives here: one iteration after the other, and when the loop ends. Does not live here: what an
# event does (_connection.pxd, _accept.pxd, _orders.pxd), the thread that runs it (_core.pyx).
#
# An iteration: wait, then events (mailbox, newcomers, connections), then the ready list, then
# timers, then the closed connections are given back. While the ready list holds anything,
# waiting does not block.

from libc.stdint cimport uint32_t, uint64_t

from fastecho._accept cimport accept_event, accept_timer_expired
from fastecho._callbacks cimport callbacks_done
from fastecho._cdefs cimport *
from fastecho._connection cimport connection_event, connection_go_on
from fastecho._fault cimport faults_arm
from fastecho._faulty cimport faults_run
from fastecho._log cimport log_wake
from fastecho._orders cimport end_all, mail_read
from fastecho._messages cimport messages_wait
from fastecho._poll cimport mailbox_close_if_empty, poll_wait
from fastecho._proxy cimport proxy_event, proxy_waiting_expired
from fastecho._quiet cimport connection_expired
from fastecho._udp cimport datagrams_event, datagrams_rested
from fastecho._worker cimport (
    TAG_DATAGRAMS, TAG_FAULTS, TAG_LISTENER, TAG_MAILBOX, Worker, reap_all, ready_remove,
    worker_clock,
)
cimport fastecho._sys as _sys


cdef enum:
    # Events of one wait; more stay ready for the next.
    EVENTS_MAX = 256
    # Failures of epoll_wait in a row that a worker survives.
    WAIT_FAILURES_MAX = 100
    # Longest wait in ms: a heap of far deadlines does not overflow epoll's int.
    WAIT_MAX_MS = 3600 * 1000


# --- dispatch ------------------------------------------------------------------------------

cdef inline void dispatch(Worker *w, const _sys.epoll_event *event) noexcept nogil:
    """One event of epoll_wait. Tags of connections that are gone are ignored."""
    cdef uint64_t tag = event.data.u64
    cdef uint32_t slot = <uint32_t>tag
    cdef fe_connection *c
    if slot < TAG_DATAGRAMS:
        c = fe_slab_find(&w.connections, slot, tag >> 32)
        if c != NULL and c.state != FE_REAP:
            if c.path == FE_PATH_PROXY:
                proxy_event(w, c)
            else:
                connection_event(w, c, event.events)
    elif slot == TAG_MAILBOX:
        mail_read(w)
    elif slot == TAG_FAULTS:
        faults_run(w)
    elif slot < TAG_LISTENER:
        datagrams_event(w, slot - TAG_DATAGRAMS)
    elif w.accepting and not w.accept_paused:
        accept_event(w, slot - TAG_LISTENER)


cdef inline void ready_run(Worker *w) noexcept nogil:
    """Gives every connection on the ready list one turn; who comes back waits for the next."""
    cdef uint32_t last = w.ready.last
    cdef uint32_t slot
    while w.ready.first != FE_NO_SLOT:
        slot = w.ready.first
        ready_remove(w, fe_slab_at(&w.connections, slot))
        connection_go_on(w, fe_slab_at(&w.connections, slot))
        if slot == last:
            return


cdef inline void timers_run(Worker *w) noexcept nogil:
    """Acts on every timer that has expired by now_ms."""
    cdef fe_timer *timer
    # Fixed: what is armed on the way is later, or the round might never end.
    cdef uint64_t now_ms = w.now_ms
    while True:
        timer = fe_timers_expired(&w.timers, now_ms)
        if timer == NULL:
            return
        if timer == &w.drain_timer:
            end_all(w, True)
        elif timer == &w.accept_timer:
            accept_timer_expired(w)
        elif timer == &w.waiting_timer:
            proxy_waiting_expired(w)
        elif w.datagrams != NULL and timer == &w.datagrams.timer:
            datagrams_rested(w)
        else:
            connection_expired(w, fe_connection_of(timer))


cdef inline bint is_finished(Worker *w) noexcept nogil:
    """Told to accept no more, nothing left to serve, and nobody who could hand something over."""
    return (
        not w.accepting
        and w.connections.live == 0
        and fe_atomic_load(&w.shared.accepting) == 0
        and mailbox_close_if_empty(&w.mailbox)
    )


cdef inline void worker_fail(Worker *w) noexcept nogil:
    """Without epoll nothing can be served: ends what it has, and takes nothing over any more."""
    end_all(w, False)
    while not mailbox_close_if_empty(&w.mailbox):
        mail_read(w)
    reap_all(w)


cdef inline int worker_run(Worker *w) noexcept nogil:
    """The loop. 0 when the worker has done what it was told; 1 when callbacks are due: to be called
    again after them; -errno when epoll itself failed."""
    cdef _sys.epoll_event events[EVENTS_MAX]
    cdef int n, i, timeout_ms
    if w.messages != NULL:
        callbacks_done(w)
        reap_all(w)
    while messages_wait(w.messages) or not is_finished(w):
        if w.ready.first != FE_NO_SLOT or messages_wait(w.messages):
            timeout_ms = 0
        else:
            if w.timers.count:
                worker_clock(w)
            timeout_ms = fe_timers_wait_ms(&w.timers, w.now_ms, WAIT_MAX_MS)
        if w.faults != NULL:
            faults_arm(w.faults)
        n = poll_wait(&w.spin, w.epfd, events, EVENTS_MAX, timeout_ms)
        if n < 0:
            fe_count_errno(&w.counters, n)
            w.wait_failures += 1
            if w.wait_failures == WAIT_FAILURES_MAX:
                worker_fail(w)
                return n
            n = 0
        else:
            w.wait_failures = 0
        fe_count(&w.counters.iterations, 1)
        fe_count(&w.counters.events, n)
        if w.tracks_activity or w.timers.count:
            worker_clock(w)
        for i in range(n):
            dispatch(w, &events[i])
        if w.ready.first != FE_NO_SLOT:
            ready_run(w)
        if w.timers.count:
            timers_run(w)
        reap_all(w)
        if w.has_news:
            w.has_news = False
            log_wake(w.shared)
        if messages_wait(w.messages):
            return 1
    return 0
