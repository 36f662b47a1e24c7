/* Deadlines of one worker: a 4-ary heap.
 *
 * Lives here: which deadline is the earliest. Does not live here: any clock;
 * the caller brings the time and acts on what has expired.
 *
 * A timer is a 4-byte handle inside its owner (a connection record, a worker);
 * the heap's entry points back at it. One owner has one timer, set to its
 * earliest deadline. Activity does not touch the heap: the owner stores a time,
 * and an expired entry that turns out to be early is set again.
 *
 * Four children instead of two: half the levels, and the children of a node lie
 * in one cache line (libev and Go's runtime made the same choice).
 */
#ifndef FASTECHO_TIMERS_H
#define FASTECHO_TIMERS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct fe_timer {
    /* Place in the heap + 1; 0: not set. */
    uint32_t place;
} fe_timer;

typedef struct fe_deadline {
    /* When it expires, in ms of the caller's clock. */
    uint64_t at_ms;
    /* The owner's handle. */
    fe_timer *timer;
} fe_deadline;

typedef struct fe_timers {
    fe_deadline *heap;
    /* Entries in use. */
    uint32_t count;
    /* Entries allocated. */
    uint32_t capacity;
    /* Of these, kept for timers whose setting must not fail. */
    uint32_t spare;
} fe_timers;

#define FE_TIMERS_ARITY 4u

static inline int fe_timer_is_set(const fe_timer *timer)
{
    return timer->place != 0;
}

static inline void fe_timers_put(fe_timers *t, uint32_t i, fe_deadline entry)
{
    t->heap[i] = entry;
    entry.timer->place = i + 1;
}

static inline void fe_timers_up(fe_timers *t, uint32_t i)
{
    fe_deadline entry = t->heap[i];

    while (i > 0) {
        uint32_t parent = (i - 1) / FE_TIMERS_ARITY;
        if (t->heap[parent].at_ms <= entry.at_ms)
            break;
        fe_timers_put(t, i, t->heap[parent]);
        i = parent;
    }
    fe_timers_put(t, i, entry);
}

static inline void fe_timers_down(fe_timers *t, uint32_t i)
{
    fe_deadline entry = t->heap[i];

    for (;;) {
        uint64_t first = (uint64_t)i * FE_TIMERS_ARITY + 1;
        uint64_t child, last, best;

        if (first >= t->count)
            break;
        last = first + FE_TIMERS_ARITY;
        if (last > t->count)
            last = t->count;
        best = first;
        for (child = first + 1; child < last; child++)
            if (t->heap[child].at_ms < t->heap[best].at_ms)
                best = child;
        if (t->heap[best].at_ms >= entry.at_ms)
            break;
        fe_timers_put(t, i, t->heap[best]);
        i = (uint32_t)best;
    }
    fe_timers_put(t, i, entry);
}

/* Makes an empty heap with room for `spare` timers that are set by
 * fe_timers_set_spare. Result: 0 or -ENOMEM. A zeroed heap without spare timers
 * needs no init. */
static inline int fe_timers_init(fe_timers *t, uint32_t spare)
{
    t->count = 0;
    t->spare = spare;
    t->capacity = spare + 64;
    t->heap = malloc(t->capacity * sizeof(fe_deadline));
    if (t->heap == NULL) {
        t->capacity = 0;
        return -ENOMEM;
    }
    return 0;
}

/* Sets a timer for which there is room: one that is set already, or a spare one. */
static inline void fe_timers_set_spare(fe_timers *t, fe_timer *timer, uint64_t at_ms)
{
    uint32_t i = timer->place ? timer->place - 1 : t->count++;

    t->heap[i].at_ms = at_ms;
    t->heap[i].timer = timer;
    fe_timers_up(t, i);
    fe_timers_down(t, timer->place - 1);
}

/* Sets the timer to expire at at_ms, whether it was set or not.
 * Result: 0, or -ENOMEM with the timer as it was (only when it was not set). */
static inline int fe_timers_set(fe_timers *t, fe_timer *timer, uint64_t at_ms)
{
    if (timer->place == 0 && t->capacity - t->count <= t->spare) {
        uint32_t capacity = t->capacity ? t->capacity * 2 : 64;
        fe_deadline *heap;

        if (capacity < t->capacity)
            return -ENOMEM;
        heap = realloc(t->heap, capacity * sizeof(fe_deadline));
        if (heap == NULL)
            return -ENOMEM;
        t->heap = heap;
        t->capacity = capacity;
    }
    fe_timers_set_spare(t, timer, at_ms);
    return 0;
}

/* Takes the timer out of the heap; nothing happens when it is not set. */
static inline void fe_timers_clear(fe_timers *t, fe_timer *timer)
{
    uint32_t i;
    fe_deadline last;

    if (timer->place == 0)
        return;
    i = timer->place - 1;
    timer->place = 0;
    last = t->heap[--t->count];
    if (last.timer == timer)
        return;
    fe_timers_put(t, i, last);
    fe_timers_up(t, i);
    fe_timers_down(t, last.timer->place - 1);
}

/* The earliest timer if it has expired at now_ms, taken out of the heap; NULL
 * otherwise. */
static inline fe_timer *fe_timers_expired(fe_timers *t, uint64_t now_ms)
{
    fe_timer *timer;

    if (t->count == 0 || t->heap[0].at_ms > now_ms)
        return NULL;
    timer = t->heap[0].timer;
    fe_timers_clear(t, timer);
    return timer;
}

/* Milliseconds until the earliest deadline: 0 when it is due, at most cap_ms,
 * -1 when no timer is set. */
static inline int fe_timers_wait_ms(const fe_timers *t, uint64_t now_ms, int cap_ms)
{
    uint64_t left;

    if (t->count == 0)
        return -1;
    if (t->heap[0].at_ms <= now_ms)
        return 0;
    left = t->heap[0].at_ms - now_ms;
    return left > (uint64_t)cap_ms ? cap_ms : (int)left;
}

static inline void fe_timers_free(fe_timers *t)
{
    free(t->heap);
    t->heap = NULL;
    t->count = 0;
    t->capacity = 0;
}

#endif
