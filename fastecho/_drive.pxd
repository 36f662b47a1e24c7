# What a load does, and in which order: its loop, its schedule, its timeouts, its runs.
#
# Lives here: waiting for events, what is due besides them, the beginning and the end of a run,
# connecting without one. What happens on one connection is in _load_connection.pxd; which bytes
# are due, whether the right ones came and what counts as a failure is decided in src_c/load*.h.
# Does not live here: Python objects; memory (fastecho/_load.pyx).
#
# How a run goes: open connections are given messages; each complete reply is verified, timed
# and, in a closed loop, answered by the next message: all replies of one recv by one send. An
# open loop gives messages by its schedule instead, to whichever connection has waited longest
# for one; a message that finds none waits, and its latency counts from when it was due. When
# the window ends nothing new becomes due, and what is outstanding is collected, until the
# timeout at most. Before the window there may be a wait for a start time, then a warm-up, which
# is the same load. A ramp opens connections meanwhile. What is lost may be opened again.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cimport fastecho._sys as _sys
from fastecho._cdefs cimport *
from fastecho._load_cdefs cimport *
from fastecho._load_connection cimport *

cdef enum:
    # Events of one epoll_wait.
    EVENTS = 512
    # Messages that an open loop gives away before it looks for replies again.
    BATCH = 16
    # How often timeouts are looked for; they are late by this at the most.
    TICK_NS = 20000000
    # An open loop wakes up this long before a message is due and polls until then: a timer
    # alone is late by the time that a sleeping core needs to wake, 90 us at the median.
    AHEAD_NS = 100000
    # One look for events of that polling takes no longer. If it did, the thread did not poll but
    # waited for its CPU, or had been stopped.
    LONGEST_POLL_NS = 10000
    # Connections are given their first messages for so long before replies are looked for.
    JOIN_NS = 1000000
    # The last of the wait for a start time is spent polling: epoll_wait knows milliseconds.
    NEAR_NS = 1500000


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
            if d.udp != NULL and not c.wants_write:
                drive_wait_no_more(d, c, False)


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
        fe_load_add(&d.load.counts, FE_LOAD_SPIN_NS,
                    min(d.now_ns - before, <uint64_t>LONGEST_POLL_NS))
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


cdef inline uint64_t drive_tick_ns(Drive *d) noexcept nogil:
    """How often timeouts are looked for. A lost datagram is an everyday thing, and keeps the place of
    the next one: of a short timeout no more than a quarter is added."""
    if d.udp == NULL:
        return TICK_NS
    return min(<uint64_t>TICK_NS, max(d.load.timeout_ns // 4, <uint64_t>1000000))


cdef inline void drive_sweep(Drive *d, bint all_) noexcept nogil:
    """Ends what has waited too long, or `all_` that still waits; tries again to connect."""
    cdef fe_load_connection *c
    cdef uint32_t i
    cdef bint over = d.runs and fe_load_is_over(&d.load, d.now_ns)
    drive_catch_up(d)
    d.sweep_ns = d.now_ns + drive_tick_ns(d)
    if d.now_ns < d.load.end_ns < d.sweep_ns:
        d.sweep_ns = d.load.end_ns
    for i in range(d.load.count):
        c = &d.load.connections[i]
        if over and (FE_LOAD_RESTING <= c.state <= FE_LOAD_WAITING
                     or c.state == FE_LOAD_CONNECTING and d.mode != FE_LOAD_RECONNECT):
            drive_end(d, c, -1, 0)
        elif d.udp != NULL and c.state == FE_LOAD_OPEN:
            drive_wait_no_more(d, c, all_)
        elif (fe_load_silent(&d.load, c, d.now_ns)
                or all_ and c.state > FE_LOAD_RESTING
                and (c.state != FE_LOAD_OPEN or c.due != c.done)):
            drive_give_up(d, c)
        elif c.state == FE_LOAD_WAITING:
            drive_try_connect(d, c)
        elif c.state == FE_LOAD_RESTING and c.since_ns <= d.now_ns:
            if drive_may_connect(d):
                drive_begin(d, c)
    if d.counts:
        fe_load_write(&d.load.counts.n[FE_LOAD_CPU_NS],
                      _sys.sys_thread_cpu_ns() - d.start_cpu_ns)


cdef inline uint64_t drive_keep_schedule(Drive *d, uint64_t until_ns) noexcept nogil:
    """Open loop: sends what is due. Returns when the loop has to go on: until_ns, or 0
    while something is due or nearly so; otherwise the timer ends the wait in time."""
    cdef fe_load_connection *c
    cdef uint64_t wake, last_ns
    d.now_ns = _sys.sys_now_ns()
    if fe_load_give(&d.load, d.now_ns, BATCH):
        c = fe_load_given(&d.load)
        while c != NULL:
            drive_send(d, c)
            c = fe_load_given(&d.load)
        d.now_ns = _sys.sys_now_ns()
    if not fe_load_has_next(&d.load):
        # Of a number of messages all are given: the window lasts as long as their schedule.
        last_ns = fe_load_read(&d.load.counts.last_ns)
        return min(until_ns, last_ns) if last_ns > d.now_ns else until_ns
    if d.load.ring_used == 0:
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
    d.cursor = d.to_open = d.begun = d.joined = 0
    if opens:
        for i in range(d.load.count):
            d.to_open += d.load.connections[i].state == FE_LOAD_CLOSED
    d.runs = True
    d.sends = d.counts = False
    fe_load_forget_gaps(&d.load)


cdef inline void drive_start_sending(Drive *d) noexcept nogil:
    """The warm-up or the window begins: open connections take part, others begin to open."""
    d.sends = True
    d.sweep_ns = min(d.now_ns + drive_tick_ns(d), d.load.end_ns)
    if d.now_ns >= d.load.window_ns:
        drive_start_window(d)
    fe_schedule_start(&d.load.schedule, d.begin_ns)


cdef inline uint64_t drive_join_more(Drive *d, uint64_t until_ns) noexcept nogil:
    """Open connections take part, one after the other, for JOIN_NS: those that did already have
    replies. Returns when to go on: now, or until_ns when there are no more."""
    cdef fe_load_connection *c
    cdef uint64_t since_ns = d.now_ns
    while d.joined < d.load.count and d.now_ns - since_ns < JOIN_NS:
        c = &d.load.connections[d.joined]
        d.joined += 1
        if c.state != FE_LOAD_OPEN:
            continue
        if d.mode == FE_LOAD_OPEN_LOOP:
            # It has waited since then: what is due from then on need not wait for it.
            fe_load_offer(&d.load, c, d.begin_ns)
        elif not fe_load_is_over(&d.load, d.now_ns):
            d.now_ns = _sys.sys_now_ns()
            drive_join(d, c)
    return until_ns if d.joined == d.load.count else 0


cdef inline void drive_start_window(Drive *d) noexcept nogil:
    """What is not counted by message counts from here on."""
    d.counts = True
    if d.udp != NULL and fe_load_read(&d.load.counts.n[FE_LOAD_BYTES_SENT]) > 0:
        d.dropped = udp_dropped(&d.load)  # in the warm-up
    d.start_cpu_ns = _sys.sys_thread_cpu_ns()
    fe_load_write(&d.load.counts.n[FE_LOAD_BYTES_SENT], 0)
    fe_load_write(&d.load.counts.n[FE_LOAD_BYTES_RECEIVED], 0)
    fe_load_write(&d.load.counts.n[FE_LOAD_SPIN_NS], 0)
    fe_load_write(&d.load.counts.n[FE_LOAD_ITERATIONS], 0)
    if d.mode == FE_LOAD_RECONNECT:
        fe_load_write(&d.load.counts.n[FE_LOAD_CONNECTS], 0)
        fe_instances_forget(&d.greetings.instances)


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
    while d.begun < wanted and d.cursor < d.load.count and drive_may_connect(d):
        if d.load.connections[d.cursor].state == FE_LOAD_CLOSED:
            d.begun += 1
            drive_begin(d, &d.load.connections[d.cursor])
        d.cursor += 1
    if d.cursor == d.load.count:
        d.begun = d.to_open
    return until_ns


cdef inline void drive_end_schedule(Drive *d) noexcept nogil:
    if d.mode == FE_LOAD_OPEN_LOOP:
        fe_load_give_up(&d.load)


cdef inline uint64_t drive_prepare(Drive *d) noexcept nogil:
    """Does what is due in a run besides events; returns when the next wait must end."""
    cdef uint64_t until_ns = min(d.sweep_ns, d.hard_ns)
    cdef int64_t stop = fe_atomic_load(&d.stop)
    if stop != STOP_NOT:
        d.now_ns = _sys.sys_now_ns()
        if d.sends:
            fe_load_cut(&d.load, d.now_ns)
        else:
            # Nothing is sent, and the window is empty.
            fe_load_cut(&d.load, min(d.now_ns, d.load.window_ns))
            d.load.left = 0
        d.hard_ns = min(d.hard_ns, d.now_ns + d.load.timeout_ns)
        if stop == STOP_RUN:
            drive_end_schedule(d)
            d.hard_ns = d.now_ns
        fe_atomic_store(&d.stop, STOP_NOT)
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
    if d.joined < d.load.count:
        until_ns = drive_join_more(d, until_ns)
    if d.begun < d.to_open:
        until_ns = drive_open_more(d, until_ns)
    if d.mode == FE_LOAD_OPEN_LOOP:
        until_ns = drive_keep_schedule(d, until_ns)
    return until_ns


cdef inline bint drive_run_is_over(Drive *d) noexcept nogil:
    """Nothing more will be sent and nothing is outstanding, or the time for it is up."""
    if d.now_ns >= d.hard_ns:
        if d.mode == FE_LOAD_OPEN_LOOP and fe_load_has_next(&d.load):
            # What has been sent until now has its own time to be answered.
            drive_end_schedule(d)
            d.hard_ns = d.now_ns + d.load.timeout_ns
            return d.load.outstanding == 0
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
            and (d.mode != FE_LOAD_OPEN_LOOP
                 or not fe_load_has_next(&d.load)
                 and d.now_ns >= min(fe_load_read(&d.load.counts.last_ns), d.load.end_ns)))


cdef inline void drive_count_overflows(Drive *d) noexcept nogil:
    """Counts what our sockets had no room for since the window, or an earlier run, began."""
    cdef uint64_t dropped = udp_dropped(&d.load)
    # Sockets that are new since then have dropped less.
    fe_load_write(&d.load.counts.n[FE_LOAD_OVERFLOWS], dropped - min(d.dropped, dropped))
    d.dropped = dropped


cdef inline void drive_finish_run(Drive *d) noexcept nogil:
    """Counts what the schedule still holds; connects that are under way are broken off."""
    drive_end_schedule(d)
    if d.alive != fe_load_open(&d.load):
        drive_sweep(d, False)
    d.runs = d.sends = False
    if d.udp != NULL:
        drive_count_overflows(d)
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
