/* Where a worker's connection records live.
 *
 * Lives here: giving out and taking back records, by slot number. Records never
 * move, so a pointer stays good while its connection lives; a slot with its
 * generation stays checkable afterwards. Owner's thread only.
 */
#ifndef FASTECHO_SLAB_H
#define FASTECHO_SLAB_H

#include <stdlib.h>
#include <string.h>

#include "connection.h"

/* Records a block: 64 KiB. Blocks a slab: 4 Mi connections a worker. */
#define FE_SLAB_BLOCK 1024u
#define FE_SLAB_BLOCKS 4096u

typedef struct fe_slab {
    fe_connection *blocks[FE_SLAB_BLOCKS];
    /* Slots that have ever been given out: all below it exist. */
    uint32_t used;
    /* First slot that came back, linked by next; FE_NO_SLOT: none. */
    uint32_t free_first;
    /* Records given out now. */
    uint32_t live;
} fe_slab;

static inline void fe_slab_init(fe_slab *s)
{
    memset(s, 0, sizeof(*s));
    s->free_first = FE_NO_SLOT;
}

/* The record of a slot below used. */
static inline fe_connection *fe_slab_at(fe_slab *s, uint32_t slot)
{
    return &s->blocks[slot / FE_SLAB_BLOCK][slot % FE_SLAB_BLOCK];
}

/* The record that a slot and a generation name, or NULL when it is gone. */
static inline fe_connection *fe_slab_find(fe_slab *s, uint32_t slot, uint32_t generation)
{
    fe_connection *c;

    if (slot >= s->used)
        return NULL;
    c = fe_slab_at(s, slot);
    return c->state != FE_FREE && c->generation == generation ? c : NULL;
}

/* A record in state ADMIT, all else zero but slot and generation; NULL: no memory. */
static inline fe_connection *fe_slab_take(fe_slab *s)
{
    fe_connection *c;
    uint32_t slot = s->free_first, generation = 1;

    if (slot != FE_NO_SLOT) {
        c = fe_slab_at(s, slot);
        s->free_first = c->next;
        generation = c->generation;
    } else {
        slot = s->used;
        if (slot == FE_SLAB_BLOCK * FE_SLAB_BLOCKS)
            return NULL;
        if (slot % FE_SLAB_BLOCK == 0) {
            fe_connection *block = aligned_alloc(64, FE_SLAB_BLOCK * sizeof(fe_connection));
            if (block == NULL)
                return NULL;
            s->blocks[slot / FE_SLAB_BLOCK] = block;
        }
        c = fe_slab_at(s, slot);
    }
    /* A fork may freeze this at any instruction, and the child then walks the slots below used
     * for descriptors to close: what it sees must be whole. */
    memset(c, 0, sizeof(*c));
    c->slot = slot;
    c->generation = generation;
    c->fd = -1;
    c->next = c->previous = FE_NO_SLOT;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    c->state = FE_ADMIT;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (slot == s->used)
        s->used++;
    s->live++;
    return c;
}

/* Takes the record back. Its buffers and its timer are gone already. */
static inline void fe_slab_give(fe_slab *s, fe_connection *c)
{
    c->state = FE_FREE;
    c->generation++;
    c->next = s->free_first;
    s->free_first = c->slot;
    s->live--;
}

static inline void fe_slab_free(fe_slab *s)
{
    uint32_t i;

    for (i = 0; i < FE_SLAB_BLOCKS && s->blocks[i] != NULL; i++)
        free(s->blocks[i]);
    fe_slab_init(s);
}

#endif
