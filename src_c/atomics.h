/* Numbers that several workers change: places, placements, connection numbers.
 * Touched when a connection comes or goes, never on the data path.
 */
#ifndef FASTECHO_ATOMICS_H
#define FASTECHO_ATOMICS_H

#include <stdint.h>

static inline int64_t fe_atomic_load(const int64_t *number)
{
    return __atomic_load_n(number, __ATOMIC_ACQUIRE);
}

static inline void fe_atomic_store(int64_t *number, int64_t value)
{
    __atomic_store_n(number, value, __ATOMIC_RELEASE);
}

/* Adds n (may be negative). Result: the value afterwards. */
static inline int64_t fe_atomic_add(int64_t *number, int64_t n)
{
    return __atomic_add_fetch(number, n, __ATOMIC_ACQ_REL);
}

/* Raises *number from expected by one. Result: 1, or 0 when it was not expected. */
static inline int fe_atomic_raise_from(int64_t *number, int64_t expected)
{
    return __atomic_compare_exchange_n(number, &expected, expected + 1, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

/* Stores value. Result: what was there. */
static inline int64_t fe_atomic_swap(int64_t *number, int64_t value)
{
    return __atomic_exchange_n(number, value, __ATOMIC_ACQ_REL);
}

/* Raises *number to value, if that is more. */
static inline void fe_atomic_max(int64_t *number, int64_t value)
{
    int64_t was = __atomic_load_n(number, __ATOMIC_RELAXED);

    while (was < value && !__atomic_compare_exchange_n(number, &was, value, 1, __ATOMIC_ACQ_REL,
                                                       __ATOMIC_RELAXED))
        ;
}

/* Takes a place below limit (limit < 0: no limit). Result: 1, or 0: all taken. */
static inline int fe_place_reserve(int64_t *places, int64_t limit)
{
    int64_t taken = __atomic_load_n(places, __ATOMIC_RELAXED);

    do {
        if (limit >= 0 && taken >= limit)
            return 0;
    } while (!__atomic_compare_exchange_n(places, &taken, taken + 1, 1, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return 1;
}

#endif
