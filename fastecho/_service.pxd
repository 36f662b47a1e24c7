# Services without an echo: discard (RFC 863) and chargen (RFC 864).
#
# Lives here: what happens to a connection of theirs while it is served, and to input that came before.
# Does not live here: its end (_connection.pxd, which knows nothing of services), time (_quiet.pxd),
# the pattern (src_c/chargen.h).
#
# A connection's path says which service it has; raw echo looks nowhere whether there is one. Nothing
# is ever pending here: input is dropped, and the pattern is sent from where the connection stands in
# it, out of a buffer that all connections of the worker share, whenever epoll says that there is room.
# One read and one send are a turn: who takes all that there is keeps nobody waiting.
#
# At the peer's FIN discard sends its own. Chargen goes on, as inetd does, until the peer closes or
# resets: RFC 864 takes both for the way to end it, so both are the peer's doing, and no error.

from libc.errno cimport ECONNRESET, EPIPE
from libc.stdint cimport uint8_t, uint32_t

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._connection cimport (
    connection_ask, connection_end, connection_eof, connection_event, connection_failed,
    connection_handle, connection_read_failed, connection_took,
)
from fastecho._stream cimport stream_count_in, stream_count_out, stream_not_taken
from fastecho._worker cimport READ_SIZE, Worker


cdef inline bint is_service(const fe_connection *c) noexcept nogil:
    """Whether it is served without an echo."""
    return c.path > FE_PATH_PROXY


cdef inline void service_begin(Worker *w, fe_connection *c) noexcept nogil:
    """It is served from now on, and in epoll for input already."""
    if c.path == FE_PATH_CHARGEN and c.state == FE_OPEN:
        c.pattern_at = 0
        connection_ask(w, c, _sys.EPOLLIN | _sys.EPOLLOUT)


cdef inline void service_event(Worker *w, fe_connection *c, uint32_t events) noexcept nogil:
    """Dispatches what epoll_wait said, as connection_event() does. Something is always asked for."""
    if c.state != FE_OPEN and c.state != FE_PEER_EOF:
        connection_event(w, c, events)
        return
    if events & (_sys.EPOLLHUP | _sys.EPOLLERR):
        events |= c.interest
    if events & _sys.EPOLLOUT and c.interest & _sys.EPOLLOUT:
        chargen_send(w, c)
    if events & _sys.EPOLLIN and c.interest & _sys.EPOLLIN and c.state == FE_OPEN:
        service_read(w, c)


cdef inline void service_read(Worker *w, fe_connection *c) noexcept nogil:
    """Reads once, and drops it."""
    cdef ssize_t n = _sys.sys_recv_nowhere(c.fd, w.buffer, READ_SIZE)
    if n > 0:
        service_input(w, c, n)
    elif c.path == FE_PATH_DISCARD:
        connection_read_failed(w, c, n)
    elif n == 0:
        chargen_eof(w, c)
    elif not chargen_is_over(w, c, n):
        connection_read_failed(w, c, n)


cdef inline void service_input(Worker *w, fe_connection *c, size_t n) noexcept nogil:
    """n bytes of input have come, n > 0, and are dropped."""
    if w.tracks_activity:
        c.active_ms = <uint32_t>w.now_ms
    c.flags &= <uint8_t>~(FE_WAS_REFUSED | FE_AWAITS_FIRST)
    stream_count_in(&w.stream, c, n)


cdef inline void chargen_send(Worker *w, fe_connection *c) noexcept nogil:
    """Sends once, as much of the pattern as the kernel takes. Counted afterwards: what it will take
    is not known before, and a counter never goes back."""
    cdef ssize_t n = _sys.sys_send(c.fd, w.stream.out + c.pattern_at, FE_CHARGEN_TURN)
    cdef int rc
    if n >= 0:
        c.flags &= <uint8_t>~FE_WAS_REFUSED
        stream_count_out(&w.stream, c, n)
        c.pattern_at = fe_chargen_after(c.pattern_at, n)
        connection_took(w, c)
        if n == <ssize_t>FE_CHARGEN_TURN:
            return
    fe_count(&w.counters.short_writes, 1)
    if n < 0:
        rc = stream_not_taken(&w.stream, c, <int>n)
        if rc < 0 and not chargen_is_over(w, c, rc):
            connection_failed(w, c, rc)


cdef inline void chargen_eof(Worker *w, fe_connection *c) noexcept nogil:
    """The peer's FIN: it sends no more, and may still read."""
    if c.reason == FE_BY_NOBODY:
        c.reason = FE_BY_PEER
    c.flags |= FE_HAS_EOF
    c.wishes |= FE_KEEPS_OPEN
    connection_handle(w, c, FE_ON_EOF)
    connection_ask(w, c, _sys.EPOLLOUT)


cdef inline bint chargen_is_over(Worker *w, fe_connection *c, ssize_t rc) noexcept nogil:
    """Whether a call failed with rc because the peer has ended it; then it was ended here."""
    if rc != -ECONNRESET and rc != -EPIPE:
        return False
    connection_end(w, c, FE_ON_ABORT, FE_BY_PEER)
    return True
