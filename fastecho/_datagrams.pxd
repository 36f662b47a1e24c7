# What the echo of datagrams needs: the sockets of a server, and a worker's room for a batch.
#
# Lives here: the structs, their set-up and tear-down. Does not live here: receiving and sending
# (_udp.pxd), which datagrams are answered (src_c/datagram.h).
#
# A batch is received where it lies until it is sent: a reply points to the datagram that it
# answers. A datagram can have 64 KiB, so the room is 4 MiB of addresses; the pages that nothing
# was ever received into are never touched.

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, malloc

from fastecho._cdefs cimport fe_timer
from fastecho._datagram_cdefs cimport fe_guards
from fastecho._sys_datagram cimport iovec, mmsghdr


cdef enum:
    # Datagrams of one recvmmsg. Twice as many gain nothing (`benchmarks.udp`).
    DATAGRAM_BATCH = 64
    # The largest that the kernel can give, a train of them included.
    DATAGRAM_SIZE = 65536
    # Of two neighbours; not a multiple of a page, or all would compete for the same cache lines.
    DATAGRAM_STRIDE = 65536 + 192
    # sockaddr_in6.
    NAME_SIZE = 28
    # Room for packet infos and the size of a train's segments, behind all that anybody who passes
    # a socket on may have asked for.
    CONTROL_SIZE = 512


cdef struct DatagramSocket:
    int fd
    # The worker that receives from it; -1: every worker does.
    int worker


cdef struct Reply:
    # How many datagrams it is, and the bytes of each but the last, which may have less.
    size_t count
    size_t unit
    # Bytes of all.
    size_t size
    # Bytes beside it, without the size of a train's segments.
    size_t control
    # Where its parts begin; NULL: it came as a train, and is one part.
    iovec *parts


cdef struct Datagrams:
    # DATAGRAM_BATCH of DATAGRAM_STRIDE bytes each.
    unsigned char *bytes
    fe_guards *guards
    mmsghdr received[DATAGRAM_BATCH]
    iovec into[DATAGRAM_BATCH]
    unsigned char names[DATAGRAM_BATCH][NAME_SIZE]
    unsigned char control[DATAGRAM_BATCH][CONTROL_SIZE]
    mmsghdr replies[DATAGRAM_BATCH]
    Reply about[DATAGRAM_BATCH]
    # Of each datagram prefix, payload and suffix, or the payload alone, one behind the other.
    iovec parts[3 * DATAGRAM_BATCH]
    # Until then no replies are put together to trains, on the monotonic clock: one was refused.
    uint64_t single_until_ns
    # The sockets are in the worker's epoll; or out of it until the timer expires.
    bint is_watching
    fe_timer timer
    # Failures of recvmmsg in a row.
    int failures


cdef inline Datagrams *datagrams_open(uint64_t seed) noexcept nogil:
    """Room for batches; NULL: no memory."""
    cdef Datagrams *d = <Datagrams *>calloc(1, sizeof(Datagrams))
    cdef int i
    if d == NULL:
        return NULL
    d.bytes = <unsigned char *>malloc(DATAGRAM_BATCH * DATAGRAM_STRIDE)
    d.guards = <fe_guards *>calloc(1, sizeof(fe_guards))
    if d.bytes == NULL or d.guards == NULL:
        datagrams_free(d)
        return NULL
    d.guards.seed = seed
    for i in range(DATAGRAM_BATCH):
        d.into[i].iov_base = d.bytes + i * DATAGRAM_STRIDE
        d.into[i].iov_len = DATAGRAM_SIZE
        d.received[i].msg_hdr.msg_name = d.names[i]
        d.received[i].msg_hdr.msg_iov = &d.into[i]
        d.received[i].msg_hdr.msg_iovlen = 1
        d.received[i].msg_hdr.msg_control = d.control[i]
    datagrams_ready(d, DATAGRAM_BATCH)
    return d


cdef inline void datagrams_ready(Datagrams *d, int n) noexcept nogil:
    """Makes the first n places ready to be received into: recvmmsg has changed them."""
    cdef int i
    for i in range(n):
        d.received[i].msg_hdr.msg_namelen = NAME_SIZE
        d.received[i].msg_hdr.msg_controllen = CONTROL_SIZE


cdef inline void datagrams_free(Datagrams *d) noexcept nogil:
    if d != NULL:
        free(d.bytes)
        free(d.guards)
        free(d)
