# The echo of datagrams.
#
# Lives here: receiving a batch, sending the replies, watching the sockets. Does not live here:
# which datagrams are answered (src_c/datagram.h), the room for a batch (_datagrams.pxd), opening
# sockets (listen_udp.py).
#
# Each worker has sockets of its own, on the same ports (SO_REUSEPORT): the kernel spreads the
# sources over them. Nothing is kept of a datagram: a reply that the kernel does not take at once is
# lost, as any datagram may be, and counted.
#
# Where the kernel has it (UDP_GRO), datagrams of one source that have come together are received as
# one train, and leave as one (UDP_SEGMENT); with a prefix or a suffix the sockets take no trains.
# Replies to one peer that stand side by side in a batch, equal but for a shorter last one, are made
# a train as well: one way through the kernel for all (`benchmarks.udp`: 0.87 of the CPU of a C
# loop without). A device or a route that does not take a train has it sent by pieces.

from libc.errno cimport EAGAIN, EINVAL, EIO, EMSGSIZE, ENOBUFS, EOPNOTSUPP
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp

from fastecho._cdefs cimport *
from fastecho._control cimport control_read, control_segments, control_single
from fastecho._datagram_cdefs cimport *
cimport fastecho._sys as _sys
from fastecho._datagrams cimport (
    DATAGRAM_BATCH, NAME_SIZE, DatagramSocket, Datagrams, Reply, datagrams_ready,
)
from fastecho._log cimport log_trouble
from fastecho._sys_datagram cimport iovec, mmsghdr, sys_recvmmsg, sys_sendmmsg
from fastecho._worker cimport TAG_DATAGRAMS, Worker, worker_deadline


cdef enum:
    # Batches of one event: a flood of datagrams must not starve the connections.
    BATCHES_MAX = 4
    # Batches that are answered at the end, of each socket.
    BATCHES_LAST = 1024
    # Failures of recvmmsg in a row after which the sockets rest, and for how long, in ms.
    FAILURES_MAX = 64
    REST_MS = 100
    # Bytes of a train, with room for headers. (The kernel takes 64 datagrams: a batch.)
    TRAIN_SIZE_MAX = 65000
    # No trains are made for so long after one was refused, in ns.
    SINGLE_NS = 1000000000


cdef inline bint is_mine(const Worker *w, const DatagramSocket *s) noexcept nogil:
    return s.worker < 0 or s.worker == w.index


# --- watching ------------------------------------------------------------------------------

cdef inline void datagrams_unwatch(Worker *w) noexcept nogil:
    """Takes the sockets out of this worker's epoll."""
    cdef int i
    if w.datagrams == NULL or not w.datagrams.is_watching:
        return
    w.datagrams.is_watching = False
    for i in range(w.shared.datagram_count):
        if is_mine(w, &w.shared.datagrams[i]):
            _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_DEL, w.shared.datagrams[i].fd, 0, 0)


cdef inline int datagrams_watch(Worker *w) noexcept nogil:
    """Puts the sockets into this worker's epoll; 0 or -errno."""
    cdef uint32_t events
    cdef int i, rc
    if w.datagrams == NULL:
        return 0
    w.datagrams.is_watching = True
    for i in range(w.shared.datagram_count):
        if is_mine(w, &w.shared.datagrams[i]):
            events = _sys.EPOLLIN
            if w.shared.datagrams[i].worker < 0:
                events |= <uint32_t>_sys.EPOLLEXCLUSIVE
            rc = _sys.sys_epoll_ctl(w.epfd, _sys.EPOLL_CTL_ADD, w.shared.datagrams[i].fd, events,
                                    TAG_DATAGRAMS + <uint32_t>i)
            if rc < 0:
                datagrams_unwatch(w)
                return rc
    return 0


cdef inline void datagrams_rest(Worker *w) noexcept nogil:
    """Receiving fails again and again: rests for REST_MS."""
    datagrams_unwatch(w)
    w.datagrams.failures = 0
    log_trouble(w)
    fe_timers_set_spare(&w.timers, &w.datagrams.timer, worker_deadline(w, REST_MS))


cdef inline void datagrams_rested(Worker *w) noexcept nogil:
    """The rest is over."""
    cdef int rc = datagrams_watch(w)
    if rc < 0:
        fe_count_errno(&w.counters, rc)
        datagrams_rest(w)


# --- sending -------------------------------------------------------------------------------

cdef inline void datagrams_look(Worker *w) noexcept nogil:
    """Watches the sockets anew: who had them as well may have been woken for what it left."""
    if w.datagrams != NULL and w.datagrams.is_watching:
        datagrams_unwatch(w)
        if datagrams_watch(w) < 0:
            datagrams_rest(w)


cdef inline bint is_train_refused(int rc) noexcept nogil:
    """The way to this peer does not take trains: no checksums by the device, or a smaller MTU."""
    return rc == -EINVAL or rc == -EMSGSIZE or rc == -EIO or rc == -EOPNOTSUPP


cdef inline void send_failed(Worker *w, int rc) noexcept nogil:
    """The kernel did not take one reply."""
    if rc == -EAGAIN or rc == -ENOBUFS:
        fe_count(&w.counters.datagrams_unsent, 1)
    elif rc == -EMSGSIZE:
        fe_count(&w.counters.datagrams_too_long, 1)
    else:
        fe_count(&w.counters.datagrams_failed, 1)
        fe_count_errno(&w.counters, rc)


cdef inline void send_by_pieces(Worker *w, int fd, mmsghdr *train, const Reply *r) noexcept nogil:
    """Sends each datagram of a train for itself."""
    cdef size_t parts = train.msg_hdr.msg_iovlen // r.count if r.parts != NULL else 1
    cdef mmsghdr one = train[0]
    cdef iovec piece
    cdef size_t i
    cdef int rc
    if r.parts == NULL:
        control_single(&one.msg_hdr)
    else:
        one.msg_hdr.msg_controllen = r.control
    one.msg_hdr.msg_iovlen = parts
    for i in range(r.count):
        if r.parts == NULL:
            piece.iov_base = <unsigned char *>train.msg_hdr.msg_iov[0].iov_base + i * r.unit
            piece.iov_len = min(r.unit, r.size - i * r.unit)
            one.msg_hdr.msg_iov = &piece
        else:
            one.msg_hdr.msg_iov = r.parts + i * parts
        rc = sys_sendmmsg(fd, &one, 1)
        if rc < 0:
            send_failed(w, rc)


cdef inline void send_replies(Worker *w, int fd, int n, uint64_t now_ns) noexcept nogil:
    """Sends n replies. One that fails does not keep the others; when there is no room, all that
    are left are lost."""
    cdef Datagrams *d = w.datagrams
    cdef int sent = 0, rc
    cdef bint is_full
    cdef size_t _
    while sent < n:
        rc = sys_sendmmsg(fd, &d.replies[sent], n - sent)
        if rc > 0:
            sent += rc
            continue
        is_full = rc == -EAGAIN or rc == -ENOBUFS
        if d.about[sent].count > 1 and not is_full:
            # Also where another error is told: it may be that of one of them only.
            if is_train_refused(rc):
                d.single_until_ns = now_ns + SINGLE_NS
            send_by_pieces(w, fd, &d.replies[sent], &d.about[sent])
            sent += 1
            continue
        while sent < n:
            for _ in range(d.about[sent].count):
                send_failed(w, rc)
            sent += 1
            if not is_full:
                break


# --- receiving -----------------------------------------------------------------------------

cdef inline void count_refused(Worker *w, int verdict, uint64_t n) noexcept nogil:
    if verdict == FE_REFUSE_PORT:
        fe_count(&w.counters.datagrams_refused_port, n)
    elif verdict == FE_REFUSE_ADDRESS:
        fe_count(&w.counters.datagrams_refused_address, n)
    elif verdict == FE_REFUSE_RATE:
        fe_count(&w.counters.datagrams_refused_rate, n)
    else:
        fe_count(&w.counters.datagrams_refused_loop, n)
    log_trouble(w)


cdef inline iovec *reply_parts(Worker *w, iovec *part, const mmsghdr *received) noexcept nogil:
    """The parts of the reply to a datagram: where it lies, with what is put round it. Result: where
    the next ones go."""
    cdef const fe_guarding *how = w.shared.guarding
    if how.prefix_size:
        part.iov_base = <void *>how.prefix
        part.iov_len = how.prefix_size
        part += 1
    part.iov_base = received.msg_hdr.msg_iov[0].iov_base
    part.iov_len = received.msg_len
    part += 1
    if how.suffix_size:
        part.iov_base = <void *>how.suffix
        part.iov_len = how.suffix_size
        part += 1
    return part


cdef inline bint reply_joins(const Reply *r, const mmsghdr *reply, const mmsghdr *received,
                             size_t size) noexcept nogil:
    """A reply can leave in one train with the one before it: to the same peer, from the same
    address, and not longer than those in front of it, of which none is shorter than another."""
    return (
        r.parts != NULL and size > 0 and size <= r.unit and r.size == r.count * r.unit
        and r.size + size <= TRAIN_SIZE_MAX
        and reply.msg_hdr.msg_namelen == received.msg_hdr.msg_namelen
        and r.control == received.msg_hdr.msg_controllen
        and memcmp(reply.msg_hdr.msg_name, received.msg_hdr.msg_name,
                   reply.msg_hdr.msg_namelen) == 0
        and memcmp(reply.msg_hdr.msg_control, received.msg_hdr.msg_control, r.control) == 0
    )


cdef inline int answer(Worker *w, int fd, int n) noexcept nogil:
    """Answers n datagrams that were received."""
    cdef Datagrams *d = w.datagrams
    cdef const fe_guarding *how = w.shared.guarding
    cdef uint64_t now_ns = _sys.sys_now_ns()
    cdef uint64_t came = 0, left = 0, bytes_in = 0, bytes_out = 0, count
    cdef bint may_join = now_ns >= d.single_until_ns
    cdef size_t size
    cdef iovec *part = d.parts
    cdef iovec *next_part
    cdef mmsghdr *reply
    cdef Reply *r
    cdef fe_datagram one
    cdef int i, verdict, replies = 0
    for i in range(n):
        control_read(&d.received[i].msg_hdr, &one)
        one.is_ipv6 = d.received[i].msg_hdr.msg_namelen == NAME_SIZE
        one.name = d.names[i]
        one.data = <const unsigned char *>d.into[i].iov_base
        one.size = d.received[i].msg_len
        count = fe_datagram_count(&one)
        came += count
        bytes_in += one.size
        verdict = fe_judge(d.guards, how, &one, w.limits.datagram_interval_ns,
                           w.limits.ipv6_prefix, now_ns)
        if verdict != FE_ECHO:
            count_refused(w, verdict, count)
            continue
        size = one.size + how.prefix_size + how.suffix_size
        left += count
        bytes_out += size
        next_part = reply_parts(w, part, &d.received[i])
        reply = &d.replies[max(replies - 1, 0)]
        r = &d.about[max(replies - 1, 0)]
        if may_join and replies and count == 1 and reply_joins(r, reply, &d.received[i], size):
            reply.msg_hdr.msg_iovlen += next_part - part
            r.count += 1
            r.size += size
        else:
            reply = &d.replies[replies]
            r = &d.about[replies]
            reply.msg_hdr = d.received[i].msg_hdr
            reply.msg_hdr.msg_flags = 0
            reply.msg_hdr.msg_iov = part
            reply.msg_hdr.msg_iovlen = next_part - part
            r.count = count
            r.unit = one.segment if count > 1 else size
            r.size = size
            r.control = reply.msg_hdr.msg_controllen
            r.parts = part if count == 1 else NULL
            replies += 1
        part = next_part
    for i in range(replies):
        if d.about[i].count > 1 and d.about[i].parts != NULL:
            control_segments(&d.replies[i].msg_hdr, d.about[i].control, d.about[i].unit)
    # Before the replies leave: who has one finds it counted.
    fe_count(&w.counters.datagrams_in, came)
    fe_count(&w.counters.datagram_bytes_in, bytes_in)
    fe_count(&w.counters.datagrams_out, left)
    fe_count(&w.counters.datagram_bytes_out, bytes_out)
    if replies:
        send_replies(w, fd, replies, now_ns)
    return 0


cdef inline bint datagrams_some(Worker *w, int fd, int batches) noexcept nogil:
    """Receives and answers up to so many batches; True: there may be more."""
    cdef Datagrams *d = w.datagrams
    cdef int _, n
    for _ in range(batches):
        n = sys_recvmmsg(fd, d.received, DATAGRAM_BATCH, 0)
        if n < 0:
            if n != -EAGAIN:
                fe_count_errno(&w.counters, n)
                d.failures += 1
                if d.failures == FAILURES_MAX:
                    datagrams_rest(w)
            return False
        d.failures = 0
        answer(w, fd, n)
        datagrams_ready(d, n)
        if n < DATAGRAM_BATCH:
            return False
    return True


cdef inline void datagrams_event(Worker *w, uint32_t index) noexcept nogil:
    """A socket has datagrams. What is above the budget is told again by the next wait."""
    if w.datagrams.is_watching:
        datagrams_some(w, w.shared.datagrams[index].fd, BATCHES_MAX)


cdef inline void datagrams_end(Worker *w, bint answers) noexcept nogil:
    """Leaves the sockets for good; what has come by then is answered, unless nothing is to be."""
    cdef int i
    if w.datagrams == NULL:
        return
    if answers and w.datagrams.is_watching:
        for i in range(w.shared.datagram_count):
            if is_mine(w, &w.shared.datagrams[i]):
                datagrams_some(w, w.shared.datagrams[i].fd, BATCHES_LAST)
    fe_timers_clear(&w.timers, &w.datagrams.timer)
    datagrams_unwatch(w)
