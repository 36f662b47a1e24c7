/*
 * The C server that fastecho is measured against: one thread, one level-triggered epoll, raw echo.
 *
 * Here lives what an echo server of this shape needs and nothing else; it takes no shortcut that
 * would make it wrong: short sends, half-close and resets are handled, nobody's bytes are lost.
 * No option of fastecho belongs here (frames, limits, timeouts, statistics).
 *
 * Four programs are made of this file (benchmarks/_build.py compiles them):
 *   -DBUFFER_SIZE=65536                          one recv of up to 64 KiB, one send
 *   -DBUFFER_SIZE=262144                         one recv of up to 256 KiB, one send
 *   -DBUFFER_SIZE=262144 -DBULK_MARK=32768       a recv of 32 KiB or more marks bulk: go on
 *                                                receiving into the buffer, then one send
 *   -DBUFFER_SIZE=524288 -DBULK_MARK=32768       the same into twice as much
 * and one for the reader of the bulk figures, -DIDLE_US=20: it wastes 20 us after each bulk recv.
 *
 * The likely path is three system calls for each batch of messages: epoll_wait once, recv and send
 * for each connection. It touches no record of the connection: EPOLLIN is asked for only while
 * nothing is pending, so EPOLLIN itself says that the answer can be sent at once.
 *
 * Usage: echo --ready-fd N      binds 127.0.0.1, port 0, and writes "127.0.0.1:PORT\n" to N.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef BUFFER_SIZE
#error "say -DBUFFER_SIZE=bytes"
#endif
#ifndef BULK_MARK
#define BULK_MARK 0
#endif
#ifndef IDLE_US
#define IDLE_US 0
#endif

enum {
    /* events taken from the kernel in one epoll_wait */
    EVENTS = 1024,
    /* connections accepted before the connections get their turn */
    ACCEPT_BUDGET = 64,
};

/* What a connection needs beyond its descriptor; it is found by the descriptor. */
struct connection {
    /* bytes that send did not take, from malloc; NULL while nothing is pending */
    char *pending;
    /* bytes of pending that are already sent */
    uint32_t sent;
    /* bytes in pending */
    uint32_t length;
};

static char buffer[BUFFER_SIZE];
static struct epoll_event events[EVENTS];
/* indexed by descriptor; reserved for all, resident only where a descriptor is in use */
static struct connection *connections;
static int poll_fd;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(4);
}

/* Ask for `wanted` from now on. Only called when the mask changes. */
static void watch(int fd, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.fd = fd};
    if (epoll_ctl(poll_fd, EPOLL_CTL_MOD, fd, &event) < 0)
        die("epoll_ctl MOD");
}

/* Release the connection. The kernel takes the descriptor out of the epoll: it is the only copy. */
static void release(int fd)
{
    free(connections[fd].pending);
    connections[fd].pending = NULL;
    close(fd);
}

/* Keep what send did not take and wait until the peer takes it; reading stops until then. */
static void keep(int fd, const char *rest, size_t length)
{
    char *copy = malloc(length);
    if (copy == NULL)
        die("malloc");
    memcpy(copy, rest, length);
    connections[fd] = (struct connection){.pending = copy, .sent = 0, .length = (uint32_t)length};
    watch(fd, EPOLLOUT);
}

/* Send more of what is pending; when all is sent, read again. An end of file waits until then. */
static void flush(int fd)
{
    struct connection *conn = &connections[fd];
    ssize_t sent = send(fd, conn->pending + conn->sent, conn->length - conn->sent, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            release(fd);
        return;
    }
    conn->sent += (uint32_t)sent;
    if (conn->sent < conn->length)
        return;
    free(conn->pending);
    conn->pending = NULL;
    watch(fd, EPOLLIN);
}

/* Receive into the buffer: its bytes, 0 at the end of the stream, -1 with errno set.
 * What ends a bulk read (nothing more, end of stream, an error) is met again at the next wait. */
static ssize_t receive(int fd)
{
    ssize_t got = recv(fd, buffer, BUFFER_SIZE, 0);
#if BULK_MARK
    ssize_t filled = got;
    while (got >= BULK_MARK && filled < BUFFER_SIZE) {
        got = recv(fd, buffer + filled, (size_t)(BUFFER_SIZE - filled), 0);
        if (got > 0)
            filled += got;
    }
    return filled;
#else
    return got;
#endif
}

#if IDLE_US
/* Let IDLE_US microseconds pass. */
static void waste_time(void)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec
           < IDLE_US * 1000L);
}
#endif

static void echo(int fd)
{
    ssize_t got = receive(fd);
#if IDLE_US
    if (got >= 32 * 1024)
        waste_time();
#endif
    if (got > 0) {
        ssize_t sent = send(fd, buffer, (size_t)got, MSG_NOSIGNAL);
        if (sent == got)
            return;
        if (sent >= 0 || errno == EAGAIN || errno == EINTR) {
            size_t done = sent > 0 ? (size_t)sent : 0;
            keep(fd, buffer + done, (size_t)got - done);
            return;
        }
    } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    release(fd);
}

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

/* One record for each descriptor that the process may own; the soft limit becomes the hard one. */
static void reserve_records(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("setrlimit");
    connections = mmap(NULL, limit.rlim_cur * sizeof *connections, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (connections == MAP_FAILED)
        die("mmap");
}

static _Noreturn void serve(int listener)
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
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_some(listener);
            else if (events[i].events & EPOLLIN || connections[fd].pending == NULL)
                echo(fd);
            else
                flush(fd);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], "--ready-fd") != 0) {
        fprintf(stderr, "usage: %s --ready-fd N\n", argv[0]);
        return 2;
    }
    reserve_records();
    serve(listen_anywhere(atoi(argv[2])));
}
