# Thin wrappers of the system calls that the loops make.
#
# Lives here: one inline function a call. The result is >= 0, or -errno taken right at the
# call; EINTR is retried here and nowhere else. Does not live here: any rule about an errno
# (src_c/errors.h), any state.
#
# close() is the exception to the retry: on Linux the descriptor is released even when close
# returns EINTR, and a second close could hit a descriptor that another thread was just given.

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.types cimport off_t


cdef extern from "<sys/types.h>" nogil:
    ctypedef unsigned int mode_t


cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    ctypedef unsigned short sa_family_t
    struct sockaddr:
        sa_family_t sa_family
    struct linger:
        int l_onoff
        int l_linger
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        AF_UNSPEC
        SOL_SOCKET
        SO_ATTACH_FILTER
        SO_LINGER
        SHUT_RD
        SHUT_RDWR
        SHUT_WR
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        MSG_EOR
        MSG_MORE
        MSG_NOSIGNAL
        MSG_TRUNC
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t send(int fd, const void *buf, size_t n, int flags)
    int connect(int fd, const sockaddr *address, socklen_t size)
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)
    int getpeername(int fd, sockaddr *address, socklen_t *size)
    int getsockname(int fd, sockaddr *address, socklen_t *size)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    int shutdown(int fd, int how)


cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_gettid


cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP


cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_INFO
    struct tcp_info:
        uint32_t tcpi_last_data_sent
        uint32_t tcpi_unacked
        uint32_t tcpi_rtt
        uint32_t tcpi_rttvar
        uint32_t tcpi_total_retrans


cdef extern from "<linux/filter.h>" nogil:
    struct sock_filter:
        unsigned short code
        uint8_t jt
        uint8_t jf
        uint32_t k
    struct sock_fprog:
        unsigned short len
        sock_filter *filter


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLEXCLUSIVE
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int n, int timeout)


cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned int value, int flags)


cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)


cdef extern from "<linux/sockios.h>" nogil:
    enum:
        SIOCINQ
        SIOCOUTQ


cdef extern from "<fcntl.h>" nogil:
    enum:
        O_RDONLY
        O_CLOEXEC
    int open(const char *path, int flags, ...)


cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t read(int fd, void *buf, size_t n)
    ssize_t write(int fd, const void *buf, size_t n)
    int getpid()
    long syscall(long number)


cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *value)


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
    int poll(pollfd *fds, unsigned long n, int timeout)


cdef inline ssize_t sys_recv(int fd, void *buf, size_t n) noexcept nogil:
    """Up to n bytes; 0 at the peer's FIN."""
    cdef ssize_t rc
    while True:
        rc = recv(fd, buf, n, 0)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline ssize_t sys_recv_nowhere(int fd, void *buf, size_t n) noexcept nogil:
    """The same for who does not want the bytes. Of TCP the kernel drops them without a copy
    (tcp(7), MSG_TRUNC); of a Unix socket it ignores the flag, so buf has room for n all the same."""
    cdef ssize_t rc
    while True:
        rc = recv(fd, buf, n, MSG_TRUNC)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline ssize_t sys_send(int fd, const void *buf, size_t n) noexcept nogil:
    """Bytes taken, less than n: a short write. Never SIGPIPE."""
    cdef ssize_t rc
    while True:
        rc = send(fd, buf, n, MSG_NOSIGNAL)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline ssize_t sys_send_record(int fd, const void *buf, size_t n) noexcept nogil:
    """The same; what is sent next goes into a segment of its own."""
    cdef ssize_t rc
    while True:
        rc = send(fd, buf, n, MSG_NOSIGNAL | MSG_EOR)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline ssize_t sys_send_more(int fd, const void *buf, size_t n) noexcept nogil:
    """The same; what is sent next, and at once, goes into the same segment."""
    cdef ssize_t rc
    while True:
        rc = send(fd, buf, n, MSG_NOSIGNAL | MSG_MORE)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline int sys_accept(int fd, void *address, socklen_t *size) noexcept nogil:
    """A connected, non-blocking descriptor; address may be NULL."""
    cdef int rc
    while True:
        rc = accept4(fd, <sockaddr *>address, size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline int sys_shutdown(int fd, int how) noexcept nogil:
    return -errno if shutdown(fd, how) < 0 else 0


cdef inline void sys_reset(int fd) noexcept nogil:
    """RST now (a Unix socket just ends), and what is queued is dropped; fd stays open.

    connect() to AF_UNSPEC dissolves a TCP connection at once. The usual way, SO_LINGER 0 and
    close(), acts only when the last duplicate is closed: a forked child could hold one for ever.
    """
    cdef sockaddr nowhere
    cdef linger now = linger(1, 0)
    memset(&nowhere, 0, sizeof(nowhere))
    nowhere.sa_family = AF_UNSPEC
    if connect(fd, &nowhere, sizeof(nowhere)) < 0:
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))
        shutdown(fd, SHUT_RDWR)


cdef inline int sys_close(int fd) noexcept nogil:
    return -errno if close(fd) < 0 else 0


cdef inline void sys_close_once(int *fd) noexcept nogil:
    """Closes a descriptor and forgets it."""
    if fd[0] >= 0:
        sys_close(fd[0])
        fd[0] = -1


cdef inline int sys_epoll_create() noexcept nogil:
    cdef int rc = epoll_create1(EPOLL_CLOEXEC)
    return rc if rc >= 0 else -errno


cdef inline int sys_epoll_ctl(int epfd, int op, int fd, uint32_t events,
                              uint64_t tag) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = tag
    return -errno if epoll_ctl(epfd, op, fd, &event) < 0 else 0


cdef inline int sys_epoll_wait(int epfd, epoll_event *events, int n,
                               int timeout_ms) noexcept nogil:
    """Events delivered. A signal ends the wait with 0: the caller computes its timeout anew."""
    cdef int rc = epoll_wait(epfd, events, n, timeout_ms)
    if rc >= 0:
        return rc
    return 0 if errno == EINTR else -errno


cdef inline int sys_eventfd() noexcept nogil:
    cdef int rc = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    return rc if rc >= 0 else -errno


cdef inline void sys_eventfd_raise(int fd) noexcept nogil:
    """Wakes whoever waits for fd. A full counter (EAGAIN) has woken it already."""
    cdef uint64_t one = 1
    while write(fd, &one, sizeof(one)) < 0 and errno == EINTR:
        pass


cdef inline void sys_eventfd_clear(int fd) noexcept nogil:
    cdef uint64_t value
    while read(fd, &value, sizeof(value)) < 0 and errno == EINTR:
        pass


cdef inline int sys_open_null() noexcept nogil:
    """A descriptor that only takes up a place."""
    cdef int rc
    while True:
        rc = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline uint32_t sys_ready(int fd, uint32_t events) noexcept nogil:
    """What epoll would say of EPOLLIN and EPOLLOUT now; poll(2) has the same bits for them."""
    cdef pollfd entry = pollfd(fd, <short>events, 0)
    return <uint32_t>entry.revents if poll(&entry, 1, 0) > 0 else 0


cdef inline int sys_wait_readable(int fd, int timeout_ms) noexcept nogil:
    """1: readable, 0: timeout or a signal."""
    cdef pollfd entry = pollfd(fd, POLLIN, 0)
    cdef int rc = poll(&entry, 1, timeout_ms)
    if rc >= 0:
        return rc
    return 0 if errno == EINTR else -errno


cdef inline uint64_t sys_now_ns() noexcept nogil:
    """CLOCK_MONOTONIC in ns."""
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


cdef inline timespec sys_time_in(uint64_t ms) noexcept nogil:
    """CLOCK_MONOTONIC in so many ms."""
    cdef uint64_t at_ns = sys_now_ns() + ms * 1000000
    cdef timespec t
    t.tv_sec = <long>(at_ns // 1000000000)
    t.tv_nsec = <long>(at_ns % 1000000000)
    return t


cdef inline int sys_tcp_info(int fd, tcp_info *info) noexcept nogil:
    """What the kernel knows of a TCP socket, zeroes where it knows less; 0 or -errno."""
    cdef socklen_t size = sizeof(info[0])
    memset(info, 0, sizeof(info[0]))
    return -errno if getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) < 0 else 0


cdef inline int sys_peer_name(int fd, void *address, socklen_t *size) noexcept nogil:
    """The peer's address; 0 or -errno (-ENOTCONN: it is gone)."""
    return -errno if getpeername(fd, <sockaddr *>address, size) < 0 else 0


cdef inline int sys_own_name(int fd, void *address, socklen_t *size) noexcept nogil:
    """Our own address; 0 or -errno."""
    return -errno if getsockname(fd, <sockaddr *>address, size) < 0 else 0


cdef inline int sys_accept_queue_wait_ms(int fd) noexcept nogil:
    """Milliseconds since the handshake ended, asked right after accept (in steps of the
    kernel's tick); -EOPNOTSUPP on Unix sockets."""
    cdef tcp_info info
    cdef int rc = sys_tcp_info(fd, &info)
    return rc if rc < 0 else <int>info.tcpi_last_data_sent


cdef inline int sys_listen_depth(int listener) noexcept nogil:
    """Connections in a TCP listener's accept queue; -errno, -EOPNOTSUPP of a Unix listener."""
    cdef tcp_info info
    cdef int rc = sys_tcp_info(listener, &info)
    return rc if rc < 0 else <int>info.tcpi_unacked


cdef enum:
    # CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED of the kernel's posix-timers.h.
    THREAD_CPU_CLOCK = 6


cdef inline int64_t sys_tid() noexcept nogil:
    """Number of this thread in the kernel. (glibc has gettid() from 2.30 on only.)"""
    return syscall(SYS_gettid)


cdef inline int64_t sys_cpu_of_thread_ns(int64_t tid) noexcept nogil:
    """CPU time of a thread of this process by its number, in ns; -errno where it is no more.

    The clock's number is that of pthread_getcpuclockid(3), which wants a thread that lives: here
    the kernel looks. It is ~tid << 3 with the clock's kind below, and negative.
    """
    cdef timespec t
    if clock_gettime(<int>((-tid - 1) * 8 + THREAD_CPU_CLOCK), &t) < 0:
        return -errno
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef inline int sys_unsent(int fd) noexcept nogil:
    """Bytes that the peer has not acknowledged (a Unix socket: not read) yet; 0 on any error."""
    cdef int n = 0
    return n if ioctl(fd, SIOCOUTQ, &n) == 0 else 0


cdef inline int sys_unread(int fd) noexcept nogil:
    """Bytes that can be read; 0 on any error."""
    cdef int n = 0
    return n if ioctl(fd, SIOCINQ, &n) == 0 else 0


cdef inline int sys_drop_new_connections(int listener) noexcept nogil:
    """Attaches a filter to a TCP listener: SYNs are dropped, handshakes under way end.

    A close() of a listener resets every connection that is in its accept queue or about to
    enter it. With this filter nothing new begins, and what has begun can be accepted first.
    Classic BPF, needs no privilege. The filter sees the TCP header at offset 0; accepted
    sockets inherit it, where it never matches.
    """
    cdef sock_filter code[5]
    cdef sock_fprog program
    code[0] = sock_filter(0x30, 0, 0, 13)           # ldb [13]: the flags
    code[1] = sock_filter(0x54, 0, 0, 0x12)         # and SYN|ACK
    code[2] = sock_filter(0x15, 0, 1, 0x02)         # is it a SYN without ACK?
    code[3] = sock_filter(0x06, 0, 0, 0)            # yes: drop
    code[4] = sock_filter(0x06, 0, 0, 0xFFFFFFFF)   # no: keep all of it
    program.len = 5
    program.filter = code
    if setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0:
        return -errno
    return 0


# --- what only a client needs --------------------------------------------------------------

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SO_ERROR
        SOCK_STREAM
    int socket(int family, int kind, int protocol)
    int bind(int fd, const sockaddr *address, socklen_t size)


cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_IP
        IP_BIND_ADDRESS_NO_PORT


cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY


cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLET


cdef extern from "<sys/timerfd.h>" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value
    enum:
        TFD_CLOEXEC
        TFD_NONBLOCK
        TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *new, itimerspec *old)


cdef extern from "<sys/mman.h>" nogil:
    enum:
        MFD_CLOEXEC
        MAP_ANONYMOUS
        MAP_PRIVATE
        MAP_SHARED
        PROT_READ
        PROT_WRITE
    void *MAP_FAILED
    int memfd_create(const char *name, unsigned int flags)
    void *mmap(void *where, size_t n, int protection, int flags, int fd, off_t at)
    int munmap(void *where, size_t n)


cdef extern from "<sys/sendfile.h>" nogil:
    ssize_t sendfile(int out, int fd, off_t *at, size_t n)


cdef extern from "<unistd.h>" nogil:
    int ftruncate(int fd, off_t n)


cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_THREAD_CPUTIME_ID


cdef inline int sys_socket(int family) noexcept nogil:
    """A stream socket, non-blocking; TCP sends at once (no Nagle delay)."""
    cdef int one = 1
    cdef int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -errno
    if family != AF_UNIX:
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    return fd


cdef inline int sys_bind_source(int fd, const void *address, socklen_t size) noexcept nogil:
    """Sets the local address, port 0. The port is chosen at connect, when the kernel knows the
    other end: it need only be free towards that end (without the option: on the host)."""
    cdef int one = 1
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
    return -errno if bind(fd, <const sockaddr *>address, size) < 0 else 0


cdef inline int sys_connect(int fd, const void *address, socklen_t size) noexcept nogil:
    """0: connected; -EINPROGRESS: writable when it is decided; a non-blocking connect does not
    sleep, so there is no EINTR. -EAGAIN: the backlog of a Unix socket is full."""
    return -errno if connect(fd, <const sockaddr *>address, size) < 0 else 0


cdef inline int sys_socket_error(int fd) noexcept nogil:
    """0, or -errno of what went wrong on a socket (a connect, a reset)."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0:
        return -errno
    return -error


cdef inline ssize_t sys_sendfile(int fd, int source, uint64_t at, size_t n) noexcept nogil:
    """Bytes of source, from offset `at`, that the socket took. Never SIGPIPE: the caller's
    thread has it ignored, as CPython does from its start."""
    cdef off_t offset = <off_t>at
    cdef ssize_t rc
    while True:
        rc = sendfile(fd, source, &offset, n)
        if rc >= 0:
            return rc
        if errno != EINTR:
            return -errno


cdef inline int sys_timerfd() noexcept nogil:
    """A descriptor that turns readable at a time of CLOCK_MONOTONIC; not set at first."""
    cdef int rc = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
    return rc if rc >= 0 else -errno


cdef inline int sys_timerfd_set(int fd, uint64_t at_ns) noexcept nogil:
    """Readable once from at_ns on; no longer readable before."""
    cdef itimerspec when
    memset(&when, 0, sizeof(when))
    when.it_value.tv_sec = <long>(at_ns // 1000000000)
    when.it_value.tv_nsec = <long>(at_ns % 1000000000)
    return -errno if timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL) < 0 else 0


cdef inline int sys_memory_file(size_t n) noexcept nogil:
    """A descriptor of n bytes of zeroed memory."""
    cdef int rc
    cdef int fd = memfd_create(b"fastecho", MFD_CLOEXEC)
    if fd < 0:
        return -errno
    if ftruncate(fd, <off_t>n) < 0:
        rc = -errno
        close(fd)
        return rc
    return fd


cdef inline void *sys_map(int fd, size_t n) noexcept nogil:
    """n bytes of zeroed memory, or of the file fd if fd >= 0; NULL: there is none left."""
    cdef int flags = MAP_SHARED if fd >= 0 else MAP_PRIVATE | MAP_ANONYMOUS
    cdef void *where = mmap(NULL, n, PROT_READ | PROT_WRITE, flags, fd, 0)
    return NULL if where == MAP_FAILED else where


cdef inline void sys_unmap(void *where, size_t n) noexcept nogil:
    munmap(where, n)


cdef inline uint64_t sys_thread_cpu_ns() noexcept nogil:
    """CPU time of the calling thread, user and system, in ns."""
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec
