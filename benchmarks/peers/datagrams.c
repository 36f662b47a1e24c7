/*
 * The C server that fastecho's UDP echo is measured against: one thread, one epoll, recvmmsg and
 * sendmmsg of up to 64 datagrams.
 *
 * Here lives what such a server needs and nothing else: no guards, no counters, no packet info.
 * Every datagram goes back to where it came from; what the kernel does not take is lost.
 *
 * Usage: datagrams --ready-fd N      binds 127.0.0.1, port 0, and writes "127.0.0.1:PORT\n" to N.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    /* datagrams of one call */
    BATCH = 64,
    /* the longest one */
    SIZE = 65536,
    /* kernel memory of the socket, as fastecho asks for */
    RECEIVE_BUFFER = 4 * 1024 * 1024,
};

static char bytes[BATCH][SIZE];
static struct sockaddr_in names[BATCH];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(4);
}

/* Receive a batch and send it back. Result: whether there may be more. */
static int echo(int fd)
{
    int received, sent, done = 0;

    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){bytes[i], SIZE};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &names[i],
                                              .msg_namelen = sizeof(names[i]),
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1};
    }
    received = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (received <= 0)
        return 0;
    for (int i = 0; i < received; i++)
        parts[i].iov_len = messages[i].msg_len;
    while (done < received) {
        sent = sendmmsg(fd, messages + done, (unsigned)(received - done), MSG_DONTWAIT);
        done += sent > 0 ? sent : 1;
    }
    return received == BATCH;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    struct epoll_event event = {.events = EPOLLIN};
    int buffer = RECEIVE_BUFFER;
    char line[64];
    int fd, poll_fd, ready_fd, length;

    if (argc != 3 || strcmp(argv[1], "--ready-fd") != 0)
        die("usage: datagrams --ready-fd N");
    ready_fd = atoi(argv[2]);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die("bind");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) < 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)) < 0)
        die("SO_RCVBUF");
    poll_fd = epoll_create1(0);
    if (poll_fd < 0 || epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll");
    getsockname(fd, (struct sockaddr *)&address, &size);
    length = snprintf(line, sizeof(line), "127.0.0.1:%d\n", ntohs(address.sin_port));
    if (write(ready_fd, line, (size_t)length) != length)
        die("ready");
    close(ready_fd);
    for (;;) {
        if (epoll_wait(poll_fd, &event, 1, -1) < 0 && errno != EINTR)
            die("epoll_wait");
        while (echo(fd))
            ;
    }
}
