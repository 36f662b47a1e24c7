# Who gets a fault, and what ends a connection that has one.
#
# Lives here: admission with or without a fault, the fine timers' expiry, a listener that is slow
# to accept. Does not live here: the bytes (_fault.pxd), what a fault decides (src_c/fault.h).

from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._connection cimport (
    connection_end, connection_failed, connection_handle, connection_refused, connection_settle,
    connection_writable,
)
from fastecho._fault cimport FAULT_EARLY_NS, fault_begin, faults_new
from fastecho._greeting cimport connection_greet
from fastecho._poll cimport fe_cpu_relax, pthread_mutex_lock, pthread_mutex_unlock
from fastecho._service cimport is_service, service_begin
from fastecho._worker cimport TAG_FAULTS, Worker


cdef inline bint fault_choose(Worker *w, const fe_connection *c, fe_fault *chosen) noexcept nogil:
    """Whether the fault in force is for this connection; then a copy of it is in chosen."""
    if not fe_atomic_load(&w.shared.has_fault):
        return False
    pthread_mutex_lock(&w.shared.limits_lock)
    chosen[0] = w.shared.fault
    pthread_mutex_unlock(&w.shared.limits_lock)
    return fe_atomic_load(&w.shared.has_fault) and fe_fault_is_for(chosen, c.number)


cdef inline void connection_admit(Worker *w, fe_connection *c,
                                  const fe_fault *fault) noexcept nogil:
    """Serves a newcomer: with this fault, or, NULL, with the one in force if that is for it."""
    cdef fe_fault chosen
    cdef int rc
    if fault == NULL and fault_choose(w, c, &chosen):
        fault = &chosen
    if fault == NULL:
        connection_handle(w, c, FE_ON_ADMITTED)
        if w.shared.identity != NULL or c.unparsed != NULL:
            connection_greet(w, c)
        if is_service(c):
            service_begin(w, c)
        return
    fe_count(&w.counters.connections_faulty, 1)
    if fault.flags & FE_FAULT_DENY:
        connection_end(w, c, FE_ON_ABORT, FE_BY_FAULT)
        return
    if w.faults == NULL:
        w.faults = faults_new(w.epfd, TAG_FAULTS, w.shared.high_water, w.shared.low_water)
    rc = fault_begin(w.faults, c, fault) if w.faults != NULL else -ENOMEM
    if rc < 0:
        connection_refused(w, c, rc)
        return
    connection_handle(w, c, FE_ON_ADMITTED)
    connection_greet(w, c)
    if c.state == FE_REAP:
        return
    if fault.flags & FE_FAULT_HALF_CLOSE and c.pending == NULL:  # else behind our line
        _sys.sys_shutdown(c.fd, _sys.SHUT_WR)
    connection_settle(w, c)


cdef inline void faulty_expired(Worker *w, fe_connection *c) noexcept nogil:
    """Its time has come: sends what may leave now, or looks whether all has arrived."""
    if c.pending != NULL:
        connection_writable(w, c)
    else:
        connection_settle(w, c)


cdef inline void faults_run(Worker *w) noexcept nogil:
    """The timerfd has fired: acts on every deadline that is over."""
    cdef uint64_t now_ns = _sys.sys_now_ns()
    cdef fe_timer *timer
    cdef uint32_t left
    if w.faults == NULL:
        return
    w.faults.armed_ns = 1  # in the past: it is set again
    if w.faults.timers.count:
        while now_ns < w.faults.timers.heap[0].at_ms <= now_ns + FAULT_EARLY_NS:
            fe_cpu_relax()
            now_ns = _sys.sys_now_ns()
    # What is armed on the way has its turn in the next round.
    left = w.faults.timers.count
    while left:
        left -= 1
        timer = fe_timers_expired(&w.faults.timers, now_ns)
        if timer == NULL:
            return
        faulty_expired(w, fe_slab_at(&w.connections, fe_faulty_of(timer).slot))
