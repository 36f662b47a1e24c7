/* A load generator's connections: what is due, what has been sent, what is owed.
 *
 * Lives here: which bytes to send next, whether the bytes that came back are the
 * right ones, latencies, the schedule of an open loop, counting. Bytes and times
 * in, decisions out. Does not live here: any descriptor's call, any clock
 * (fastecho/_load.pyx brings both).
 *
 * The life of a message: it becomes *due*, a connection is given it (both times are stored),
 * it is *sent* when the kernel has taken its last byte, it is *done* when its
 * reply is complete or can no longer come. Messages of a connection are numbered
 * from 0 for ever, over reconnects too: the number decides the bytes. So three
 * numbers and two offsets are a connection's whole state, and a short write or a
 * split reply is nothing special.
 *
 *     done <= sent <= due <= done + depth
 *
 * A wrong reply does not end its connection: if a byte was changed or two replies
 * were swapped, the next ones fit again; if bytes were lost, what follows is wrong
 * as well and the last one times out.
 */
#ifndef FASTECHO_LOAD_H
#define FASTECHO_LOAD_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "histogram.h"
#include "pattern.h"

enum fe_load_mode { FE_LOAD_CLOSED_LOOP = 0, FE_LOAD_OPEN_LOOP, FE_LOAD_RECONNECT, FE_LOAD_IDLE };

enum fe_load_state {
    /* No descriptor. */
    FE_LOAD_CLOSED = 0,
    /* No descriptor; connects at the next sweep. */
    FE_LOAD_WAITING,
    /* The handshake is under way. */
    FE_LOAD_CONNECTING,
    FE_LOAD_OPEN,
    /* Reconnect mode: our FIN is sent, the server's is awaited. */
    FE_LOAD_ENDING
};

/* Kinds of failures; FE_LOAD_KINDS: how many there are. */
enum fe_load_kind {
    /* A reply differs from what was due. Counted in messages. */
    FE_LOAD_WRONG = 0,
    /* Bytes came although no reply was due. Counted in bytes. */
    FE_LOAD_EXTRA,
    /* No reply, no connect, no FIN within the timeout. Counted in messages. */
    FE_LOAD_TIMED_OUT,
    /* The server ended the connection: RST, FIN. Counted in connections. */
    FE_LOAD_RESET,
    FE_LOAD_CLOSED_BY_SERVER,
    /* Nobody listens. Counted in connects. */
    FE_LOAD_REFUSED,
    /* Any other errno. Counted in connections. */
    FE_LOAD_OTHER,
    FE_LOAD_KINDS
};

/* The kind of an errno that a connection ended with. */
static inline int fe_load_kind_for(int error)
{
    switch (error) {
    case ECONNRESET:
    case EPIPE:
        return FE_LOAD_RESET;
    case ECONNREFUSED:
        return FE_LOAD_REFUSED;
    case ETIMEDOUT:
        return FE_LOAD_TIMED_OUT;
    default:
        return FE_LOAD_OTHER;
    }
}

typedef struct fe_load_connection {
    /* The descriptor; -1 without one. */
    int32_t fd;
    uint8_t state;
    /* Registered for EPOLLOUT. */
    uint8_t wants_write;
    /* The reply that is being received has differed already. */
    uint8_t wrong;
    /* In the ring of those that may take a message (open loop). */
    uint8_t queued;
    /* The window of message 0 (pattern.h). */
    uint32_t first;
    /* In the list of those that have something to send (open loop). */
    uint32_t touched;
    /* Messages that have become due, that are sent, that are done. */
    uint64_t due;
    uint64_t sent;
    uint64_t done;
    /* Bytes sent of message `sent`, bytes received of the reply to message `done`. */
    uint64_t sent_at;
    uint64_t done_at;
    /* When the connect or our FIN began, in ns. */
    uint64_t since_ns;
} fe_load_connection;

/* A cache line each. */
_Static_assert(sizeof(fe_load_connection) == 64, "a load connection is 64 bytes");

/* One failure, described where it happened and turned into words later. */
typedef struct fe_load_failure {
    int32_t kind;
    /* The state that the connection was in. */
    int32_t state;
    uint32_t connection;
    /* An errno, or 0. */
    int32_t error;
    /* The message, and the offset in its reply. */
    uint64_t number;
    uint64_t offset;
    /* Bytes too many, or messages that were outstanding. */
    uint64_t count;
    /* The byte that was due and the one that came. */
    uint8_t expected;
    uint8_t got;
} fe_load_failure;

/* Failures that are described; the rest is only counted. */
#define FE_LOAD_DESCRIBED 8

typedef struct fe_load_counts {
    uint64_t messages;
    uint64_t messages_in_window;
    uint64_t sent;
    uint64_t bytes;
    uint64_t bytes_sent;
    uint64_t bytes_received;
    uint64_t connects;
    uint64_t lost;
    /* Open loop: messages that waited for a connection with room; that were never sent. */
    uint64_t held;
    uint64_t unsent;
    uint64_t spin_ns;
    uint64_t iterations;
    uint64_t kinds[FE_LOAD_KINDS];
    uint32_t described;
    fe_load_failure failures[FE_LOAD_DESCRIBED];
} fe_load_counts;

typedef struct fe_load {
    fe_pattern pattern;
    /* One record a connection. */
    fe_load_connection *connections;
    /* When each outstanding message became due, in ns: ring_mask + 1 places a connection. */
    uint64_t *times;
    /* When it was given to its connection, likewise. In an open loop that can be later; in any
     * other mode it is the same, and so is the memory. */
    uint64_t *given;
    /* Latencies of right replies; schedule errors of an open loop: how late a message was given
     * to a connection that was there in time, so the generator's own doing. */
    fe_histogram *latency;
    fe_histogram *lateness;
    /* Open loop: connections that may take a message, a ring of `count` places; and those
     * that were given some and have not sent them. */
    uint32_t *ring;
    uint32_t *touched;
    uint32_t count;
    uint32_t ring_start;
    uint32_t ring_used;
    uint32_t touched_used;
    /* Messages that may be outstanding on a connection. */
    uint32_t depth;
    uint32_t ring_mask;
    /* Messages outstanding on all connections. */
    uint64_t outstanding;
    /* No message becomes due at or after this time, in ns. */
    uint64_t end_ns;
    /* Open loop: when the next message is due; the schedule's start, its messages so far
     * and ns from one to the next. */
    uint64_t next_ns;
    uint64_t start_ns;
    uint64_t scheduled;
    double interval_ns;
    /* Open loop: when a connection last came into an empty ring. A message that was due before
     * had to wait for it. */
    uint64_t room_since_ns;
    fe_load_counts counts;
} fe_load;

/* Bytes from which a part of a message is sent where it stands; smaller ones are copied
 * together, so that a batch of messages is one send. */
#define FE_LOAD_IN_PLACE ((size_t)16384)
/* Bytes of a body that are kept back to go out together with its tail. */
#define FE_LOAD_KEPT_BACK ((size_t)4096)

/* The next bytes to send. */
typedef struct fe_load_chunk {
    const unsigned char *bytes;
    /* 0: everything that is due is sent. */
    size_t size;
    /* Where in the noise they stand; -1: not there. */
    int64_t noise_at;
} fe_load_chunk;

static inline uint32_t fe_load_index(const fe_load *l, const fe_load_connection *c)
{
    return (uint32_t)(c - l->connections);
}

/* Where in `times` and `given` a message has its place. */
static inline size_t fe_load_place(const fe_load *l, const fe_load_connection *c, uint64_t number)
{
    size_t places = (size_t)l->ring_mask + 1;

    return fe_load_index(l, c) * places + (size_t)(number & l->ring_mask);
}

/* Counts a failure, by `by`. Result: where the caller may say more about it, or NULL when
 * enough of them are described. */
static inline fe_load_failure *fe_load_fail(fe_load *l, const fe_load_connection *c, int kind,
                                            uint64_t by)
{
    fe_load_failure *f;

    l->counts.kinds[kind] += by;
    if (l->counts.described == FE_LOAD_DESCRIBED)
        return NULL;
    f = &l->counts.failures[l->counts.described++];
    memset(f, 0, sizeof(*f));
    f->kind = kind;
    f->state = c->state;
    f->connection = fe_load_index(l, c);
    f->number = c->done;
    f->offset = c->done_at;
    f->count = by;
    return f;
}

/* Gives c n more messages, which became due at due_ns. The caller has seen that the depth
 * allows it. */
static inline void fe_load_release(fe_load *l, fe_load_connection *c, uint32_t n,
                                   uint64_t due_ns, uint64_t now_ns)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t place = fe_load_place(l, c, c->due + i);

        l->given[place] = now_ns;
        l->times[place] = due_ns;
    }
    c->due += n;
    l->outstanding += n;
    l->counts.sent += n;
}

/* Messages that c may take. */
static inline uint32_t fe_load_room(const fe_load *l, const fe_load_connection *c)
{
    return l->depth - (uint32_t)(c->due - c->done);
}

/* The next bytes that c has to send: where they stand, if one stretch is long enough or is
 * all there is, otherwise copied together into scratch, `room` bytes at most.
 * A short write needs no action: report what was taken and ask again. */
static inline fe_load_chunk fe_load_next(const fe_load *l, const fe_load_connection *c,
                                         unsigned char *scratch, size_t room)
{
    const fe_shape *shape = &l->pattern.request;
    uint64_t number = c->sent, at = c->sent_at;
    uint64_t left = (c->due - c->sent) * shape->size - c->sent_at;
    fe_load_chunk chunk = {scratch, 0, -1};

    while (left > 0 && chunk.size < room) {
        const unsigned char *bytes;
        size_t run = fe_shape_run(
            shape, fe_pattern_body(&l->pattern, c->first, number), at, &bytes);

        if (chunk.size == 0 && (run == left || run >= FE_LOAD_IN_PLACE)) {
            /* It is no head: those are short, and a body follows. */
            int in_body = at < shape->head_size + shape->body_size;

            if (in_body)
                chunk.noise_at = bytes - l->pattern.noise;
            if (in_body && shape->tail_size > 0)
                run -= FE_LOAD_KEPT_BACK;
            chunk.bytes = bytes;
            chunk.size = run;
            return chunk;
        }
        if (run > room - chunk.size)
            run = room - chunk.size;
        memcpy(scratch + chunk.size, bytes, run);
        chunk.size += run;
        left -= run;
        at += run;
        if (at == shape->size) {
            number++;
            at = 0;
        }
    }
    return chunk;
}

/* The kernel has taken n of the bytes that fe_load_next gave. */
static inline void fe_load_taken(fe_load *l, fe_load_connection *c, size_t n)
{
    uint64_t size = l->pattern.request.size;
    uint64_t at = c->sent_at + n;

    l->counts.bytes_sent += n;
    if (at >= size) {
        c->sent += at / size;
        at %= size;
    }
    c->sent_at = at;
}

/* The reply to message `done` is complete. */
static inline void fe_load_complete(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    if (c->wrong) {
        c->wrong = 0;
    } else {
        l->counts.messages++;
        l->counts.messages_in_window += now_ns < l->end_ns;
        l->counts.bytes += l->pattern.reply.size;
        fe_histogram_record(l->latency, now_ns - l->times[fe_load_place(l, c, c->done)]);
    }
    c->done++;
    c->done_at = 0;
    l->outstanding--;
}

/* Verifies n bytes that came at now_ns. Result: replies that are complete now. */
static inline uint32_t fe_load_received(fe_load *l, fe_load_connection *c,
                                        const unsigned char *bytes, size_t n, uint64_t now_ns)
{
    const fe_shape *shape = &l->pattern.reply;
    uint64_t before = c->done;

    l->counts.bytes_received += n;
    while (n > 0 && c->done < c->due) {
        const unsigned char *expected;
        size_t run = fe_shape_run(
            shape, fe_pattern_body(&l->pattern, c->first, c->done), c->done_at, &expected);

        if (run > n)
            run = n;
        if (__builtin_expect(memcmp(bytes, expected, run) != 0, 0) && !c->wrong) {
            fe_load_failure *f = fe_load_fail(l, c, FE_LOAD_WRONG, 1);

            c->wrong = 1;
            if (f != NULL) {
                size_t i = fe_pattern_difference(bytes, expected, run);

                f->offset += i;
                f->expected = expected[i];
                f->got = bytes[i];
            }
        }
        bytes += run;
        n -= run;
        c->done_at += run;
        if (c->done_at == shape->size)
            fe_load_complete(l, c, now_ns);
    }
    if (n > 0)
        fe_load_fail(l, c, FE_LOAD_EXTRA, n);
    return (uint32_t)(c->done - before);
}

/* c has no descriptor any more: what was outstanding cannot come. Counts and describes why:
 * kind, an errno or 0. Messages are counted as timed out or as lost, a wrong reply that was
 * under way was counted already; kind < 0: nothing went wrong. */
static inline void fe_load_gone(fe_load *l, fe_load_connection *c, int kind, int error)
{
    uint64_t outstanding = c->due - c->done;
    uint64_t missing = outstanding - (outstanding > 0 && c->wrong);

    if (kind == FE_LOAD_TIMED_OUT) {
        /* A connect or a FIN that timed out has no message, and counts as one. */
        if (missing > 0 || outstanding == 0)
            fe_load_fail(l, c, kind, missing > 0 ? missing : 1);
    } else if (kind >= 0) {
        fe_load_failure *f = fe_load_fail(l, c, kind, 1);

        if (f != NULL) {
            f->error = error;
            f->count = missing;
        }
        l->counts.lost += missing;
    }
    l->outstanding -= outstanding;
    c->done = c->sent = c->due;
    c->done_at = c->sent_at = 0;
    c->wrong = 0;
    c->wants_write = 0;
    c->state = FE_LOAD_CLOSED;
    c->fd = -1;
}

/* Whether c has waited longer than timeout_ns for a reply, a connect or a FIN. Waiting for a
 * turn in an open loop does not count: the server knows nothing of that. */
static inline int fe_load_late(const fe_load *l, const fe_load_connection *c, uint64_t now_ns,
                               uint64_t timeout_ns)
{
    uint64_t since;

    if (c->state == FE_LOAD_OPEN && c->due == c->done)
        return 0;
    if (c->state == FE_LOAD_OPEN)
        since = l->given[fe_load_place(l, c, c->done)];
    else if (c->state == FE_LOAD_CLOSED)
        return 0;
    else
        since = c->since_ns;
    return now_ns > since && now_ns - since > timeout_ns;
}

/* --- the schedule of an open loop -------------------------------------------------------- */

/* Starts a schedule: message i is due at start_ns + i * interval_ns. */
static inline void fe_load_schedule(fe_load *l, uint64_t start_ns)
{
    l->start_ns = l->next_ns = start_ns;
    l->scheduled = 0;
}

/* The next message has been given away: computes when the one after it is due. From the
 * start, not from the last one: an error of rounding does not add up. */
static inline void fe_load_advance(fe_load *l)
{
    l->scheduled++;
    l->next_ns = l->start_ns + (uint64_t)((double)l->scheduled * l->interval_ns);
}

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

/* Gives messages whose time has come to connections that have room, `most` at the most; each
 * counts from its intended time. The connections stand in l->touched, to be sent from.
 * Result: how many messages were given. */
static inline uint32_t fe_load_give(fe_load *l, uint64_t now_ns, uint32_t most)
{
    uint32_t given = 0;

    while (given < most && l->next_ns <= now_ns && l->next_ns < l->end_ns) {
        fe_load_connection *c = fe_load_pick(l);

        if (c == NULL)
            break;
        fe_load_release(l, c, 1, l->next_ns, now_ns);
        if (l->next_ns >= l->room_since_ns)
            fe_histogram_record(l->lateness, now_ns - l->next_ns);
        else
            l->counts.held++;
        fe_load_offer(l, c, l->room_since_ns);
        fe_load_advance(l);
        if (!c->touched) {
            c->touched = 1;
            l->touched[l->touched_used++] = fe_load_index(l, c);
        }
        given++;
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

/* Counts what the schedule still holds as unsent; the schedule is over. */
static inline void fe_load_give_up(fe_load *l)
{
    while (l->next_ns < l->end_ns) {
        l->counts.unsent++;
        fe_load_advance(l);
    }
}

#endif
