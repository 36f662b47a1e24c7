/* Replies: are the bytes that came the right ones, and when was a reply complete?
 *
 * Lives here: verifying, latencies. Does not live here: the records (load.h), which bytes are
 * the right ones (pattern.h).
 *
 * A reply that differs is compared with the other messages of its connection: *misplaced* is
 * one that is another's, *corrupt* one that is nobody's. It comes in pieces of any size, and
 * none is kept. So as long as it can be another's it is taken for that one's, which says all
 * about the bytes that came before; what follows confirms it or decides anew.
 */
#ifndef FASTECHO_LOAD_REPLY_H
#define FASTECHO_LOAD_REPLY_H

#include "load.h"

/* Messages before the one that is due, and from it on, whose replies are looked for when another
 * came. More would take longer than the messages themselves when every reply is wrong. */
#define FE_LOAD_LOOK_BACK 64
#define FE_LOAD_LOOK_AHEAD 1024
/* Bytes of a body that are enough to know it by: fewer can be equal by chance. */
#define FE_LOAD_KNOWN_BY 8

/* The message whose reply is being received. */
static inline uint64_t fe_load_coming(const fe_load_connection *c)
{
    return c->done + (uint64_t)(int64_t)c->instead;
}

/* Whether the n bytes that follow byte `at` of the reply to message `number` are these; bytes
 * behind its end do not matter. */
static inline int fe_load_continues(const fe_load *l, const fe_load_connection *c,
                                    uint64_t number, uint64_t at, const unsigned char *bytes,
                                    size_t n)
{
    const fe_size *size = fe_pattern_size(&l->pattern, c->first, number);
    const unsigned char *body = fe_pattern_body(&l->pattern, c->first, number);

    while (n > 0 && at < size->whole[FE_REPLY]) {
        const unsigned char *expected;
        size_t run = fe_pattern_run(&l->pattern, FE_REPLY, size, body, at, &expected);

        if (run > n)
            run = n;
        if (memcmp(bytes, expected, run) != 0)
            return 0;
        bytes += run;
        at += run;
        n -= run;
    }
    return 1;
}

/* Whether the replies to messages a and b, which have so many, have their first n bytes in
 * common. */
static inline int fe_load_begin_alike(const fe_load *l, const fe_load_connection *c, uint64_t a,
                                      uint64_t b, uint64_t n)
{
    const fe_size *size = fe_pattern_size(&l->pattern, c->first, a);
    uint64_t at = 0;

    while (at < n) {
        const unsigned char *bytes;
        size_t run = fe_pattern_run(&l->pattern, FE_REPLY, size,
                                    fe_pattern_body(&l->pattern, c->first, a), at, &bytes);

        if (run > n - at)
            run = (size_t)(n - at);
        if (!fe_load_continues(l, c, b, at, bytes, run))
            return 0;
        at += run;
    }
    return 1;
}

/* Byte `at` of the reply to message `number`. */
static inline uint8_t fe_load_byte(const fe_load *l, const fe_load_connection *c,
                                   uint64_t number, uint64_t at)
{
    const unsigned char *bytes;

    fe_pattern_run(&l->pattern, FE_REPLY, fe_pattern_size(&l->pattern, c->first, number),
                   fe_pattern_body(&l->pattern, c->first, number), at, &bytes);
    return *bytes;
}

/* The reply under way is nobody's: counts it. Result: where the caller may say more about it, or
 * NULL. If it was taken for another's, that is said here: what came is what that one begins
 * with, and it has differed from the one that was due. */
static inline fe_load_failure *fe_load_corrupt(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    uint64_t whole = fe_pattern_size(&l->pattern, c->first, c->done)->whole[FE_REPLY];
    fe_load_failure *f = fe_load_fail(l, c, FE_LOAD_CORRUPT, 1, now_ns);

    if (f != NULL && c->instead != 0) {
        uint64_t last = (c->done_at < whole ? c->done_at : whole) - 1, at = 0;

        while (at < last && fe_load_byte(l, c, c->done, at) ==
                                fe_load_byte(l, c, fe_load_coming(c), at))
            at++;
        f->offset = at;
        f->expected = fe_load_byte(l, c, c->done, at);
        f->got = fe_load_byte(l, c, fe_load_coming(c), at);
    }
    c->verdict = FE_LOAD_FITS_NONE;
    /* Unless it is longer than that already, it ends where the one that was due would. */
    if (c->done_at < whole)
        c->instead = 0;
    return f;
}

/* Of the n bytes that came next, the first `run` are not the expected ones: looks for another
 * message of c whose reply they and all that came before can be, or counts the reply as corrupt.
 * A few bytes may fit by chance: then the next ones decide anew. */
static inline void fe_load_differs(fe_load *l, fe_load_connection *c, const unsigned char *bytes,
                                   size_t n, const unsigned char *expected, size_t run,
                                   uint64_t now_ns)
{
    uint64_t number = c->done > FE_LOAD_LOOK_BACK ? c->done - FE_LOAD_LOOK_BACK : 0;
    uint64_t end = c->due - c->done > FE_LOAD_LOOK_AHEAD ? c->done + FE_LOAD_LOOK_AHEAD : c->due;
    int is_first = c->instead == 0;
    fe_load_failure *f;

    for (; number < end; number++) {
        const fe_size *size = fe_pattern_size(&l->pattern, c->first, number);

        if (size->body >= FE_LOAD_KNOWN_BY && c->done_at < size->whole[FE_REPLY] &&
            fe_load_continues(l, c, number, c->done_at, bytes, n) &&
            fe_load_begin_alike(l, c, fe_load_coming(c), number, c->done_at)) {
            c->verdict = FE_LOAD_FITS_ANOTHER;
            c->instead = (int32_t)(int64_t)(number - c->done);
            return;
        }
    }
    f = fe_load_corrupt(l, c, now_ns);
    if (f != NULL && is_first) {
        size_t i = fe_pattern_difference(bytes, expected, run);

        f->offset += i;
        f->expected = expected[i];
        f->got = bytes[i];
    }
}

/* A reply that differs is complete, or its rest cannot come: counts it, unless that is done. */
static inline void fe_load_settle(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    if (c->verdict == FE_LOAD_FITS_ANOTHER) {
        if (c->done_at < l->pattern.shapes[FE_REPLY].head_size + FE_LOAD_KNOWN_BY) {
            fe_load_corrupt(l, c, now_ns);
        } else {
            fe_load_failure *f = fe_load_fail(l, c, FE_LOAD_MISPLACED, 1, now_ns);

            if (f != NULL)
                f->count = fe_load_coming(c);
        }
    }
    c->verdict = FE_LOAD_FITS;
    c->instead = 0;
}

/* The reply to message `done` is the right one and complete. */
static inline void fe_load_right(fe_load *l, fe_load_connection *c, uint64_t bytes,
                                 uint64_t now_ns)
{
    size_t place = fe_load_place(l, c, c->done);
    uint64_t took_ns = now_ns - l->given[place], due_ns = l->times[place];
    int counts = due_ns >= l->window_ns;
    /* Of the warm-up, too: a rate is what came in the window. */
    int came = now_ns >= l->window_ns && now_ns < l->end_ns;

    if (__builtin_expect(c->gap != FE_LOAD_NO_GAP, 0))
        fe_load_back(l, c, now_ns);
    fe_load_add(&l->counts, FE_LOAD_RIGHT, 1);
    if (__builtin_expect(took_ns > l->timeout_ns, 0)) {
        fe_load_failure *f = fe_load_fail(l, c, FE_LOAD_LATE, 1, now_ns);

        if (f != NULL)
            f->count = took_ns;
    } else {
        fe_load_add(&l->counts, FE_LOAD_MESSAGES, (uint64_t)counts);
        fe_load_add(&l->counts, FE_LOAD_MESSAGES_IN_WINDOW, (uint64_t)came);
        fe_load_add(&l->counts, FE_LOAD_BYTES, came ? bytes : 0);
    }
    if (__builtin_expect(counts, 1)) {
        fe_histogram_record(l->latency, now_ns - due_ns);
        if (l->service != NULL)
            fe_histogram_record(l->service, took_ns);
    }
}

/* Verifies n bytes that came at now_ns. Result: replies that are complete now. */
static inline uint32_t fe_load_received(fe_load *l, fe_load_connection *c,
                                        const unsigned char *bytes, size_t n, uint64_t now_ns)
{
    uint64_t before = c->done;

    fe_load_add(&l->counts, FE_LOAD_BYTES_RECEIVED, n);
    c->since_ns = now_ns;
    while (n > 0 && c->done < c->due) {
        const unsigned char *expected;
        uint64_t number = fe_load_coming(c);
        const fe_size *size = fe_pattern_size(&l->pattern, c->first, number);
        size_t run = fe_pattern_run(&l->pattern, FE_REPLY, size,
                                    fe_pattern_body(&l->pattern, c->first, number), c->done_at,
                                    &expected);

        if (run > n)
            run = n;
        if (__builtin_expect(memcmp(bytes, expected, run) != 0, 0) &&
            c->verdict != FE_LOAD_FITS_NONE) {
            fe_load_differs(l, c, bytes, n, expected, run, now_ns);
            continue;
        }
        bytes += run;
        n -= run;
        c->done_at += run;
        if (c->done_at < size->whole[FE_REPLY])
            continue;
        if (__builtin_expect(c->verdict == FE_LOAD_FITS, 1))
            fe_load_right(l, c, size->whole[FE_REPLY], now_ns);
        else
            fe_load_settle(l, c, now_ns);
        c->done++;
        c->done_at = 0;
        l->outstanding--;
    }
    if (n > 0)
        fe_load_fail(l, c, FE_LOAD_EXTRA_BYTES, n, now_ns);
    return (uint32_t)(c->done - before);
}

#endif
