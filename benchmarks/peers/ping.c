/*
 * The C client that `fastecho ping` is measured against: one connection, one message under way.
 *
 * Here lives a ping-pong of blocking send and recv between two readings of the clock, and nothing
 * else: bytes are compared after the second reading, the times are sorted at the end. Messages
 * are sent on a fixed schedule, or each when the one before has come back (interval 0).
 *
 * Usage: ping PORT COUNT INTERVAL_US     connects to 127.0.0.1 and prints "P50_NS P99_NS\n".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    /* bytes of a message */
    SIZE = 64,
};

static void fail(const char *what)
{
    fprintf(stderr, "ping: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sleep_until(int64_t ns)
{
    const struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* Orders two times for qsort. */
static int compare(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Returns a connection to a port of 127.0.0.1. */
static int connect_to(int port)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    const int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail("socket");
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        fail("TCP_NODELAY");
    if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
        fail("connect");
    return fd;
}

/* Sends one message and receives it; returns how long that took. */
static int64_t exchange(int fd, const char *message)
{
    char reply[SIZE + 1];
    ssize_t sent, came;
    int64_t began, ended;

    began = now_ns();
    sent = send(fd, message, SIZE, 0);
    came = recv(fd, reply, sizeof(reply), 0);
    ended = now_ns();
    if (sent != SIZE || came < 0)
        fail("send or recv");
    if (came != SIZE || memcmp(reply, message, SIZE) != 0) {
        fprintf(stderr, "ping: %zd bytes came back, or wrong ones\n", came);
        exit(1);
    }
    return ended - began;
}

int main(int argc, char **argv)
{
    if (argc != 4 || atol(argv[2]) < 1) {
        fprintf(stderr, "usage: ping PORT COUNT INTERVAL_US\n");
        return 2;
    }
    const long count = atol(argv[2]);
    const int64_t interval_ns = atoll(argv[3]) * 1000;
    const int fd = connect_to(atoi(argv[1]));
    int64_t *times = malloc((size_t)count * sizeof(*times));
    char message[SIZE];

    if (times == NULL)
        fail("malloc");
    const int64_t start = now_ns();
    for (long i = 0; i < count; i++) {
        memset(message, 'a' + (int)(i % 26), sizeof(message));
        if (interval_ns > 0)
            sleep_until(start + i * interval_ns);
        times[i] = exchange(fd, message);
    }
    qsort(times, (size_t)count, sizeof(*times), compare);
    printf("%lld %lld\n", (long long)times[(count - 1) / 2],
           (long long)times[(count - 1) * 99 / 100]);
    free(times);
    close(fd);
    return 0;
}
