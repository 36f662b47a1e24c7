/* A load without sockets, for the tests of src_c/load*.h: making one, playing its server. */
#ifndef FASTECHO_TESTS_LOADS_H
#define FASTECHO_TESTS_LOADS_H

#include "support.h"

#include "load_open.h"

/* A load of `count` connections with its memory. */
static fe_load *new_load(uint32_t count, uint32_t depth, int frame, uint64_t size,
                         const char *prefix, const char *suffix)
{
    fe_load *l = calloc(1, sizeof(*l));
    size_t n = fe_pattern_noise_size(size);
    unsigned char *noise = malloc(n);
    uint32_t places = 1;

    assert(l != NULL && noise != NULL);
    while (places < depth)
        places *= 2;
    assert(fe_pattern_init(&l->pattern, frame, size, 1, prefix, strlen(prefix), suffix,
                           strlen(suffix)) == 0);
    fe_pattern_fill(noise, n, 1, frame);
    l->pattern.noise = noise;
    l->count = count;
    l->depth = depth;
    l->ring_mask = places - 1;
    l->timeout_ns = 1000000000;
    l->left = UINT64_MAX;
    fe_load_set_window(l, 0, 1000000);
    l->connections = calloc(count, sizeof(*l->connections));
    l->pasts = calloc(count, sizeof(*l->pasts));
    l->times = calloc((size_t)count * places, sizeof(*l->times));
    l->given = calloc((size_t)count * places, sizeof(*l->given));
    l->ring = calloc(count, sizeof(*l->ring));
    l->touched = calloc(count, sizeof(*l->touched));
    l->latency = malloc(sizeof(*l->latency));
    l->service = malloc(sizeof(*l->service));
    l->connect = malloc(sizeof(*l->connect));
    l->lateness = malloc(sizeof(*l->lateness));
    assert(l->connections && l->pasts && l->times && l->given && l->ring && l->touched);
    assert(l->latency && l->service && l->connect && l->lateness);
    fe_histogram_reset(l->latency);
    fe_histogram_reset(l->service);
    fe_histogram_reset(l->connect);
    fe_histogram_reset(l->lateness);
    for (uint32_t i = 0; i < count; i++) {
        l->connections[i].fd = 100 + (int)i;
        l->connections[i].first = (uint16_t)fe_pattern_first(&l->pattern, i);
        fe_load_opened(l, &l->connections[i], 0);
    }
    fe_histogram_reset(l->connect);
    return l;
}

static void free_load(fe_load *l)
{
    free((unsigned char *)(uintptr_t)l->pattern.noise);
    free((fe_size *)(uintptr_t)l->pattern.sizes);
    free(l->connections);
    free(l->pasts);
    free(l->times);
    free(l->given);
    free(l->ring);
    free(l->touched);
    free(l->latency);
    free(l->service);
    free(l->connect);
    free(l->lateness);
    free(l);
}

/* Lets messages draw one of these sizes. */
static inline void vary(fe_load *l, const uint32_t *sizes, uint32_t count)
{
    fe_size *table = malloc(count * sizeof(*table));

    assert(table != NULL);
    fe_pattern_vary(&l->pattern, sizes, table, count);
}

static inline uint64_t counted(const fe_load *l, int counter)
{
    return fe_load_read(&l->counts.n[counter]);
}

/* Message `number` of c, or the reply to it, written to out. Result: its size. */
static inline size_t whole(const fe_load *l, int what, const fe_load_connection *c,
                           uint64_t number, unsigned char *out)
{
    const fe_size *size = fe_pattern_size(&l->pattern, c->first, number);
    uint64_t at = 0;

    while (at < size->whole[what]) {
        const unsigned char *bytes;
        size_t run = fe_pattern_run(&l->pattern, what, size,
                                    fe_pattern_body(&l->pattern, c->first, number), at, &bytes);

        memcpy(out + at, bytes, run);
        at += run;
    }
    return (size_t)at;
}

static inline size_t right_reply(const fe_load *l, const fe_load_connection *c, uint64_t number,
                                 unsigned char *out)
{
    return whole(l, FE_REPLY, c, number, out);
}

/* Lets c receive the reply to message `number`. */
static inline void receive_reply(fe_load *l, fe_load_connection *c, uint64_t number,
                                 uint64_t now_ns)
{
    unsigned char reply[1024];
    size_t n = right_reply(l, c, number, reply);

    assert(n <= sizeof(reply));
    fe_load_received(l, c, reply, n, now_ns);
}

#endif
