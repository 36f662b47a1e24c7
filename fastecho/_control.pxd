# Control messages: what the kernel tells beside a datagram, and is told beside its reply.
#
# Lives here: reading them, and making of them in their place what goes beside the reply. Does not
# live here: receiving and sending (_udp.pxd), what it means for an answer (src_c/datagram.h).
#
# A reply has the control messages of the datagram that it answers: it leaves from the address that
# was asked, and a train leaves in segments of the size in which it came. What else the kernel tells,
# since somebody has asked for it on a socket that was inherited, is left out: of a time it would
# refuse the reply, and a hop limit would become the reply's.

from libc.stdint cimport uint16_t, uint32_t, uint8_t
from libc.string cimport memcpy, memmove

from fastecho._datagram_cdefs cimport fe_datagram
from fastecho._sys_datagram cimport msghdr


cdef extern from "<sys/socket.h>" nogil:
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    unsigned char *CMSG_DATA(cmsghdr *c)
    cmsghdr *CMSG_FIRSTHDR(msghdr *m)
    cmsghdr *CMSG_NXTHDR(msghdr *m, cmsghdr *c)
    size_t CMSG_LEN(size_t n)
    size_t CMSG_SPACE(size_t n)
    size_t CMSG_SPACE(size_t n)


cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_IP
        IPPROTO_IPV6
        IP_PKTINFO
        IPV6_PKTINFO
    struct in_addr:
        uint32_t s_addr
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    struct in6_addr:
        uint8_t *s6_addr
    struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex


# Of linux/udp.h; older C libraries lack them.
cdef enum:
    SOL_UDP = 17
    UDP_SEGMENT = 103
    UDP_GRO = 104


cdef inline void control_train(cmsghdr *c, fe_datagram *d) noexcept nogil:
    """A train: UDP_GRO has an int, UDP_SEGMENT takes an uint16_t, in the same space."""
    cdef int size
    cdef uint16_t segment
    memcpy(&size, CMSG_DATA(c), sizeof(size))
    segment = <uint16_t>size
    memcpy(CMSG_DATA(c), &segment, sizeof(segment))
    c.cmsg_type = UDP_SEGMENT
    c.cmsg_len = CMSG_LEN(sizeof(segment))
    d.segment = segment


cdef inline void control_target(cmsghdr *c, fe_datagram *d) noexcept nogil:
    """The IPv4 address that was asked. The interface is left to the route."""
    cdef in_pktinfo info
    memcpy(&info, CMSG_DATA(c), sizeof(info))
    # Of a broadcast or a group, spec_dst is an address of ours.
    d.is_to_many = info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr
    info.ipi_ifindex = 0
    memcpy(CMSG_DATA(c), &info, sizeof(info))


cdef inline bint control_target_6(cmsghdr *c, fe_datagram *d) noexcept nogil:
    """The IPv6 address that was asked. A link-local one means nothing without its interface.
    False: it stands for an IPv4 one, which control_target() reads."""
    cdef in6_pktinfo info
    memcpy(&info, CMSG_DATA(c), sizeof(info))
    if is_mapped(info.ipi6_addr.s6_addr):
        return False
    d.is_to_many = info.ipi6_addr.s6_addr[0] == 0xff
    if not (info.ipi6_addr.s6_addr[0] == 0xfe and info.ipi6_addr.s6_addr[1] & 0xc0 == 0x80):
        info.ipi6_ifindex = 0
    memcpy(CMSG_DATA(c), &info, sizeof(info))
    return True


cdef inline bint is_mapped(const uint8_t *address) noexcept nogil:
    """::ffff:a.b.c.d."""
    cdef int i
    for i in range(10):
        if address[i]:
            return False
    return address[10] == 0xff and address[11] == 0xff


cdef inline bint control_one(cmsghdr *c, fe_datagram *d) noexcept nogil:
    """Reads one, and makes of it what goes beside the reply; False: it does not go there."""
    if c.cmsg_level == SOL_UDP and c.cmsg_type == UDP_GRO:
        control_train(c, d)
    elif c.cmsg_level == IPPROTO_IP and c.cmsg_type == IP_PKTINFO:
        control_target(c, d)
    elif c.cmsg_level == IPPROTO_IPV6 and c.cmsg_type == IPV6_PKTINFO:
        return control_target_6(c, d)
    else:
        return False
    return True


cdef inline void control_read(msghdr *m, fe_datagram *d) noexcept nogil:
    """Reads what came beside a datagram, and makes of it what goes beside its reply."""
    cdef unsigned char *end = <unsigned char *>m.msg_control
    cdef cmsghdr *c = CMSG_FIRSTHDR(m)
    cdef cmsghdr *following
    cdef size_t size
    d.segment = 0
    d.is_to_many = False
    while c != NULL:
        following = CMSG_NXTHDR(m, c)
        if control_one(c, d):
            size = CMSG_SPACE(c.cmsg_len - CMSG_LEN(0))
            memmove(end, c, size)
            end += size
        c = following
    m.msg_controllen = end - <unsigned char *>m.msg_control


cdef inline void control_segments(msghdr *m, size_t beside, size_t size) noexcept nogil:
    """The message is a train, to be sent in segments of that size; `beside`: bytes of what else is
    beside it. There is room behind it."""
    cdef uint16_t segment = <uint16_t>size
    cdef cmsghdr *c
    beside = (beside + sizeof(size_t) - 1) & ~(sizeof(size_t) - 1)
    c = <cmsghdr *>(<unsigned char *>m.msg_control + beside)
    c.cmsg_level = SOL_UDP
    c.cmsg_type = UDP_SEGMENT
    c.cmsg_len = CMSG_LEN(sizeof(segment))
    memcpy(CMSG_DATA(c), &segment, sizeof(segment))
    m.msg_controllen = beside + CMSG_SPACE(sizeof(segment))


cdef inline void control_single(msghdr *m) noexcept nogil:
    """The message is one datagram, not a train to be sent in segments."""
    cdef uint16_t none = 0
    cdef cmsghdr *c = CMSG_FIRSTHDR(m)
    while c != NULL:
        if c.cmsg_level == SOL_UDP and c.cmsg_type == UDP_SEGMENT:
            memcpy(CMSG_DATA(c), &none, sizeof(none))
        c = CMSG_NXTHDR(m, c)
