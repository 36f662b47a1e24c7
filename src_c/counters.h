/* What a worker counts.
 *
 * Lives here: the list of counters with their names, and how one is raised and
 * read. Each worker owns one block: it alone writes, anyone reads.
 *
 * A plain counter that another thread reads is a data race. Load, add and store
 * with release order are plain moves on x86-64 and cost no locked instruction;
 * release, because a reader that sees 'closed' must also see the 'accepted'
 * that came before it, or open connections would turn negative.
 */
#ifndef FASTECHO_COUNTERS_H
#define FASTECHO_COUNTERS_H

#include <stdint.h>

/* X(name): one line a counter. Users read of them in fastecho/stats.py. */
#define FE_COUNTERS(X)                                                                             \
    /* accept4 gave a connection and it was kept. */                                               \
    X(connections_accepted)                                                                        \
    /* A kept connection ended, for whatever reason. */                                            \
    X(connections_closed)                                                                          \
    /* Bytes that recv gave while the connection was served. */                                    \
    X(bytes_in)                                                                                    \
    /* Bytes of replies, from the moment they are first offered to the kernel. */                  \
    X(bytes_out)                                                                                   \
    /* Of bytes_out: never taken by the kernel, because the connection ended. */                   \
    X(bytes_dropped)                                                                               \
    /* Input that came after we had decided to end the connection; replies that a fault forbids. */ \
    X(bytes_discarded)                                                                             \
    /* Frames answered; with recv framing: rounds of reading that gave bytes. */                   \
    X(messages)                                                                                    \
    /* Incomplete length frames, or lines at a drain, dropped at the end. */                       \
    X(frames_incomplete)                                                                           \
    /* send took less than it was offered, or nothing. */                                          \
    X(short_writes)                                                                                \
    /* Ended: the peer's FIN first. */                                                             \
    X(ended_by_peer)                                                                               \
    /* Ended: an errno of recv, send or epoll_ctl. */                                              \
    X(ended_by_error)                                                                              \
    X(ended_by_idle_timeout)                                                                       \
    X(ended_by_first_byte_timeout)                                                                 \
    X(ended_by_frame_too_long)                                                                     \
    X(ended_by_denial)                                                                             \
    X(ended_by_drain)                                                                              \
    X(ended_by_abort)                                                                              \
    X(ended_by_no_memory)                                                                          \
    X(ended_by_close)                                                                              \
    X(ended_by_reset)                                                                              \
    X(ended_by_callback_error)                                                                     \
    X(ended_by_max_pending)                                                                        \
    /* Ended: its PROXY header is wrong, missing or late. */                                       \
    X(ended_by_proxy_header)                                                                       \
    /* Ended: the address that its PROXY header tells has max_per_ip connections. */               \
    X(ended_by_max_per_ip)                                                                         \
    /* Ended: a fault's deny, close_after or reset_after. */                                       \
    X(ended_by_fault)                                                                              \
    /* Connections whose PROXY header was taken. */                                                \
    X(connections_proxied)                                                                         \
    /* Connections that were given a fault. */                                                     \
    X(connections_faulty)                                                                          \
    /* Reply bytes that a fault has changed, and frames that it sent twice. */                     \
    X(bytes_corrupted)                                                                             \
    X(frames_duplicated)                                                                           \
    /* Exceptions and wrong replies of callbacks. */                                               \
    X(callback_errors)                                                                             \
    /* We ended first, and gave up waiting for the peer's FIN. */                                   \
    X(linger_timeouts)                                                                             \
    /* Accepted and aborted at once: max_connections. */                                           \
    X(shed_max_connections)                                                                        \
    /* The same: max_per_ip, accept_rate. */                                                       \
    X(shed_max_per_ip)                                                                             \
    X(shed_accept_rate)                                                                            \
    /* Accepted and aborted at once: no descriptor was left (EMFILE, ENFILE). */                   \
    X(shed_no_descriptors)                                                                         \
    /* The same: a PROXY header is required, and the address is not a trusted one. */              \
    X(shed_untrusted)                                                                              \
    /* accept4 failed in another way than 'nothing there'; by number in errnos. */                 \
    X(accept_errors)                                                                               \
    /* Times that accepting was suspended for want of memory or descriptors. */                    \
    X(accept_pauses)                                                                               \
    /* Connections without a line in the access log: above its rate, or its ring was full. */      \
    X(access_log_dropped)                                                                          \
    /* Milliseconds that the accepted waited in the kernel's accept queue, all together. */        \
    X(queue_wait_ms)                                                                               \
    /* Nanoseconds in which message callbacks ran. */                                              \
    X(callback_ns)                                                                                 \
    /* Datagrams that came, and their bytes; a train counts as what it is made of. */              \
    X(datagrams_in)                                                                                \
    X(datagram_bytes_in)                                                                           \
    /* Replies, from the moment they are offered to the kernel. */                                 \
    X(datagrams_out)                                                                               \
    X(datagram_bytes_out)                                                                          \
    /* Of datagrams_out: the kernel had no room; too long with what is put round it; failed. */    \
    X(datagrams_unsent)                                                                            \
    X(datagrams_too_long)                                                                          \
    X(datagrams_failed)                                                                            \
    /* Not answered: enum fe_verdict of datagram.h. */                                             \
    X(datagrams_refused_port)                                                                      \
    X(datagrams_refused_address)                                                                   \
    X(datagrams_refused_rate)                                                                      \
    X(datagrams_refused_loop)                                                                      \
    /* Rounds of the loop. */                                                                      \
    X(iterations)                                                                                  \
    /* Events that epoll_wait delivered. */                                                        \
    X(events)

/* Highest errno with a counter of its own; 133 is EHWPOISON, Linux' last. */
#define FE_ERRNOS 134

/* Classes of time in the accept queue: of class i below 2^i ms, the last one all above. */
#define FE_QUEUE_WAITS 17

typedef struct fe_counters {
#define FE_FIELD(name) uint64_t name;
    FE_COUNTERS(FE_FIELD)
#undef FE_FIELD
    /* Bytes in pending buffers now. */
    uint64_t bytes_pending;
    /* TCP connections that accept4 gave, by how long they waited in the accept queue. */
    uint64_t queue_waits[FE_QUEUE_WAITS];
    /* Errors by errno; [0]: numbers out of range. */
    uint64_t errnos[FE_ERRNOS];
} __attribute__((aligned(64))) fe_counters;

enum {
#define FE_ONE(name) +1
    FE_COUNTER_COUNT = 0 FE_COUNTERS(FE_ONE)
#undef FE_ONE
};

/* Name of counter i in the order of the struct, i < FE_COUNTER_COUNT. */
static inline const char *fe_counter_name(int i)
{
    static const char *const names[] = {
#define FE_NAME(name) #name,
        FE_COUNTERS(FE_NAME)
#undef FE_NAME
    };
    return names[i];
}

/* Adds n. Only the owner calls it. */
static inline void fe_count(uint64_t *counter, uint64_t n)
{
    uint64_t value = __atomic_load_n(counter, __ATOMIC_RELAXED);
    __atomic_store_n(counter, value + n, __ATOMIC_RELEASE);
}

/* Subtracts n; for the one gauge (bytes_pending). Only the owner calls it. */
static inline void fe_uncount(uint64_t *counter, uint64_t n)
{
    fe_count(counter, (uint64_t)0 - n);
}

/* The value now, from any thread. */
static inline uint64_t fe_counter_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

/* Value of counter i, in the order of fe_counter_name. */
static inline uint64_t fe_counter_get(const fe_counters *c, int i)
{
    return fe_counter_read((const uint64_t *)(const void *)c + i);
}

/* Counts a connection that waited so long in the accept queue; negative: that is not known. */
static inline void fe_count_queue_wait(fe_counters *c, int64_t wait_ms)
{
    int i = 0;

    if (wait_ms < 0)
        return;
    while (i < FE_QUEUE_WAITS - 1 && wait_ms >> i != 0)
        i++;
    fe_count(&c->queue_waits[i], 1);
    fe_count(&c->queue_wait_ms, (uint64_t)wait_ms);
}

/* Counts an errno given as -errno or errno. */
static inline void fe_count_errno(fe_counters *c, int number)
{
    if (number < 0)
        number = -number;
    if (number >= FE_ERRNOS)
        number = 0;
    fe_count(&c->errnos[number], 1);
}

#endif
