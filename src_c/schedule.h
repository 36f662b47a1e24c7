/* When the messages of an open loop are due.
 *
 * Lives here: the times, evenly spaced or independent of each other. Does not live here: any
 * clock; who gets the message and what becomes of it (load.h).
 *
 * Every time is computed from the start, not from the time before: an error of rounding does
 * not add up in an even schedule. A Poisson schedule adds up its intervals as a double, which
 * is exact to a tenth of a nanosecond after a week.
 */
#ifndef FASTECHO_SCHEDULE_H
#define FASTECHO_SCHEDULE_H

#include <stdint.h>

#include "pattern.h"

typedef struct fe_schedule {
    /* When the next message is due. */
    uint64_t next_ns;
    uint64_t start_ns;
    /* Messages that have been due before it. */
    uint64_t count;
    /* From one to the next; of a Poisson schedule: the mean. */
    double interval_ns;
    /* Where in the first interval an even schedule begins, 0 to 1. */
    double phase;
    /* The messages are due independently of each other, as `seed` decides. */
    int is_poisson;
    uint64_t seed;
    /* Of a Poisson schedule: its generator, and next_ns - start_ns. */
    uint64_t state;
    double offset_ns;
} fe_schedule;

/* The logarithm of 2. */
#define FE_SCHEDULE_LN2 0.693147180559945309417

/* Turns 64 random bits into an interval of a Poisson process whose mean is 1: -ln of a number
 * in (0, 1]. Without libm, so that a seed gives the same schedule everywhere. */
static inline double fe_schedule_exponential(uint64_t random)
{
    uint64_t n = (random >> 11) + 1;
    int bits = 63 - __builtin_clzll((unsigned long long)n);
    double m = (double)n / (double)((uint64_t)1 << bits);
    double s, square, power, sum = 0;

    /* n is m times a power of two, 1 <= m < 2; ln m is a series in (m - 1) / (m + 1) <= 1/3. */
    s = power = (m - 1) / (m + 1);
    square = s * s;
    for (int i = 1; i < 34; i += 2) {
        sum += power / i;
        power *= square;
    }
    return (53 - bits) * FE_SCHEDULE_LN2 - 2 * sum;
}

static inline void fe_schedule_place(fe_schedule *s)
{
    if (s->is_poisson)
        s->offset_ns += fe_schedule_exponential(fe_pattern_mix(&s->state)) * s->interval_ns;
    else
        s->offset_ns = ((double)s->count + s->phase) * s->interval_ns;
    s->next_ns = s->start_ns + (uint64_t)s->offset_ns;
}

/* Starts over at start_ns: message i of an even schedule is due (i + phase) intervals later. */
static inline void fe_schedule_start(fe_schedule *s, uint64_t start_ns)
{
    s->start_ns = start_ns;
    s->count = 0;
    s->state = s->seed;
    s->offset_ns = 0;
    fe_schedule_place(s);
}

/* When the messages that have been due have had their time, one interval each. */
static inline uint64_t fe_schedule_passed(const fe_schedule *s)
{
    return s->is_poisson ? s->next_ns : s->next_ns - (uint64_t)(s->phase * s->interval_ns);
}

/* The next message has been given away: computes when the one after it is due. */
static inline void fe_schedule_advance(fe_schedule *s)
{
    s->count++;
    fe_schedule_place(s);
}

#endif
