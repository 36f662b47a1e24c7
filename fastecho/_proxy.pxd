# Newcomers that come through a proxy: the PROXY header before all else.
#
# Lives here: who is believed, waiting for the header, and what follows from it. Does not live here:
# the header itself (src_c/proxy.h), address ranges (src_c/networks.h), the admission that comes
# behind it (_admission.pxd).
#
# A newcomer from a trusted address is in state ADMIT with the path PROXY: it is in epoll for
# EPOLLIN and on the worker's list of those that wait, but nothing else of the server knows it yet.
# What came of its header is kept in unparsed, unless that is all of it; when the header is whole,
# what has come behind it is the first input. All may wait for equally long, so the first on the
# list is the next whose time is over: one timer does for all. Nothing is echoed, asked about or
# counted by address before. From an address that is not trusted no header is believed: with
# "required" such a newcomer is reset at once, with "optional" its bytes are bytes like any others.

from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastecho._admission cimport link_rename, newcomer_admit, path_of
from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._connection cimport (
    connection_ask, connection_end, connection_read_failed, connection_refused,
)
from fastecho._greeting cimport connection_take_up
from fastecho._log cimport log_rename, log_trouble
from fastecho._poll cimport Message
from fastecho._proxied cimport (
    PROXY_OPTIONAL, Proxied, proxied, proxied_begin, proxied_end, proxied_keep,
)
from fastecho._worker cimport (
    Shared, Worker, list_add, list_remove, peer_enter, peer_keep, peer_leave,
    worker_deadline,
)


# --- who is believed -----------------------------------------------------------------------

cdef inline bint proxy_is_trusted(const Shared *shared, const Message *newcomer) noexcept nogil:
    """Whether a header of this newcomer is believed. A Unix socket's peers are, always: who may
    connect there is the file system's to say."""
    if shared.listeners[newcomer.listener].is_unix:
        return True
    # sockaddr_in has its address at byte 4, sockaddr_in6 at byte 8 (netinet/in.h).
    if newcomer.address_size > 16:
        return fe_networks_have(shared.trusted, shared.trusted_count, newcomer.address + 8, True)
    return fe_networks_have(shared.trusted, shared.trusted_count, newcomer.address + 4, False)


# --- waiting -------------------------------------------------------------------------------

cdef inline void proxy_wait(Worker *w, fe_connection *c, const Message *newcomer) noexcept nogil:
    """A newcomer's header is awaited: on the list, and into epoll. A look whether it is there already
    would cost more than it saves: replies that are sent one by one wake their readers one by one."""
    if proxied_begin(&w.proxied, c.slot, newcomer) < 0:
        connection_refused(w, c, -ENOMEM)
        return
    c.path = FE_PATH_PROXY
    list_add(w, &w.waiting, c)
    if not fe_timer_is_set(&w.waiting_timer):
        proxy_arm(w, proxy_span(w))
    c.active_ms = <uint32_t>w.now_ms
    connection_ask(w, c, _sys.EPOLLIN)


cdef inline uint64_t proxy_span(const Worker *w) noexcept nogil:
    """Milliseconds that a header may take to come."""
    if w.draining and w.drain_idle_ms < w.shared.proxy_timeout_ms:
        return w.drain_idle_ms
    return w.shared.proxy_timeout_ms


cdef inline void proxy_arm(Worker *w, uint64_t span_ms) noexcept nogil:
    """Looks at those that wait after so long. Earlier than need be does no harm."""
    fe_timers_set_spare(&w.timers, &w.waiting_timer, worker_deadline(w, span_ms))


cdef inline void proxy_waiting_expired(Worker *w) noexcept nogil:
    """It is time to look at those that wait. One that is looked at leaves the list."""
    cdef fe_connection *c
    cdef uint32_t waited
    while w.waiting.first != FE_NO_SLOT:
        c = fe_slab_at(&w.connections, w.waiting.first)
        waited = <uint32_t>w.now_ms - c.active_ms
        if waited <= proxy_span(w):
            proxy_arm(w, proxy_span(w) - waited)
            return
        proxy_expired(w, c)


cdef inline void proxy_drain(Worker *w, uint64_t before_ms) noexcept nogil:
    """A drain has begun: who waits has what is left of the time that a header might take before,
    and no more than it may take now."""
    cdef uint64_t span_ms = proxy_span(w)
    cdef uint32_t slot = w.waiting.first
    cdef fe_connection *c
    cdef uint64_t left
    if span_ms >= before_ms:
        return
    fe_timers_clear(&w.timers, &w.waiting_timer)  # for newcomers it would be too late
    while slot != FE_NO_SLOT:
        c = fe_slab_at(&w.connections, slot)
        left = before_ms - min(before_ms, <uint64_t>(<uint32_t>w.now_ms - c.active_ms))
        c.active_ms = <uint32_t>(w.now_ms - (span_ms - min(left, span_ms)))
        slot = c.next
    proxy_waiting_expired(w)


cdef inline void proxy_event(Worker *w, fe_connection *c) noexcept nogil:
    """It can be read, or has been reset. No more is read than a header can have: until it is
    admitted, the rest is the kernel's to keep."""
    cdef ssize_t n = _sys.sys_recv(
        c.fd, w.buffer, <size_t>FE_PROXY_MAX - fe_buffer_size(c.unparsed))
    if n > 0:
        proxy_read(w, c, n)
    elif n == 0:
        proxy_eof(w, c)
    else:
        connection_read_failed(w, c, n)


cdef inline void proxy_read(Worker *w, fe_connection *c, size_t n) noexcept nogil:
    """n bytes more are in the worker's buffer: what the header says, or that it is none."""
    cdef fe_proxy header
    cdef unsigned char *data = w.buffer
    cdef int status
    if c.unparsed != NULL:
        if fe_buffer_append(&c.unparsed, data, n) < 0:
            connection_refused(w, c, -ENOMEM)
            return
        data = fe_buffer_bytes(c.unparsed)
        n = fe_buffer_size(c.unparsed)
    status = fe_proxy_parse(data, n, &header)
    if status == FE_PROXY_BAD:
        proxy_refuse(w, c, header.error)
    elif status == FE_PROXY_ABSENT and w.shared.proxy_mode != PROXY_OPTIONAL:
        proxy_refuse(w, c, FE_PROXY_MISSING)
    elif status == FE_PROXY_ABSENT:
        proxy_over(w, c, False, data, n)
    elif status == FE_PROXY_DONE:
        proxy_done(w, c, &header, data, n)
    elif c.unparsed == NULL and fe_buffer_append(&c.unparsed, data, n) < 0:
        connection_refused(w, c, -ENOMEM)


cdef inline void proxy_eof(Worker *w, fe_connection *c) noexcept nogil:
    """The peer's FIN, before its header was whole. Who sent nothing at all only wanted to see
    whether somebody listens."""
    if w.shared.proxy_mode == PROXY_OPTIONAL and not is_header(c):
        proxy_given_up(w, c)
    elif c.unparsed == NULL:
        connection_end(w, c, FE_ON_ABORT, FE_BY_PEER)
    else:
        proxy_refuse(w, c, FE_PROXY_CUT_OFF)


cdef inline void proxy_expired(Worker *w, fe_connection *c) noexcept nogil:
    """The header did not come in time. One more look: this process may have been stopped."""
    proxy_event(w, c)
    if c.state != FE_ADMIT or c.path != FE_PATH_PROXY:
        return
    if w.shared.proxy_mode == PROXY_OPTIONAL and not is_header(c):
        proxy_given_up(w, c)
    elif w.draining:
        connection_end(w, c, FE_ON_ABORT, FE_BY_DRAIN)
    else:
        proxy_refuse(w, c, FE_PROXY_LATE)


cdef inline bint is_header(fe_connection *c) noexcept nogil:
    """Whether what has come so far can be nothing but a PROXY header: its signature is whole."""
    return c.unparsed != NULL and fe_proxy_is_signed(
        fe_buffer_bytes(c.unparsed), fe_buffer_size(c.unparsed))


cdef inline void proxy_refuse(Worker *w, fe_connection *c, int error) noexcept nogil:
    """Ends it by RST: who it is stays unknown."""
    fe_atomic_store(&w.shared.proxy_error, error)
    log_trouble(w)
    connection_end(w, c, FE_ON_ABORT, FE_BY_PROXY_HEADER)


# --- what follows --------------------------------------------------------------------------

cdef inline void proxy_done(Worker *w, fe_connection *c, const fe_proxy *header,
                            const unsigned char *data, size_t n) noexcept nogil:
    """The header is whole: from here on the peer is who it says. n bytes of data begin by it."""
    cdef Proxied *by = proxied(&w.proxied, c.slot)
    fe_count(&w.counters.connections_proxied, 1)
    if w.shared.identity != NULL and proxied_keep(by, data, header.total) < 0:
        connection_refused(w, c, -ENOMEM)
        return
    if not header.is_local and header.family == FE_PROXY_INET:
        address_put(&by.newcomer, _sys.AF_INET, header.source_port, header.source, 4, 4)
    elif not header.is_local and header.family == FE_PROXY_INET6:
        address_put(&by.newcomer, _sys.AF_INET6, header.source_port, header.source, 8, 16)
    if is_counted(w, c, &by.newcomer):
        proxy_over(w, c, True, data + header.total, n - header.total)


cdef inline void address_put(Message *newcomer, int family, uint16_t port,
                             const unsigned char *host, size_t at,
                             size_t n) noexcept nogil:
    """Makes it a newcomer from there; the address that accept gave becomes the proxy's. As a
    sockaddr_in or sockaddr_in6: family, port, the address at byte `at`."""
    cdef unsigned short kind = <unsigned short>family
    newcomer.proxy_size = min(newcomer.address_size, <uint32_t>sizeof(newcomer.proxy))
    memcpy(newcomer.proxy, newcomer.address, newcomer.proxy_size)
    newcomer.is_claimed = True
    memset(newcomer.address, 0, sizeof(newcomer.address))
    memcpy(newcomer.address, &kind, sizeof(kind))
    newcomer.address[2] = <uint8_t>(port >> 8)
    newcomer.address[3] = <uint8_t>port
    memcpy(newcomer.address + at, host, n)
    newcomer.address_size = 16 if n == 4 else 28


cdef inline bint is_counted(Worker *w, fe_connection *c, Message *newcomer) noexcept nogil:
    """Counts it among those of its address, which a proxy's own never are. False: that has
    max_per_ip, and it was ended here."""
    cdef fe_peer_key key
    cdef uint32_t node
    cdef int rc
    if w.limits.max_per_ip == 0 or not newcomer.is_claimed:
        return True
    if newcomer.address_size > 16:
        key = fe_peer_key_6(newcomer.address + 8, w.limits.ipv6_prefix)
    else:
        key = fe_peer_key_4(newcomer.address + 4)
    rc = peer_enter(w, &key, &node)
    if rc == -ENOMEM:
        connection_refused(w, c, rc)
    elif rc < 0:
        log_rename(w, c.slot, newcomer)
        connection_end(w, c, FE_ON_ABORT, FE_BY_MAX_PER_IP)
    elif peer_keep(w, c.slot, node) < 0:
        peer_leave(w.shared, node)
        connection_refused(w, c, -ENOMEM)
    else:
        return True
    return False


cdef inline void proxy_given_up(Worker *w, fe_connection *c) noexcept nogil:
    """No header will come; what has come, if anything has, is the first input."""
    if c.unparsed == NULL:
        proxy_over(w, c, False, NULL, 0)
    else:
        proxy_over(w, c, False, fe_buffer_bytes(c.unparsed), fe_buffer_size(c.unparsed))


cdef inline void proxy_over(Worker *w, fe_connection *c, bint came, const unsigned char *data,
                            size_t n) noexcept nogil:
    """Nothing is awaited any more: it goes the way of every newcomer, with a header or without.
    n bytes of data, in unparsed or in the worker's buffer, are its first input."""
    cdef Message *newcomer = &proxied(&w.proxied, c.slot).newcomer
    cdef fe_buffer *kept = c.unparsed
    c.unparsed = NULL
    if came:
        log_rename(w, c.slot, newcomer)
        link_rename(w, c.slot, newcomer)
    list_remove(w, &w.waiting, c)
    c.path = path_of(w)
    newcomer_admit(w, c, newcomer)
    if not came or w.shared.identity == NULL:
        proxied_end(&w.proxied, c.slot)  # otherwise it is shown first
    if n == 0:
        pass
    elif c.state != FE_ADMIT:
        connection_take_up(w, c, data, n)
    elif fe_buffer_append(&c.unparsed, data, n) < 0:
        connection_refused(w, c, -ENOMEM)
    fe_buffer_free(&kept)
