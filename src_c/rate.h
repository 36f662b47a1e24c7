/* A limit on how often something may happen, shared by threads.
 *
 * Lives here: the generic cell rate algorithm on one atomic number. Does not live
 * here: the clock, and what happens to what comes too soon.
 *
 * The number is the time until which everything that was let through so far has
 * used up the rate. Something may pass while that time is at most `ahead_ns` in the
 * future; then it moves on by one interval. Over any span T at most
 * (T + ahead) / interval + 1 pass. The limit may change at any time: whatever is being
 * decided then follows the old one or the new one.
 */
#ifndef FASTECHO_RATE_H
#define FASTECHO_RATE_H

#include <stdint.h>

/* How far ahead of its rate a burst may run: a tenth of a second's worth. */
#define FE_RATE_AHEAD_NS 100000000u

/* Begins as zeroes: no limit. */
typedef struct fe_rate {
    /* Nanoseconds from one to the next; 0: no limit. Atomic. */
    uint64_t interval_ns;
    /* The rate is used up until then. Atomic. */
    uint64_t used_until_ns;
} fe_rate;

/* Sets the limit; 0: none. Any thread. */
static inline void fe_rate_set(fe_rate *r, uint64_t per_second)
{
    uint64_t interval_ns = per_second ? 1000000000u / per_second : 0;

    __atomic_store_n(&r->interval_ns, interval_ns, __ATOMIC_RELAXED);
}

/* Whether there is a limit: without one, no clock need be read. Any thread. */
static inline int fe_rate_is_limited(const fe_rate *r)
{
    return __atomic_load_n(&r->interval_ns, __ATOMIC_RELAXED) != 0;
}

/* Takes one. Result: 1, or 0 when it comes too soon. Any thread. */
static inline int fe_rate_take(fe_rate *r, uint64_t now_ns)
{
    uint64_t until = __atomic_load_n(&r->used_until_ns, __ATOMIC_RELAXED);
    uint64_t interval_ns = __atomic_load_n(&r->interval_ns, __ATOMIC_RELAXED);
    uint64_t next;

    if (interval_ns == 0)
        return 1;
    do {
        if (until > now_ns + FE_RATE_AHEAD_NS)
            return 0;
        next = (until > now_ns ? until : now_ns) + interval_ns;
    } while (!__atomic_compare_exchange_n(&r->used_until_ns, &until, next, 1, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return 1;
}

#endif
