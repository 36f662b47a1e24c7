/*
 * The C servers that discard and chargen are measured against: one thread, one level-triggered epoll.
 *
 * Here lives what such a server needs and nothing else: short sends, half-close and resets are
 * handled, and each connection gets the pattern of RFC 864 from its beginning. No option of fastecho
 * belongs here (limits, timeouts, statistics).
 *
 * Four programs are made of this file (benchmarks/figures/oneway.py compiles them):
 *   -DDISCARD           one recv of up to 256 KiB a turn
 *   -DDISCARD -DTRUNC   the same with MSG_TRUNC: the kernel drops the bytes
 *   -DCHARGEN           one send of 36 periods of the pattern a turn
 *   -DCHARGEN -DSENDFILE    the same by sendfile, from a file in memory
 *
 * Usage: oneway --ready-fd N    binds 127.0.0.1, port 0, and writes "127.0.0.1:PORT\n" to N.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    /* events taken from the kernel in one epoll_wait */
    EVENTS = 1024,
    /* connections accepted before the connections get their turn */
    ACCEPT_BUDGET = 64,
    /* bytes of the pattern: 95 lines of 74; of a turn; of a buffer that has a turn from any place */
    PERIOD = 95 * 74,
    TURN = 36 * PERIOD,
    BUFFER = TURN + PERIOD,
};

static char buffer[BUFFER];
static struct epoll_event events[EVENTS];
/* place in the pattern of each connection, by descriptor; resident where one is in use */
static uint32_t *places;
static int poll_fd;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(4);
}

#ifdef DISCARD
static void begin(void)
{
}

static void serve(int fd, uint32_t happened)
{
    (void)happened;
#ifdef TRUNC
    ssize_t got = recv(fd, buffer, sizeof buffer, MSG_TRUNC);
#else
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
#endif
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        close(fd);
}
#else
static int file = -1;

static void begin(void)
{
    for (int i = 0; i < BUFFER; i++) {
        int line = i % PERIOD / 74, column = i % 74;
        buffer[i] = column == 72 ? '\r' : column == 73 ? '\n' : (char)(' ' + (line + column) % 95);
    }
#ifdef SENDFILE
    file = memfd_create("pattern", MFD_CLOEXEC);
    if (file < 0 || write(file, buffer, BUFFER) != BUFFER)
        die("memfd");
#endif
}

/* At the peer's FIN the stream goes on; only what can be sent is waited for then. */
static void serve(int fd, uint32_t happened)
{
    ssize_t done = -1;
    if (happened & EPOLLIN) {
        static char unwanted[65536];
        if (recv(fd, unwanted, sizeof unwanted, MSG_TRUNC) == 0) {
            struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
            if (epoll_ctl(poll_fd, EPOLL_CTL_MOD, fd, &event) < 0)
                die("epoll_ctl MOD");
        }
    }
    if (!(happened & ~(uint32_t)EPOLLIN))
        return;
    if (file >= 0) {
        off_t at = places[fd];
        done = sendfile(fd, file, &at, TURN);
    } else {
        done = send(fd, buffer + places[fd], TURN, MSG_NOSIGNAL);
    }
    if (done > 0)
        places[fd] = (uint32_t)((places[fd] + (size_t)done) % PERIOD);
    else if (done < 0 && errno != EAGAIN && errno != EINTR)
        close(fd);
}
#endif

static void accept_some(int listener)
{
    for (int budget = ACCEPT_BUDGET; budget > 0; budget--) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
                continue;
            die("accept4");
        }
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
#ifdef CHARGEN
        event.events |= EPOLLOUT;
#endif
        places[fd] = 0;
        if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl ADD");
    }
}

/* Bind and listen on a free loopback port; accepted sockets inherit TCP_NODELAY on Linux. */
static int listen_anywhere(int ready_fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0)
        die("socket");
    if (setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        die("TCP_NODELAY");
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    if (listen(listener, SOMAXCONN) < 0)
        die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("getsockname");
    if (dprintf(ready_fd, "127.0.0.1:%d\n", ntohs(address.sin_port)) < 0)
        die("ready descriptor");
    close(ready_fd);
    return listener;
}

/* One place for each descriptor that the process may own; the soft limit becomes the hard one. */
static void reserve_places(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("setrlimit");
    places = mmap(NULL, limit.rlim_cur * sizeof *places, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (places == MAP_FAILED)
        die("mmap");
}

static _Noreturn void run(int listener)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (poll_fd < 0 || epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");
    for (;;) {
        int count = epoll_wait(poll_fd, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_some(listener);
            else
                serve(events[i].data.fd, events[i].events);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], "--ready-fd") != 0) {
        fprintf(stderr, "usage: %s --ready-fd N\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* sendfile has no MSG_NOSIGNAL */
    reserve_places();
    begin();
    run(listen_anywhere(atoi(argv[2])));
}
