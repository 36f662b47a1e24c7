# What a connection begins with: the line that says who answers, and input that came already.
#
# Lives here: sending that line, and taking up what came behind a PROXY header. Does not live
# here: what the line says (src_c/identify.h), who is served (_faulty.pxd, _proxy.pxd).

from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._connection cimport (
    connection_answered, connection_input, connection_refused, connection_settle, connection_took,
)
from fastecho._proxied cimport Proxied, proxied, proxied_end
from fastecho._service cimport is_service, service_input
from fastecho._stream cimport stream_count_in, stream_send
from fastecho._worker cimport Worker, faulty


cdef inline void connection_greet(Worker *w, fe_connection *c) noexcept nogil:
    """It is served from now on: our line first, then the answer to what has come.

    What a fault is never to read, or what ends at once, is not taken up either.
    """
    cdef fe_buffer *came = c.unparsed
    cdef fe_faulty *f
    c.unparsed = NULL
    if c.state == FE_OPEN and w.shared.identity != NULL:
        connection_answered(w, c, identity_send(w, c))
        proxied_end(&w.proxied, c.slot)
        if c.state != FE_REAP and c.pending != NULL:
            f = faulty(w, c)
            if f != NULL:
                f.lead = fe_buffer_size(c.pending)
            connection_took(w, c)
    connection_settle(w, c)
    if came != NULL:
        connection_take_up(w, c, fe_buffer_bytes(came), fe_buffer_size(came))
        fe_buffer_free(&came)


cdef inline void connection_take_up(Worker *w, fe_connection *c, const unsigned char *data,
                                    size_t n) noexcept nogil:
    """n bytes came before it was served, n > 0: its first input, if it is served now."""
    cdef fe_faulty *f = faulty(w, c)
    if c.state != FE_OPEN or (f != NULL and f.fault.flags & FE_FAULT_NO_READ):
        fe_count(&w.counters.bytes_discarded, n)
    elif is_service(c):
        service_input(w, c, n)
    elif c.path != FE_PATH_CALLBACKS:
        connection_input(w, c, data, n)
    elif fe_buffer_append(&c.unparsed, data, n) < 0:
        connection_refused(w, c, -ENOMEM)
    else:
        stream_count_in(&w.stream, c, n)
        if w.tracks_activity:
            c.active_ms = <uint32_t>w.now_ms
        c.flags = (c.flags | FE_HAS_FRAMES) & <uint8_t>~FE_AWAITS_FIRST
        connection_settle(w, c)


cdef inline int identity_send(Worker *w, fe_connection *c) noexcept nogil:
    """Sends the line that says who answers; with length frames it is one. Result as stream_send."""
    cdef const Proxied *by = proxied(&w.proxied, c.slot)
    cdef unsigned char address[FE_ADDRESS_MAX]
    cdef _sys.socklen_t size = sizeof(address)
    cdef unsigned char *out = w.stream.out
    cdef size_t n = w.shared.identity_size
    cdef fe_identity of
    cdef fe_proxy header
    memset(&of, 0, sizeof(of))
    of.worker = <uint32_t>w.index
    of.number = c.number
    of.uptime_ms = (_sys.sys_now_ns() - w.shared.began_ns) // 1000000
    if not w.shared.listeners[c.listener].is_unix and _sys.sys_peer_name(c.fd, address, &size) == 0:
        # Port and address of sockaddr_in stand at bytes 2 and 4, of sockaddr_in6 at 2 and 8.
        of.seen_is_ipv6 = (<_sys.sockaddr *>address).sa_family == _sys.AF_INET6
        of.seen_port = <uint16_t>(address[2] << 8 | address[3])
        of.seen = address + (8 if of.seen_is_ipv6 else 4)
    if by != NULL and by.header != NULL:
        fe_proxy_parse(by.header, by.header_size, &header)
        of.proxy = &header
        of.header = by.header
    memcpy(out + FE_LENGTH_HEADER, w.shared.identity, n)
    n += fe_identify_write(&of, out + FE_LENGTH_HEADER + n)
    if w.stream.framing.kind == FE_FRAME_LENGTH:
        fe_store_be32(out, <uint32_t>n)
        return stream_send(&w.stream, c, out, FE_LENGTH_HEADER + n)
    return stream_send(&w.stream, c, out + FE_LENGTH_HEADER, n)
