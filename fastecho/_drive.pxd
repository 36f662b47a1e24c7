# What a load does: the system calls of its connections, and their order.
#
# Lives here: connecting, sending, receiving, closing, the loop with its schedule and its
# timeouts. Which bytes are due, whether the right ones came and what counts as a failure is
# decided in src_c/load.h. Does not live here: Python objects; memory, which the owner of a
# Drive allocates and frees (fastecho/_load.pyx).
#
# How a run goes: open connections are given messages; each complete reply is verified, timed
# and, in a closed loop, answered by the next message: all replies of one recv by one send. An
# open loop gives messages by its schedule instead, to whichever connection has waited longest
# for one; a message that finds none waits, and its latency counts from when it was due. When
# the window ends nothing new becomes due, and what is outstanding is collected, until the
# timeout at most.
#
# Reconnect mode ends a connection as clients do: FIN, and it waits for the server's FIN, so
# that the whole life of a connection is exercised and a server that does not close is noticed.
# Whoever closes first keeps the port in TIME_WAIT for a minute. Towards 127.0.0.0/8 the
# connections therefore start from 64 source addresses: 1.8 million ports, while the kernel
# keeps at most tcp_max_tw_buckets in TIME_WAIT (131,072 where this was measured, 262,144 on
# large machines). Elsewhere closing by RST, after the reply, is the way: it leaves nothing.

from libc.errno cimport EAGAIN, EINPROGRESS, ETIMEDOUT
from libc.stdint cimport uint32_t, uint64_t

cimport fastecho._sys as _sys
from fastecho._cdefs cimport *

cdef enum:
    # Bytes of one recv: the size that served bulk best in the server, too (DESIGN.md).
    RECV_SIZE = 512 * 1024
    # Bytes of messages that are copied together for one send.
    SCRATCH_SIZE = 64 * 1024
    # Events of one epoll_wait.
    EVENTS = 512
    # Connects under way at once: fewer than any usual backlog, so that a full accept queue,
    # which drops them all until their next SYN, can then take them all.
    CONNECTS = 64
    # Messages that an open loop gives away before it looks for replies again.
    BATCH = 16
    # How often timeouts are looked for; they are late by this at the most.
    TICK_NS = 20000000
    # An open loop wakes up this long before a message is due and polls until then: a timer
    # alone is late by the time that a sleeping core needs to wake, 90 us at the median.
    AHEAD_NS = 100000


cdef struct Drive:
    fe_load load
    # enum fe_load_mode, and the address family.
    int mode
    int family
    # Send from the memfd by sendfile; reconnect mode: close by RST.
    bint by_sendfile
    bint by_reset
    # Never block: look for events again and again.
    bint polls
    # Descriptors; -1: none.
    int epfd
    int timer_fd
    int noise_fd
    # RECV_SIZE and SCRATCH_SIZE bytes, EVENTS entries.
    unsigned char *buffer
    unsigned char *scratch
    _sys.epoll_event *events
    # Where to connect to and from, as the kernel takes it; the sources follow one another.
    const char *target
    const char *sources
    uint32_t target_size
    uint32_t source_size
    uint32_t source_count
    # Connections that are not CLOSED; those that are OPEN; the next that a connect looks at.
    uint32_t alive
    uint32_t opened
    uint32_t cursor
    # Connects that failed, and the errno of the first.
    uint32_t failed
    int first_error
    # How long anything may take.
    uint64_t timeout_ns
    # The clock as last read; the next look for timeouts; a run's start and when it gives up.
    uint64_t now_ns
    uint64_t sweep_ns
    uint64_t start_ns
    uint64_t hard_ns
    # The thread's CPU time at the start of a run, and what the run took of it.
    uint64_t start_cpu_ns
    uint64_t cpu_ns
    # What the timer is set to; 0: nothing.
    uint64_t armed_ns


# --- one connection ---------------------------------------------------------------------


cdef inline int drive_register(Drive *d, fe_load_connection *c, int operation,
                               uint32_t mask) noexcept nogil:
    return _sys.sys_epoll_ctl(d.epfd, operation, c.fd, mask, <uint64_t>(c - d.load.connections))


cdef inline void drive_begin(Drive *d, fe_load_connection *c) noexcept nogil:
    """Starts to connect a CLOSED connection."""
    d.alive += 1
    c.state = FE_LOAD_WAITING
    c.since_ns = d.now_ns
    drive_try_connect(d, c)


cdef inline void drive_try_connect(Drive *d, fe_load_connection *c) noexcept nogil:
    """A socket and its connect. Afterwards c is OPEN, CONNECTING, still WAITING (the
    backlog of a Unix socket is full) or ended."""
    cdef size_t source = <size_t>(c - d.load.connections) % max(d.source_count, 1)
    cdef int rc = 0
    cdef int fd = _sys.sys_socket(d.family)
    if fd < 0:
        drive_broken(d, c, fd)
        return
    if d.source_count:
        rc = _sys.sys_bind_source(fd, d.sources + source * d.source_size,
                                  d.source_size)
    if rc == 0:
        rc = _sys.sys_connect(fd, d.target, d.target_size)
    if rc == -EAGAIN and d.family == _sys.AF_UNIX:
        _sys.sys_close(fd)
        return
    c.fd = fd
    c.state = FE_LOAD_CONNECTING
    if rc == 0:
        rc = drive_register(d, c, _sys.EPOLL_CTL_ADD, _sys.EPOLLIN)
        if rc == 0:
            drive_connected(d, c)
            return
    elif rc == -EINPROGRESS:
        rc = drive_register(d, c, _sys.EPOLL_CTL_ADD, _sys.EPOLLOUT)
    if rc < 0:
        drive_broken(d, c, rc)


cdef inline void drive_connect_decided(Drive *d, fe_load_connection *c) noexcept nogil:
    """A connect that was under way has succeeded or failed."""
    cdef int rc = _sys.sys_socket_error(c.fd)
    if rc == 0:
        rc = drive_register(d, c, _sys.EPOLL_CTL_MOD, _sys.EPOLLIN)
    if rc < 0:
        drive_broken(d, c, rc)
    else:
        drive_connected(d, c)


cdef inline void drive_connected(Drive *d, fe_load_connection *c) noexcept nogil:
    c.state = FE_LOAD_OPEN
    d.opened += 1
    d.load.counts.connects += 1
    if d.mode == FE_LOAD_RECONNECT:
        fe_load_release(&d.load, c, 1, c.since_ns, c.since_ns)
        drive_send(d, c)


cdef inline void drive_send(Drive *d, fe_load_connection *c) noexcept nogil:
    """Sends what is due until the kernel takes no more: then EPOLLOUT says when."""
    cdef fe_load_chunk chunk
    cdef ssize_t n
    while True:
        chunk = fe_load_next(&d.load, c, d.scratch, SCRATCH_SIZE)
        if chunk.size == 0:
            break
        if d.by_sendfile and chunk.noise_at >= 0:
            n = _sys.sys_sendfile(c.fd, d.noise_fd, <uint64_t>chunk.noise_at, chunk.size)
        else:
            n = _sys.sys_send(c.fd, chunk.bytes, chunk.size)
        if n < 0 and n != -EAGAIN:
            drive_broken(d, c, <int>n)
            return
        if n > 0:
            fe_load_taken(&d.load, c, <size_t>n)
        if n < <ssize_t>chunk.size:
            break
    if c.wants_write != (chunk.size > 0):
        c.wants_write = chunk.size > 0
        drive_register(d, c, _sys.EPOLL_CTL_MOD,
                       _sys.EPOLLIN | (_sys.EPOLLOUT if c.wants_write else 0))


cdef inline void drive_receive(Drive *d, fe_load_connection *c) noexcept nogil:
    """One recv. The bytes are verified; a reply that is complete has its consequence."""
    cdef ssize_t n = _sys.sys_recv(c.fd, d.buffer, RECV_SIZE)
    cdef uint32_t done
    if n > 0:
        d.now_ns = _sys.sys_now_ns()
        done = fe_load_received(&d.load, c, d.buffer, <size_t>n, d.now_ns)
        if n > SCRATCH_SIZE:
            # Verifying took time that is not the next message's.
            d.now_ns = _sys.sys_now_ns()
        if done and c.state == FE_LOAD_OPEN:
            drive_answered(d, c)
    elif n == 0 and c.state == FE_LOAD_ENDING:
        drive_end(d, c, -1, 0)
    elif n == 0:
        drive_end(d, c, FE_LOAD_CLOSED_BY_SERVER, 0)
    elif n != -EAGAIN:
        drive_broken(d, c, <int>n)


cdef inline void drive_answered(Drive *d, fe_load_connection *c) noexcept nogil:
    """Replies are complete: what they make room for."""
    if d.mode == FE_LOAD_OPEN_LOOP:
        fe_load_offer(&d.load, c, d.now_ns)
    elif d.mode == FE_LOAD_RECONNECT:
        drive_finish(d, c)
    elif d.now_ns < d.load.end_ns:
        fe_load_release(&d.load, c, fe_load_room(&d.load, c), d.now_ns, d.now_ns)
        if not c.wants_write:
            drive_send(d, c)


cdef inline void drive_finish(Drive *d, fe_load_connection *c) noexcept nogil:
    """Reconnect mode: the reply is there, the connection has done its work."""
    if d.by_reset:
        _sys.sys_reset(c.fd)
        drive_end(d, c, -1, 0)
        return
    d.opened -= 1
    c.state = FE_LOAD_ENDING
    c.since_ns = d.now_ns
    _sys.sys_shutdown(c.fd, _sys.SHUT_WR)


cdef inline void drive_broken(Drive *d, fe_load_connection *c, int rc) noexcept nogil:
    """A call about c gave -errno."""
    drive_end(d, c, fe_load_kind_for(-rc), -rc)


cdef inline void drive_end(Drive *d, fe_load_connection *c, int kind, int error) noexcept nogil:
    """Closes c: kind says what went wrong, -1 nothing. In reconnect mode the next one
    begins: at once, or after a failure at the next look for timeouts."""
    if c.state == FE_LOAD_OPEN:
        d.opened -= 1
    if c.fd >= 0:
        _sys.sys_epoll_ctl(d.epfd, _sys.EPOLL_CTL_DEL, c.fd, 0, 0)
        if kind == FE_LOAD_TIMED_OUT:
            _sys.sys_reset(c.fd)
        _sys.sys_close(c.fd)
    if kind >= 0 and c.state < FE_LOAD_OPEN:
        d.failed += 1
        if d.first_error == 0:
            d.first_error = error if error else ETIMEDOUT
    d.alive -= 1
    fe_load_gone(&d.load, c, kind, error)
    if d.mode != FE_LOAD_RECONNECT or d.now_ns >= d.load.end_ns:
        return
    if kind < 0:
        drive_begin(d, c)
    else:
        d.alive += 1
        c.state = FE_LOAD_WAITING
        c.since_ns = 0


# --- the loop ---------------------------------------------------------------------------


cdef inline void drive_event(Drive *d, uint64_t index, uint32_t events) noexcept nogil:
    cdef fe_load_connection *c = &d.load.connections[index]
    if index == d.load.count:
        d.armed_ns = 0
    elif c.state == FE_LOAD_CONNECTING:
        drive_connect_decided(d, c)
    else:
        if events & ~<uint32_t>_sys.EPOLLOUT:
            drive_receive(d, c)
        if events & _sys.EPOLLOUT and c.wants_write:
            drive_send(d, c)


cdef inline int drive_wait(Drive *d, uint64_t until_ns) noexcept nogil:
    """One epoll_wait and its events; returns at until_ns, 0 being at once. 0 or -errno."""
    cdef uint64_t before = d.now_ns
    cdef int i, n, timeout_ms = 0
    if until_ns > before and not d.polls:
        timeout_ms = <int>min((until_ns - before + 999999) // 1000000, <uint64_t>1000)
    n = _sys.sys_epoll_wait(d.epfd, d.events, EVENTS, timeout_ms)
    if n < 0:
        return n
    d.load.counts.iterations += 1
    d.now_ns = _sys.sys_now_ns()
    if n == 0 and timeout_ms == 0:
        d.load.counts.spin_ns += d.now_ns - before
    for i in range(n):
        drive_event(d, d.events[i].data.u64, d.events[i].events)
    return 0


cdef inline void drive_sweep(Drive *d, bint all_) noexcept nogil:
    """Ends what has waited too long, or `all_` that still waits; tries again to connect."""
    cdef fe_load_connection *c
    cdef uint32_t i
    cdef bint over = d.mode == FE_LOAD_RECONNECT and d.now_ns >= d.load.end_ns
    d.sweep_ns = d.now_ns + TICK_NS
    if d.now_ns < d.load.end_ns < d.sweep_ns:
        d.sweep_ns = d.load.end_ns
    for i in range(d.load.count):
        c = &d.load.connections[i]
        if c.state == FE_LOAD_CLOSED:
            continue
        if c.state == FE_LOAD_WAITING and c.since_ns == 0:
            c.since_ns = d.now_ns
        if c.state == FE_LOAD_WAITING and over:
            drive_end(d, c, -1, 0)
        elif (fe_load_late(&d.load, c, d.now_ns, d.timeout_ns)
                or all_ and (c.state != FE_LOAD_OPEN or c.due != c.done)):
            drive_end(d, c, FE_LOAD_TIMED_OUT, 0)
        elif c.state == FE_LOAD_WAITING:
            drive_try_connect(d, c)


cdef inline uint64_t drive_keep_schedule(Drive *d, uint64_t until_ns) noexcept nogil:
    """Open loop: sends what is due. Returns when the loop has to go on: until_ns, or 0
    while something is due or nearly so; otherwise the timer ends the wait in time."""
    cdef fe_load_connection *c
    cdef uint64_t wake
    d.now_ns = _sys.sys_now_ns()
    if fe_load_give(&d.load, d.now_ns, BATCH):
        c = fe_load_given(&d.load)
        while c != NULL:
            drive_send(d, c)
            c = fe_load_given(&d.load)
        d.now_ns = _sys.sys_now_ns()
    if d.load.next_ns >= d.load.end_ns or d.load.ring_used == 0:
        return until_ns
    if d.load.next_ns <= d.now_ns + AHEAD_NS:
        return 0
    wake = d.load.next_ns - AHEAD_NS
    if d.armed_ns != wake:
        d.armed_ns = wake
        _sys.sys_timerfd_set(d.timer_fd, wake)
    return until_ns


cdef inline void drive_start_run(Drive *d, uint64_t span_ns) noexcept nogil:
    """Opens the window of a run and gives every connection its first messages."""
    cdef fe_load_connection *c
    cdef uint32_t i
    d.start_cpu_ns = _sys.sys_thread_cpu_ns()
    d.start_ns = d.now_ns = _sys.sys_now_ns()
    d.load.end_ns = d.start_ns + span_ns
    d.hard_ns = d.load.end_ns + d.timeout_ns
    d.sweep_ns = min(d.start_ns + TICK_NS, d.load.end_ns)
    d.armed_ns = 0
    fe_load_schedule(&d.load, d.start_ns)
    for i in range(d.load.count):
        c = &d.load.connections[i]
        if d.mode == FE_LOAD_RECONNECT:
            d.now_ns = _sys.sys_now_ns()
            drive_begin(d, c)
        elif d.mode == FE_LOAD_OPEN_LOOP:
            fe_load_offer(&d.load, c, d.now_ns)
        elif d.mode == FE_LOAD_CLOSED_LOOP and c.state == FE_LOAD_OPEN:
            d.now_ns = _sys.sys_now_ns()
            fe_load_release(&d.load, c, d.load.depth, d.now_ns, d.now_ns)
            drive_send(d, c)


cdef inline bint drive_run_is_over(Drive *d) noexcept nogil:
    """Nothing more will be sent and nothing is outstanding, or the time for it is up."""
    if d.now_ns >= d.hard_ns:
        drive_sweep(d, True)
        return True
    if d.alive == 0:
        return True
    if d.now_ns < d.load.end_ns or d.mode == FE_LOAD_RECONNECT:
        return False
    return (d.load.outstanding == 0
            and (d.mode != FE_LOAD_OPEN_LOOP or d.load.next_ns >= d.load.end_ns))


cdef inline int drive_run(Drive *d, uint64_t slice_ns) noexcept nogil:
    """Runs the loop: 1 when the run is over, 0 after slice_ns, or -errno."""
    cdef uint64_t slice_start_ns = d.now_ns
    cdef uint64_t wait_ns
    cdef int rc
    while True:
        wait_ns = min(d.sweep_ns, d.hard_ns)
        if d.mode == FE_LOAD_OPEN_LOOP:
            wait_ns = drive_keep_schedule(d, wait_ns)
        rc = drive_wait(d, wait_ns)
        if rc < 0:
            return rc
        if d.now_ns >= d.sweep_ns:
            drive_sweep(d, False)
        if drive_run_is_over(d):
            if d.mode == FE_LOAD_OPEN_LOOP:
                fe_load_give_up(&d.load)
            d.now_ns = _sys.sys_now_ns()
            d.cpu_ns = _sys.sys_thread_cpu_ns() - d.start_cpu_ns
            return 1
        if d.now_ns - slice_start_ns >= slice_ns:
            return 0


cdef inline void drive_start_connecting(Drive *d) noexcept nogil:
    """From the first connection on, whatever is CLOSED will be connected."""
    d.cursor = d.failed = 0
    d.first_error = 0
    d.now_ns = _sys.sys_now_ns()
    d.sweep_ns = d.now_ns + TICK_NS


cdef inline int drive_connect(Drive *d, uint64_t slice_ns) noexcept nogil:
    """Connects: 1 when all is decided, 0 after slice_ns, or -errno."""
    cdef uint64_t slice_start_ns = d.now_ns
    cdef int rc
    while True:
        while d.cursor < d.load.count and d.alive - d.opened < CONNECTS:
            d.now_ns = _sys.sys_now_ns()
            if d.load.connections[d.cursor].state == FE_LOAD_CLOSED:
                drive_begin(d, &d.load.connections[d.cursor])
            d.cursor += 1
        if d.cursor == d.load.count and d.alive == d.opened:
            return 1
        rc = drive_wait(d, d.sweep_ns)
        if rc < 0:
            return rc
        if d.now_ns >= d.sweep_ns:
            drive_sweep(d, False)
        if d.now_ns - slice_start_ns >= slice_ns:
            return 0
