/* A latency histogram: HdrHistogram's layout with 3 significant digits, in ns.
 *
 * Lives here: the counts, recording, merging, subtracting, reading. Does not live here: any
 * clock, any text, any file format, any lock: one thread has one histogram, and
 * they are merged when they are read.
 *
 * The layout is that of HdrHistogram (lowest discernible 64, highest trackable
 * 1 h, 3 digits), so that its tools read what we count. A value is shifted down
 * until 11 bits are left; the shift and those 11 bits name its slot. Slots are
 * 64 ns wide up to 131,071 ns, and each doubling of the value doubles the width
 * behind it: never more than 1/1024 of the value. The upper half of one
 * doubling's slots is followed directly by that of the next, hence 1,024 slots
 * for each and 2,048 for the first.
 *
 * 26 doublings make 27,648 counts, 221 KB; memory is touched only where values
 * fall, so calloc() costs next to nothing.
 */
#ifndef FASTECHO_HISTOGRAM_H
#define FASTECHO_HISTOGRAM_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* log2 of the lowest discernible value, 64 ns. */
#define FE_HISTOGRAM_UNIT_BITS 6
/* log2 of the slots in one doubling; 2 * 1,024 >= 2 * 10^3 gives three digits. */
#define FE_HISTOGRAM_HALF_BITS 10
#define FE_HISTOGRAM_HALF ((uint32_t)1 << FE_HISTOGRAM_HALF_BITS)
/* Doublings until 1 h fits: (2,048 * 64 ns) << 25 is 73 min. */
#define FE_HISTOGRAM_DOUBLINGS 26
#define FE_HISTOGRAM_SLOTS ((FE_HISTOGRAM_DOUBLINGS + 1) * FE_HISTOGRAM_HALF)
/* The highest value that has a slot: 1 h in ns. */
#define FE_HISTOGRAM_HIGHEST ((uint64_t)3600 * 1000 * 1000 * 1000)

typedef struct fe_histogram {
    /* Values recorded, overflow included. */
    uint64_t count;
    /* Of count: values above FE_HISTOGRAM_HIGHEST. */
    uint64_t overflow;
    /* Smallest and largest value recorded, exact, in ns; UINT64_MAX and 0 while empty. */
    uint64_t min;
    uint64_t max;
    uint64_t slots[FE_HISTOGRAM_SLOTS];
} fe_histogram;

/* Empties h. Must be called before anything else. */
static inline void fe_histogram_reset(fe_histogram *h)
{
    memset(h, 0, sizeof(*h));
    h->min = UINT64_MAX;
}

/* The slot of a value, ns <= FE_HISTOGRAM_HIGHEST. */
static inline uint32_t fe_histogram_slot(uint64_t ns)
{
    const uint64_t first = ((uint64_t)2 * FE_HISTOGRAM_HALF << FE_HISTOGRAM_UNIT_BITS) - 1;
    /* How often the value must be halved to fall into the first 2,048 slots. The or makes
     * small values look like the largest of the first range: no halving. */
    uint32_t doubling = 63u - (uint32_t)__builtin_clzll((unsigned long long)(ns | first)) -
                        (FE_HISTOGRAM_UNIT_BITS + FE_HISTOGRAM_HALF_BITS);

    return (doubling << FE_HISTOGRAM_HALF_BITS) +
           (uint32_t)(ns >> (doubling + FE_HISTOGRAM_UNIT_BITS));
}

/* The halvings that a slot stands for; its width is 64 ns << that. */
static inline uint32_t fe_histogram_doubling(uint32_t slot)
{
    return slot < 2 * FE_HISTOGRAM_HALF ? 0 : (slot >> FE_HISTOGRAM_HALF_BITS) - 1;
}

/* Width of a slot in ns. */
static inline uint64_t fe_histogram_width(uint32_t slot)
{
    return (uint64_t)1 << (fe_histogram_doubling(slot) + FE_HISTOGRAM_UNIT_BITS);
}

/* The smallest value in ns that falls into a slot. */
static inline uint64_t fe_histogram_lowest(uint32_t slot)
{
    uint32_t doubling = fe_histogram_doubling(slot);

    return (uint64_t)(slot - (doubling << FE_HISTOGRAM_HALF_BITS))
           << (doubling + FE_HISTOGRAM_UNIT_BITS);
}

/* The largest value in ns that falls into a slot. */
static inline uint64_t fe_histogram_highest(uint32_t slot)
{
    return fe_histogram_lowest(slot) + fe_histogram_width(slot) - 1;
}

/* Counts a value, n times. One thread does; atomic stores, which are plain moves on x86-64, let
 * another copy meanwhile (fe_histogram_copy). Cost: below 3 ns while the slot is in the cache
 * (printed by `tests/c/test_histogram.c`, run with the argument `cost`). */
static inline void fe_histogram_record_n(fe_histogram *h, uint64_t ns, uint64_t n)
{
    uint64_t *slot;

    if (n == 0)
        return;
    __atomic_store_n(&h->count, h->count + n, __ATOMIC_RELAXED);
    if (ns < h->min)
        __atomic_store_n(&h->min, ns, __ATOMIC_RELAXED);
    if (ns > h->max)
        __atomic_store_n(&h->max, ns, __ATOMIC_RELAXED);
    slot = __builtin_expect(ns <= FE_HISTOGRAM_HIGHEST, 1) ? &h->slots[fe_histogram_slot(ns)]
                                                           : &h->overflow;
    /* Last, and released: whoever sees it sees the minimum and maximum that go with it. */
    __atomic_store_n(slot, *slot + n, __ATOMIC_RELEASE);
}

/* Counts a value once. */
static inline void fe_histogram_record(fe_histogram *h, uint64_t ns)
{
    fe_histogram_record_n(h, ns, 1);
}

/* Copies a histogram that another thread records into. What is recorded meanwhile may be left
 * out, but the copy agrees with itself: its count is that of its slots. */
static inline void fe_histogram_copy(fe_histogram *into, const fe_histogram *from)
{
    uint64_t count = into->overflow = __atomic_load_n(&from->overflow, __ATOMIC_ACQUIRE);

    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++)
        count += into->slots[slot] = __atomic_load_n(&from->slots[slot], __ATOMIC_ACQUIRE);
    into->count = count;
    into->min = __atomic_load_n(&from->min, __ATOMIC_RELAXED);
    into->max = __atomic_load_n(&from->max, __ATOMIC_RELAXED);
}

/* Adds everything that `from` holds; exact, because all histograms share one layout.
 *
 * Result: 0, or -EOVERFLOW: more than 2^63 - 1 values, which no file could hold; nothing has
 * changed. */
static inline int fe_histogram_merge(fe_histogram *into, const fe_histogram *from)
{
    uint32_t last;

    if (from->count == 0)
        return 0;
    if (from->count > INT64_MAX || into->count > INT64_MAX - from->count)
        return -EOVERFLOW;
    last = fe_histogram_slot(from->max < FE_HISTOGRAM_HIGHEST ? from->max : FE_HISTOGRAM_HIGHEST);
    for (uint32_t slot = 0; slot <= last; slot++)
        into->slots[slot] += from->slots[slot];
    into->count += from->count;
    into->overflow += from->overflow;
    if (from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
    return 0;
}

/* Takes away what `part` holds, usually an earlier copy of h: what is left came since then.
 *
 * Minimum and maximum are then edges of slots, where the exact ones of h are not narrower.
 * Result: 0, or -ERANGE: `part` holds what h does not; nothing has changed. */
static inline int fe_histogram_subtract(fe_histogram *h, const fe_histogram *part)
{
    uint64_t min = h->min, max = h->max, count = 0;

    if (part->overflow > h->overflow)
        return -ERANGE;
    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++)
        if (part->slots[slot] > h->slots[slot])
            return -ERANGE;
    h->min = UINT64_MAX;
    h->max = 0;
    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++) {
        h->slots[slot] -= part->slots[slot];
        if (h->slots[slot] == 0)
            continue;
        if (count == 0)
            h->min = fe_histogram_lowest(slot) > min ? fe_histogram_lowest(slot) : min;
        h->max = fe_histogram_highest(slot) < max ? fe_histogram_highest(slot) : max;
        count += h->slots[slot];
    }
    h->overflow -= part->overflow;
    if (h->overflow > 0) {
        if (count == 0)
            h->min = FE_HISTOGRAM_HIGHEST + 1 > min ? FE_HISTOGRAM_HIGHEST + 1 : min;
        h->max = max;
        count += h->overflow;
    }
    h->count = count;
    return 0;
}

/* The slot of any value: those above 1 h share the last one, which nothing else uses. */
static inline uint32_t fe_histogram_place(uint64_t ns)
{
    return ns <= FE_HISTOGRAM_HIGHEST ? fe_histogram_slot(ns) : FE_HISTOGRAM_SLOTS - 1;
}

/* Makes minimum and maximum, which a file of counts knows as edges of slots, exact again: they
 * were kept apart. One that is negative (unknown) or in another slot than the edge is ignored, and
 * both if they would contradict each other. */
static inline void fe_histogram_narrow(fe_histogram *h, int64_t min, int64_t max)
{
    uint64_t low = h->min, high = h->max;

    if (h->count == 0)
        return;
    /* The last slot of values up to 1 h reaches a little beyond it. */
    if (h->overflow == 0 && high > FE_HISTOGRAM_HIGHEST)
        high = FE_HISTOGRAM_HIGHEST;
    if (min >= 0 && fe_histogram_place((uint64_t)min) == fe_histogram_place(low))
        low = (uint64_t)min;
    if (max >= 0 && fe_histogram_place((uint64_t)max) == fe_histogram_place(high))
        high = (uint64_t)max;
    else
        high = h->max;
    if (low > high)
        return;
    h->min = low;
    h->max = high;
}

/* The value in ns below or at which about `percent` (0 to 100) of the values lie; 0 if empty.
 *
 * The values in order have the ranks 1 to count. Wanted is rank percent / 100 * count, rounded to
 * the nearest whole one (halves up) and at least 1; the answer is the highest value of the slot
 * that holds it, or the exact maximum where that is less. So a percentile may be short by half a
 * value, which shows where there are few: p99 of 151 values has the rank 149 (of 149.49). Of 0
 * percent the answer is the lowest value of the minimum's slot.
 *
 * HdrHistogram does the same, but for two things: no answer is larger than the exact maximum, and
 * values above 1 h still have a rank (the answer there is the maximum). */
static inline uint64_t fe_histogram_percentile(const fe_histogram *h, double percent)
{
    double rank;
    uint64_t wanted, seen = 0;

    if (h->count == 0)
        return 0;
    if (percent <= 0)
        return fe_histogram_lowest(fe_histogram_slot(
            h->min < FE_HISTOGRAM_HIGHEST ? h->min : FE_HISTOGRAM_HIGHEST));
    rank = (percent > 100 ? 100 : percent) * (double)h->count / 100 + 0.5;
    wanted = rank < 1 ? 1 : rank >= (double)h->count ? h->count : (uint64_t)rank;
    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++) {
        seen += h->slots[slot];
        if (seen >= wanted) {
            uint64_t highest = fe_histogram_highest(slot);

            return highest < h->max ? highest : h->max;
        }
    }
    return h->max;
}

/* Sum of (value - from) to the power of 1 or 2, over all values, each taken for the middle of its
 * slot, as HdrHistogram does it: that survives a file that holds only counts. Values above 1 h
 * count as 1 h. */
static inline double fe_histogram_moment(const fe_histogram *h, double from, int power)
{
    double off = (double)FE_HISTOGRAM_HIGHEST - from;
    double sum = (double)h->overflow * (power == 1 ? off : off * off);

    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++) {
        if (h->slots[slot] == 0)
            continue;
        off = (double)(fe_histogram_lowest(slot) + fe_histogram_width(slot) / 2) - from;
        sum += (double)h->slots[slot] * (power == 1 ? off : off * off);
    }
    return sum;
}

/* Mean in ns; 0 if empty. From the middles of slots, but never outside of the exact minimum and
 * maximum. */
static inline double fe_histogram_mean(const fe_histogram *h)
{
    double mean;

    if (h->count == 0)
        return 0;
    mean = fe_histogram_moment(h, 0, 1) / (double)h->count;
    if (mean < (double)h->min)
        return (double)h->min;
    return mean > (double)h->max ? (double)h->max : mean;
}

/* Variance in ns^2, of the population, around the mean of the middles of slots; 0 if empty.
 * (The root is the caller's: it would take libm.) */
static inline double fe_histogram_variance(const fe_histogram *h)
{
    if (h->count == 0)
        return 0;
    return fe_histogram_moment(h, fe_histogram_moment(h, 0, 1) / (double)h->count, 2) /
           (double)h->count;
}

#endif
