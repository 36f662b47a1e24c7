# A load in one direction: uploads to a discard server, downloads from a chargen server.
#
# Lives here: the system calls of such connections, and how their run ends. What counts, and what is
# wrong, is decided in src_c/load_oneway.h. Does not live here: connecting and ending a connection
# (_load_connection.pxd), the loop (_drive.pxd).
#
# An upload sends whenever there is room (EPOLLOUT is always asked for) and asks the kernel before each
# turn what has been acknowledged. When the window ends it sends FIN, and is done at the server's.
# A download reads from when the run begins. What the kernels hold by then has come before the window,
# and does not count; at the end it is closed: what is still under way is answered by RST, which RFC 864
# expects.

from libc.errno cimport EAGAIN
from libc.stdint cimport uint32_t, uint64_t

cimport fastecho._sys as _sys
from fastecho._cdefs cimport *
from fastecho._load_cdefs cimport *
from fastecho._load_connection cimport *

cdef enum:
    # Bytes that one turn of an upload sends, and the sends of one turn, at the most.
    TURN_SIZE = 256 * 1024
    TURN_SENDS = 64


cdef inline bint is_one_way(const Drive *d) noexcept nogil:
    return d.mode >= FE_LOAD_UPLOAD


cdef inline void oneway_event(Drive *d, fe_load_connection *c, uint32_t events) noexcept nogil:
    """Something can be read or sent, or it has ended."""
    if events & ~<uint32_t>_sys.EPOLLOUT:
        oneway_receive(d, c)
    if events & _sys.EPOLLOUT and c.wants_write and c.state == FE_LOAD_OPEN:
        upload_send(d, c)


cdef inline bint upload_look(Drive *d, fe_load_connection *c) noexcept nogil:
    """Asks what has been acknowledged, and counts it. Whether there was any."""
    return fe_load_acknowledged(&d.load, c, <uint64_t>_sys.sys_unsent(c.fd), d.now_ns)


cdef inline void upload_send(Drive *d, fe_load_connection *c) noexcept nogil:
    """A turn: sends until the kernel takes no more, or others have waited for long enough."""
    cdef size_t size = d.load.pattern.one.body, taken = 0
    cdef uint32_t left = TURN_SENDS
    cdef ssize_t n = <ssize_t>size
    upload_look(d, c)
    while left and taken < TURN_SIZE and n == <ssize_t>size:
        left -= 1
        n = _sys.sys_send(c.fd, d.load.pattern.noise, size)
        if n > 0:
            taken += <size_t>n
    c.sent_at += taken
    fe_load_add(&d.load.counts, FE_LOAD_BYTES_SENT, taken)
    if n < 0 and n != -EAGAIN:
        drive_broken(d, c, <int>n)


cdef inline void oneway_receive(Drive *d, fe_load_connection *c) noexcept nogil:
    """One recv. A download verifies what came; to an upload nothing comes but the server's FIN.
    Who is wrong once is not tried again: there is another service behind that address."""
    cdef ssize_t n = _sys.sys_recv(c.fd, d.buffer, RECV_SIZE)
    cdef fe_load_failure *f
    d.now_ns = _sys.sys_now_ns()
    if n > 0 and d.mode == FE_LOAD_DOWNLOAD:
        if fe_load_downloaded(&d.load, c, d.scratch, d.buffer, <size_t>n, d.now_ns) < 0:
            drive_end(d, c, -1, 0)
    elif n > 0:
        f = fe_load_fail(&d.load, c, FE_LOAD_EXTRA_BYTES, <uint64_t>n, d.now_ns)
        if f != NULL:
            f.count = <uint64_t>n
        drive_end(d, c, -1, 0)
    elif n == 0 and c.state == FE_LOAD_ENDING:
        drive_end(d, c, -1, 0)
    elif n == 0:
        drive_end(d, c, FE_LOAD_CLOSED_BY_SERVER, 0)
    elif n != -EAGAIN:
        drive_broken(d, c, <int>n)


cdef inline void oneway_start_window(Drive *d) noexcept nogil:
    """Bytes count from here on: not what is acknowledged by now, nor what has come by now."""
    cdef fe_load_connection *c
    cdef uint32_t i
    for i in range(d.load.count):
        c = &d.load.connections[i]
        if c.state == FE_LOAD_OPEN and d.mode == FE_LOAD_UPLOAD:
            upload_look(d, c)
        elif c.state == FE_LOAD_OPEN:
            d.load.times[i] = <uint64_t>_sys.sys_unread(c.fd)
    fe_load_write(&d.load.counts.n[FE_LOAD_BYTES], 0)


cdef inline void oneway_sweep(Drive *d) noexcept nogil:
    """Ends who has moved nothing for too long. An upload that has sent its FIN has its time from
    the last acknowledgement on, and so has the run."""
    cdef fe_load_connection *c
    cdef uint32_t i
    if not d.sends:
        return
    for i in range(d.load.count):
        c = &d.load.connections[i]
        if c.state != FE_LOAD_OPEN and c.state != FE_LOAD_ENDING:
            continue
        if d.mode == FE_LOAD_UPLOAD and upload_look(d, c) and c.state == FE_LOAD_ENDING:
            d.hard_ns = d.now_ns + d.load.timeout_ns
        if c.state == FE_LOAD_OPEN and fe_load_stands_still(&d.load, c, d.now_ns):
            # Once more: this thread may have been stopped, and has not looked since.
            oneway_receive(d, c)
        if c.state == FE_LOAD_OPEN and fe_load_stands_still(&d.load, c, d.now_ns):
            fe_load_fail(&d.load, c, FE_LOAD_TIMED_OUT, 1, d.now_ns)
            drive_end(d, c, FE_LOAD_TIMED_OUT, 0)


cdef inline bint oneway_is_over(Drive *d) noexcept nogil:
    """The window is over: ends it on each connection, once. True: nothing more is awaited."""
    cdef fe_load_connection *c
    cdef uint32_t i
    if fe_load_open(&d.load) == 0:
        return d.alive == 0
    for i in range(d.load.count):
        c = &d.load.connections[i]
        if c.state == FE_LOAD_OPEN and d.mode == FE_LOAD_DOWNLOAD:
            drive_end(d, c, -1, 0)
        elif c.state == FE_LOAD_OPEN:
            upload_look(d, c)
            fe_load_not_open(&d.load, c, FE_LOAD_ENDING)
            c.since_ns = d.now_ns
            _sys.sys_shutdown(c.fd, _sys.SHUT_WR)
            drive_register(d, c, _sys.EPOLL_CTL_MOD, _sys.EPOLLIN)
    # What has been counted until now took until now.
    d.now_ns = _sys.sys_now_ns()
    if d.counts:
        fe_load_set_window(&d.load, d.load.window_ns, d.now_ns)
    d.hard_ns = d.now_ns + d.load.timeout_ns
    return d.alive == 0
