/* A load generator's connections: what is due, what has been sent, what is owed.
 *
 * Lives here: the records, the window, which bytes to send next. Bytes and times in, decisions
 * out. Does not live here: any descriptor's call, any clock (_load_connection.pxd brings both);
 * whether a reply is the right one (load_reply.h); how connections come and go (load_life.h);
 * who gets the messages of an open loop (load_open.h) and when (schedule.h); the bytes
 * (pattern.h); the counters (load_counts.h).
 *
 * The life of a message: it becomes *due*, a connection is given it (both times are stored),
 * it is *sent* when the kernel has taken its last byte, it is *done* when its
 * reply is complete or can no longer come. Messages of a connection are numbered
 * from 0 for ever, over reconnects too: the number decides the bytes and the size. So three
 * numbers and two offsets are a connection's whole state, and a short write or a
 * split reply is nothing special.
 *
 *     done <= sent <= due <= done + depth
 *
 * A wrong reply does not end its connection: if a byte was changed or two replies
 * were swapped, the next ones fit again; if bytes were lost, what follows is wrong
 * as well and the last one times out.
 *
 * Only messages whose time lies in the window are counted when all went well; what goes wrong
 * before it, in the warm-up, is counted as well.
 */
#ifndef FASTECHO_LOAD_H
#define FASTECHO_LOAD_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "histogram.h"
#include "load_counts.h"
#include "pattern.h"
#include "schedule.h"

enum fe_load_mode {
    FE_LOAD_CLOSED_LOOP = 0,
    FE_LOAD_OPEN_LOOP,
    FE_LOAD_RECONNECT,
    FE_LOAD_IDLE,
    /* In one direction, without messages (load_oneway.h). */
    FE_LOAD_UPLOAD,
    FE_LOAD_DOWNLOAD
};

enum fe_load_state {
    /* No descriptor. */
    FE_LOAD_CLOSED = 0,
    /* No descriptor; the next attempt to connect begins at since_ns. */
    FE_LOAD_RESTING,
    /* No descriptor; the connect that has begun goes on at the next sweep. */
    FE_LOAD_WAITING,
    /* The handshake is under way. */
    FE_LOAD_CONNECTING,
    FE_LOAD_OPEN,
    /* Reconnect mode, uploads: our FIN is sent, the server's is awaited. */
    FE_LOAD_ENDING
};

/* What is known of the reply that is being received. */
enum fe_load_verdict {
    FE_LOAD_FITS = 0,
    /* It is not what was due, but so far that of message `done + instead`. */
    FE_LOAD_FITS_ANOTHER,
    /* It is nobody's, and counted. */
    FE_LOAD_FITS_NONE
};

/* Whether a connection was lost in this run, and what is known of it since. */
enum fe_load_gap {
    FE_LOAD_NO_GAP = 0,
    /* Lost, and not open again. */
    FE_LOAD_AWAY,
    /* Open again, but no right reply has come yet. */
    FE_LOAD_UNANSWERED
};

typedef struct fe_load_connection {
    /* The descriptor; -1 without one. */
    int32_t fd;
    uint8_t state;
    /* Registered for EPOLLOUT. */
    uint8_t wants_write;
    /* enum fe_load_verdict. */
    uint8_t verdict;
    /* In the ring of those that may take a message (open loop). */
    uint8_t queued;
    /* The window of message 0 (pattern.h). */
    uint16_t first;
    /* In the list of those that have something to send (open loop). */
    uint8_t touched;
    /* enum fe_load_gap. */
    uint8_t gap;
    /* Whose reply is being received: message `done + instead`. 0 unless it differs. */
    int32_t instead;
    /* Messages that have become due, that are sent, that are done. */
    uint64_t due;
    uint64_t sent;
    uint64_t done;
    /* Bytes sent of message `sent`, bytes received of the reply to message `done`. */
    uint64_t sent_at;
    uint64_t done_at;
    /* In ns: when the connect or our FIN began, when the next attempt begins; while it is open,
     * when the last bytes came. */
    uint64_t since_ns;
} fe_load_connection;

/* A cache line each. */
_Static_assert(sizeof(fe_load_connection) == 64, "a load connection is 64 bytes");

/* What is rarely needed of a connection. */
typedef struct fe_load_past {
    /* When the gap began, if there is one, in ns. */
    uint64_t lost_ns;
    /* When the last attempt to connect began, in ns. */
    uint64_t tried_ns;
} fe_load_past;

typedef struct fe_load {
    fe_pattern pattern;
    /* One record a connection. */
    fe_load_connection *connections;
    fe_load_past *pasts;
    /* When each outstanding message became due, in ns: ring_mask + 1 places a connection. */
    uint64_t *times;
    /* When it was given to its connection, likewise. In an open loop that can be later; in any
     * other mode it is the same, and so is the memory. */
    uint64_t *given;
    /* Latencies of right replies, from when they became due; and of handshakes. Open loop only,
     * otherwise NULL: the same latencies from when the message was given; schedule errors, how
     * late a message was given to a connection that was there in time, so the generator's own
     * doing. */
    fe_histogram *latency;
    fe_histogram *connect;
    fe_histogram *service;
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
    /* How long a reply, a connect or an answer to our FIN may take, in ns. */
    uint64_t timeout_ns;
    /* The window, in ns: no message becomes due at or after its end. */
    uint64_t window_ns;
    uint64_t end_ns;
    /* Messages that may still be given in the window; UINT64_MAX: any number. */
    uint64_t left;
    /* Connections that are FE_LOAD_AWAY. */
    uint32_t broken;
    fe_schedule schedule;
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

/* Connections that are open. */
static inline uint32_t fe_load_open(const fe_load *l)
{
    return (uint32_t)fe_load_read(&l->counts.n[FE_LOAD_CONNECTIONS_OPEN]);
}

/* c is not open any more: it is CLOSED, or waits for the answer to our FIN. */
static inline void fe_load_not_open(fe_load *l, fe_load_connection *c, int state)
{
    if (c->state == FE_LOAD_OPEN)
        fe_load_add(&l->counts, FE_LOAD_CONNECTIONS_OPEN, (uint64_t)-1);
    c->state = (uint8_t)state;
}

/* Counts a failure, by `by`. Result: where the caller may say more about it, or NULL when
 * enough of them are described. */
static inline fe_load_failure *fe_load_fail(fe_load *l, const fe_load_connection *c, int kind,
                                            uint64_t by, uint64_t now_ns)
{
    fe_load_failure *f;

    fe_load_add(&l->counts, kind, by);
    if (l->counts.described == FE_LOAD_DESCRIBED)
        return NULL;
    f = &l->counts.failures[l->counts.described++];
    memset(f, 0, sizeof(*f));
    f->kind = kind;
    f->state = c->state;
    f->at_ns = now_ns;
    f->connection = fe_load_index(l, c);
    f->number = c->done;
    f->offset = c->done_at;
    f->count = by;
    return f;
}

/* c answers again, since now_ns: its gap is over. */
static inline void fe_load_back(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    uint64_t gap_ns = now_ns - l->pasts[fe_load_index(l, c)].lost_ns;

    c->gap = FE_LOAD_NO_GAP;
    fe_load_add(&l->counts, FE_LOAD_REOPENED, 1);
    fe_load_add(&l->counts, FE_LOAD_GAP_NS, gap_ns);
    if (gap_ns > l->counts.n[FE_LOAD_LONGEST_GAP_NS])
        fe_load_write(&l->counts.n[FE_LOAD_LONGEST_GAP_NS], gap_ns);
}

/* Sets the window, and says so to whoever watches. */
static inline void fe_load_set_window(fe_load *l, uint64_t window_ns, uint64_t end_ns)
{
    l->window_ns = window_ns;
    l->end_ns = end_ns;
    fe_load_write(&l->counts.window_ns, window_ns);
    fe_load_write(&l->counts.end_ns, end_ns);
}

/* Ends the window now, or before it has begun, unless it is over. */
static inline void fe_load_cut(fe_load *l, uint64_t now_ns)
{
    if (now_ns < l->end_ns)
        fe_load_set_window(l, now_ns < l->window_ns ? now_ns : l->window_ns, now_ns);
}

/* Nothing new becomes due any more. */
static inline int fe_load_is_over(const fe_load *l, uint64_t now_ns)
{
    return now_ns >= l->end_ns || l->left == 0;
}

/* The last of a number of messages has been given, or a reply came since then: as far as is
 * known the window ends now, in an open loop not before the schedule has passed. So a reply that
 * never comes does not make the window longer. */
static inline void fe_load_spent(fe_load *l, uint64_t now_ns)
{
    uint64_t passed_ns = fe_schedule_passed(&l->schedule);

    fe_load_write(&l->counts.last_ns, now_ns > passed_ns ? now_ns : passed_ns);
}

/* Gives c n more messages, which became due at due_ns. The caller has seen that fe_load_room
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
    if (due_ns >= l->window_ns) {
        fe_load_add(&l->counts, FE_LOAD_SENT, n);
        l->left -= n;
        if (l->left == 0)
            fe_load_spent(l, now_ns);
    }
}

/* Messages that c may take. */
static inline uint32_t fe_load_room(const fe_load *l, const fe_load_connection *c)
{
    uint32_t room = l->depth - (uint32_t)(c->due - c->done);

    return room < l->left ? room : (uint32_t)l->left;
}

/* The next bytes that c has to send: where they stand, if one stretch is long enough or is
 * all there is, otherwise copied together into scratch, `room` bytes at most.
 * A short write needs no action: report what was taken and ask again. */
static inline fe_load_chunk fe_load_next(const fe_load *l, const fe_load_connection *c,
                                         unsigned char *scratch, size_t room)
{
    uint64_t number = c->sent, at = c->sent_at;
    fe_load_chunk chunk = {scratch, 0, -1};

    while (number < c->due && chunk.size < room) {
        const unsigned char *bytes;
        const fe_size *size = fe_pattern_size(&l->pattern, c->first, number);
        size_t run = fe_pattern_run(&l->pattern, FE_REQUEST, size,
                                    fe_pattern_body(&l->pattern, c->first, number), at, &bytes);
        int is_all = number + 1 == c->due && at + run == size->whole[FE_REQUEST];

        if (chunk.size == 0 && (is_all || run >= FE_LOAD_IN_PLACE)) {
            const fe_shape *shape = &l->pattern.shapes[FE_REQUEST];
            /* It is no head: those are short, and a body follows. */
            int in_body = at < (uint64_t)shape->head_size + size->body;

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
        at += run;
        if (at == size->whole[FE_REQUEST]) {
            number++;
            at = 0;
        }
    }
    return chunk;
}

/* The kernel has taken n of the bytes that fe_load_next gave. */
static inline void fe_load_taken(fe_load *l, fe_load_connection *c, size_t n)
{
    uint64_t at = c->sent_at + n, whole;

    fe_load_add(&l->counts, FE_LOAD_BYTES_SENT, n);
    if (__builtin_expect(l->pattern.sizes == NULL, 1)) {
        whole = l->pattern.one.whole[FE_REQUEST];
        if (at >= whole) {
            c->sent += at / whole;
            at %= whole;
        }
    } else {
        while (at > 0) {
            whole = fe_pattern_size(&l->pattern, c->first, c->sent)->whole[FE_REQUEST];
            if (at < whole)
                break;
            at -= whole;
            c->sent++;
        }
    }
    c->sent_at = at;
}

#endif
