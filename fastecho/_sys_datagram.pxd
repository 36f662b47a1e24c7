# Thin wrappers of the system calls for datagrams, many at a time.
#
# Lives here: the structs of recvmmsg(2) and sendmmsg(2) and a function for each. The rules of
# _sys.pxd hold: the result is >= 0 or -errno, EINTR is retried here.

from libc.errno cimport EINTR, errno

from fastecho._sys cimport MSG_NOSIGNAL, socklen_t, timespec


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_TRUNC
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int recvmmsg(int fd, mmsghdr *messages, unsigned int n, int flags, timespec *timeout)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int n, int flags)


cdef inline int sys_recvmmsg(int fd, mmsghdr *messages, unsigned int n, int flags) noexcept nogil:
    """How many of n messages were received; waits for none. With MSG_TRUNC msg_len is the size that
    the datagram had, not what there was room for."""
    cdef int rc
    while True:
        rc = recvmmsg(fd, messages, n, flags | MSG_DONTWAIT, NULL)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline int sys_sendmmsg(int fd, mmsghdr *messages, unsigned int n) noexcept nogil:
    """How many of n messages were taken, at least one; -errno is that of the first."""
    cdef int rc
    while True:
        rc = sendmmsg(fd, messages, n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno
