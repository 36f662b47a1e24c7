# A connection of a load: the system calls of its life, one after the other.
#
# Lives here: Drive, which is a load with its descriptors and buffers; connecting, sending,
# receiving, ending one connection. Which bytes are due, whether the right ones came and what
# counts as a failure is decided in src_c/load*.h. Does not live here: when (_drive.pxd: the loop
# and the run); memory, which the owner of a Drive allocates and frees (fastecho/_load.pyx).
#
# Reconnect mode ends a connection as clients do: FIN, and it waits for the server's FIN, so
# that the whole life of a connection is exercised and a server that does not close is noticed.
# Whoever closes first keeps the port in TIME_WAIT for a minute. Towards 127.0.0.0/8 the
# connections therefore start from 64 source addresses: 1.8 million ports, while the kernel
# keeps at most tcp_max_tw_buckets in TIME_WAIT (131,072 where this was measured, 262,144 on
# large machines). Elsewhere closing by RST, after the reply, is the way: it leaves nothing.

from libc.errno cimport EAGAIN, EINPROGRESS, ETIMEDOUT
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cimport fastecho._sys as _sys
from fastecho._cdefs cimport *
from fastecho._load_cdefs cimport *
from fastecho._load_greeting cimport *
from fastecho._load_proxy cimport *
from fastecho._load_udp cimport *

cdef enum:
    # Bytes of one recv: the size that served bulk best in the server, too (DESIGN.md).
    RECV_SIZE = 512 * 1024
    # Bytes of messages that are copied together for one send.
    SCRATCH_SIZE = 64 * 1024
    # Connects under way at once: fewer than any usual backlog, so that a full accept queue,
    # which drops them all until their next SYN, can then take them all.
    CONNECTS = 64
    # How often a connection that is lost or refused is tried again.
    REOPEN_NS = 100000000

# What another thread asks of a run.
cdef enum Stop:
    STOP_NOT = 0
    # The window ends now; what is outstanding is collected.
    STOP_WINDOW
    # The run ends now; what is outstanding counts as timed out.
    STOP_RUN


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
    # Each connection begins by a PROXY header of this version; 0: by none.
    uint8_t proxy
    # What a load of datagrams has besides; NULL: it is one of streams.
    Udp *udp
    # What each connection begins by, if the server says who answers.
    Greetings greetings
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
    # The next connection that a run makes take part.
    uint32_t joined
    # Connects that failed; of the first: the errno, and which target it went to.
    uint32_t failed
    int first_error
    uint32_t first_failed
    # enum Stop. From any thread.
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
    # Datagrams that our sockets had no room for before the window, or in earlier runs.
    uint64_t dropped
    # The thread's CPU time at the start of the window.
    uint64_t start_cpu_ns
    # What the timer is set to; 0: nothing.
    uint64_t armed_ns


cdef inline int drive_register(Drive *d, fe_load_connection *c, int operation,
                               uint32_t mask) noexcept nogil:
    return _sys.sys_epoll_ctl(d.epfd, operation, c.fd, mask, <uint64_t>(c - d.load.connections))


cdef inline bint drive_may_connect(Drive *d) noexcept nogil:
    """Another connect may be under way; in reconnect mode as long as there is a message for it."""
    if d.mode == FE_LOAD_RECONNECT:
        return d.load.left > d.connecting
    return d.connecting < CONNECTS


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
    cdef int fd = udp_socket(target.family) if d.udp != NULL else _sys.sys_socket(target.family)
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


cdef inline bint drive_speaks_first(Drive *d) noexcept nogil:
    """A connection that is open now is given a message at once."""
    if d.mode == FE_LOAD_RECONNECT:
        return d.load.left > 0
    return (d.mode == FE_LOAD_CLOSED_LOOP and d.sends and d.load.left > 0
            and not fe_load_is_over(&d.load, d.now_ns))


cdef inline void drive_connected(Drive *d, fe_load_connection *c) noexcept nogil:
    """c is open: in reconnect mode it is given its message, in a run that sends its first. A PROXY
    header goes before, which is none of the bytes that count; without it c has not connected."""
    cdef uint64_t began_ns
    cdef int rc
    d.now_ns = _sys.sys_now_ns()
    if d.proxy:
        rc = proxy_announce(c.fd, d.proxy, drive_speaks_first(d))
        if rc < 0:
            drive_broken(d, c, rc)
            return
    d.connecting -= 1
    began_ns = fe_load_opened(&d.load, c, d.now_ns)
    if d.mode == FE_LOAD_IDLE and c.gap != FE_LOAD_NO_GAP:
        fe_load_back(&d.load, c, d.now_ns)
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
    if d.udp != NULL:
        drive_send_datagrams(d, c)
        return
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


cdef inline void drive_send_datagrams(Drive *d, fe_load_connection *c) noexcept nogil:
    """Sends what is due; what the socket has no room for is not sent, and EPOLLOUT says when it has."""
    cdef bint full = udp_send(d.udp, &d.load, c, d.now_ns) == -EAGAIN
    if c.wants_write != full:
        c.wants_write = full
        drive_register(d, c, _sys.EPOLL_CTL_MOD, _sys.EPOLLIN | (_sys.EPOLLOUT if full else 0))


cdef inline void drive_receive_datagrams(Drive *d, fe_load_connection *c) noexcept nogil:
    """Takes some of what has come, and sends what that makes room for."""
    if udp_receive(d.udp, &d.load, c, &d.now_ns):
        drive_answered(d, c)
    if d.load.left == 0:
        fe_load_spent(&d.load, d.now_ns)


cdef inline void drive_wait_no_more(Drive *d, fe_load_connection *c, bint all_) noexcept nogil:
    """Loses the datagrams of c whose time is over, or `all_`; others take their places."""
    fe_udp_expire(&d.udp.state, &d.load, c, d.now_ns, all_)
    if (d.sends and not all_ and fe_load_room(&d.load, c) > 0
            and not fe_load_is_over(&d.load, d.now_ns)):
        drive_join(d, c)


cdef inline uint32_t drive_verify(Drive *d, fe_load_connection *c, const unsigned char *bytes,
                                  size_t n) noexcept nogil:
    """Verifies what came. Where the server says who answers, its line comes before; a connection
    without one is ended, and so is the run. Result: replies that are complete now."""
    cdef uint32_t index = <uint32_t>(c - d.load.connections)
    cdef uint64_t before
    cdef uint32_t done
    cdef ssize_t taken
    if d.greetings.each == NULL:
        return fe_load_received(&d.load, c, bytes, n, d.now_ns)
    if greeting_is_due(&d.greetings, index):
        taken = greeting_take(&d.greetings, index, bytes, n)
        if taken < 0:
            fe_atomic_store(&d.stop, STOP_RUN)
            drive_broken(d, c, <int>taken)
            return 0
        fe_load_add(&d.load.counts, FE_LOAD_BYTES_RECEIVED, <uint64_t>taken)
        c.since_ns = d.now_ns
        bytes += taken
        n -= <size_t>taken
        if n == 0:
            return 0
    before = fe_load_read(&d.load.counts.n[FE_LOAD_MESSAGES])
    done = fe_load_received(&d.load, c, bytes, n, d.now_ns)
    greeting_answered(&d.greetings, index, fe_load_read(&d.load.counts.n[FE_LOAD_MESSAGES]) - before)
    return done


cdef inline void drive_receive(Drive *d, fe_load_connection *c) noexcept nogil:
    """One recv. The bytes are verified; a reply that is complete has its consequence."""
    cdef ssize_t n
    cdef uint32_t done
    if d.udp != NULL:
        drive_receive_datagrams(d, c)
        return
    n = _sys.sys_recv(c.fd, d.buffer, RECV_SIZE)
    if n > 0:
        d.now_ns = _sys.sys_now_ns()
        done = drive_verify(d, c, d.buffer, <size_t>n)
        if n > SCRATCH_SIZE:
            # Verifying took time that is not the next message's.
            d.now_ns = _sys.sys_now_ns()
        if done and c.state == FE_LOAD_OPEN:
            drive_answered(d, c)
        if d.load.left == 0:
            fe_load_spent(&d.load, d.now_ns)
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
                d.first_failed = <uint32_t>(c - d.load.connections) % d.target_count
    d.alive -= 1
    if d.udp != NULL:
        fe_udp_clear(&d.udp.state, &d.load, <uint32_t>(c - d.load.connections))
    greeting_end(&d.greetings, <uint32_t>(c - d.load.connections))
    fe_load_gone(&d.load, c, kind, error, d.now_ns)
    if not d.runs or fe_load_is_over(&d.load, d.now_ns):
        return
    if kind >= 0 and (d.reopens or d.mode == FE_LOAD_RECONNECT):
        d.alive += 1
        c.state = FE_LOAD_RESTING
        c.since_ns = d.now_ns
        if d.mode != FE_LOAD_RECONNECT:
            c.since_ns = max(d.now_ns, past.tried_ns + REOPEN_NS)
    elif d.mode == FE_LOAD_RECONNECT and drive_may_connect(d):
        drive_begin(d, c)
