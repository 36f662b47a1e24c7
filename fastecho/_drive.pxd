# What a load does: the system calls of its connections, and their order.
#
# Lives here: connecting, sending, receiving, closing, the loop with its schedule and its
# timeouts. Which bytes are due, whether the right ones came and what counts as a failure is
# decided in src_c/load*.h. Does not live here: Python objects; memory, which the owner of a
# Drive allocates and frees (fastecho/_load.pyx).
#
# How a run goes: open connections are given messages; each complete reply is verified, timed
# and, in a closed loop, answered by the next message: all replies of one recv by one send. An
# open loop gives messages by its schedule instead, to whichever connection has waited longest
# for one; a message that finds none waits, and its latency counts from when it was due. When
# the window ends nothing new becomes due, and what is outstanding is collected, until the
# timeout at most. Before the window there may be a wait for a start time, then a warm-up, which
# is the same load. A ramp opens connections meanwhile. What is lost may be opened again.
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
    # How often a connection that is lost or refused is tried again.
    REOPEN_NS = 100000000
    # The last of the wait for a start time is spent polling: epoll_wait knows milliseconds.
    NEAR_NS = 1500000


# Where connections go, and from where, as the kernel takes it; the sources follow one another.
cdef struct Target:
    int family
    uint32_t size
    uint32_t source_size
    uint32_t source_count
    const char *address
    const char *sources


cdef struct Drive:
    fe_load load
    # enum fe_load_mode.
    int mode
    # Send from the memfd by sendfile; reconnect mode: close by RST.
    bint by_sendfile
    bint by_reset
    # Never block: look for events again and again.
    bint polls
    # Connect again what was lost.
    bint reopens
    # Descriptors; -1: none.
    int epfd
    int timer_fd
    int noise_fd
    # RECV_SIZE and SCRATCH_SIZE bytes, EVENTS entries.
    unsigned char *buffer
    unsigned char *scratch
    _sys.epoll_event *events
    # Connections take them in turn.
    Target *targets
    uint32_t target_count
    # Connections that are not CLOSED; of these: with a connect under way.
    uint32_t alive
    uint32_t connecting
    # The next connection that connect(), or a run that opens some, looks at; of those a run has
    # to open: how many, and how many it has begun; over how many ns.
    uint32_t cursor
    uint32_t to_open
    uint32_t begun
    uint64_t ramp_ns
    # Connects that failed, and the errno of the first.
    uint32_t failed
    int first_error
    # 1: the window is to end now. From any thread.
    int64_t stop
    # The clock as last read; the next look for timeouts; when messages begin, and when the run
    # gives up.
    uint64_t now_ns
    uint64_t sweep_ns
    uint64_t begin_ns
    uint64_t hard_ns
    # A run is under way; messages have begun; the window has.
    bint runs
    bint sends
    bint counts
    # The thread's CPU time at the start of the window.
    uint64_t start_cpu_ns
    # What the timer is set to; 0: nothing.
    uint64_t armed_ns


# --- one connection ---------------------------------------------------------------------


cdef inline int drive_register(Drive *d, fe_load_connection *c, int operation,
                               uint32_t mask) noexcept nogil:
    return _sys.sys_epoll_ctl(d.epfd, operation, c.fd, mask, <uint64_t>(c - d.load.connections))


cdef inline void drive_begin(Drive *d, fe_load_connection *c) noexcept nogil:
    """Starts to connect a CLOSED or RESTING connection."""
    d.alive += c.state == FE_LOAD_CLOSED
    d.connecting += 1
    d.now_ns = _sys.sys_now_ns()
    c.state = FE_LOAD_WAITING
    c.since_ns = d.load.pasts[c - d.load.connections].tried_ns = d.now_ns
    drive_try_connect(d, c)


cdef inline void drive_try_connect(Drive *d, fe_load_connection *c) noexcept nogil:
    """A socket and its connect. Afterwards c is OPEN, CONNECTING, still WAITING (the
    backlog of a Unix socket is full) or ended."""
    cdef size_t index = <size_t>(c - d.load.connections)
    cdef Target *target = &d.targets[index % d.target_count]
    cdef size_t source
    cdef int rc = 0
    cdef int fd = _sys.sys_socket(target.family)
    if fd < 0:
        drive_broken(d, c, fd)
        return
    if target.source_count:
        source = index // d.target_count % target.source_count
        rc = _sys.sys_bind_source(fd, target.sources + source * target.source_size,
                                  target.source_size)
    if rc == 0:
        rc = _sys.sys_connect(fd, target.address, target.size)
    if rc == -EAGAIN and target.family == _sys.AF_UNIX:
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
    """c is open: in reconnect mode it is given its message, in a run that sends its first."""
    cdef uint64_t began_ns
    d.now_ns = _sys.sys_now_ns()
    d.connecting -= 1
    began_ns = fe_load_opened(&d.load, c, d.now_ns)
    if d.mode == FE_LOAD_RECONNECT:
        if d.load.left == 0:
            drive_end(d, c, -1, 0)
            return
        fe_load_release(&d.load, c, 1, began_ns, began_ns)
        drive_send(d, c)
    elif d.sends and not fe_load_is_over(&d.load, d.now_ns):
        drive_join(d, c)


cdef inline void drive_join(Drive *d, fe_load_connection *c) noexcept nogil:
    """An open connection takes part from now on."""
    if d.mode == FE_LOAD_OPEN_LOOP:
        fe_load_offer(&d.load, c, d.now_ns)
    elif d.mode == FE_LOAD_CLOSED_LOOP:
        fe_load_release(&d.load, c, fe_load_room(&d.load, c), d.now_ns, d.now_ns)
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
        # drive_join, but for EPOLLOUT that is waited for.
        fe_load_release(&d.load, c, fe_load_room(&d.load, c), d.now_ns, d.now_ns)
        if not c.wants_write:
            drive_send(d, c)


cdef inline void drive_finish(Drive *d, fe_load_connection *c) noexcept nogil:
    """Reconnect mode: the reply is there, the connection has done its work."""
    if d.by_reset:
        _sys.sys_reset(c.fd)
        drive_end(d, c, -1, 0)
        return
    fe_load_not_open(&d.load, c, FE_LOAD_ENDING)
    c.since_ns = d.now_ns
    _sys.sys_shutdown(c.fd, _sys.SHUT_WR)


cdef inline void drive_broken(Drive *d, fe_load_connection *c, int rc) noexcept nogil:
    """A call about c gave -errno."""
    drive_end(d, c, fe_load_kind_for(-rc, c.state < FE_LOAD_OPEN), -rc)


cdef inline void drive_give_up(Drive *d, fe_load_connection *c) noexcept nogil:
    """c has waited for too long."""
    if c.state == FE_LOAD_OPEN:
        drive_end(d, c, FE_LOAD_TIMED_OUT, 0)
    elif c.state == FE_LOAD_ENDING:
        drive_end(d, c, FE_LOAD_OTHER, ETIMEDOUT)
    else:
        drive_end(d, c, FE_LOAD_CONNECT_TIMED_OUT, ETIMEDOUT)


cdef inline void drive_end(Drive *d, fe_load_connection *c, int kind, int error) noexcept nogil:
    """Closes c: kind says what went wrong, -1 nothing. In reconnect mode the next one
    begins: at once, or after a failure at the next look for timeouts. What is to be reopened
    is so REOPEN_NS after its last attempt began, at the earliest."""
    cdef fe_load_past *past = &d.load.pasts[c - d.load.connections]
    if c.fd >= 0:
        _sys.sys_epoll_ctl(d.epfd, _sys.EPOLL_CTL_DEL, c.fd, 0, 0)
        if kind == FE_LOAD_TIMED_OUT or error == ETIMEDOUT:
            _sys.sys_reset(c.fd)
        _sys.sys_close(c.fd)
    if c.state == FE_LOAD_WAITING or c.state == FE_LOAD_CONNECTING:
        d.connecting -= 1
        if kind >= 0:
            d.failed += 1
            if d.first_error == 0:
                d.first_error = error
    d.alive -= 1
    fe_load_gone(&d.load, c, kind, error, d.now_ns)
    if not d.runs or fe_load_is_over(&d.load, d.now_ns):
        return
    if kind >= 0 and (d.reopens or d.mode == FE_LOAD_RECONNECT):
        d.alive += 1
        c.state = FE_LOAD_RESTING
        c.since_ns = d.now_ns
        if d.mode != FE_LOAD_RECONNECT:
            c.since_ns = max(d.now_ns, past.tried_ns + REOPEN_NS)
    elif d.mode == FE_LOAD_RECONNECT:
        drive_begin(d, c)


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
    """One epoll_wait and its events, until until_ns (0: at once). How many, or -errno."""
    cdef uint64_t before = d.now_ns
    cdef int i, n, timeout_ms = 0
    if until_ns > before and not d.polls:
        timeout_ms = <int>min((until_ns - before + 999999) // 1000000, <uint64_t>1000)
    n = _sys.sys_epoll_wait(d.epfd, d.events, EVENTS, timeout_ms)
    if n < 0:
        return n
    fe_load_add(&d.load.counts, FE_LOAD_ITERATIONS, 1)
    d.now_ns = _sys.sys_now_ns()
    if n == 0 and timeout_ms == 0:
        fe_load_add(&d.load.counts, FE_LOAD_SPIN_NS, d.now_ns - before)
    for i in range(n):
        drive_event(d, d.events[i].data.u64, d.events[i].events)
    return n


cdef inline void drive_catch_up(Drive *d) noexcept nogil:
    """Takes what has come already. Before anybody is called silent, because this thread itself
    may have been stopped (Ctrl-Z) or waiting for a CPU, even after the last look."""
    cdef uint64_t before = 0
    cdef int n = EVENTS, left = 64  # 32,768 events
    while left and (n == EVENTS or d.now_ns - before > TICK_NS):
        before = d.now_ns
        n = drive_wait(d, 0)
        left -= 1


cdef inline void drive_sweep(Drive *d, bint all_) noexcept nogil:
    """Ends what has waited too long, or `all_` that still waits; tries again to connect."""
    cdef fe_load_connection *c
    cdef uint32_t i
    cdef bint over = d.runs and fe_load_is_over(&d.load, d.now_ns)
    drive_catch_up(d)
    d.sweep_ns = d.now_ns + TICK_NS
    if d.now_ns < d.load.end_ns < d.sweep_ns:
        d.sweep_ns = d.load.end_ns
    for i in range(d.load.count):
        c = &d.load.connections[i]
        if over and (FE_LOAD_RESTING <= c.state <= FE_LOAD_WAITING
                     or c.state == FE_LOAD_CONNECTING and d.mode != FE_LOAD_RECONNECT):
            drive_end(d, c, -1, 0)
        elif (fe_load_silent(&d.load, c, d.now_ns)
                or all_ and c.state > FE_LOAD_RESTING
                and (c.state != FE_LOAD_OPEN or c.due != c.done)):
            drive_give_up(d, c)
        elif c.state == FE_LOAD_WAITING:
            drive_try_connect(d, c)
        elif c.state == FE_LOAD_RESTING and c.since_ns <= d.now_ns:
            if d.connecting < CONNECTS or d.mode == FE_LOAD_RECONNECT:
                drive_begin(d, c)
    if d.counts:
        fe_load_write(&d.load.counts.n[FE_LOAD_CPU_NS],
                      _sys.sys_thread_cpu_ns() - d.start_cpu_ns)


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
    if not fe_load_has_next(&d.load) or d.load.ring_used == 0:
        return until_ns
    if d.load.schedule.next_ns <= d.now_ns + AHEAD_NS:
        return 0
    wake = d.load.schedule.next_ns - AHEAD_NS
    if d.armed_ns != wake:
        d.armed_ns = wake
        _sys.sys_timerfd_set(d.timer_fd, wake)
    return until_ns


# --- a run ------------------------------------------------------------------------------


cdef inline void drive_start_run(Drive *d, uint64_t start_ns, uint64_t warmup_ns,
                                 uint64_t span_ns, uint64_t ramp_ns, bint opens) noexcept nogil:
    """Sets the times of a run that begins at start_ns, or now if that is over. `opens`: it
    opens what is CLOSED, over ramp_ns."""
    cdef uint32_t i
    d.now_ns = _sys.sys_now_ns()
    d.begin_ns = max(start_ns, d.now_ns)
    fe_load_set_window(&d.load, d.begin_ns + warmup_ns, d.begin_ns + warmup_ns + span_ns)
    d.hard_ns = d.load.end_ns + d.load.timeout_ns
    d.sweep_ns = d.now_ns + TICK_NS
    d.armed_ns = 0
    d.ramp_ns = ramp_ns
    d.cursor = d.to_open = d.begun = 0
    if opens:
        for i in range(d.load.count):
            d.to_open += d.load.connections[i].state == FE_LOAD_CLOSED
    d.runs = True
    d.sends = d.counts = False
    fe_load_forget_gaps(&d.load)


cdef inline void drive_start_sending(Drive *d) noexcept nogil:
    """The warm-up or the window begins: open connections take part, others begin to open."""
    cdef fe_load_connection *c
    cdef uint32_t i
    d.sends = True
    d.sweep_ns = min(d.now_ns + TICK_NS, d.load.end_ns)
    if d.now_ns >= d.load.window_ns:
        drive_start_window(d)
    fe_schedule_start(&d.load.schedule, d.begin_ns)
    for i in range(d.load.count):
        c = &d.load.connections[i]
        if c.state == FE_LOAD_OPEN:
            d.now_ns = _sys.sys_now_ns()
            drive_join(d, c)


cdef inline void drive_start_window(Drive *d) noexcept nogil:
    """What is not counted by message counts from here on."""
    d.counts = True
    d.start_cpu_ns = _sys.sys_thread_cpu_ns()
    fe_load_write(&d.load.counts.n[FE_LOAD_BYTES_SENT], 0)
    fe_load_write(&d.load.counts.n[FE_LOAD_BYTES_RECEIVED], 0)
    fe_load_write(&d.load.counts.n[FE_LOAD_SPIN_NS], 0)
    fe_load_write(&d.load.counts.n[FE_LOAD_ITERATIONS], 0)
    if d.mode == FE_LOAD_RECONNECT:
        fe_load_write(&d.load.counts.n[FE_LOAD_CONNECTS], 0)


cdef inline uint64_t drive_open_more(Drive *d, uint64_t until_ns) noexcept nogil:
    """Begins to connect what the ramp has reached; all of it at once without one, but for the
    limit of connects under way. Returns when to look again, until_ns at the latest."""
    cdef uint64_t wanted = d.to_open
    cdef uint64_t since_ns
    if fe_load_is_over(&d.load, d.now_ns):
        d.begun = d.to_open
        return until_ns
    since_ns = d.now_ns - d.begin_ns
    if since_ns < d.ramp_ns:
        wanted = 1 + <uint64_t>(<double>d.to_open * <double>since_ns / <double>d.ramp_ns)
        wanted = min(wanted, <uint64_t>d.to_open)
        until_ns = min(until_ns, d.begin_ns + <uint64_t>(
            <double>d.ramp_ns * <double>wanted / <double>d.to_open))
    while (d.begun < wanted and d.cursor < d.load.count
            and (d.connecting < CONNECTS or d.mode == FE_LOAD_RECONNECT)):
        if d.load.connections[d.cursor].state == FE_LOAD_CLOSED:
            d.begun += 1
            drive_begin(d, &d.load.connections[d.cursor])
        d.cursor += 1
    if d.cursor == d.load.count:
        d.begun = d.to_open
    return until_ns


cdef inline uint64_t drive_prepare(Drive *d) noexcept nogil:
    """Does what is due in a run besides events; returns when the next wait must end."""
    cdef uint64_t until_ns = min(d.sweep_ns, d.hard_ns)
    if fe_atomic_load(&d.stop):
        d.now_ns = _sys.sys_now_ns()
        if d.sends:
            fe_load_cut(&d.load, d.now_ns)
        else:
            # Nothing is sent, and the window is empty.
            fe_load_cut(&d.load, min(d.now_ns, d.load.window_ns))
            d.load.left = 0
        d.hard_ns = min(d.hard_ns, d.now_ns + d.load.timeout_ns)
        fe_atomic_store(&d.stop, 0)
    if not d.sends:
        if d.now_ns < min(d.begin_ns, d.load.end_ns):
            if d.now_ns + NEAR_NS >= d.begin_ns:
                return 0
            return min(until_ns, d.begin_ns - NEAR_NS)
        drive_start_sending(d)
    if not d.counts:
        if d.now_ns >= d.load.window_ns:
            drive_start_window(d)
        else:
            until_ns = min(until_ns, d.load.window_ns)
    if d.begun < d.to_open:
        until_ns = drive_open_more(d, until_ns)
    if d.mode == FE_LOAD_OPEN_LOOP:
        until_ns = drive_keep_schedule(d, until_ns)
    return until_ns


cdef inline void drive_end_schedule(Drive *d) noexcept nogil:
    if d.mode == FE_LOAD_OPEN_LOOP:
        fe_load_give_up(&d.load)


cdef inline bint drive_run_is_over(Drive *d) noexcept nogil:
    """Nothing more will be sent and nothing is outstanding, or the time for it is up."""
    if d.now_ns >= d.hard_ns:
        # First: what is given up now did not keep them from being sent.
        drive_end_schedule(d)
        drive_sweep(d, True)
        return True
    if not d.sends:
        return False
    if not fe_load_is_over(&d.load, d.now_ns):
        if d.alive or d.begun < d.to_open:
            return False
        fe_load_cut(&d.load, d.now_ns)
        return True
    if d.mode == FE_LOAD_RECONNECT:
        return d.alive == 0
    return (d.load.outstanding == 0
            and (d.mode != FE_LOAD_OPEN_LOOP or not fe_load_has_next(&d.load)))


cdef inline void drive_finish_run(Drive *d) noexcept nogil:
    """Counts what the schedule still holds; connects that are under way are broken off."""
    drive_end_schedule(d)
    if d.alive != fe_load_open(&d.load):
        drive_sweep(d, False)
    d.runs = d.sends = False
    d.now_ns = _sys.sys_now_ns()
    fe_load_write(&d.load.counts.n[FE_LOAD_CPU_NS], _sys.sys_thread_cpu_ns() - d.start_cpu_ns)
    fe_load_write(&d.load.counts.done_ns, d.now_ns)


cdef inline int drive_run(Drive *d, uint64_t slice_ns) noexcept nogil:
    """Runs the loop: 1 when the run is over, 0 after slice_ns, or -errno."""
    cdef uint64_t slice_start_ns = d.now_ns
    cdef int rc
    while True:
        rc = drive_wait(d, drive_prepare(d))
        if rc < 0:
            return rc
        if d.now_ns >= d.sweep_ns:
            drive_sweep(d, False)
        if drive_run_is_over(d):
            drive_finish_run(d)
            return 1
        if d.now_ns - slice_start_ns >= slice_ns:
            return 0


# --- connecting without a run -----------------------------------------------------------


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
        while d.cursor < d.load.count and d.connecting < CONNECTS:
            if d.load.connections[d.cursor].state == FE_LOAD_CLOSED:
                drive_begin(d, &d.load.connections[d.cursor])
            d.cursor += 1
        if d.cursor == d.load.count and d.connecting == 0:
            return 1
        rc = drive_wait(d, d.sweep_ns)
        if rc < 0:
            return rc
        if d.now_ns >= d.sweep_ns:
            drive_sweep(d, False)
        if d.now_ns - slice_start_ns >= slice_ns:
            return 0
