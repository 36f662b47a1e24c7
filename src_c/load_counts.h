/* What a load counts, and the failures that it describes.
 *
 * Lives here: the list of counters with their names, raising and reading one, the record of a
 * failure. Does not live here: what counts as what (load.h), any text.
 *
 * One thread writes, anyone reads: load, add and store in relaxed order are plain moves and cost
 * the writer nothing. A reader sees each number exactly, but not all of the same instant. (The
 * failures are read when the run is over.)
 */
#ifndef FASTECHO_LOAD_COUNTS_H
#define FASTECHO_LOAD_COUNTS_H

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* X(NAME, name): one line a counter. Users read of them in fastecho/_load.pyi. */
#define FE_LOAD_COUNTERS_AND_FAILURES(X)                                                           \
    X(MESSAGES, messages)                                                                          \
    X(MESSAGES_IN_WINDOW, messages_in_window)                                                      \
    /* Right replies, whenever they came. */                                                       \
    X(RIGHT, right)                                                                                \
    X(SENT, sent)                                                                                  \
    X(BYTES, bytes)                                                                                \
    X(BYTES_SENT, bytes_sent)                                                                      \
    X(BYTES_RECEIVED, bytes_received)                                                              \
    X(CONNECTS, connects)                                                                          \
    X(CONNECTIONS_OPEN, connections_open)                                                          \
    X(CPU_NS, cpu_ns)                                                                              \
    X(SPIN_NS, spin_ns)                                                                            \
    X(ITERATIONS, iterations)                                                                      \
    X(HELD, held)                                                                                  \
    X(REOPENED, reopened)                                                                          \
    X(GAP_NS, gap_ns)                                                                              \
    X(LONGEST_GAP_NS, longest_gap_ns)                                                              \
    /* Of datagrams, which are no failures (load_udp.h). */                                        \
    X(NO_REPLY, no_reply)                                                                          \
    X(TARDY, tardy)                                                                                \
    X(DUPLICATES, duplicates)                                                                      \
    X(REORDERED, reordered)                                                                        \
    X(NOT_SENT, not_sent)                                                                          \
    X(OVERFLOWS, overflows)                                                                        \
    /* Failures of messages. */                                                                    \
    X(LATE, late)                                                                                  \
    X(CORRUPT, corrupt)                                                                            \
    X(MISPLACED, misplaced)                                                                        \
    X(LOST, lost)                                                                                  \
    X(TIMED_OUT, timed_out)                                                                        \
    X(UNSENT, unsent)                                                                              \
    /* Of bytes. */                                                                                \
    X(EXTRA_BYTES, extra_bytes)                                                                    \
    /* Of connections and connects. */                                                             \
    X(RESET, reset)                                                                                \
    X(CLOSED_BY_SERVER, closed)                                                                    \
    X(REFUSED, refused)                                                                            \
    X(CONNECT_TIMED_OUT, connect_timed_out)                                                        \
    X(OTHER, other)

enum fe_load_counter {
#define FE_LOAD_ONE(NAME, name) FE_LOAD_##NAME,
    FE_LOAD_COUNTERS_AND_FAILURES(FE_LOAD_ONE)
#undef FE_LOAD_ONE
    /* How many there are. */
    FE_LOAD_COUNTERS
};

/* One failure, described where it happened and turned into words later. */
typedef struct fe_load_failure {
    /* One of enum fe_load_counter. */
    int32_t kind;
    /* The state that the connection was in. */
    int32_t state;
    uint32_t connection;
    /* An errno, or 0. */
    int32_t error;
    uint64_t at_ns;
    /* The message, and the offset in its reply. */
    uint64_t number;
    uint64_t offset;
    /* Bytes too many, messages that were outstanding, the ns that a late reply took, the message
     * whose reply came instead. */
    uint64_t count;
    /* The byte that was due and the one that came. */
    uint8_t expected;
    uint8_t got;
} fe_load_failure;

/* Failures that are described; the rest is only counted. */
#define FE_LOAD_DESCRIBED 8

typedef struct fe_load_counts {
    uint64_t n[FE_LOAD_COUNTERS];
    /* The window of the run, for whoever watches: its start and its end so far as it is known. */
    uint64_t window_ns;
    uint64_t end_ns;
    /* All of a number of messages are given: when the last of their replies came, so far, in an
     * open loop not before their schedule has passed. The window ends then; 0: no such end. */
    uint64_t last_ns;
    /* When the last reply was in or given up; 0: not yet. */
    uint64_t done_ns;
    uint32_t described;
    fe_load_failure failures[FE_LOAD_DESCRIBED];
} fe_load_counts;

/* Name of a counter: the key of a result. */
static inline const char *fe_load_counter_name(int counter)
{
    static const char *const names[] = {
#define FE_LOAD_NAME(NAME, name) #name,
        FE_LOAD_COUNTERS_AND_FAILURES(FE_LOAD_NAME)
#undef FE_LOAD_NAME
    };
    return names[counter];
}

/* The value now, from any thread. */
static inline uint64_t fe_load_read(const uint64_t *number)
{
    return __atomic_load_n(number, __ATOMIC_RELAXED);
}

/* Only the owner calls it. */
static inline void fe_load_write(uint64_t *number, uint64_t value)
{
    __atomic_store_n(number, value, __ATOMIC_RELAXED);
}

/* Adds to a counter. Only the owner calls it. */
static inline void fe_load_add(fe_load_counts *counts, int counter, uint64_t by)
{
    fe_load_write(&counts->n[counter], fe_load_read(&counts->n[counter]) + by);
}

/* Sets everything to 0, but for the connections that are open. Only the owner calls it. */
static inline void fe_load_forget(fe_load_counts *counts)
{
    for (int i = 0; i < FE_LOAD_COUNTERS; i++)
        if (i != FE_LOAD_CONNECTIONS_OPEN)
            fe_load_write(&counts->n[i], 0);
    fe_load_write(&counts->window_ns, 0);
    fe_load_write(&counts->end_ns, 0);
    fe_load_write(&counts->last_ns, 0);
    fe_load_write(&counts->done_ns, 0);
    counts->described = 0;
}

/* The length of the window at now_ns, which an earlier end of the run or of the window cuts. */
static inline uint64_t fe_load_elapsed_ns(const fe_load_counts *counts, uint64_t now_ns)
{
    uint64_t start = fe_load_read(&counts->window_ns), end = fe_load_read(&counts->end_ns);
    uint64_t last = fe_load_read(&counts->last_ns);

    if (now_ns < end)
        end = now_ns;
    if (last != 0 && last < end)
        end = last;
    return end > start ? end - start : 0;
}

/* The kind of an errno that a connection, or a connect, ended with. */
static inline int fe_load_kind_for(int error, int connecting)
{
    switch (error) {
    case ECONNRESET:
    case EPIPE:
        return FE_LOAD_RESET;
    case ECONNREFUSED:
        return FE_LOAD_REFUSED;
    case ETIMEDOUT:
        return connecting ? FE_LOAD_CONNECT_TIMED_OUT : FE_LOAD_OTHER;
    default:
        return FE_LOAD_OTHER;
    }
}

#endif
