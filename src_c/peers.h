/* How many connections each peer address has: the book of max_per_ip.
 *
 * Lives here: a hash table from an address to a count, with nodes that stay where
 * they are. Does not live here: the lock around it, whose address it is, what
 * happens to a newcomer that gets no place (fastecho/_accept.pxd).
 *
 * An IPv4 address is one key. So is an IPv4 address that came through an IPv6
 * socket. Of an IPv6 address only the first bits count: whoever has one address of
 * a network usually has all of its 2^64.
 *
 * Nodes are named by index, so that a connection can give its place back without
 * its address. An index is good until the count of its address is back at 0.
 */
#ifndef FASTECHO_PEERS_H
#define FASTECHO_PEERS_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* No node: the end of a chain; a connection that is in no book. */
#define FE_NO_PEER UINT32_MAX

/* Nodes of the first allocation. A power of two. */
#define FE_PEERS_MIN 64u

typedef struct fe_peer_key {
    /* IPv6 in network order, the bits that do not count 0; IPv4 as ::ffff:a.b.c.d. */
    uint8_t bytes[16];
} fe_peer_key;

typedef struct fe_peer {
    fe_peer_key key;
    /* Connections of this address; 0: the node is free. */
    uint32_t count;
    /* The next of the chain, or of the free list. */
    uint32_t next;
} fe_peer;

typedef struct fe_peers {
    /* `capacity` nodes, and as many heads of chains. */
    fe_peer *nodes;
    uint32_t *heads;
    /* 0 before the first one, then a power of two. */
    uint32_t capacity;
    /* Nodes that were used at any time. */
    uint32_t used;
    uint32_t first_free;
    /* Decides the order of the table, so that a peer cannot choose its chain. */
    uint64_t seed;
} fe_peers;

static inline void fe_peers_init(fe_peers *t, uint64_t seed)
{
    memset(t, 0, sizeof(*t));
    t->first_free = FE_NO_PEER;
    t->seed = seed;
}

static inline void fe_peers_free(fe_peers *t)
{
    free(t->nodes);
    free(t->heads);
    t->nodes = NULL;
    t->heads = NULL;
    t->capacity = 0;
}

/* The key of an IPv4 address, 4 bytes in network order. */
static inline fe_peer_key fe_peer_key_4(const uint8_t *address)
{
    fe_peer_key key = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}};

    memcpy(key.bytes + 12, address, 4);
    return key;
}

/* The key of an IPv6 address, 16 bytes in network order, of which `bits` (0..128) count. */
static inline fe_peer_key fe_peer_key_6(const uint8_t *address, unsigned bits)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    fe_peer_key key;
    unsigned whole = bits / 8;

    if (memcmp(address, mapped, sizeof(mapped)) == 0)
        return fe_peer_key_4(address + 12);
    memset(&key, 0, sizeof(key));
    memcpy(key.bytes, address, whole);
    if (bits % 8)
        key.bytes[whole] = (uint8_t)(address[whole] & (0xff00u >> bits % 8));
    return key;
}

/* Which chain a key belongs to: two multiplications by odd constants, and the high bits. */
static inline uint32_t fe_peers_chain(const fe_peers *t, const fe_peer_key *key)
{
    uint64_t high, low, h;

    memcpy(&high, key->bytes, 8);
    memcpy(&low, key->bytes + 8, 8);
    h = (high ^ t->seed) * 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 32) ^ low) * 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    return (uint32_t)h & (t->capacity - 1);
}

/* Twice as many nodes. Result: 0, or -ENOMEM with the table as it was. */
static inline int fe_peers_grow(fe_peers *t)
{
    uint32_t capacity = t->capacity ? 2 * t->capacity : FE_PEERS_MIN;
    uint32_t *heads = malloc(capacity * sizeof(*heads));
    fe_peer *nodes;
    uint32_t i;

    if (heads == NULL)
        return -ENOMEM;
    nodes = realloc(t->nodes, capacity * sizeof(*nodes));
    if (nodes == NULL) {
        free(heads);
        return -ENOMEM;
    }
    free(t->heads);
    t->nodes = nodes;
    t->heads = heads;
    t->capacity = capacity;
    memset(heads, 0xff, capacity * sizeof(*heads)); /* FE_NO_PEER */
    /* It grows only when every node is in use, so each has a chain. */
    for (i = 0; i < t->used; i++) {
        uint32_t *head = &heads[fe_peers_chain(t, &nodes[i].key)];

        nodes[i].next = *head;
        *head = i;
    }
    return 0;
}

/* Takes one of the `most` places of an address.
 * Result: 0 and its node in *node; -EAGAIN: all are taken; -ENOMEM. */
static inline int fe_peers_take(fe_peers *t, const fe_peer_key *key, uint32_t most,
                                uint32_t *node)
{
    uint32_t i = t->capacity ? t->heads[fe_peers_chain(t, key)] : FE_NO_PEER;
    uint32_t *head;

    while (i != FE_NO_PEER && memcmp(&t->nodes[i].key, key, sizeof(*key)) != 0)
        i = t->nodes[i].next;
    if (i != FE_NO_PEER) {
        if (t->nodes[i].count >= most)
            return -EAGAIN;
        t->nodes[i].count++;
        *node = i;
        return 0;
    }
    if (most == 0)
        return -EAGAIN;
    i = t->first_free;
    if (i != FE_NO_PEER) {
        t->first_free = t->nodes[i].next;
    } else {
        if (t->used == t->capacity && fe_peers_grow(t) < 0)
            return -ENOMEM;
        i = t->used++;
    }
    head = &t->heads[fe_peers_chain(t, key)];
    t->nodes[i] = (fe_peer){*key, 1, *head};
    *head = i;
    *node = i;
    return 0;
}

/* Gives a place back that fe_peers_take gave. FE_NO_PEER is none. */
static inline void fe_peers_give(fe_peers *t, uint32_t node)
{
    uint32_t *link;

    if (node == FE_NO_PEER || --t->nodes[node].count > 0)
        return;
    link = &t->heads[fe_peers_chain(t, &t->nodes[node].key)];
    while (*link != node)
        link = &t->nodes[*link].next;
    *link = t->nodes[node].next;
    t->nodes[node].next = t->first_free;
    t->first_free = node;
}

#endif
