/*
 * The C load generator that fastecho's is measured against: one thread, one level-triggered epoll,
 * a closed loop with one message outstanding on each connection, every byte verified.
 *
 * Here lives what such a generator needs and nothing else. It shares no line with fastecho: its
 * own bytes, its own histogram. Messages differ from each other, so that a stale or swapped reply
 * is noticed; a wrong byte, an end of file or an error ends the program with a sentence.
 *
 * The likely path is a recv, a compare, a look at the clock and a send for each message, and an
 * epoll_wait for each batch: no generator with this interface does less.
 *
 * Usage: load --port P --connections N --size B --ready-fd N
 *        connects to 127.0.0.1:P and writes "ready\n" to N. Then each line of stdin is a number of
 *        seconds to send for; the answer is a line of JSON. End of file ends it.
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 512,
    BUFFER_SIZE = 65536,
    /* places at which a message may start in the noise; a power of two */
    STARTS = 32768,
    LARGEST = 65536,
    /* buckets: 64 to each doubling of a latency in ns */
    SUB_BITS = 6,
    BUCKETS = 64 << SUB_BITS,
};

struct connection {
    int fd;
    /* messages begun; decides where the message stands in the noise */
    uint32_t number;
    /* bytes of the reply that came */
    size_t received;
    /* when the message was sent, in ns */
    uint64_t sent_ns;
};

static unsigned char noise[STARTS + LARGEST], buffer[BUFFER_SIZE];
static struct epoll_event events[EVENTS];
static uint64_t buckets[BUCKETS];
static struct connection *connections;
static int poll_fd, count;
static size_t size;
static uint64_t messages, outstanding, end_ns;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(4);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static const unsigned char *message_of(const struct connection *conn)
{
    return noise + ((conn->number * 7919u + (uint32_t)(conn - connections) * 104729u) % STARTS);
}

static void record(uint64_t ns)
{
    unsigned shift = ns < 64 ? 0 : 57u - (unsigned)__builtin_clzll(ns);
    buckets[((uint64_t)shift << SUB_BITS) + (ns >> shift)]++;
}

/* The middle of the bucket in which the share of all values is reached, in ns. */
static double percentile(double share)
{
    uint64_t seen = 0;
    for (uint64_t i = 0; i < BUCKETS; i++) {
        seen += buckets[i];
        if (seen > 0 && (double)seen >= share * (double)messages) {
            unsigned shift = i < 128 ? 0 : (unsigned)(i >> SUB_BITS) - 1;
            return (double)((i - ((uint64_t)shift << SUB_BITS)) << shift) +
                   (double)((uint64_t)1 << shift) / 2;
        }
    }
    return 0;
}

static void send_next(struct connection *conn, uint64_t now_ns)
{
    ssize_t n;
    conn->number++;
    conn->received = 0;
    conn->sent_ns = now_ns;
    n = send(conn->fd, message_of(conn), size, MSG_NOSIGNAL);
    /* one message fits into an empty socket buffer: a short send is no case of this load */
    if (n != (ssize_t)size)
        die("send");
    outstanding++;
}

static void receive(struct connection *conn)
{
    ssize_t n = recv(conn->fd, buffer, BUFFER_SIZE, 0);
    uint64_t now_ns;
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 || conn->received + (size_t)n > size ||
        memcmp(buffer, message_of(conn) + conn->received, (size_t)n) != 0) {
        fprintf(stderr, "load: connection %d: wrong reply (recv %zd)\n",
                (int)(conn - connections), n);
        exit(1);
    }
    conn->received += (size_t)n;
    if (conn->received < size)
        return;
    now_ns = clock_ns(CLOCK_MONOTONIC);
    record(now_ns - conn->sent_ns);
    messages++;
    outstanding--;
    if (now_ns < end_ns)
        send_next(conn, now_ns);
}

static void run(double seconds)
{
    uint64_t cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
    messages = 0;
    memset(buckets, 0, sizeof(buckets));
    end_ns = start_ns + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < count; i++)
        send_next(&connections[i], clock_ns(CLOCK_MONOTONIC));
    while (outstanding > 0) {
        int n = epoll_wait(poll_fd, events, EVENTS, 10000);
        if (n <= 0)
            die(n == 0 ? "no reply within 10 s" : "epoll_wait");
        for (int i = 0; i < n; i++)
            receive(events[i].data.ptr);
    }
    printf("{\"messages\": %llu, \"total_ns\": %llu, \"cpu_ns\": %llu, \"p50_ns\": %.0f, "
           "\"p99_ns\": %.0f}\n",
           (unsigned long long)messages,
           (unsigned long long)(clock_ns(CLOCK_MONOTONIC) - start_ns),
           (unsigned long long)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns), percentile(0.5),
           percentile(0.99));
    fflush(stdout);
}

static void connect_one(struct connection *conn, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    conn->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (conn->fd < 0 || connect(conn->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die("connect");
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, conn->fd, &event) < 0)
        die("epoll_ctl");
}

int main(int argc, char **argv)
{
    int port = 0, ready_fd = -1;
    char line[100];
    uint32_t state = 1;

    for (int i = 1; i + 1 < argc; i += 2) {
        int value = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--port") == 0)
            port = value;
        else if (strcmp(argv[i], "--connections") == 0)
            count = value;
        else if (strcmp(argv[i], "--size") == 0)
            size = (size_t)value;
        else if (strcmp(argv[i], "--ready-fd") == 0)
            ready_fd = value;
    }
    if (port <= 0 || count <= 0 || size == 0 || size > LARGEST) {
        fprintf(stderr, "usage: load --port P --connections N --size B --ready-fd N\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(noise); i++) {
        state = state * 1664525u + 1013904223u;
        noise[i] = (unsigned char)(state >> 24);
    }
    connections = calloc((size_t)count, sizeof(*connections));
    poll_fd = epoll_create1(0);
    if (connections == NULL || poll_fd < 0)
        die("start");
    for (int i = 0; i < count; i++)
        connect_one(&connections[i], port);
    if (ready_fd >= 0 && dprintf(ready_fd, "ready\n") < 0)
        die("ready");
    if (ready_fd >= 0)
        close(ready_fd);
    while (fgets(line, sizeof(line), stdin) != NULL)
        run(atof(line));
    return 0;
}
