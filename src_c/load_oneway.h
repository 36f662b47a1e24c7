/* A load in one direction: bytes to a discard server, or the pattern of a chargen server.
 *
 * Lives here: what of an upload counts, whether a download is the pattern, who has moved nothing for
 * too long. Does not live here: any descriptor's call (_load_oneway.pxd), the pattern (chargen.h).
 *
 * There are no messages: a connection's numbers of them stand still at FE_LOAD_STREAM, so that
 * whatever else looks at them finds nothing outstanding. Instead:
 *
 *     upload    sent_at: bytes that the kernel has taken; done_at: of these, acknowledged and counted
 *     download  done_at: bytes verified; sent_at: the place of the next; instead: whose pattern;
 *               its entry in times: bytes that were there when the window began, and do not count
 *
 * A byte of an upload counts once the peer's TCP has acknowledged it, in the window in which it does.
 * That the server has read it is known at the end: it answers our FIN by its own, which comes after
 * all that came before.
 *
 * A download begins by any line of the pattern of the RFC: by which, its first byte tells. One that
 * begins by "!" is taken for xinetd's until the two part.
 */
#ifndef FASTECHO_LOAD_ONEWAY_H
#define FASTECHO_LOAD_ONEWAY_H

#include "chargen.h"
#include "load.h"

/* The number of the message that a failure of such a connection is about. */
#define FE_LOAD_STREAM UINT64_MAX
/* A period of each pattern, by its kind. */
#define FE_LOAD_PERIODS (2 * FE_CHARGEN_PERIOD)

/* Makes c a connection without messages. */
static inline void fe_load_make_stream(fe_load_connection *c)
{
    c->due = c->sent = c->done = FE_LOAD_STREAM;
}

/* Fills FE_LOAD_PERIODS bytes with what downloads are compared with. */
static inline void fe_load_fill_periods(unsigned char *periods)
{
    fe_chargen_fill(periods, FE_CHARGEN_PERIOD, FE_CHARGEN_RFC);
    fe_chargen_fill(periods + FE_CHARGEN_PERIOD, FE_CHARGEN_PERIOD, FE_CHARGEN_XINETD);
}

/* Bytes that count have moved on c. */
static inline void fe_load_moved(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    c->since_ns = now_ns;
    if (c->gap != FE_LOAD_NO_GAP)
        fe_load_back(l, c, now_ns);
}

/* Of the bytes of an upload, so many are not acknowledged: counts what is, and was not before; after
 * our FIN it only notes it, the window is over. Result: whether there was any. */
static inline int fe_load_acknowledged(fe_load *l, fe_load_connection *c, uint64_t missing,
                                       uint64_t now_ns)
{
    if (missing > c->sent_at || c->sent_at - missing <= c->done_at)
        return 0;
    if (c->state == FE_LOAD_OPEN)
        fe_load_add(&l->counts, FE_LOAD_BYTES, c->sent_at - missing - c->done_at);
    c->done_at = c->sent_at - missing;
    fe_load_moved(l, c, now_ns);
    return 1;
}

/* n bytes of a download have come, n > 0: counts those up to the first that is wrong. Result: 0, or
 * -1: there is one, it is counted as a failure, and nothing that follows can be judged. */
static inline int fe_load_downloaded(fe_load *l, fe_load_connection *c,
                                     const unsigned char *periods, const unsigned char *bytes,
                                     size_t n, uint64_t now_ns)
{
    uint64_t *early = &l->times[fe_load_index(l, c)];
    const unsigned char *period;
    size_t right;
    fe_load_failure *f;

    if (c->done_at == 0) {
        uint32_t at = fe_chargen_begin(bytes[0]);
        int is_xinetd = bytes[0] == FE_CHARGEN_XINETD_FIRST;

        c->instead = is_xinetd ? FE_CHARGEN_XINETD : FE_CHARGEN_RFC;
        c->sent_at = is_xinetd || at == FE_CHARGEN_NOWHERE ? 0 : at;
    }
    period = periods + (size_t)c->instead * FE_CHARGEN_PERIOD;
    right = fe_chargen_same(period, (uint32_t)c->sent_at, bytes, n);
    if (right < n && c->instead == FE_CHARGEN_XINETD && c->done_at + right == FE_CHARGEN_FORK) {
        /* It may be the RFC's, begun by its line 1. */
        c->instead = FE_CHARGEN_RFC;
        c->sent_at += FE_CHARGEN_LINE;
        period = periods;
        right = fe_chargen_same(period, (uint32_t)c->sent_at, bytes, n);
    }
    fe_load_add(&l->counts, FE_LOAD_BYTES_RECEIVED, n);
    fe_load_add(&l->counts, FE_LOAD_BYTES, right > *early ? right - *early : 0);
    *early -= right < *early ? right : *early;
    c->sent_at = fe_chargen_after((uint32_t)c->sent_at, right);
    c->done_at += right;
    if (right > 0)
        fe_load_moved(l, c, now_ns);
    if (right == n)
        return 0;
    f = fe_load_fail(l, c, FE_LOAD_CORRUPT, 1, now_ns);
    if (f != NULL) {
        f->expected = period[c->sent_at];
        f->got = bytes[right];
    }
    return -1;
}

/* Whether nothing has moved on c for longer than the timeout. */
static inline int fe_load_stands_still(const fe_load *l, const fe_load_connection *c,
                                       uint64_t now_ns)
{
    return now_ns > c->since_ns && now_ns - c->since_ns > l->timeout_ns;
}

#endif
