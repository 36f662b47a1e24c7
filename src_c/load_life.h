/* How a load's connections come and go, and what becomes of their messages then.
 *
 * Lives here: counting connects, gaps and ends; since when nothing has come. Does not live here:
 * when a connection is tried again (fastecho/_load_connection.pxd).
 *
 * A gap is the time from the loss of a connection, or from a connect that failed, until a right
 * reply comes on it again, within one run: a server that has stopped still lets its kernel accept.
 */
#ifndef FASTECHO_LOAD_LIFE_H
#define FASTECHO_LOAD_LIFE_H

#include "load_reply.h"

/* c is open, since now_ns. Result: when its connect began, in ns. */
static inline uint64_t fe_load_opened(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    uint64_t began_ns = c->since_ns;

    fe_load_add(&l->counts, FE_LOAD_CONNECTS, 1);
    fe_load_add(&l->counts, FE_LOAD_CONNECTIONS_OPEN, 1);
    fe_histogram_record(l->connect, now_ns - began_ns);
    if (c->gap == FE_LOAD_AWAY) {
        c->gap = FE_LOAD_UNANSWERED;
        l->broken--;
    }
    c->state = FE_LOAD_OPEN;
    c->since_ns = now_ns;
    return began_ns;
}

/* c has no descriptor any more: what was outstanding cannot come. Counts and describes why:
 * kind, an errno or 0. Messages are counted as timed out or as lost, a wrong reply that was
 * under way as what it is; kind < 0: nothing went wrong. */
static inline void fe_load_gone(fe_load *l, fe_load_connection *c, int kind, int error,
                                uint64_t now_ns)
{
    uint64_t outstanding = c->due - c->done;
    uint64_t missing = outstanding - (c->verdict != FE_LOAD_FITS);

    if (kind >= 0) {
        fe_load_failure *f = NULL;

        fe_load_settle(l, c, now_ns);
        if (kind != FE_LOAD_TIMED_OUT)
            f = fe_load_fail(l, c, kind, 1, now_ns);
        else if (missing > 0)
            f = fe_load_fail(l, c, kind, missing, now_ns);
        if (f != NULL) {
            f->error = error;
            f->count = missing;
        }
        if (kind != FE_LOAD_TIMED_OUT)
            fe_load_add(&l->counts, FE_LOAD_LOST, missing);
        if (c->gap == FE_LOAD_NO_GAP)
            l->pasts[fe_load_index(l, c)].lost_ns = now_ns;
        if (c->gap != FE_LOAD_AWAY)
            l->broken++;
        c->gap = FE_LOAD_AWAY;
    }
    l->outstanding -= outstanding;
    c->done = c->sent = c->due;
    c->done_at = c->sent_at = 0;
    c->verdict = FE_LOAD_FITS;
    c->instead = 0;
    c->wants_write = 0;
    fe_load_not_open(l, c, FE_LOAD_CLOSED);
    c->fd = -1;
}

/* Gaps are counted within a run: what was lost before is not, from now on. */
static inline void fe_load_forget_gaps(fe_load *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        l->connections[i].gap = FE_LOAD_NO_GAP;
    l->broken = 0;
}

/* Whether c waits for a reply, a connect or a FIN, and nothing came for longer than the timeout.
 * Waiting for a turn in an open loop does not count: the server knows nothing of that. */
static inline int fe_load_silent(const fe_load *l, const fe_load_connection *c, uint64_t now_ns)
{
    uint64_t since = c->since_ns;

    if (c->state <= FE_LOAD_RESTING)
        return 0;
    if (c->state == FE_LOAD_OPEN) {
        uint64_t given;

        if (c->due == c->done)
            return 0;
        given = l->given[fe_load_place(l, c, c->done)];
        since = given > since ? given : since;
    }
    return now_ns > since && now_ns - since > l->timeout_ns;
}

#endif
