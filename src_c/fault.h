/* Faults: what a connection that misbehaves on purpose does with its replies, and when.
 *
 * Lives here: who gets a fault, how many of the reply bytes are ever sent, which of them are
 * changed, when they may leave, what follows the last one. Does not live here: the bytes (they
 * wait in the connection's pending buffer), sending, timers (fastecho/_fault.pxd).
 *
 * Replies form one stream with an offset for each byte. A byte is taken (fe_faulty_take), ripens
 * when its delay is over, and leaves when slice and bandwidth let it (fe_faulty_release).
 *
 *   0 ........ sent ........ ripe ........ queued ........ limit
 *      gone      may leave     delayed        yet to come     never sent from here on
 *
 * Every draw is a hash of (seed, connection number, what for, byte offset), and of nothing else:
 * it does not matter how the bytes came in or which worker has the connection. There is no state
 * to draw from, so nothing that was drawn before counts.
 */
#ifndef FASTECHO_FAULT_H
#define FASTECHO_FAULT_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "timers.h"

/* No limit, no time. */
#define FE_FAULT_NEVER UINT64_MAX

/* Probabilities are counted in 2^-53: a draw is below FE_FAULT_CERTAIN. */
#define FE_FAULT_CERTAIN ((uint64_t)1 << 53)

/* With a bandwidth, bytes leave in steps of so much time at least, and a sender that was kept from
 * sending makes up for no more than so much: late timers cost no rate, a slow reader saves none. */
#define FE_FAULT_STEP_NS ((uint64_t)1000000)
#define FE_FAULT_SAVED_NS ((uint64_t)50000000)

/* Chunks of one connection that can be delayed at a time. */
#define FE_FAULT_MARKS ((uint32_t)4096)

enum fe_fault_distribution { FE_FAULT_FIXED = 0, FE_FAULT_UNIFORM = 1, FE_FAULT_NORMAL = 2 };

enum fe_fault_flag {
    /* Nothing is read. */
    FE_FAULT_NO_READ = 1,
    /* RST instead of serving it. */
    FE_FAULT_DENY = 2,
    /* Our FIN comes first. */
    FE_FAULT_HALF_CLOSE = 4
};

/* What follows when `limit` bytes were sent. */
enum fe_fault_end { FE_FAULT_GOES_ON = 0, FE_FAULT_CLOSES = 1, FE_FAULT_RESETS = 2 };

/* What a draw is for. */
enum fe_fault_draw {
    FE_DRAW_CHOICE = 1,
    FE_DRAW_DELAY = 2,
    FE_DRAW_CORRUPT = 3,
    FE_DRAW_DUPLICATE = 4
};

/* What the user chose. Zeroed, with the three limits, probability and fail_first at their
 * highest, it is no fault. */
typedef struct fe_fault {
    uint64_t delay_ns;
    /* Half the width, or the standard deviation. */
    uint64_t jitter_ns;
    /* enum fe_fault_distribution. */
    uint32_t distribution;
    /* enum fe_fault_flag. */
    uint32_t flags;
    /* Bytes a second; 0: no limit. At most 10^11. */
    uint64_t bandwidth;
    /* Bytes of a piece, 0: no pieces; and between the sending of two. */
    uint64_t slice;
    uint64_t gap_ns;
    /* Bytes that are sent before nothing more is, FIN, RST; FE_FAULT_NEVER: all. */
    uint64_t stall_after;
    uint64_t close_after;
    uint64_t reset_after;
    /* Probabilities in 2^-53: of each byte, of each frame, of each connection. */
    uint64_t corrupt;
    uint64_t duplicate;
    uint64_t probability;
    uint64_t seed;
    /* Only so many connections get it, of those with numbers above `base`. */
    uint64_t fail_first;
    uint64_t base;
} fe_fault;

/* The end of a chunk in the stream, and when its bytes are ripe. */
typedef struct fe_mark {
    uint64_t end;
    uint64_t due_ns;
} fe_mark;

/* A connection with a fault. */
typedef struct fe_faulty {
    fe_fault fault;
    /* Seed and connection number as one. */
    uint64_t key;
    /* Offsets in the stream of replies; see the head of this file. */
    uint64_t queued;
    uint64_t ripe;
    uint64_t sent;
    uint64_t limit;
    /* Due times of delayed chunks, oldest first: a ring of `capacity`, a power of two or 0. */
    fe_mark *marks;
    uint32_t first;
    uint32_t count;
    uint32_t capacity;
    /* Place in the worker's slabs. */
    uint32_t slot;
    /* The latest due time so far: no chunk overtakes another. */
    uint64_t due_ns;
    /* With a bandwidth: what has left has used the line until then. */
    uint64_t line_ns;
    /* With slices: the next may leave then. */
    uint64_t piece_ns;
    /* Between looks at the send queue, before RST; 0: not yet looked. */
    uint64_t look_ns;
    /* Bytes of pending that stand before the replies and are not the fault's. */
    uint64_t lead;
    /* The next time that something is to be done. */
    fe_timer timer;
    /* enum fe_fault_end; what follows at `limit`. */
    uint8_t end;
    /* It was carried out. */
    uint8_t has_ended;
    /* With a bandwidth: bytes are ripe and use the line. */
    uint8_t is_flowing;
    /* Pending bytes wait for their time, and not for the kernel. */
    uint8_t is_held;
} fe_faulty;

/* --- draws ---------------------------------------------------------------------------------- */

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit of x counts. */
static inline uint64_t fe_fault_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Below FE_FAULT_CERTAIN. */
static inline uint64_t fe_fault_draw(uint64_t key, uint64_t what, uint64_t offset)
{
    return fe_fault_mix(fe_fault_mix(key + what) + offset) >> 11;
}

static inline uint64_t fe_fault_key(const fe_fault *f, uint64_t number)
{
    return fe_fault_mix(fe_fault_mix(f->seed) ^ number);
}

/* Whether the connection with this number gets the fault. */
static inline int fe_fault_is_for(const fe_fault *f, uint64_t number)
{
    if (f->fail_first != FE_FAULT_NEVER && number - f->base - 1 >= f->fail_first)
        return 0;
    return fe_fault_draw(fe_fault_key(f, number), FE_DRAW_CHOICE, 0) < f->probability;
}

/* Whether a connection with it needs a timer. */
static inline int fe_fault_is_timed(const fe_fault *f)
{
    return f->delay_ns || f->jitter_ns || f->bandwidth || f->slice ||
           f->reset_after != FE_FAULT_NEVER;
}

/* Nanoseconds that the bytes from this offset on are delayed. Normal: the sum of twelve uniform
 * draws less six, whose deviation is 1; without libm it is the same number on every machine. */
static inline uint64_t fe_fault_delay_ns(const fe_fault *f, uint64_t key, uint64_t offset)
{
    uint64_t draw = fe_fault_draw(key, FE_DRAW_DELAY, offset);
    double moved, sum = 0;
    int i;

    if (f->distribution == FE_FAULT_FIXED)
        return f->delay_ns;
    if (f->distribution == FE_FAULT_UNIFORM) {
        sum = 2.0 * (double)draw / (double)FE_FAULT_CERTAIN - 1;
    } else {
        for (i = 0; i < 12; i++) {
            sum += (double)draw / (double)FE_FAULT_CERTAIN;
            draw = fe_fault_mix(draw) >> 11;
        }
        sum -= 6;
    }
    moved = (double)f->delay_ns + sum * (double)f->jitter_ns;
    return moved > 0 ? (uint64_t)moved : 0;
}

/* --- the stream of replies ------------------------------------------------------------------ */

/* Begins the connection with this number, in zeroed memory. */
static inline void fe_faulty_init(fe_faulty *f, const fe_fault *fault, uint64_t number)
{
    f->fault = *fault;
    f->key = fe_fault_key(fault, number);
    f->limit = fault->stall_after;
    if (fault->close_after < f->limit) {
        f->limit = fault->close_after;
        f->end = FE_FAULT_CLOSES;
    }
    if (fault->reset_after < f->limit) {
        f->limit = fault->reset_after;
        f->end = FE_FAULT_RESETS;
    }
}

static inline void fe_faulty_free(fe_faulty *f)
{
    free(f->marks);
    free(f);
}

/* How many of n more reply bytes will ever be sent. */
static inline size_t fe_faulty_room(const fe_faulty *f, size_t n)
{
    uint64_t room = f->limit - f->queued;

    return n < room ? n : (size_t)room;
}

/* Whether the frame whose reply would begin at the end of the stream is sent twice. */
static inline int fe_faulty_is_twice(const fe_faulty *f)
{
    return fe_fault_draw(f->key, FE_DRAW_DUPLICATE, f->queued) < f->fault.duplicate;
}

/* Changes bytes that will be taken next, each with the fault's probability and never to what it
 * was. Result: how many. */
static inline size_t fe_faulty_corrupt(const fe_faulty *f, unsigned char *bytes, size_t n)
{
    size_t i, changed = 0;

    for (i = 0; i < n; i++) {
        uint64_t draw = fe_fault_draw(f->key, FE_DRAW_CORRUPT, f->queued + i);
        if (draw < f->fault.corrupt) {
            bytes[i] ^= (unsigned char)(1 + fe_fault_mix(draw) % 255);
            changed++;
        }
    }
    return changed;
}

static inline int fe_faulty_grow(fe_faulty *f)
{
    uint32_t i, capacity = f->capacity ? 2 * f->capacity : 8;
    fe_mark *marks = malloc(capacity * sizeof(fe_mark));

    if (marks == NULL)
        return -ENOMEM;
    for (i = 0; i < f->count; i++)
        marks[i] = f->marks[(f->first + i) & (f->capacity - 1)];
    free(f->marks);
    f->marks = marks;
    f->first = 0;
    f->capacity = capacity;
    return 0;
}

/* Takes n > 0 bytes into the stream: they came at now_ns. 0 or -ENOMEM with nothing changed. */
static inline int fe_faulty_take(fe_faulty *f, size_t n, uint64_t now_ns)
{
    uint64_t due_ns;
    fe_mark *mark;

    if (f->fault.delay_ns == 0 && f->fault.jitter_ns == 0) {
        f->queued += n;
        f->ripe = f->queued;
        return 0;
    }
    if (f->count == f->capacity && fe_faulty_grow(f) < 0)
        return -ENOMEM;
    due_ns = now_ns + fe_fault_delay_ns(&f->fault, f->key, f->queued);
    if (due_ns > f->due_ns)
        f->due_ns = due_ns;
    f->queued += n;
    mark = &f->marks[(f->first + f->count) & (f->capacity - 1)];
    mark->end = f->queued;
    mark->due_ns = f->due_ns;
    f->count++;
    return 0;
}

/* Whether so many chunks are delayed that no more is to be read. */
static inline int fe_faulty_is_full(const fe_faulty *f)
{
    return f->count >= FE_FAULT_MARKS;
}

/* So many bytes may leave now. With 0: when to look again, FE_FAULT_NEVER if nothing waits. */
typedef struct fe_release {
    uint64_t bytes;
    uint64_t at_ns;
} fe_release;

/* What the line lets through, of n > 0 bytes that are ripe; a piece only as a whole. */
static inline fe_release fe_faulty_line(fe_faulty *f, uint64_t n, uint64_t now_ns)
{
    uint64_t bandwidth = f->fault.bandwidth, least = bandwidth / (1000000000 / FE_FAULT_STEP_NS);
    fe_release r = {0, 0};
    uint64_t allowed, least_ns;

    if (!f->is_flowing) {
        f->is_flowing = 1;
        if (f->line_ns < now_ns)
            f->line_ns = now_ns;
    }
    if (least == 0)
        least = 1;
    if (least > n || f->fault.slice)
        least = n;
    least_ns = (least * 1000000000 + bandwidth - 1) / bandwidth;
    if (now_ns > f->line_ns + least_ns + FE_FAULT_SAVED_NS)
        f->line_ns = now_ns - least_ns - FE_FAULT_SAVED_NS;
    allowed = now_ns > f->line_ns ? (now_ns - f->line_ns) * bandwidth / 1000000000 : 0;
    if (allowed >= least)
        r.bytes = allowed < n ? allowed : n;
    else
        r.at_ns = f->line_ns + least_ns;
    return r;
}

/* What may leave at now_ns. */
static inline fe_release fe_faulty_release(fe_faulty *f, uint64_t now_ns)
{
    fe_release r = {0, FE_FAULT_NEVER};
    uint64_t n;

    while (f->count && f->marks[f->first].due_ns <= now_ns) {
        f->ripe = f->marks[f->first].end;
        f->first = (f->first + 1) & (f->capacity - 1);
        f->count--;
    }
    n = f->ripe - f->sent;
    if (n == 0) {
        f->is_flowing = 0;
        if (f->count)
            r.at_ns = f->marks[f->first].due_ns;
        return r;
    }
    if (f->fault.slice) {
        if (now_ns < f->piece_ns) {
            r.at_ns = f->piece_ns;
            return r;
        }
        if (n > f->fault.slice)
            n = f->fault.slice;
    }
    if (f->fault.bandwidth)
        return fe_faulty_line(f, n, now_ns);
    r.bytes = n;
    return r;
}

/* n bytes have left at now_ns. */
static inline void fe_faulty_sent(fe_faulty *f, uint64_t n, uint64_t now_ns)
{
    f->sent += n;
    if (f->fault.slice)
        f->piece_ns = now_ns + f->fault.gap_ns;
    if (f->fault.bandwidth)
        f->line_ns += n * 1000000000 / f->fault.bandwidth;
}

/* What is due now that so many bytes were sent: enum fe_fault_end, each until has_ended is set. */
static inline int fe_faulty_end(const fe_faulty *f)
{
    return f->sent == f->limit && f->lead == 0 && !f->has_ended ? f->end : FE_FAULT_GOES_ON;
}

/* The owner of a timer. */
static inline fe_faulty *fe_faulty_of(fe_timer *timer)
{
    return (fe_faulty *)(void *)((char *)timer - offsetof(fe_faulty, timer));
}

#endif
