# The PROXY header by which a load's connection begins, as a proxy's would: its own two addresses.
#
# Lives here: asking the kernel for them, and sending the header. Does not live here: its form
# (src_c/proxy.h), when it is sent (_load_connection.pxd).

from libc.errno cimport ECONNRESET, ENOTCONN, EPIPE
from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcpy, memset

from fastecho._cdefs cimport *
cimport fastecho._sys as _sys


cdef inline int proxy_announce(int fd, uint8_t version, bint more) noexcept nogil:
    """Sends the header of a socket that has just connected. more: a message follows at once,
    and is to stand in the same segment. 0 or -errno: a part of it is none, -EPIPE."""
    cdef unsigned char ours[FE_ADDRESS_MAX]
    cdef unsigned char theirs[FE_ADDRESS_MAX]
    cdef unsigned char header[FE_PROXY_MAX]
    cdef _sys.socklen_t size = sizeof(ours)
    cdef fe_proxy p
    cdef size_t n
    cdef ssize_t taken
    cdef int rc = _sys.sys_own_name(fd, ours, &size)
    if rc == 0:
        size = sizeof(theirs)
        rc = _sys.sys_peer_name(fd, theirs, &size)
    if rc < 0:
        return -ECONNRESET if rc == -ENOTCONN else rc
    memset(&p, 0, sizeof(p))
    p.version = version
    # Port and address of sockaddr_in stand at bytes 2 and 4, of sockaddr_in6 at 2 and 8.
    if (<_sys.sockaddr *>ours).sa_family == _sys.AF_INET:
        p.family = FE_PROXY_INET
        memcpy(p.source, ours + 4, 4)
        memcpy(p.destination, theirs + 4, 4)
    elif (<_sys.sockaddr *>ours).sa_family == _sys.AF_INET6:
        p.family = FE_PROXY_INET6
        memcpy(p.source, ours + 8, 16)
        memcpy(p.destination, theirs + 8, 16)
    else:
        p.is_local = True
    if not p.is_local:
        p.source_port = <uint16_t>(ours[2] << 8 | ours[3])
        p.destination_port = <uint16_t>(theirs[2] << 8 | theirs[3])
    n = fe_proxy_write(&p, header, header, header, sizeof(header))
    taken = _sys.sys_send_more(fd, header, n) if more else _sys.sys_send(fd, header, n)
    if taken < 0:
        return <int>taken
    return 0 if <size_t>taken == n else -EPIPE
