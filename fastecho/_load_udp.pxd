# The datagrams of a load: the system calls that carry them.
#
# Lives here: sockets that are connected to the server, sending what is due and taking what has come,
# each by one call for up to UDP_BATCH datagrams; memory for that. Which datagram is whose, what is
# lost, doubled or reordered is decided in src_c/load_udp.h. Does not live here: when (_drive.pxd), the
# life of a connection (_load_connection.pxd).
#
# A connected socket gets datagrams of its peer alone, and learns that ICMP said "port unreachable":
# the next call about it fails by ECONNREFUSED, once. A send that fails so has sent nothing and is
# tried again; of a batch whose first datagrams were sent, the kernel drops the error. So there are
# refusals that nobody sees; none is seen that was not there.

from libc.errno cimport EAGAIN, ENOBUFS, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cimport fastecho._sys as _sys
from fastecho._load_cdefs cimport *
from fastecho._sys_datagram cimport *


cdef extern from "<sys/socket.h>" nogil:
    enum:
        SOCK_DGRAM
        SO_RCVBUF
    int socket(int family, int kind, int protocol)


# Of <linux/sock_diag.h> and <asm-generic/socket.h>: an array of 32-bit numbers about a socket's memory.
cdef extern from *:
    """
    #ifndef SO_MEMINFO
    #define SO_MEMINFO 55
    #endif
    #define FE_MEMINFO_DROPS 8
    #define FE_MEMINFO_VARS 9
    """
    enum:
        SO_MEMINFO
        FE_MEMINFO_DROPS
        FE_MEMINFO_VARS


cdef enum:
    # Datagrams of one call. Of small ones 32 take 95 % of what any number takes off the cost of a call.
    UDP_BATCH = 32
    # Bytes that a socket asks room for, so that a pipeline of replies waits in the kernel and is not
    # dropped there; it gets what net.core.rmem_max allows.
    UDP_ROOM = 4194304
    # A send is tried again so often after errors of datagrams before it.
    UDP_TRIES = 3


cdef struct Udp:
    fe_udp state
    # Headers and messages of a batch that goes out; which places these have.
    unsigned char *headers
    iovec *parts
    mmsghdr *outgoing
    uint32_t places[UDP_BATCH]
    # Where a batch that comes in is put, `stride` bytes each: more than the largest reply.
    unsigned char *buffer
    size_t stride
    iovec *rooms
    mmsghdr *incoming


cdef inline int udp_check(str mode, str frame, sizes, prefix, suffix, plain) except -1:
    """Refuse what a load of datagrams cannot have; plain: all else that it must not ask for."""
    if mode not in ("closed", "open"):
        raise ValueError(f"udp needs mode 'closed' or 'open', not {mode!r}")
    if frame != "raw":
        raise ValueError(f"udp needs frame 'raw', not {frame!r}: a datagram is a message")
    for name in plain:
        if plain[name]:
            raise ValueError(f"udp does not go together with {name} {plain[name]!r}")
    if min(sizes) < FE_UDP_HEADER:
        raise ValueError(f"size must be at least {FE_UDP_HEADER} with udp, not {min(sizes)}")
    whole = max(sizes) + len(prefix) + len(suffix)
    if whole > FE_UDP_LARGEST:
        raise ValueError(f"a reply of {whole} bytes is no datagram: {FE_UDP_LARGEST} at most")
    return 0


cdef inline Udp *udp_new(fe_load *l, size_t largest, uint64_t seed, const char *prefix,
                         size_t prefix_size, const char *suffix, size_t suffix_size) noexcept nogil:
    """Memory for the datagrams of l, with nothing outstanding; NULL: there is too little."""
    cdef Udp *u = <Udp *>calloc(1, sizeof(Udp))
    cdef uint32_t i
    if u == NULL:
        return NULL
    u.stride = (largest + prefix_size + suffix_size + 64) // 64 * 64
    u.state.flows = <fe_udp_flow *>calloc(l.count, sizeof(fe_udp_flow))
    u.state.places = <fe_udp_place *>calloc(<size_t>l.count * l.depth, sizeof(fe_udp_place))
    u.state.prefix = <unsigned char *>calloc(1, prefix_size + 1)
    u.state.suffix = <unsigned char *>calloc(1, suffix_size + 1)
    u.headers = <unsigned char *>calloc(UDP_BATCH, FE_UDP_HEADER)
    u.parts = <iovec *>calloc(2 * UDP_BATCH, sizeof(iovec))
    u.outgoing = <mmsghdr *>calloc(UDP_BATCH, sizeof(mmsghdr))
    u.rooms = <iovec *>calloc(UDP_BATCH, sizeof(iovec))
    u.incoming = <mmsghdr *>calloc(UDP_BATCH, sizeof(mmsghdr))
    u.buffer = <unsigned char *>calloc(UDP_BATCH, u.stride)
    if (u.state.flows == NULL or u.state.places == NULL or u.state.prefix == NULL
            or u.state.suffix == NULL or u.headers == NULL or u.parts == NULL or u.outgoing == NULL
            or u.rooms == NULL or u.incoming == NULL or u.buffer == NULL):
        udp_free(u)
        return NULL
    u.state.seed = seed
    u.state.prefix_size = prefix_size
    u.state.suffix_size = suffix_size
    memcpy(<void *>u.state.prefix, prefix, prefix_size)
    memcpy(<void *>u.state.suffix, suffix, suffix_size)
    for i in range(<uint32_t>UDP_BATCH):
        u.parts[2 * i].iov_base = u.headers + i * FE_UDP_HEADER
        u.parts[2 * i].iov_len = FE_UDP_HEADER
        u.outgoing[i].msg_hdr.msg_iov = u.parts + 2 * i
        u.outgoing[i].msg_hdr.msg_iovlen = 2
        u.rooms[i].iov_base = u.buffer + i * u.stride
        u.rooms[i].iov_len = u.stride
        u.incoming[i].msg_hdr.msg_iov = u.rooms + i
        u.incoming[i].msg_hdr.msg_iovlen = 1
    for i in range(l.count):
        fe_udp_clear(&u.state, l, i)
    return u


cdef inline void udp_free(Udp *u) noexcept nogil:
    if u == NULL:
        return
    free(u.state.flows)
    free(u.state.places)
    free(<void *>u.state.prefix)
    free(<void *>u.state.suffix)
    free(u.headers)
    free(u.parts)
    free(u.outgoing)
    free(u.rooms)
    free(u.incoming)
    free(u.buffer)
    free(u)


cdef inline int udp_socket(int family) noexcept nogil:
    """A datagram socket, non-blocking."""
    cdef int room = UDP_ROOM
    cdef int fd = socket(family, SOCK_DGRAM | _sys.SOCK_NONBLOCK | _sys.SOCK_CLOEXEC, 0)
    if fd < 0:
        return -errno
    _sys.setsockopt(fd, _sys.SOL_SOCKET, SO_RCVBUF, &room, sizeof(room))
    return fd


cdef inline uint64_t udp_dropped(fe_load *l) noexcept nogil:
    """Datagrams that the kernel dropped because our sockets' receive buffers were full."""
    cdef uint32_t about[FE_MEMINFO_VARS]
    cdef _sys.socklen_t size
    cdef uint64_t n = 0
    cdef uint32_t i
    for i in range(l.count):
        size = sizeof(about)
        about[FE_MEMINFO_DROPS] = 0
        if l.connections[i].fd >= 0:
            _sys.getsockopt(l.connections[i].fd, _sys.SOL_SOCKET, SO_MEMINFO, about, &size)
            n += about[FE_MEMINFO_DROPS]
    return n


cdef inline void udp_failed(fe_load *l, fe_load_connection *c, int error,
                            uint64_t now_ns) noexcept nogil:
    """A call about c failed by this errno; c stays as it is."""
    cdef fe_load_failure *f = fe_load_fail(l, c, fe_load_kind_for(error, False), 1, now_ns)
    if f != NULL:
        f.error = error
        f.count = <uint64_t>(c.due - c.done)


cdef inline int udp_send_batch(Udp *u, fe_load *l, fe_load_connection *c, uint32_t n,
                               uint64_t now_ns) noexcept nogil:
    """Sends the n datagrams that stand ready; those that the kernel does not take are not sent.
    0, or the -errno of that."""
    cdef uint32_t at = 0, tries = 0, i
    cdef uint64_t sent = 0
    cdef int rc = 0
    while at < n:
        rc = sys_sendmmsg(c.fd, u.outgoing + at, n - at)
        if rc < 0:
            if rc == -EAGAIN or rc == -ENOBUFS:
                break
            udp_failed(l, c, -rc, now_ns)
            tries += 1
            if tries == UDP_TRIES:
                break
            continue
        for i in range(at, at + <uint32_t>rc):
            sent += FE_UDP_HEADER + u.parts[2 * i + 1].iov_len
        at += <uint32_t>rc
        rc = 0
    fe_load_add(&l.counts, FE_LOAD_BYTES_SENT, sent)
    for i in range(at, n):
        fe_udp_not_sent(&u.state, l, c, u.places[i])
    return rc


cdef inline int udp_send(Udp *u, fe_load *l, fe_load_connection *c, uint64_t now_ns) noexcept nogil:
    """Sends all that is due on c, or gives it up as not sent. 0, or the -errno of that."""
    cdef fe_udp_datagram one
    cdef uint32_t n
    cdef int rc, first = 0
    while c.sent < c.due:
        n = 0
        while n < UDP_BATCH and c.sent < c.due:
            one = fe_udp_next(&u.state, l, c, u.headers + n * FE_UDP_HEADER)
            u.parts[2 * n + 1].iov_base = <void *>one.body
            u.parts[2 * n + 1].iov_len = one.body_size
            u.places[n] = one.place
            n += 1
        rc = udp_send_batch(u, l, c, n, now_ns)
        if first == 0:
            first = rc
    return first


cdef inline int udp_receive(Udp *u, fe_load *l, fe_load_connection *c,
                            uint64_t *now_ns) noexcept nogil:
    """Takes and judges up to UDP_BATCH datagrams that have come to c; *now_ns is when.
    Messages that are settled by them."""
    cdef uint32_t settled = 0
    cdef int i, n = sys_recvmmsg(c.fd, u.incoming, UDP_BATCH, MSG_TRUNC)
    if n < 0:
        if n != -EAGAIN:
            udp_failed(l, c, -n, now_ns[0])
        return 0
    now_ns[0] = _sys.sys_now_ns()
    for i in range(n):
        settled += fe_udp_received(&u.state, l, c, u.buffer + <size_t>i * u.stride,
                                   u.incoming[i].msg_len, now_ns[0])
    return <int>settled
