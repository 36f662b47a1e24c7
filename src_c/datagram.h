/* Which datagrams are answered.
 *
 * Lives here: the guards of a UDP echo. Does not live here: receiving and sending
 * (fastecho/_udp.pxd), what the kernel tells beside a datagram (fastecho/_control.pxd),
 * who asked for which guard (fastecho/settings.py).
 *
 * Why an echo over UDP needs guards: the source of a datagram is whatever its sender
 * wrote. One forged datagram sets two echo servers off against each other for ever
 * (CERT CA-1996-01, CVE-2024-2169), and a forged flood is sent on to a victim.
 *
 * - Port: below 1024 other services answer (echo, chargen, time, DNS), and our own ports are
 *   ourselves.
 * - Address: a broadcast or a group, as source or as target, would make one datagram many.
 * - Rate: a token bucket for each source address. In a loop one datagram is on its way: the first
 *   that finds its bucket empty ends it.
 * - Loop: a slow loop stays below any rate. Its sign is that a source sends again and again what
 *   it was just sent; FE_LOOP_ROUNDS times, each within FE_LOOP_GAP_NS of the last, and one is
 *   left unanswered, which ends it. Only the beginning and the end of a datagram are compared
 *   (FE_LOOK bytes). Where we put a prefix or a suffix round it, a loop makes each longer: then the
 *   sign is that it has them already.
 *
 * Who asks something else each time must not have a loop forgotten that is slower than it, nor two
 * loops each other: what has come back most often is displaced last.
 *
 * The table of buckets has a fixed size, and a stranger never gets more than who it displaces had:
 * no number of forged sources makes it answer more than sources x rate.
 */
#ifndef FASTECHO_DATAGRAM_H
#define FASTECHO_DATAGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "peers.h"

/* Buckets: sets of four, 64 bytes, one cache line. Both powers of two. */
#define FE_SOURCE_SETS 4096u
#define FE_SOURCE_WAYS 4u
/* What may be on its way round: sets of four as well. */
#define FE_LOOP_SETS 1024u
#define FE_LOOP_WAYS 4u

/* What a bucket holds: the tokens of so long. */
#define FE_BUCKET_NS 1000000000u

#define FE_LOOP_ROUNDS 1000u
#define FE_LOOP_GAP_NS 1000000000u
/* Bytes of a datagram's beginning, and of its end, that are compared. */
#define FE_LOOK 128u

/* Ports below this one belong to services. */
#define FE_SERVICE_PORTS 1024u

enum fe_verdict {
    FE_ECHO = 0,
    FE_REFUSE_PORT,
    FE_REFUSE_ADDRESS,
    FE_REFUSE_RATE,
    FE_REFUSE_LOOP
};

typedef struct fe_source {
    /* Keyed hash of the address; 0: nobody's. */
    uint64_t key;
    /* When the bucket will be full again, on the monotonic clock, in ns. */
    uint64_t full_ns;
} fe_source;

typedef struct fe_loop {
    /* Keyed hash of source, port and datagram; 0: none. */
    uint64_t key;
    /* When it came last, in ns, and how often it has come. */
    uint64_t last_ns;
    uint64_t rounds;
} fe_loop;

/* What one worker remembers. Zeroed memory with a seed is a good one. */
typedef struct fe_guards {
    /* Decides the order of the tables, so that a sender cannot choose its place. */
    uint64_t seed;
    fe_source sources[FE_SOURCE_SETS][FE_SOURCE_WAYS];
    fe_loop loops[FE_LOOP_SETS][FE_LOOP_WAYS];
} fe_guards;

/* What the server was told; read only. */
typedef struct fe_guarding {
    /* All guards but the rate. */
    bool is_on;
    /* One bit for each port that this server has. */
    uint8_t own_ports[65536 / 8];
    const unsigned char *prefix;
    const unsigned char *suffix;
    size_t prefix_size;
    size_t suffix_size;
} fe_guarding;

/* A datagram, or a train of equal ones that came as one. */
typedef struct fe_datagram {
    /* sockaddr_in or sockaddr_in6 of its source. */
    const unsigned char *name;
    const unsigned char *data;
    size_t size;
    /* Bytes of each in a train, the last one may be shorter; 0: a single one. */
    size_t segment;
    /* The source is a sockaddr_in6. */
    bool is_ipv6;
    /* It was sent to a broadcast address or a group. */
    bool is_to_many;
} fe_datagram;

static inline void fe_own_port(fe_guarding *g, unsigned port)
{
    g->own_ports[port / 8] |= (uint8_t)(1u << port % 8);
}

/* How many datagrams it is. */
static inline uint64_t fe_datagram_count(const fe_datagram *d)
{
    if (d->segment == 0 || d->size <= d->segment)
        return 1;
    return (d->size + d->segment - 1) / d->segment;
}

/* One step of a keyed hash: both halves of a product, so that every bit reaches every other. */
static inline uint64_t fe_mix(uint64_t h, uint64_t value)
{
    __extension__ typedef unsigned __int128 fe_product;
    fe_product p = (fe_product)(h ^ value ^ 0xa0761d6478bd642fu) * 0xe7037ed1a0b428dbu;

    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/* Mixes in n bytes. */
static inline uint64_t fe_mix_bytes(uint64_t h, const unsigned char *bytes, size_t n)
{
    uint64_t word;

    for (; n >= 8; bytes += 8, n -= 8) {
        memcpy(&word, bytes, 8);
        h = fe_mix(h, word);
    }
    if (n) {
        word = 0;
        memcpy(&word, bytes, n);
        h = fe_mix(h, word);
    }
    return h;
}

/* The source's port, in host order: both sockaddr have it at byte 2. */
static inline unsigned fe_source_port(const fe_datagram *d)
{
    return (unsigned)d->name[2] << 8 | d->name[3];
}

/* The key of the source's address; of an IPv6 one the first bits. */
static inline fe_peer_key fe_source_key(const fe_datagram *d, unsigned ipv6_prefix)
{
    if (d->is_ipv6)
        return fe_peer_key_6(d->name + 8, ipv6_prefix);
    return fe_peer_key_4(d->name + 4);
}

/* The source is an address of one machine: no group, no broadcast to all, not the unspecified. */
static inline bool fe_is_of_one(const fe_datagram *d)
{
    const unsigned char *a = d->name + 4;
    static const unsigned char zero[16];

    if (d->is_ipv6) {
        a = d->name + 8;
        return a[0] != 0xff && memcmp(a, zero, 16) != 0;
    }
    return a[0] < 224 && a[0] != 0;
}

/* Takes n tokens from the bucket of a source; each comes back after interval_ns.
 * False: there are not so many, and none was taken. */
static inline bool fe_take_tokens(fe_guards *g, const fe_peer_key *key, uint64_t interval_ns,
                                  uint64_t n, uint64_t now_ns)
{
    uint64_t h = fe_mix_bytes(g->seed, key->bytes, sizeof(key->bytes));
    fe_source *set = g->sources[h % FE_SOURCE_SETS];
    fe_source *s = &set[0];
    unsigned i;

    h |= 1; /* not 0 */
    for (i = 0; i < FE_SOURCE_WAYS; i++) {
        if (set[i].key == h) {
            s = &set[i];
            break;
        }
        /* Of those that are displaced, who has most tokens. */
        if (set[i].full_ns < s->full_ns)
            s = &set[i];
    }
    s->key = h;
    if (s->full_ns < now_ns)
        s->full_ns = now_ns;
    if (s->full_ns - now_ns + n * interval_ns > FE_BUCKET_NS)
        return false;
    s->full_ns += n * interval_ns;
    return true;
}

/* The datagram has what we put round each reply. */
static inline bool fe_is_wrapped(const fe_guarding *how, const fe_datagram *d)
{
    size_t both = how->prefix_size + how->suffix_size;

    return both != 0 && d->size >= both && memcmp(d->data, how->prefix, how->prefix_size) == 0 &&
           memcmp(d->data + d->size - how->suffix_size, how->suffix, how->suffix_size) == 0;
}

/* The place of what has this key; a stranger gets that of who has gone fewest rounds, or none for
 * a while. Of equal ones its key decides: were it the oldest, no loop would see its second round
 * beside many strangers. */
static inline fe_loop *fe_loop_place(fe_guards *g, uint64_t h, uint64_t now_ns)
{
    fe_loop *set = g->loops[(h >> 1) % FE_LOOP_SETS], *found = NULL, *loop;
    uint64_t fewest = UINT64_MAX, rounds;
    unsigned i;

    for (i = 0; i < FE_LOOP_WAYS; i++) {
        loop = &set[((h >> 32) + i) % FE_LOOP_WAYS];
        rounds = now_ns - loop->last_ns > FE_LOOP_GAP_NS ? 0 : loop->rounds;
        if (loop->key == h)
            return loop;
        if (rounds < fewest) {
            fewest = rounds;
            found = loop;
        }
    }
    return found;
}

/* True for one in FE_LOOP_ROUNDS of what comes back again and again. */
static inline bool fe_is_loop(fe_guards *g, const fe_guarding *how, const fe_datagram *d,
                              uint64_t now_ns)
{
    uint64_t h = fe_mix(g->seed, fe_source_port(d));
    size_t n = d->size < FE_LOOK ? d->size : FE_LOOK;
    fe_loop *loop;

    h = d->is_ipv6 ? fe_mix_bytes(h, d->name + 8, 16) : fe_mix_bytes(h, d->name + 4, 4);
    if (!fe_is_wrapped(how, d)) {
        h = fe_mix(h, d->size);
        h = fe_mix_bytes(h, d->data, n);
        if (d->size > FE_LOOK) {
            n = d->size - FE_LOOK < FE_LOOK ? d->size - FE_LOOK : FE_LOOK;
            h = fe_mix_bytes(h, d->data + d->size - n, n);
        }
    }
    h |= 1;
    loop = fe_loop_place(g, h, now_ns);
    if (loop->key != h || now_ns - loop->last_ns > FE_LOOP_GAP_NS) {
        *loop = (fe_loop){h, now_ns, 1};
        return false;
    }
    loop->last_ns = now_ns;
    loop->rounds++;
    if (loop->rounds <= FE_LOOP_ROUNDS)
        return false;
    loop->rounds = 0;
    return true;
}

/* Whether it is answered: enum fe_verdict.
 * interval_ns: in which a token comes back, 0 for no limit. ipv6_prefix: bits of an IPv6 address
 * that count as one source. */
static inline int fe_judge(fe_guards *g, const fe_guarding *how, const fe_datagram *d,
                           uint64_t interval_ns, unsigned ipv6_prefix, uint64_t now_ns)
{
    unsigned port = fe_source_port(d);
    fe_peer_key key;

    if (how->is_on) {
        if (port < FE_SERVICE_PORTS || how->own_ports[port / 8] >> port % 8 & 1)
            return FE_REFUSE_PORT;
        if (d->is_to_many || !fe_is_of_one(d))
            return FE_REFUSE_ADDRESS;
    }
    if (interval_ns) {
        key = fe_source_key(d, ipv6_prefix);
        if (!fe_take_tokens(g, &key, interval_ns, fe_datagram_count(d), now_ns))
            return FE_REFUSE_RATE;
    }
    if (how->is_on && fe_is_loop(g, how, d, now_ns))
        return FE_REFUSE_LOOP;
    return FE_ECHO;
}

#endif
