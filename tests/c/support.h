/* What the C tests share: checks that are always on, random numbers that repeat, memory that can
 * be refused, and another thread that meddles. Include it before the header under test, so that
 * the header's own allocations and exchanges go through these. */
#ifndef FASTECHO_TESTS_SUPPORT_H
#define FASTECHO_TESTS_SUPPORT_H

#undef NDEBUG
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

/* xorshift64*: the same values in every run. The state is never 0. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717u;
}

/* A number below limit, which is not 0. */
static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
    return (next_random(state) >> 16) % limit;
}

/* While it is set, no memory is given, but for so many more allocations. */
static int memory_is_refused;
static int memory_spare;

static inline int refuses_memory(void)
{
    if (!memory_is_refused || memory_spare > 0) {
        memory_spare -= memory_is_refused;
        return 0;
    }
    return 1;
}

static inline void *refusable_malloc(size_t n)
{
    return refuses_memory() ? NULL : malloc(n);
}

static inline void *refusable_realloc(void *block, size_t n)
{
    return refuses_memory() ? NULL : realloc(block, n);
}

static inline void *refusable_aligned_alloc(size_t alignment, size_t n)
{
    return refuses_memory() ? NULL : aligned_alloc(alignment, n);
}

#define malloc refusable_malloc
#define realloc refusable_realloc
#define aligned_alloc refusable_aligned_alloc

/* Not 0: another thread adds so much to the number that is exchanged next, just before. */
static int64_t added_meanwhile;

static inline void add_meanwhile(void *number)
{
    int64_t n = added_meanwhile;

    if (n != 0) {
        added_meanwhile = 0;
        __atomic_fetch_add((int64_t *)number, n, __ATOMIC_RELAXED);
    }
}

#define __atomic_compare_exchange_n(number, ...)                                                  \
    (add_meanwhile(number), __atomic_compare_exchange_n(number, __VA_ARGS__))

#endif
