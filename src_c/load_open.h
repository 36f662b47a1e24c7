/* An open loop's messages: each is given, when it is due, to a connection that has room.
 *
 * Lives here: the ring of connections that may take a message, giving, what becomes of a
 * message that nobody can take. Does not live here: when messages are due (schedule.h), what a
 * connection does with them (load.h).
 *
 * A message that finds every connection full waits, and counts from when it was due. One that
 * finds none open, because they were lost or could not connect, is lost; so are those that
 * waited when the last one ended. While the first ones are still connecting it waits. None is
 * skipped.
 */
#ifndef FASTECHO_LOAD_OPEN_H
#define FASTECHO_LOAD_OPEN_H

#include "load_life.h"

/* c may take a message since now_ns: puts it into the ring, behind those that wait longer. */
static inline void fe_load_offer(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    if (c->queued || c->state != FE_LOAD_OPEN || fe_load_room(l, c) == 0)
        return;
    if (l->ring_used == 0)
        l->room_since_ns = now_ns;
    c->queued = 1;
    l->ring[(l->ring_start + l->ring_used) % l->count] = fe_load_index(l, c);
    l->ring_used++;
}

/* The next connection that may take a message, taken out of the ring; NULL: none. */
static inline fe_load_connection *fe_load_pick(fe_load *l)
{
    while (l->ring_used > 0) {
        fe_load_connection *c = &l->connections[l->ring[l->ring_start]];

        l->ring_start = l->ring_start + 1 == l->count ? 0 : l->ring_start + 1;
        l->ring_used--;
        c->queued = 0;
        if (c->state == FE_LOAD_OPEN && fe_load_room(l, c) > 0)
            return c;
    }
    return NULL;
}

/* Nobody can take a message, nor will before somebody has connected again. */
static inline int fe_load_is_cut_off(const fe_load *l)
{
    return fe_load_open(l) == 0 && l->broken > 0;
}

/* Whether the schedule has another message to give. */
static inline int fe_load_has_next(const fe_load *l)
{
    return !fe_load_is_over(l, l->schedule.next_ns);
}

/* Counts a message that is due as given to c. */
static inline void fe_load_give_one(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    uint64_t due_ns = l->schedule.next_ns;
    int waited = due_ns < l->room_since_ns;

    fe_load_release(l, c, 1, due_ns, now_ns);
    if (due_ns >= l->window_ns) {
        if (waited)
            fe_load_add(&l->counts, FE_LOAD_HELD, 1);
        else
            fe_histogram_record(l->lateness, now_ns - due_ns);
    }
    fe_load_offer(l, c, l->room_since_ns);
    if (!c->touched) {
        c->touched = 1;
        l->touched[l->touched_used++] = fe_load_index(l, c);
    }
}

/* The next message that is due is given to nobody, and counted as `kind`. */
static inline void fe_load_miss(fe_load *l, int kind)
{
    fe_load_add(&l->counts, kind, 1);
    if (l->schedule.next_ns >= l->window_ns) {
        l->left--;
        /* It has waited for a connection that was free, in vain. */
        if (kind == FE_LOAD_UNSENT)
            fe_load_add(&l->counts, FE_LOAD_HELD, 1);
    }
    fe_schedule_advance(&l->schedule);
}

/* Gives messages whose time has come to connections that have room, `most` at the most; each
 * counts from its intended time. The connections stand in l->touched, to be sent from.
 * Result: how many messages were given. */
static inline uint32_t fe_load_give(fe_load *l, uint64_t now_ns, uint32_t most)
{
    uint32_t given = 0;

    while (given < most && l->schedule.next_ns <= now_ns && fe_load_has_next(l)) {
        fe_load_connection *c = fe_load_pick(l);

        if (c != NULL) {
            fe_load_give_one(l, c, now_ns);
            fe_schedule_advance(&l->schedule);
            given++;
        } else if (fe_load_is_cut_off(l)) {
            fe_load_miss(l, FE_LOAD_LOST);
        } else {
            break;
        }
        if (l->left == 0)
            fe_load_spent(l, now_ns);
    }
    return given;
}

/* A connection that was given messages, taken off the list; NULL: none is left. */
static inline fe_load_connection *fe_load_given(fe_load *l)
{
    fe_load_connection *c;

    if (l->touched_used == 0)
        return NULL;
    c = &l->connections[l->touched[--l->touched_used]];
    c->touched = 0;
    return c;
}

/* The schedule is over: counts what it still holds as unsent, or as lost. */
static inline void fe_load_give_up(fe_load *l)
{
    int kind = fe_load_is_cut_off(l) ? FE_LOAD_LOST : FE_LOAD_UNSENT;

    while (fe_load_has_next(l))
        fe_load_miss(l, kind);
}

#endif
