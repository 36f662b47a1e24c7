/*
 * The C load generator that fastecho's is measured against: one thread, one level-triggered epoll,
 * one message outstanding on each connection, every byte verified. A closed loop, or an open one.
 *
 * Here lives what such a generator needs and nothing else. It shares no line with fastecho: its
 * own bytes, its own histogram. Messages differ from each other, so that a stale or swapped reply
 * is noticed; a wrong byte, an end of file or an error ends the program with a sentence.
 *
 * The likely path is a recv, a compare, a look at the clock and a send for each message, and an
 * epoll_wait for each batch: no generator with this interface does less.
 *
 * In the open loop message i is due i / R seconds after the start. It goes to the connection that
 * has been free longest, and waits when none is free; its latency counts from when it was due, its
 * service time from when it was sent. Between messages the loop polls: it never sleeps.
 *
 * Usage: load --port P --connections N --size B [--rate R] --ready-fd N
 *        connects to 127.0.0.1:P and writes "ready\n" to N. Then each line of stdin is a number of
 *        seconds to send for; the answer is a line of JSON. End of file ends it. R is messages/s
 *        over all connections; without it, or with 0, the loop is closed.
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
    /* seconds without a reply that is due */
    TIMEOUT = 10,
};

struct connection {
    int fd;
    /* messages begun; decides where the message stands in the noise */
    uint32_t number;
    /* bytes of the reply that came */
    size_t received;
    /* when the message was due, and when it was sent, in ns; in a closed loop the same */
    uint64_t due_ns, sent_ns;
};

struct histogram {
    uint64_t buckets[BUCKETS];
    uint64_t count;
};

static unsigned char noise[STARTS + LARGEST], buffer[BUFFER_SIZE];
static struct epoll_event events[EVENTS];
static struct histogram latency, service;
static struct connection *connections;
static int poll_fd, count;
static size_t size;
static uint64_t outstanding, end_ns;
/* open loop: messages per second, 0 in a closed loop; and the connections that are free, in the
 * order in which they became so, a ring of `count` places */
static double rate;
static struct connection **free_ring;
static int free_first, free_count;

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

static void record(struct histogram *h, uint64_t ns)
{
    unsigned shift = ns < 64 ? 0 : 57u - (unsigned)__builtin_clzll(ns);
    h->buckets[((uint64_t)shift << SUB_BITS) + (ns >> shift)]++;
    h->count++;
}

/* The middle of the bucket in which the share of all values is reached, in ns; 0 without any. */
static double percentile(const struct histogram *h, double share)
{
    uint64_t seen = 0;
    for (uint64_t i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > 0 && (double)seen >= share * (double)h->count) {
            unsigned shift = i < 128 ? 0 : (unsigned)(i >> SUB_BITS) - 1;
            return (double)((i - ((uint64_t)shift << SUB_BITS)) << shift) +
                   (double)((uint64_t)1 << shift) / 2;
        }
    }
    return 0;
}

static void release(struct connection *conn)
{
    free_ring[(free_first + free_count++) % count] = conn;
}

static struct connection *take_free(void)
{
    struct connection *conn = free_ring[free_first];
    free_first = (free_first + 1) % count;
    free_count--;
    return conn;
}

static void send_next(struct connection *conn, uint64_t due_ns, uint64_t now_ns)
{
    ssize_t n;
    conn->number++;
    conn->received = 0;
    conn->due_ns = due_ns;
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
    record(&latency, now_ns - conn->due_ns);
    outstanding--;
    if (rate > 0) {
        record(&service, now_ns - conn->sent_ns);
        release(conn);
    } else if (now_ns < end_ns) {
        send_next(conn, now_ns, now_ns);
    }
}

/* One epoll_wait and all its replies. How many. */
static int receive_all(int timeout_ms)
{
    int n = epoll_wait(poll_fd, events, EVENTS, timeout_ms);
    if (n < 0)
        die("epoll_wait");
    for (int i = 0; i < n; i++)
        receive(events[i].data.ptr);
    return n;
}

static _Noreturn void die_silent(void)
{
    fprintf(stderr, "load: no reply within %d s\n", TIMEOUT);
    exit(4);
}

static void run_closed(void)
{
    for (int i = 0; i < count; i++) {
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        send_next(&connections[i], now_ns, now_ns);
    }
    while (outstanding > 0)
        if (receive_all(TIMEOUT * 1000) == 0)
            die_silent();
}

static void run_open(uint64_t start_ns)
{
    uint64_t number = 0, due_ns = start_ns, now_ns = start_ns;
    while (due_ns < end_ns || outstanding > 0) {
        while (due_ns < end_ns && due_ns <= now_ns && free_count > 0) {
            send_next(take_free(), due_ns, now_ns);
            due_ns = start_ns + (uint64_t)((double)++number * 1e9 / rate);
            now_ns = clock_ns(CLOCK_MONOTONIC);
        }
        receive_all(0);
        now_ns = clock_ns(CLOCK_MONOTONIC);
        if (now_ns > end_ns + TIMEOUT * UINT64_C(1000000000))
            die_silent();
    }
}

static void run(double seconds)
{
    uint64_t cpu_ns, start_ns;
    memset(&latency, 0, sizeof(latency));
    memset(&service, 0, sizeof(service));
    cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    start_ns = clock_ns(CLOCK_MONOTONIC);
    end_ns = start_ns + (uint64_t)(seconds * 1e9);
    if (rate > 0)
        run_open(start_ns);
    else
        run_closed();
    printf("{\"messages\": %llu, \"total_ns\": %llu, \"cpu_ns\": %llu, \"p50_ns\": %.0f, "
           "\"p99_ns\": %.0f, \"service_p50_ns\": %.0f, \"service_p99_ns\": %.0f}\n",
           (unsigned long long)latency.count,
           (unsigned long long)(clock_ns(CLOCK_MONOTONIC) - start_ns),
           (unsigned long long)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns),
           percentile(&latency, 0.5), percentile(&latency, 0.99), percentile(&service, 0.5),
           percentile(&service, 0.99));
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
        else if (strcmp(argv[i], "--rate") == 0)
            rate = atof(argv[i + 1]);
        else if (strcmp(argv[i], "--ready-fd") == 0)
            ready_fd = value;
    }
    if (port <= 0 || count <= 0 || size == 0 || size > LARGEST || rate < 0) {
        fprintf(stderr, "usage: load --port P --connections N --size B [--rate R] --ready-fd N\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(noise); i++) {
        state = state * 1664525u + 1013904223u;
        noise[i] = (unsigned char)(state >> 24);
    }
    connections = calloc((size_t)count, sizeof(*connections));
    free_ring = calloc((size_t)count, sizeof(struct connection *));
    poll_fd = epoll_create1(0);
    if (connections == NULL || free_ring == NULL || poll_fd < 0)
        die("start");
    for (int i = 0; i < count; i++) {
        connect_one(&connections[i], port);
        release(&connections[i]);
    }
    if (ready_fd >= 0 && dprintf(ready_fd, "ready\n") < 0)
        die("ready");
    if (ready_fd >= 0)
        close(ready_fd);
    while (fgets(line, sizeof(line), stdin) != NULL)
        run(atof(line));
    return 0;
}
