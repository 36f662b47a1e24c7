/* A load of datagrams: which are outstanding, whose a reply is, what is lost, doubled, reordered.
 *
 * Lives here: the header of each datagram, the places of those that are outstanding, the judgement
 * on what came. Does not live here: the rest of a load (load.h), which bytes the body has
 * (pattern.h), any call (fastecho/_load_udp.pxd).
 *
 * A connection of such a load is a socket that is connected to the server; datagrams on it can be
 * answered in any order, twice, late or never. So each says which one it is:
 *
 *     connection (4 bytes)  number (6)  place (2)  check (4)     big-endian, 16 bytes; then a body
 *
 * The check is made of the rest and the seed: a header that fits its check was written by this
 * load. *Place* is where the message stands among the `depth` that its connection may have
 * outstanding. A message leaves it by its reply, or when the timeout is over: then it is lost, and
 * a reply that comes later is *tardy*. A place remembers the last few that were lost there; any
 * other reply to a message that is no longer outstanding is a duplicate.
 *
 * A reply is *reordered* if one with a higher number came before (RFC 4737, 3.3: its number is less
 * than the next expected). Duplicates and tardy ones are not looked at for that.
 *
 * `due`, `sent` and `done` of a connection count: `done` are the messages that have left their
 * place, whichever they were. None of this ends a connection.
 */
#ifndef FASTECHO_LOAD_UDP_H
#define FASTECHO_LOAD_UDP_H

#include "load_reply.h"

#define FE_UDP_HEADER ((size_t)16)
/* Largest datagram over IPv4: 65,535 bytes less the headers of IP and UDP. */
#define FE_UDP_LARGEST ((size_t)65507)
/* Lost messages that a place remembers. */
#define FE_UDP_REMEMBERED 4u
#define FE_UDP_NOWHERE UINT32_MAX

/* Where an outstanding message stands. */
typedef struct fe_udp_place {
    uint64_t number;
    /* When it became due and when it was given to its connection, in ns. */
    uint64_t due_ns;
    uint64_t given_ns;
    /* The places of those sent before and after it that are outstanding too; of a free place,
     * `after` is the next free one. */
    uint32_t before;
    uint32_t after;
    uint32_t is_taken;
    /* Messages that were lost here, and the numbers of the last of them; a bit for each of these
     * whose reply has come since. */
    uint32_t losses;
    uint32_t came;
    uint64_t lost[FE_UDP_REMEMBERED];
} fe_udp_place;

/* What a connection has outstanding. */
typedef struct fe_udp_flow {
    /* The ends of the list of taken places, in the order of sending, and the first free one. */
    uint32_t oldest;
    uint32_t newest;
    uint32_t free;
    /* One more than the highest number that a right reply has had. */
    uint64_t next_expected;
    /* The first message of the window that begins at window_ns. */
    uint64_t counted_from;
    uint64_t window_ns;
} fe_udp_flow;

typedef struct fe_udp {
    /* One a connection; `depth` places a connection. */
    fe_udp_flow *flows;
    fe_udp_place *places;
    uint64_t seed;
    /* What the server puts around each datagram. */
    const unsigned char *prefix;
    const unsigned char *suffix;
    size_t prefix_size;
    size_t suffix_size;
} fe_udp;

/* Which message a datagram belongs to. */
typedef struct fe_udp_id {
    uint32_t connection;
    uint32_t place;
    uint64_t number;
} fe_udp_id;

static inline fe_udp_place *fe_udp_places(const fe_udp *u, const fe_load *l,
                                          const fe_load_connection *c)
{
    return &u->places[(size_t)fe_load_index(l, c) * l->depth];
}

/* Nothing of connection `index` is outstanding; what was is forgotten. */
static inline void fe_udp_clear(fe_udp *u, const fe_load *l, uint32_t index)
{
    fe_udp_place *places = &u->places[(size_t)index * l->depth];
    fe_udp_flow *flow = &u->flows[index];

    flow->oldest = flow->newest = FE_UDP_NOWHERE;
    flow->free = 0;
    for (uint32_t i = 0; i < l->depth; i++) {
        places[i].is_taken = 0;
        places[i].after = i + 1 < l->depth ? i + 1 : FE_UDP_NOWHERE;
    }
}

/* Writes a header. */
static inline void fe_udp_header(const fe_udp *u, const fe_udp_id *id, unsigned char *out)
{
    uint64_t high = (uint64_t)id->connection << 32 | (id->number >> 16 & 0xffffffffu);
    uint64_t low = id->number << 48 | (uint64_t)id->place << 32;
    uint64_t state = u->seed ^ high ^ (low >> 32) * 0x9e3779b97f4a7c15u;

    low |= fe_pattern_mix(&state) & 0xffffffffu;
    for (int i = 7; i >= 0; i--) {
        out[i] = (unsigned char)high;
        out[8 + i] = (unsigned char)low;
        high >>= 8;
        low >>= 8;
    }
}

/* Whether these bytes are a header that this load has written; *id then says of which message. */
static inline int fe_udp_read(const fe_udp *u, const unsigned char *bytes, fe_udp_id *id)
{
    unsigned char same[FE_UDP_HEADER];
    uint64_t high = 0, low = 0;

    for (int i = 0; i < 8; i++) {
        high = high << 8 | bytes[i];
        low = low << 8 | bytes[8 + i];
    }
    id->connection = (uint32_t)(high >> 32);
    id->number = (high & 0xffffffffu) << 16 | low >> 48;
    id->place = (uint32_t)(low >> 32) & 0xffff;
    fe_udp_header(u, id, same);
    return memcmp(bytes, same, FE_UDP_HEADER) == 0;
}

/* The body of a message of the connection whose first window is `first`, and its size. */
static inline const unsigned char *fe_udp_body(const fe_load *l, uint32_t first, uint64_t number,
                                               size_t *size)
{
    *size = fe_pattern_size(&l->pattern, first, number)->body - FE_UDP_HEADER;
    return fe_pattern_body(&l->pattern, first, number);
}

/* Compares a datagram with the reply that is due. Result: 0, or 1 and *f says where they differ
 * first; its error is EMSGSIZE if one only ends before the other. */
static inline int fe_udp_differs(const fe_udp *u, const fe_load *l, uint32_t first,
                                 const fe_udp_id *id, const unsigned char *bytes, size_t n,
                                 fe_load_failure *f)
{
    unsigned char header[FE_UDP_HEADER];
    size_t body_size, at = 0;
    const unsigned char *body = fe_udp_body(l, first, id->number, &body_size);
    const unsigned char *parts[4] = {u->prefix, header, body, u->suffix};
    size_t sizes[4] = {u->prefix_size, FE_UDP_HEADER, body_size, u->suffix_size};

    memset(f, 0, sizeof(*f));
    fe_udp_header(u, id, header);
    for (int i = 0; i < 4; i++) {
        size_t run = sizes[i] < n - at ? sizes[i] : n - at;

        if (run > 0 && memcmp(bytes + at, parts[i], run) != 0) {
            size_t same = fe_pattern_difference(bytes + at, parts[i], run);

            f->offset = at + same;
            f->expected = parts[i][same];
            f->got = bytes[at + same];
            return 1;
        }
        at += run;
    }
    f->error = EMSGSIZE;
    f->offset = n;
    f->count = u->prefix_size + FE_UDP_HEADER + body_size + u->suffix_size;
    return f->count != n;
}

/* Counts a reply that is not what was due for message `number`, as *how says. */
static inline void fe_udp_corrupt(fe_load *l, const fe_load_connection *c, uint64_t number,
                                  const fe_load_failure *how, uint64_t now_ns)
{
    fe_load_failure *f = fe_load_fail(l, c, FE_LOAD_CORRUPT, 1, now_ns);

    if (f == NULL)
        return;
    f->number = number;
    f->offset = how->offset;
    f->count = how->count;
    f->error = how->error;
    f->expected = how->expected;
    f->got = how->got;
}

/* A message leaves its place. */
static inline void fe_udp_settle(fe_udp *u, fe_load *l, fe_load_connection *c, uint32_t at)
{
    fe_udp_flow *flow = &u->flows[fe_load_index(l, c)];
    fe_udp_place *places = fe_udp_places(u, l, c), *place = &places[at];

    if (place->before == FE_UDP_NOWHERE)
        flow->oldest = place->after;
    else
        places[place->before].after = place->after;
    if (place->after == FE_UDP_NOWHERE)
        flow->newest = place->before;
    else
        places[place->after].before = place->before;
    place->is_taken = 0;
    place->after = flow->free;
    flow->free = at;
    c->done++;
    l->outstanding--;
}

/* A datagram to be sent: a header, then a body that is never empty memory but may have size 0. */
typedef struct fe_udp_datagram {
    const unsigned char *body;
    size_t body_size;
    uint32_t place;
} fe_udp_datagram;

/* The next message that c has to send (c->sent < c->due) takes a place and gets a header. */
static inline fe_udp_datagram fe_udp_next(fe_udp *u, fe_load *l, fe_load_connection *c,
                                          unsigned char *header)
{
    fe_udp_flow *flow = &u->flows[fe_load_index(l, c)];
    fe_udp_place *places = fe_udp_places(u, l, c), *place = &places[flow->free];
    fe_udp_datagram d = {NULL, 0, flow->free};
    fe_udp_id id = {fe_load_index(l, c), d.place, c->sent};
    size_t times = fe_load_place(l, c, c->sent);

    flow->free = place->after;
    place->number = c->sent;
    place->due_ns = l->times[times];
    place->given_ns = l->given[times];
    place->is_taken = 1;
    place->before = flow->newest;
    place->after = FE_UDP_NOWHERE;
    if (flow->newest == FE_UDP_NOWHERE)
        flow->oldest = d.place;
    else
        places[flow->newest].after = d.place;
    flow->newest = d.place;
    if (place->due_ns >= l->window_ns && flow->window_ns != l->window_ns) {
        flow->window_ns = l->window_ns;
        flow->counted_from = place->number;
    }
    fe_udp_header(u, &id, header);
    d.body = fe_udp_body(l, c->first, c->sent, &d.body_size);
    c->sent++;
    return d;
}

/* The kernel did not take the datagram of a place: it was not sent, and nothing will come. */
static inline void fe_udp_not_sent(fe_udp *u, fe_load *l, fe_load_connection *c, uint32_t at)
{
    int counts = fe_udp_places(u, l, c)[at].due_ns >= l->window_ns;

    fe_load_add(&l->counts, FE_LOAD_NOT_SENT, (uint64_t)counts);
    fe_udp_settle(u, l, c, at);
}

/* No reply has come in time to what stands in a place. */
static inline void fe_udp_lose(fe_udp *u, fe_load *l, fe_load_connection *c, uint32_t at)
{
    fe_udp_place *place = &fe_udp_places(u, l, c)[at];

    fe_load_add(&l->counts, FE_LOAD_NO_REPLY, (uint64_t)(place->due_ns >= l->window_ns));
    place->lost[place->losses % FE_UDP_REMEMBERED] = place->number;
    place->came &= ~(1u << place->losses++ % FE_UDP_REMEMBERED);
    fe_udp_settle(u, l, c, at);
}

/* Loses what was given to c longer than the timeout ago, or everything. Result: how many. */
static inline uint32_t fe_udp_expire(fe_udp *u, fe_load *l, fe_load_connection *c,
                                     uint64_t now_ns, int everything)
{
    fe_udp_flow *flow = &u->flows[fe_load_index(l, c)];
    uint32_t n = 0;

    while (flow->oldest != FE_UDP_NOWHERE) {
        fe_udp_place *place = &fe_udp_places(u, l, c)[flow->oldest];

        if (!everything && now_ns <= place->given_ns + l->timeout_ns)
            break;
        fe_udp_lose(u, l, c, flow->oldest);
        n++;
    }
    return n;
}

/* Whether message `number` was lost from this place, and no reply to it has come before this one.
 * A message older than all that the place remembers is taken for lost. */
static inline int fe_udp_was_lost(fe_udp_place *place, uint64_t number)
{
    uint32_t kept = place->losses < FE_UDP_REMEMBERED ? place->losses : FE_UDP_REMEMBERED;
    int is_older = kept == FE_UDP_REMEMBERED;

    for (uint32_t i = 0; i < kept; i++) {
        if (place->lost[i] == number) {
            int is_first = (place->came >> i & 1) == 0;

            place->came |= 1u << i;
            return is_first;
        }
        is_older &= number < place->lost[i];
    }
    return is_older;
}

/* A reply to a message that is no longer outstanding. */
static inline void fe_udp_again(fe_udp *u, fe_load *l, fe_load_connection *c, const fe_udp_id *id)
{
    fe_udp_flow *flow = &u->flows[fe_load_index(l, c)];
    int counts = flow->window_ns == l->window_ns && id->number >= flow->counted_from;

    if (fe_udp_was_lost(&fe_udp_places(u, l, c)[id->place], id->number)) {
        fe_load_add(&l->counts, FE_LOAD_RIGHT, 1);
        fe_load_add(&l->counts, FE_LOAD_TARDY, (uint64_t)counts);
    } else {
        fe_load_add(&l->counts, FE_LOAD_DUPLICATES, (uint64_t)counts);
    }
}

/* The right reply, in time, to what stands in a place. */
static inline void fe_udp_right(fe_udp *u, fe_load *l, fe_load_connection *c, uint32_t at,
                                size_t n, uint64_t now_ns)
{
    fe_udp_flow *flow = &u->flows[fe_load_index(l, c)];
    const fe_udp_place *place = &fe_udp_places(u, l, c)[at];
    int counts = place->due_ns >= l->window_ns;
    int came = now_ns >= l->window_ns && now_ns < l->end_ns;

    fe_load_add(&l->counts, FE_LOAD_RIGHT, 1);
    fe_load_add(&l->counts, FE_LOAD_MESSAGES, (uint64_t)counts);
    fe_load_add(&l->counts, FE_LOAD_MESSAGES_IN_WINDOW, (uint64_t)came);
    fe_load_add(&l->counts, FE_LOAD_BYTES, came ? n : 0);
    if (place->number < flow->next_expected)
        fe_load_add(&l->counts, FE_LOAD_REORDERED, (uint64_t)counts);
    else
        flow->next_expected = place->number + 1;
    if (counts) {
        fe_histogram_record(l->latency, now_ns - place->due_ns);
        if (l->service != NULL)
            fe_histogram_record(l->service, now_ns - place->given_ns);
    }
    fe_udp_settle(u, l, c, at);
}

/* A datagram without a header of this load. It is the reply, with a changed header, to the
 * message whose body it has, or to the only one that is outstanding; else it is nobody's.
 * Result: messages that are settled by it. */
static inline uint32_t fe_udp_unknown(fe_udp *u, fe_load *l, fe_load_connection *c,
                                      const unsigned char *bytes, size_t n, uint64_t now_ns)
{
    fe_udp_flow *flow = &u->flows[fe_load_index(l, c)];
    fe_udp_place *places = fe_udp_places(u, l, c);
    fe_load_failure how = {.error = ENOMSG};
    size_t around = u->prefix_size + FE_UDP_HEADER, most = FE_LOAD_LOOK_AHEAD;
    uint32_t at = flow->oldest;

    if (at == FE_UDP_NOWHERE) {
        fe_load_fail(l, c, FE_LOAD_EXTRA_BYTES, n, now_ns);
        return 0;
    }
    if (flow->oldest != flow->newest) {
        for (; at != FE_UDP_NOWHERE && most > 0; at = places[at].after, most--) {
            size_t size;
            const unsigned char *body = fe_udp_body(l, c->first, places[at].number, &size);

            if (size >= FE_LOAD_KNOWN_BY && n == around + size + u->suffix_size &&
                memcmp(bytes + around, body, size) == 0)
                break;
        }
        if (at == FE_UDP_NOWHERE || most == 0) {
            fe_udp_corrupt(l, c, c->sent, &how, now_ns);
            return 0;
        }
    }
    fe_udp_differs(u, l, c->first, &(fe_udp_id){fe_load_index(l, c), at, places[at].number}, bytes,
                   n, &how);
    fe_udp_corrupt(l, c, places[at].number, &how, now_ns);
    fe_udp_settle(u, l, c, at);
    return 1;
}

/* Judges a datagram of n bytes that came at now_ns. Of one that is longer than any reply, only the
 * bytes of the longest reply are there. Result: messages that are settled by it. */
static inline uint32_t fe_udp_received(fe_udp *u, fe_load *l, fe_load_connection *c,
                                       const unsigned char *bytes, size_t n, uint64_t now_ns)
{
    fe_load_failure how, *f;
    fe_udp_place *place;
    fe_udp_id id;
    uint32_t settled = 0;
    int is_ours;

    fe_load_add(&l->counts, FE_LOAD_BYTES_RECEIVED, n);
    if (n < u->prefix_size + FE_UDP_HEADER || !fe_udp_read(u, bytes + u->prefix_size, &id))
        return fe_udp_unknown(u, l, c, bytes, n, now_ns);
    is_ours = id.connection == fe_load_index(l, c);
    if (is_ours && (id.number >= c->sent || id.place >= l->depth)) {
        /* Of an earlier run that had the same seed. */
        fe_load_fail(l, c, FE_LOAD_EXTRA_BYTES, n, now_ns);
        return 0;
    }
    place = &fe_udp_places(u, l, c)[is_ours ? id.place : 0];
    if (is_ours && place->is_taken && place->number == id.number) {
        settled = 1;
        if (now_ns > place->given_ns + l->timeout_ns)
            fe_udp_lose(u, l, c, id.place);
    }
    if (fe_udp_differs(u, l, is_ours ? c->first : fe_pattern_first(&l->pattern, id.connection),
                       &id, bytes, n, &how)) {
        fe_udp_corrupt(l, c, id.number, &how, now_ns);
        if (settled && place->is_taken)
            fe_udp_settle(u, l, c, id.place);
    } else if (!is_ours) {
        f = fe_load_fail(l, c, FE_LOAD_MISPLACED, 1, now_ns);
        if (f != NULL) {
            f->error = EXDEV;
            f->count = id.connection;
            f->number = id.number;
        }
    } else if (settled && place->is_taken) {
        fe_udp_right(u, l, c, id.place, n, now_ns);
    } else {
        fe_udp_again(u, l, c, &id);
    }
    return settled;
}

#endif
