/* The access log on its way out of a worker: what it says of a connection, and the ring that
 * carries finished entries to the thread that writes them.
 *
 * Lives here: the entry, the table of the connections that are open (by slot, beside their
 * records), and the ring. Does not live here: what an entry looks like as a line
 * (fastecho/logs.py), who wakes whom, the clock.
 *
 * One thread puts, one takes. Putting never waits: a ring that is full refuses, and the caller
 * counts. So a log that nobody writes down costs a connection nothing but its line.
 */
#ifndef FASTECHO_ACCESS_LOG_H
#define FASTECHO_ACCESS_LOG_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the longest socket address: sockaddr_un, rounded up. */
#define FE_ADDRESS_MAX 112u

/* Entries that a ring holds. A power of two. */
#define FE_LOG_ENTRIES 4096u

/* Entries of the first table. A power of two. */
#define FE_LOG_TABLE_MIN 64u

typedef struct fe_log_entry {
    /* Number among all accepted, from 1; 0: refused before it had one. */
    uint64_t number;
    /* Monotonic clock: accepted, closed. */
    uint64_t began_ns;
    uint64_t ended_ns;
    /* Received, and given to the kernel for the peer. */
    uint64_t bytes_in;
    uint64_t bytes_out;
    /* errno of the call that failed; 0: none did. */
    int32_t error;
    /* Milliseconds in the kernel's accept queue; -1: not known. */
    int32_t queue_wait_ms;
    /* Index of the listener. */
    uint16_t listener;
    /* enum fe_reason. */
    uint8_t reason;
    uint8_t unused;
    /* The peer's socket address, address_size bytes of it. */
    uint32_t address_size;
    uint8_t address[FE_ADDRESS_MAX];
} fe_log_entry;

/* The entries of open connections, by slot. Begins as zeroes. */
typedef struct fe_log_table {
    fe_log_entry *entries;
    uint32_t size;
} fe_log_table;

typedef struct fe_log_ring {
    /* FE_LOG_ENTRIES of them; NULL: there is no log. */
    fe_log_entry *entries;
    /* Put so far, by the one thread; taken so far, by the other. Atomic. */
    uint64_t put;
    uint64_t taken;
} fe_log_ring;

/* The entry of a slot, emptied, for a connection that begins; NULL: no memory. */
static inline fe_log_entry *fe_log_begin(fe_log_table *t, uint32_t slot)
{
    fe_log_entry *grown;
    uint32_t size = t->size ? t->size : FE_LOG_TABLE_MIN;

    while (size <= slot)
        size *= 2;
    if (size != t->size) {
        grown = realloc(t->entries, size * sizeof(*grown));
        if (grown == NULL)
            return NULL;
        t->entries = grown;
        t->size = size;
    }
    memset(&t->entries[slot], 0, sizeof(*t->entries));
    return &t->entries[slot];
}

static inline void fe_log_table_free(fe_log_table *t)
{
    free(t->entries);
    memset(t, 0, sizeof(*t));
}

/* Makes an empty ring; 0 or -ENOMEM. */
static inline int fe_log_ring_init(fe_log_ring *r)
{
    memset(r, 0, sizeof(*r));
    r->entries = malloc(FE_LOG_ENTRIES * sizeof(*r->entries));
    return r->entries == NULL ? -ENOMEM : 0;
}

static inline void fe_log_ring_free(fe_log_ring *r)
{
    free(r->entries);
    r->entries = NULL;
}

/* Copies an entry in. Result: 1, or 0 when the ring is full. The thread that puts. */
static inline int fe_log_put(fe_log_ring *r, const fe_log_entry *entry)
{
    uint64_t put = __atomic_load_n(&r->put, __ATOMIC_RELAXED);

    if (put - __atomic_load_n(&r->taken, __ATOMIC_ACQUIRE) == FE_LOG_ENTRIES)
        return 0;
    r->entries[put % FE_LOG_ENTRIES] = *entry;
    __atomic_store_n(&r->put, put + 1, __ATOMIC_RELEASE);
    return 1;
}

/* Copies the oldest entry out. Result: 1, or 0 when the ring is empty. The thread that takes. */
static inline int fe_log_take(fe_log_ring *r, fe_log_entry *entry)
{
    uint64_t taken = __atomic_load_n(&r->taken, __ATOMIC_RELAXED);

    if (taken == __atomic_load_n(&r->put, __ATOMIC_ACQUIRE))
        return 0;
    *entry = r->entries[taken % FE_LOG_ENTRIES];
    __atomic_store_n(&r->taken, taken + 1, __ATOMIC_RELEASE);
    return 1;
}

#endif
